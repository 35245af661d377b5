"""The demo's reading of spans and events, with literals."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from cmdrdata_exporter.cli.demo.result import DemoResult, Span, split_output

USAGE = {"rows": ["what the ledger says"]}
STATUS = {"destinations": ["where it says that events are"]}


def console_span(name: str = "chat gpt-5-mini", **changes: Any) -> dict[str, Any]:
    """Make a span document as the SDK's ConsoleSpanExporter prints it."""
    return {
        "name": name,
        "context": {
            "trace_id": "0x0af7651916cd43dd8448eb211c80319c",
            "span_id": "0xb7ad6b7169203331",
            "trace_state": "[]",
        },
        "kind": "SpanKind.CLIENT",
        "start_time": "2026-01-01T00:00:00.000000Z",
        "end_time": "2026-01-01T00:00:00.041600Z",
        "attributes": {"gen_ai.operation.name": "chat"},
    } | changes


def span(span_id: str, second: int = 0) -> Span:
    """Make a span that starts at the given second."""
    start = datetime(2026, 1, 1, 0, 0, second, tzinfo=timezone.utc)
    return Span("chat", "t1", span_id, start, 42)


def event(span_id: str, customer_id: str | None = "acme") -> dict[str, Any]:
    """Make as much of an event as is matched."""
    return {"customer_id": customer_id, "metadata": {"span_id": span_id}}


def outcome(steps: list[str], spans: list[Span], events: list[dict[str, Any]]) -> DemoResult:
    """Match what a run led to, apart from its output."""
    return DemoResult.of(steps, spans, events, printed="", stderr="", usage=USAGE, status=STATUS)


def test_span_is_read_as_the_console_prints_it() -> None:
    """Ids lose their 0x, so that they equal those in events; the duration is in milliseconds."""
    expected = Span(
        name="chat gpt-5-mini",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        start_time=datetime(2026, 1, 1, tzinfo=timezone.utc),
        duration_ms=42,
    )
    assert expected == Span.from_console(console_span())


def test_spans_are_told_from_what_the_program_printed() -> None:
    """Spans are taken out; the program's own lines stay as they were, braces and JSON included."""
    document = json.dumps(console_span(), indent=4)
    output = f'hello {{world}}\nstream: one {document}\ntwo\n{{"mine": 1}}\n{document}\n{{"torn": '
    spans, printed = split_output(output)
    assert [Span.from_console(console_span())] * 2 == spans
    assert 'hello {world}\nstream: one two\n{"mine": 1}\n{"torn": ' == printed


def test_only_genai_spans_are_calls() -> None:
    """Spans of other kinds, or without attributes, are neither calls nor the program's words."""
    others = [console_span(attributes={"http.method": "GET"}), console_span(attributes=None)]
    assert ([], "") == split_output("".join(json.dumps(other) + "\n" for other in others))


def test_steps_meet_spans_in_time_order_and_events_by_span_id() -> None:
    """The order in which spans and events were exported says nothing."""
    seen = outcome(["1. A", "2. B"], [span("b", 2), span("a", 1)], [event("b"), event("a")])
    assert [("1. A", "a", [event("a")]), ("2. B", "b", [event("b")])] == [
        (call.step, call.span and call.span.span_id, call.events) for call in seen.calls
    ]
    assert [] == seen.faults


def test_anything_but_one_span_and_one_event_for_each_call_is_a_fault() -> None:
    """No event, two events, no span, a span too many, an event of no span: each is named."""
    seen = outcome(
        ["1. None", "2. Twice"], [span("a", 1), span("b", 2)], [event("b"), event("b"), event("x")]
    )
    assert [
        "1. None: 0 events instead of one",
        "2. Twice: 2 events instead of one",
        "Events that belong to none of the spans: 1",
    ] == seen.faults
    assert ["1. A: no span"] == outcome(["1. A"], [], []).faults
    assert ["Not a call of the application: 0 events instead of one"] == outcome(
        [], [span("a")], []
    ).faults


def test_json_has_every_call_and_event_whole() -> None:
    """A script gets what a reader sees, and what the ledger says."""
    seen = outcome(["1. A", "2. B"], [span("a")], [event("a"), event("x", None)])
    assert {
        "calls": [
            {
                "call": "1. A",
                "span": {"name": "chat", "trace_id": "t1", "span_id": "a", "duration_ms": 42},
                "events": [event("a")],
            },
            {"call": "2. B", "span": None, "events": []},
        ],
        "usage": USAGE,
        "status": STATUS,
    } == seen.to_json()
