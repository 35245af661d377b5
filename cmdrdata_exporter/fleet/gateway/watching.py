"""How a gateway is: what it has counted, and pages that tell it to whoever watches."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

PREFIX = "cmdrdata_gateway_"

COUNTERS = {
    "requests": "Requests of OTLP that were answered, by how they came and the answer.",
    "spans": "Spans that came, by how.",
    "spans_refused": "Spans among them that cannot be read.",
    "spans_without_usage": "Spans among them of model calls that did not fail and told no usage. They make no event.",
    "records": "Records of topics that were read.",
    "records_refused": "Records among them that are garbage. Each is in the log, with its place.",
    "records_lost": "Records, at most, that the broker had removed before they were read.",
    "partitions_renewed": "Partitions that begin anew, since their topic was made anew or their end was lost.",
    "calls": "Spans that report a call and were settled.",
    "calls_repeated": "Those whose call another span reports. They make no event.",
    "events": "Events that are new to the ledger, by what they are made of.",
    "events_repeated": "Events that the ledger had, or set aside.",
    "forwarded": "Attempts to send an event on to CmdrData, by what came of it.",
    "outcomes_late": "Those of which the ledger was told so late that another gateway may have sent the event again.",
    "reports": "Reports of hosts.",
    "failures": "What did not work and is tried again, by the part.",
}
GAUGES = {
    "in_flight_bytes": "Bytes of the requests that are not answered yet, and of what is made of them.",
    "connections": "Open connections of OTLP.",
    "waiting_spans": "Spans that are on the shelf and not settled, of all gateways.",
    "partitions": "Partitions that are read here.",
    "lag_records": "Records of these that are not read yet.",
}


class Counts:
    """What was counted since the start. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def add(self, name: str, number: int = 1, **labels: str) -> None:
        """Count something; `name` is one of `COUNTERS`."""
        if number:
            with self._lock:
                self._values[name, tuple(sorted(labels.items()))] += number

    def text(self, gauges: Mapping[str, Mapping[str, float]]) -> str:
        """
        Return the page that Prometheus reads.

        Args:
            gauges: the present values, by the name in `GAUGES` and by intake.
        """
        with self._lock:
            values = dict(self._values)
        lines: list[str] = []
        for name, meaning in COUNTERS.items():
            lines += [
                f"# HELP {PREFIX}{name}_total {meaning}",
                f"# TYPE {PREFIX}{name}_total counter",
            ]
            lines += [
                f"{PREFIX}{name}_total{_labels(labels)} {number}"
                for (counted, labels), number in sorted(values.items())
                if counted == name
            ]
        for name, meaning in GAUGES.items():
            lines += [f"# HELP {PREFIX}{name} {meaning}", f"# TYPE {PREFIX}{name} gauge"]
            lines += [
                f"{PREFIX}{name}{_labels((('intake', intake),) if intake else ())} {number:g}"
                for intake, number in sorted(gauges.get(name, {}).items())
            ]
        return "\n".join(lines) + "\n"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    # Their values are words of ours: none has to be escaped.
    written = ",".join(f'{name}="{value}"' for name, value in labels)
    return f"{{{written}}}" if written else ""


class Page(NamedTuple):
    """What one of the pages says."""

    status: int
    content_type: str
    text: str


class Pages:
    """
    The pages by which a gateway is watched.

    Args:
        counts: what was counted.
        gauges: returns the present values.
        troubles: returns what keeps it from taking anything now.
    """

    def __init__(
        self,
        counts: Counts,
        gauges: Callable[[], Mapping[str, Mapping[str, float]]],
        troubles: Callable[[], list[str]],
    ) -> None:
        self._counts = counts
        self._gauges = gauges
        self._troubles = troubles

    def page(self, path: str) -> Page | None:
        """Return a page, None where there is none."""
        if path == "/healthz":
            return Page(200, "text/plain; charset=utf-8", "alive\n")
        if path == "/readyz":
            troubles = self._troubles()
            said = "".join(f"{trouble}\n" for trouble in troubles) or "ready\n"
            return Page(503 if troubles else 200, "text/plain; charset=utf-8", said)
        if path == "/metrics":
            return Page(
                200,
                "text/plain; version=0.0.4; charset=utf-8",
                self._counts.text(self._gauges()),
            )
        return None
