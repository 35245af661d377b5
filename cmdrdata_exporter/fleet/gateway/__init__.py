"""
`cmdrdata gateway`: takes spans and events, and gives them to the ledger of the fleet.

    OTLP/HTTP  `otlp_http` ──┐
    OTLP/gRPC  `otlp_grpc` ──┼─ `spans` ─▶ `shelf`: on the disk ─▶ `settling`: one call, one event ─▶ the ledger
    a topic of spans  ───────┘  answered, or its position stored, from here on                          ▲
    a topic of events ──────────────────────────────────────────────────────────────────────────────────┘
      `topics`

`gateway` starts and ends all of that, `limits` says how much it takes, `watching` tells how it is.
"""
