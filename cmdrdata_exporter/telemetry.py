"""
What the exporter reports of itself, through the application's MeterProvider: `measures.METRICS`.

Of a directory that several processes share, the one that drains it reports what is in it. Where nothing is to do, and
so nobody drains it, that is the one that did last: what is held must be seen until somebody has looked after it.
On the path of a call is one entry of a dictionary.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from cmdrdata_exporter import clocks, faults, measures, processes
from cmdrdata_exporter.attributes import USAGE_STATUS
from cmdrdata_exporter.delivery import Header, Outcome, Verdict
from cmdrdata_exporter.delivery.destination import Destination
from cmdrdata_exporter.measures import ERROR_TYPE, METRICS, Kind, Metric, histogram
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
ATTEMPTED = (*dict.fromkeys(_OUTCOMES.values()), "ambiguous")
"""What may come of an attempt."""
_STATUSES = ("reported", "partial", "missing", "not_applicable")
"""
What may be known of the usage of an event.

Like `ATTEMPTED`, each is told from the start, as 0: what a monitor first sees as a 1 has not grown, as far as it knows.
https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics
"""
MOST_MODELS = 100
"""Models of which each has tokens of its own in a process; those of further ones are counted together."""
OTHER = "_OTHER"
"""How conventions call what is counted together."""
MOST_CHARACTERS = 100
"""Characters of a model's name."""
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
        self.attributes: dict[str, str | int] = {
            "otel.component.type": COMPONENT_TYPE,
            "otel.component.name": f"{COMPONENT_TYPE}/{number}",
            "cmdrdata.account": account,
        }
        if server := Destination(endpoint, account).server:
            self.attributes["server.address"], self.attributes["server.port"] = server
        """Those of all its metrics."""
        self._outcomes: tuple[str, ...] = () if endpoint is None else ATTEMPTED
        self._measured: Measured | None = None
        self._current: object = None
        self._duration: metrics.Histogram | None = None
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Count anew in a forked child."""
        self._lock = threading.Lock()
        self._attempts: Counter[str] = Counter()
        self._recorded: dict[tuple[str, str, bool], list[int | float]] = {}
        """Of each model, usage status, and whether there is a customer: events, input tokens, output tokens."""
        self._models: set[str] = set()
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
            error = {} if delivered else {ERROR_TYPE: outcome.reason.removeprefix("HTTP ")}
            self._duration.record(seconds, {**self.attributes, **error})

    def recorded(self, header: Header) -> None:
        """
        Count an event by what is known of its usage.

        Without a lock, which a signal handler that makes a call would wait for in vain; at worst one is not counted.
        """
        counted = self._recorded.get((header.model, header.status, header.customer is None))
        if counted is None:
            counted = self._begin_to_count(header)
        counted[0] += 1
        counted[1] += header.units["input_tokens"]
        counted[2] += header.units["output_tokens"]

    def _begin_to_count(self, header: Header) -> list[int | float]:
        # A provider, or another instrumentation, may name both as it likes.
        status = header.status if header.status in _STATUSES else OTHER
        model = header.model.encode("utf-8", "replace").decode()[:MOST_CHARACTERS]
        if model not in self._models and len(self._models) >= MOST_MODELS:
            model = OTHER
        self._models.add(model)
        kind = (model, status, header.customer is None)
        return self._recorded.setdefault(kind, [0, 0, 0])

    def watch(self, measured: Measured) -> None:
        """Report of `measured` from now on, to the global provider until another one is named."""
        self._measured = measured
        if self._current is None:
            self.report(None)

    def report(self, meter_provider: MeterProvider | None) -> None:
        """Report to a provider (default: the global one) and to no other."""
        self._current = current = object()
        meter = metrics.get_meter(SCOPE, VERSION, meter_provider)

        def only_now(
            observe: Callable[[], Iterable[Observation]],
        ) -> Callable[[CallbackOptions], Iterable[Observation]]:
            """Return a callback that is silent when the reports go to another provider."""
            return lambda _: observe() if self._current is current else ()

        observed: dict[Metric, Callable[[], Iterable[Observation]]] = {
            measures.EVENTS: self._events,
            measures.RECORDED: self._by_status,
            measures.UNATTRIBUTED: self._unattributed,
            measures.TOKENS: self._tokens,
            measures.EXPORTED: self._exported,
            measures.IN_FLIGHT: lambda: self._gauge("events.pending"),
        }
        create: dict[Kind, Callable[..., object]] = {
            Kind.COUNTER: meter.create_observable_counter,
            Kind.UP_DOWN_COUNTER: meter.create_observable_up_down_counter,
            Kind.GAUGE: meter.create_observable_gauge,
        }
        for metric in METRICS:
            if metric.kind is Kind.HISTOGRAM:
                self._duration = histogram(meter, metric)
                continue
            name = metric.name.removeprefix("cmdrdata.")
            observe = observed.get(metric, partial(self._gauge, name))
            create[metric.kind](metric.name, [only_now(observe)], metric.unit, metric.description)

    def _exported(self) -> Iterable[Observation]:
        with self._lock:
            delivered, refused = self._attempts["delivered"], self._attempts["refused"]
        yield Observation(delivered, self.attributes)
        if refused:
            yield Observation(refused, {**self.attributes, ERROR_TYPE: "rejected"})

    def _events(self) -> Iterable[Observation]:
        recorded = {} if self._measured is None else self._measured.outcomes()
        with self._lock:
            attempts = {outcome: self._attempts[outcome] for outcome in self._outcomes}
        for outcome, number in {**recorded, **attempts}.items():
            yield Observation(number, {**self.attributes, measures.OUTCOME: outcome})

    def _by_status(self) -> Iterable[Observation]:
        events: dict[str, int | float] = defaultdict(int, dict.fromkeys(_STATUSES, 0))
        for (_, status, _), (number, *_) in self._recorded.copy().items():
            events[status] += number
        for status, number in events.items():
            yield Observation(number, {**self.attributes, USAGE_STATUS: status})

    def _unattributed(self) -> Iterable[Observation]:
        counted = self._recorded.copy().items()
        number = sum(number for (*_, is_nobody), (number, *_) in counted if is_nobody)
        yield Observation(number, self.attributes)

    def _tokens(self) -> Iterable[Observation]:
        tokens: dict[tuple[str, str], int | float] = defaultdict(int)
        for (model, *_), (_, read, written) in self._recorded.copy().items():
            tokens[model, "input"] += read
            tokens[model, "output"] += written
        for (model, direction), number in tokens.items():
            attributes = {measures.MODEL: model, measures.TOKEN_TYPE: direction}
            yield Observation(number, {**self.attributes, **attributes})

    def _gauge(self, name: str) -> Iterable[Observation]:
        now = clocks.monotonic()
        if self._measured is not None and now - self._looked >= _FRESH:
            self._looked, self._values = now, self._measured.gauges()
        if name in self._values:
            yield Observation(self._values[name], self.attributes)
