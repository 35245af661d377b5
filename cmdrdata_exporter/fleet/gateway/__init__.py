"""
`cmdrdata gateway`: takes spans and events, and gives them to the ledger of the fleet.

    OTLP/HTTP  `otlp_http` ──┐
    OTLP/gRPC  `otlp_grpc` ──┼─ `spans` ─▶ `shelf`: on the disk ─▶ `settling`: one call, one event ─▶ the ledger
    a topic of spans  ───────┘  answered, or its position stored, from here on                          ▲
    a topic of events ──────────────────────────────────────────────────────────────────────────────────┘
      `topics`

`gateway` starts and ends all of that, `watching` tells how it is. What comes by OTLP goes through `exports`: `access`
says who may send, `limits` how much is taken, `answers` what a client is told; `pieces` finds the spans of a request.
`connections` has those of HTTP, `grpc_calls` those of gRPC.
"""
