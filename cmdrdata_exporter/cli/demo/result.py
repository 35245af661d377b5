"""
What the demo saw: each call of its application with the span and the events it led to.

Pure: text and JSON in, JSON out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """What the demo shows of a span."""

    name: str
    trace_id: str
    span_id: str
    start_time: datetime
    duration_ms: int

    @classmethod
    def from_console(cls, document: Json) -> Span:
        """Read a span as the SDK's ConsoleSpanExporter prints it."""
        start, end = (_moment(document[key]) for key in ("start_time", "end_time"))
        return cls(
            name=document["name"],
            trace_id=document["context"]["trace_id"].removeprefix("0x"),
            span_id=document["context"]["span_id"].removeprefix("0x"),
            start_time=start,
            duration_ms=round((end - start).total_seconds() * 1000),
        )

    def to_json(self) -> Json:
        """Return the span as `cmdrdata demo --json` prints it."""
        return {
            "name": self.name,
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "duration_ms": self.duration_ms,
        }


@dataclass(frozen=True, slots=True)
class DemoCall:
    """One call of the application: what it did, its span, and the events that name the span."""

    step: str
    span: Span | None
    events: list[Json]

    @property
    def fault(self) -> str | None:
        """What is wrong with the call, None where it made one span and one event."""
        if self.span is None:
            return f"{self.step}: no span"
        if len(self.events) != 1:
            return f"{self.step}: {len(self.events)} events instead of one"
        return None

    def to_json(self) -> Json:
        """Return the call as `cmdrdata demo --json` prints it."""
        span = None if self.span is None else self.span.to_json()
        return {"call": self.step, "span": span, "events": self.events}


def _moment(text: str) -> datetime:
    # Python 3.10 does not know the Z that the SDK writes.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def split_output(output: str) -> tuple[list[Span], str]:
    """
    Tell the GenAI spans in a program's output from what the program itself printed.

    The exporter prints from a thread of its own, so a span may begin in the middle of a line.
    """
    spans: list[Span] = []
    printed = ""
    position = 0
    while (brace := output.find("{", position)) >= 0:
        printed += output[position:brace]
        document, position = _document_at(output, brace)
        if "context" not in document:
            printed += output[brace:position]
            continue
        if output.startswith("\n", position):
            position += 1
        if "gen_ai.operation.name" in (document.get("attributes") or {}):
            spans.append(Span.from_console(document))
    return spans, printed + output[position:]


def _document_at(text: str, brace: int) -> tuple[Json, int]:
    """Return the JSON object at `brace` and where it ends, an empty one if none does."""
    try:
        return json.JSONDecoder().raw_decode(text, brace)
    except ValueError:
        return {}, brace + 1


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What one run of the application led to."""

    calls: list[DemoCall]
    strays: list[Json]
    """Events that carry the id of none of the spans."""
    printed: str
    """What the application itself wrote to its standard output."""
    stderr: str
    usage: Json
    """What `cmdrdata usage --json` says of the events."""
    status: Json
    """What `cmdrdata status --json` does."""

    @classmethod
    def of(
        cls,
        steps: Sequence[str],
        spans: Iterable[Span],
        events: Iterable[Json],
        printed: str,
        stderr: str,
        *,
        usage: Json,
        status: Json,
    ) -> DemoResult:
        """
        Match steps, spans and events.

        The application makes its calls one after the other, so the n-th span is that of the n-th
        step; an event names its span.
        """
        of_span: dict[str | None, list[Json]] = {}
        for event in events:
            of_span.setdefault(event["metadata"].get("span_id"), []).append(event)
        in_order = sorted(spans, key=lambda span: span.start_time)
        calls = [
            DemoCall(
                step=step or "Not a call of the application",
                span=span,
                events=[] if span is None else of_span.pop(span.span_id, []),
            )
            for step, span in zip_longest(steps, in_order)
        ]
        strays = [event for events in of_span.values() for event in events]
        return cls(calls, strays, printed, stderr, usage, status)

    @property
    def faults(self) -> list[str]:
        """Every way in which this is not one event for each call."""
        faults = [call.fault for call in self.calls if call.fault]
        if self.strays:
            faults.append(f"Events that belong to none of the spans: {len(self.strays)}")
        return faults

    def to_json(self) -> Json:
        """Return what `cmdrdata demo --json` prints."""
        return {
            "calls": [call.to_json() for call in self.calls],
            "usage": self.usage,
            "status": self.status,
        }
