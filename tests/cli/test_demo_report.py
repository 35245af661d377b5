"""What a reader of the demo sees."""

from __future__ import annotations

import io
from datetime import datetime, timezone
from typing import Any

import pytest
from rich.console import Console

from cmdrdata_exporter.cli.demo.command import APPLICATION
from cmdrdata_exporter.cli.demo.report import show_application, show_result
from cmdrdata_exporter.cli.demo.result import DemoResult, Span
from cmdrdata_exporter.cli.status import STATES

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
CHAT: dict[str, Any] = {
    "customer_id": "acme",
    "model": "gpt-5-mini-2025-08-07",
    "input_tokens": 1031,
    "output_tokens": 79,
    "error": {"occurred": False, "type": None, "code": None, "message": None},
    "request": {"id": "e1", "success": True},
    "metadata": {
        "span_id": "b7ad6b7169203331",
        "usage_status": "reported",
        "usage": {"cache_read_input_tokens": 1024, "reasoning_output_tokens": 64},
    },
}
FAILED: dict[str, Any] = {
    "customer_id": None,
    "model": "gpt-unknown",
    "input_tokens": 0,
    "output_tokens": 0,
    "error": {"occurred": True, "type": "invalid_request", "code": "404", "message": "…"},
    "request": {"id": "e2", "success": False},
    "metadata": {"span_id": "00f067aa0ba902b7", "usage_status": "not_applicable"},
}
SPANS = [
    Span("chat gpt-5-mini", "t1", "b7ad6b7169203331", START, 42),
    Span("chat gpt-unknown", "t2", "00f067aa0ba902b7", START, 3),
]
STEPS = ["1. A chat", "2. A failed chat"]
USED = {"input_tokens": 1031, "output_tokens": 79}
LEDGER: dict[str, Any] = {
    "usage": {
        "destination": "default-0",
        "destinations": ["default-0"],
        "by": ["customer"],
        "rows": [
            {"customer": "acme", "events": 1, "units": USED},
            {"customer": None, "events": 1, "units": {}},
        ],
        "total": {"events": 2, "units": USED},
        "only": None,
        "states": {**dict.fromkeys(STATES, 0), "delivered": 2},
        "dropped_before": 0,
        "incomplete_usage": {"missing": 0, "partial": 0},
        "not_imported": 0,
    },
    "status": {
        "spool_dir": "/spool",
        "unusable": None,
        "destinations": [
            {
                "name": "default-0",
                "endpoint": "https://cmdrdata.test",
                "account": "default",
                "directory": "/spool/default-0",
                "events": {"recorded": 2, **dict.fromkeys(STATES, 0), "delivered": 2},
                "oldest_pending": None,
                "held": {},
                "dead": {},
                "sending": {"leader": None, "state": "open"},
                "spool": {"bytes": 84 << 10, "limit": 1 << 30, "not_imported": 0},
                "index": {"there": True, "missing_before": None, "filling": False, "reason": None},
                "counted": {},
                "attention": [],
            }
        ],
    },
}
REPORT = """\

What the application printed ───────────────────────────────────────────────────
chat: [hi]

Each call, its span and its event ──────────────────────────────────────────────
 The call           Its span           The event at CmdrData
──────────────────────────────────────────────────────────────────────
 1. A chat          chat gpt-5-mini    acme, gpt-5-mini-2025-08-07
                    b7ad6b7169203331   1,031 in, 1,024 of them cached
                    42 ms              79 out, 64 of them reasoning
                                       succeeded, usage reported

 2. A failed chat   chat gpt-unknown   no customer, gpt-unknown
                    00f067aa0ba902b7   failed: invalid_request (404)
                    3 ms               usage not_applicable

Usage per customer: cmdrdata usage ─────────────────────────────────────────────
                        Input   Output
Customer      Events   tokens   tokens
──────────────────────────────────────
acme               1    1,031       79
no customer        1        0        0

Total              2    1,031       79

Where every event is: cmdrdata status ──────────────────────────────────────────

default-0 ──────────────────────────────────────────────────────────────────────
Events go to https://cmdrdata.test, account default.
Kept in /spool/default-0.
No process sends them now.

      2 recorded
=     2 delivered
+     0 local
+     0 pending
+     0 in flight
+     0 held
+     0 dead
+     0 dropped

Disk: 84 KiB of 1.0 GiB (0%).

Nothing needs you.

What you just saw ──────────────────────────────────────────────────────────────
Each call made one span, for your tracing tools, and one usage event, for the
bill: the streamed one and the failed one too. Every event says who pays,
because the application said so with customer_context(). None of them carries a
prompt or a reply. Usage and status come from the ledger on this machine's disk,
where each event is kept until CmdrData has accepted it.
OpenAI and CmdrData were stand-ins on this machine; replies and token counts are
made up.

Next steps ─────────────────────────────────────────────────────────────────────
In your code, where it is known who is asking:
    from cmdrdata_exporter import customer_context
    with customer_context("your-customer"):
In the shell that starts it, with opentelemetry-distro installed:
    export CMDRDATA_API_KEY=<your key> CMDRDATA_CUSTOMER_ID=<of other calls>
    export OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none
    OTEL_TRACES_EXPORTER=cmdrdata opentelemetry-instrument python your_app.py
Beside an OTLP pipeline that you already have:
    OTEL_TRACES_EXPORTER=otlp,cmdrdata
Every event whole, as JSON:
    cmdrdata demo --json
This demo again, with the real OpenAI and your OPENAI_API_KEY:
    cmdrdata demo --live
"""


def shown(events: list[dict[str, Any]], width: int = 80, live: bool = False) -> list[str]:
    """Return the lines of the report without the blanks that pad them."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    with console.capture() as capture:
        show_result(
            console, DemoResult.of(STEPS, SPANS, events, "chat: [hi]\n", "", **LEDGER), live
        )
    return [line.rstrip() for line in capture.get().splitlines()]


def test_report_at_80_columns() -> None:
    """The whole report: calls, usage with no customer shown as such, and where to go from here."""
    assert REPORT.splitlines() == shown([CHAT, FAILED])


def test_missing_event_stands_in_its_place() -> None:
    """A call without an event says so in its row, and no summary claims that all went well."""
    lines = shown([CHAT])
    assert [" 2. A failed chat   chat gpt-unknown   no event"] == [
        line for line in lines if "2. A failed chat" in line
    ]
    assert not any("What you just saw" in line for line in lines)


def test_stray_event_and_missing_span_have_rows() -> None:
    """What fits nowhere is shown too: a call without a span, an event that names none of them."""
    console = Console(file=io.StringIO(), width=80, highlight=False)
    with console.capture() as capture:
        show_result(console, DemoResult.of(["1. A chat"], [], [CHAT], "", "", **LEDGER), live=False)
    assert (
        """\

What the application printed ───────────────────────────────────────────────────


Each call, its span and its event ──────────────────────────────────────────────
 The call    Its span   The event at CmdrData
───────────────────────────────────────────────────────
 1. A chat   no span    no event

             no span    acme, gpt-5-mini-2025-08-07
                        1,031 in, 1,024 of them cached
                        79 out, 64 of them reasoning
                        succeeded, usage reported

Usage per customer: cmdrdata usage ─────────────────────────────────────────────
                        Input   Output
Customer      Events   tokens   tokens
──────────────────────────────────────
acme               1    1,031       79
no customer        1        0        0

Total              2    1,031       79

Where every event is: cmdrdata status ──────────────────────────────────────────

default-0 ──────────────────────────────────────────────────────────────────────
Events go to https://cmdrdata.test, account default.
Kept in /spool/default-0.
No process sends them now.

      2 recorded
=     2 delivered
+     0 local
+     0 pending
+     0 in flight
+     0 held
+     0 dead
+     0 dropped

Disk: 84 KiB of 1.0 GiB (0%).

Nothing needs you.
""".splitlines()
        == [line.rstrip() for line in capture.get().splitlines()]
    )


def test_live_report_does_not_call_openai_a_stand_in() -> None:
    """Real calls cost money: the report never says that they were made up."""
    text = "\n".join(shown([CHAT, FAILED], live=True))
    assert "OpenAI was the real one" in text
    assert "made up" not in text
    assert "--live" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    """Neither the report nor the source needs a wider window than the reader has."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    with console.capture() as capture:
        show_application(console, APPLICATION.read_text(), live=False)
    lines = capture.get().splitlines() + shown([CHAT, FAILED], width)
    assert [] == [line for line in lines if len(line.rstrip()) > width]


def test_source_is_shown_as_it_is() -> None:
    """At 80 columns no line of the application is wrapped, so it can be copied."""
    console = Console(file=io.StringIO(), width=80, highlight=False)
    source = APPLICATION.read_text()
    with console.capture() as capture:
        show_application(console, source, live=False)
    text = "\n".join(line.rstrip() for line in capture.get().splitlines())
    assert source in text + "\n"
