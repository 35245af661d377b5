"""
What the exporter reports of itself, through the application's MeterProvider.

| metric | instrument, unit | attributes beside those of the component |
|---|---|---|
| `otel.sdk.exporter.span.exported` | counter, `{span}` | `error.type` where the backend refused it |
| `otel.sdk.exporter.span.inflight` | up-down counter, `{span}` | |
| `otel.sdk.exporter.operation.duration` | histogram of the attempts, `s` | `error.type` where one failed |
| `cmdrdata.events` | counter, `{event}` | `cmdrdata.outcome` |
| `cmdrdata.events.recorded` | counter, `{event}` | `cmdrdata.usage_status`: `missing` where a call reported none |
| `cmdrdata.events.pending` | gauge, `{event}` | |
| `cmdrdata.events.oldest_pending` | gauge, `s` | |
| `cmdrdata.spool.size` | gauge, `By` | |
| `cmdrdata.delivery.paused` | gauge, 1 or 0 | |
| `cmdrdata.delivery.durable` | gauge, 1 or 0: whether events are kept on the disk | |

Names of the SDK's own are those of https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/; an event is a span
there, and an operation is one POST. Of a directory that several processes share, the one that drains it reports what
is in it. Nothing here is on the path of a call.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.destination import Destination
from cmdrdata_exporter.version import VERSION

SCOPE = "cmdrdata_exporter"
COMPONENT_TYPE = "cmdrdata_http_span_exporter"

_OUTCOMES = {
    Verdict.DELIVERED: "delivered",
    Verdict.DUPLICATE: "delivered",
    Verdict.REFUSED: "refused",
    Verdict.MISCONFIGURED: "paused",
    Verdict.FORBIDDEN: "paused",
    Verdict.RETRY: "retried",
}
_FRESH = 1.0
"""Seconds in which one look at a ledger serves all gauges."""


class Measured(Protocol):
    """A delivery, as far as it can be measured."""

    def outcomes(self) -> dict[str, int]:
        """Return monotonic counters since the process began: events recorded, and events that could not be."""
        ...

    def gauges(self) -> dict[str, float]:
        """Return the current gauge values that this process knows, by the metric's name without `cmdrdata.`."""
        ...


class Telemetry(processes.ForkAware):
    """
    The metrics of one destination in this process.

    Args:
        endpoint: where it posts, None for `local`.
        account: the name of the account there.
        number: tells it from the others of this process.
    """

    def __init__(self, endpoint: str | None, account: str, number: int = 0) -> None:
        self._attributes: dict[str, str | int] = {
            "otel.component.type": COMPONENT_TYPE,
            "otel.component.name": f"{COMPONENT_TYPE}/{number}",
            "cmdrdata.account": account,
        }
        if server := Destination(endpoint, account).server:
            self._attributes["server.address"], self._attributes["server.port"] = server
        self._measured: Measured | None = None
        self._current: object = None
        self._duration: metrics.Histogram | None = None
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Count anew in a forked child."""
        self._lock = threading.Lock()
        self._attempts: Counter[str] = Counter()
        self._usage: dict[str, int] = {}
        self._looked = -math.inf
        self._values: dict[str, float] = {}

    @faults.guarded
    def note(self, outcome: Outcome, seconds: float) -> None:
        """Take note of an attempt."""
        with self._lock:
            self._attempts[_OUTCOMES[outcome.verdict]] += 1
            self._attempts["ambiguous"] += outcome.ambiguous
        if self._duration is not None:
            delivered = outcome.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE)
            error = {} if delivered else {"error.type": outcome.reason.removeprefix("HTTP ")}
            self._duration.record(seconds, {**self._attributes, **error})

    def recorded(self, usage_status: str) -> None:
        """
        Count an event by what is known of its usage.

        Without a lock, which a signal handler that makes a call would wait for in vain; at worst one is not counted.
        """
        self._usage[usage_status] = self._usage.get(usage_status, 0) + 1

    def watch(self, measured: Measured) -> None:
        """Report of `measured` from now on, to the global provider until another one is named."""
        self._measured = measured
        if self._current is None:
            self.report(None)

    def report(self, meter_provider: MeterProvider | None) -> None:
        """Report to a provider (default: the global one) and to no other."""
        self._current = current = object()
        meter = metrics.get_meter(SCOPE, VERSION, meter_provider)
        self._duration = meter.create_histogram(
            "otel.sdk.exporter.operation.duration",
            "s",
            "Duration of one attempt to deliver an event",
        )

        def only_now(
            observe: Callable[[], Iterable[Observation]],
        ) -> Callable[[CallbackOptions], Iterable[Observation]]:
            """Return a callback that is silent when the reports go to another provider."""
            return lambda _: observe() if self._current is current else ()

        meter.create_observable_counter(
            "otel.sdk.exporter.span.exported",
            [only_now(self._exported)],
            "{span}",
            "Events that the backend took or refused for good",
        )
        meter.create_observable_up_down_counter(
            "otel.sdk.exporter.span.inflight",
            [only_now(lambda: self._gauge("events.pending"))],
            "{span}",
            "Events that are recorded and not delivered yet",
        )
        meter.create_observable_counter(
            "cmdrdata.events",
            [only_now(self._events)],
            "{event}",
            "Usage events by what became of them, attempts by their outcome",
        )
        meter.create_observable_counter(
            "cmdrdata.events.recorded",
            [only_now(self._recorded)],
            "{event}",
            "Usage events by what is known of the usage: missing where a call reported none",
        )
        for name, unit, description in (
            ("events.pending", "{event}", "Events that wait for their delivery"),
            ("events.oldest_pending", "s", "How long the oldest of them waits"),
            ("spool.size", "By", "Size of the destination's directory"),
            ("delivery.paused", "1", "Whether the backend refuses the key"),
            ("delivery.durable", "1", "Whether events are kept on the disk"),
        ):
            meter.create_observable_gauge(
                f"cmdrdata.{name}",
                [only_now(lambda name=name: self._gauge(name))],
                unit,
                description,
            )

    def _exported(self) -> Iterable[Observation]:
        with self._lock:
            delivered, refused = self._attempts["delivered"], self._attempts["refused"]
        yield Observation(delivered, self._attributes)
        if refused:
            yield Observation(refused, {**self._attributes, "error.type": "rejected"})

    def _events(self) -> Iterable[Observation]:
        recorded = {} if self._measured is None else self._measured.outcomes()
        with self._lock:
            counts = {**recorded, **self._attempts}
        for outcome, number in counts.items():
            yield Observation(number, {**self._attributes, "cmdrdata.outcome": outcome})

    def _recorded(self) -> Iterable[Observation]:
        for status, number in self._usage.copy().items():
            yield Observation(number, {**self._attributes, "cmdrdata.usage_status": status})

    def _gauge(self, name: str) -> Iterable[Observation]:
        now = clocks.monotonic()
        if self._measured is not None and now - self._looked >= _FRESH:
            self._looked, self._values = now, self._measured.gauges()
        if name in self._values:
            yield Observation(self._values[name], self._attributes)
