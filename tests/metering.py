"""What the tests see of metering: plain values, with what differs from run to run checked and cut."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.open_jobs import OpenJob


@dataclass(eq=False)
class RecordedEvents:
    """A `Delivery` that keeps what it is given."""

    bodies: dict[str, bytes] = field(default_factory=dict[str, bytes])
    headers: list[Header] = field(default_factory=list[Header])
    recorded: threading.Condition = field(default_factory=threading.Condition)
    jobs: dict[bytes, OpenJob] = field(default_factory=dict[bytes, OpenJob])

    def start_job(self, job: OpenJob) -> None:
        """Keep an open job."""
        self.jobs[job.key] = job

    def end_job(self, key: bytes) -> None:
        """Forget an open job."""
        self.jobs.pop(key, None)

    def open_jobs(self) -> list[OpenJob]:
        """Return the open jobs."""
        return list(self.jobs.values())

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """Keep an event; the same id twice is a charge made twice."""
        assert event_id not in self.bodies, f"event {event_id} was recorded twice"
        with self.recorded:
            self.bodies[event_id] = body
            self.headers.append(header)
            self.recorded.notify_all()

    def wait_for(self, number: int) -> None:
        """Wait until a number of events is there, which another thread may be about to record."""
        with self.recorded:
            assert self.recorded.wait_for(lambda: len(self.bodies) >= number, timeout=10)

    def flush(self, timeout: float) -> bool:
        """Nothing ever waits here."""
        return True

    def shutdown(self, timeout: float) -> None:
        """Nothing ever waits here."""

    @property
    def wire(self) -> list[dict[str, Any]]:
        """The events as they would be posted."""
        return [json.loads(body) for body in self.bodies.values()]


@dataclass
class Meter:
    """The spans and events of the calls made so far."""

    exported: InMemorySpanExporter
    recorded: RecordedEvents

    def spans(self) -> list[ReadableSpan]:
        """The public spans, in the order of their ends."""
        return list(self.exported.get_finished_spans())

    def events(self) -> list[dict[str, Any]]:
        """The events, each without what differs from run to run, all of which was checked."""
        return [steady(event) for event in self.recorded.wire]


def steady(event: dict[str, Any]) -> dict[str, Any]:
    """Check ids, times and durations of an event, and return it without them."""
    now = time.time()
    assert len(event["request"].pop("id")) == 32
    assert len(event["metadata"].pop("trace_id")) == 32
    assert len(event["metadata"].pop("span_id")) == 16
    if (site := event["metadata"].pop("call_site", None)) is not None:
        # Of a call that names nobody; tests/test_call_sites.py looks at them.
        assert event["customer_id"] is None
        assert re.fullmatch(r"\S+\.py:\d+ \S+", site)
    assert now - 60 < event.pop("timestamp") <= now
    latency = event.pop("latency")
    assert now - 60 < latency.pop("request_start_time") <= now
    assert now - 60 < latency.pop("request_end_time") <= now
    assert 0 <= latency.pop("duration_ms") < 60_000
    if event["request"]["streaming"] and "time_to_first_token_ms" in latency:
        assert 0 <= latency.pop("time_to_first_token_ms") < 60_000
        event["first_token"] = True
    assert latency == {}
    return event


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a public span; the time to the first chunk only as whether it is there."""
    attributes = dict(span.attributes or {})
    if "gen_ai.response.time_to_first_chunk" in attributes:
        seconds = attributes.pop("gen_ai.response.time_to_first_chunk")
        assert isinstance(seconds, float)
        assert 0 < seconds < 60
        attributes["first_chunk"] = True
    return attributes


def complaints(stderr: str) -> str:
    """Return what a program wrote to stderr, but for the line that says how metering starts."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("CmdrData usage metering: "))
