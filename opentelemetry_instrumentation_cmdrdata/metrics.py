"""
The metrics of calls by the GenAI conventions, on the application's MeterProvider: see docs/metering.md.

Nothing is measured, and nothing prepared, while there is none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import metrics
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.metrics import Meter, MeterProvider

from cmdrdata_exporter import CmdrDataSpanExporter, faults
from cmdrdata_exporter.attributes import CUSTOMER_ID, CUSTOMER_REFUSED, OUR_SCOPE
from cmdrdata_exporter.measures import Kind, Metric, histogram
from cmdrdata_exporter.settings import asks_for_latest_genai
from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.measures import LATEST, TODAYS, Names
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.providers import Server
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes
from opentelemetry_instrumentation_cmdrdata.spans import server_attributes
from opentelemetry_instrumentation_cmdrdata.version import __version__

_OF_AN_ANSWER = (
    semconv.RESPONSE_MODEL,
    semconv.RESPONSE_SERVICE_TIER,
    semconv.SYSTEM_FINGERPRINT,
)
_OF_A_FETCHED_RESPONSE = (semconv.RESPONSE_MODEL,)


class Instruments:
    """
    The instruments of one provider: what takes a value of each metric.

    Args:
        provider: makes them.
        names: the metrics.
    """

    def __init__(self, provider: MeterProvider, names: Names) -> None:
        meter = provider.get_meter(OUR_SCOPE, __version__)
        self.record = {metric: _instrument(meter, metric) for metric in names.metrics}


def _instrument(meter: Meter, metric: Metric) -> Callable[[float, Attributes], None]:
    if metric.kind is Kind.COUNTER:
        return meter.create_counter(metric.name, metric.unit, metric.description).add
    return histogram(meter, metric).record


class ClientMetrics:
    """
    What calls are measured by, with the names that the environment asks for.

    Args:
        provider: where metrics go. Default: the global one, which the application may set at any time.
    """

    def __init__(self, provider: MeterProvider | None = None) -> None:
        self._own = provider
        self._names = LATEST if asks_for_latest_genai() else TODAYS
        self._provider: MeterProvider | None = None
        self._instruments: Instruments | None = None
        """Those of the provider, None as long as the application has none."""

    def measures(self, endpoint: Endpoint) -> bool:
        """
        Return whether a call that starts now is to be measured.

        The conventions have an operation for one kind of poll only.
        """
        try:
            provider = metrics.get_meter_provider() if self._own is None else self._own
            if provider is not self._provider:
                # Those of the API stand for one that is not there.
                is_real = not type(provider).__module__.startswith("opentelemetry.metrics")
                self._instruments = Instruments(provider, self._names) if is_real else None
                self._provider = provider
            return (
                self._instruments is not None
                and (endpoint.is_conventional or not endpoint.polls)
                and is_instrumentation_enabled()
            )
        except Exception as error:  # noqa: BLE001 - also of the application's provider
            faults.absorb(error, "the instruments of a call")
            return False

    @faults.guarded
    def record(  # noqa: PLR0917 - all that is known when a call has ended
        self,
        endpoint: Endpoint,
        server: Server,
        request_model: str | None,
        facts: Attributes,
        seconds: float,
        payer: Mapping[str, Any],
        exporter: Callable[[], CmdrDataSpanExporter],
    ) -> None:
        """
        Record a call that was to be measured and has ended; of a poll no tokens, which would count twice.

        Args:
            endpoint: what was called.
            server: where.
            request_model: the model that was asked for.
            facts: the attributes that were read of the answer, and what else is known of it.
            seconds: that the call took.
            payer: the attributes that say who pays.
            exporter: returns what bills the call.
        """
        instruments = self._instruments
        if instruments is None:
            return
        attributes = attributes_of(endpoint, server, request_model, facts)
        customer: Mapping[str, Any] | None = None
        for metric, value, more in self._names.of_call(endpoint, facts, seconds):
            of_value = {**attributes, **more}
            if metric.is_of_tokens:
                if customer is None:
                    customer = _customer(payer, exporter)
                of_value.update(customer)
            instruments.record[metric](value, of_value)

    def chunk_times(
        self,
        endpoint: Endpoint,
        server: Server,
        request_model: str | None,
        facts: Attributes,
    ) -> ChunkTimes | None:
        """
        Return what takes the time from each chunk of a stream to the next, None where that is not measured.

        Args:
            facts: the attributes that are read of the stream, while it is read. See `record`.
        """
        try:
            instruments, metric = self._instruments, self._names.of_chunk(endpoint)
            if instruments is not None and metric is not None:
                make = functools.partial(attributes_of, endpoint, server, request_model)
                return ChunkTimes(instruments.record[metric], facts, make)
        except Exception as error:  # noqa: BLE001 - also of the application's provider
            faults.absorb(error, "the instruments of a stream")
        return None


class ChunkTimes:
    """
    The times between the chunks of one stream. Their attributes are made anew only where the stream has said more.

    Args:
        record: the instrument.
        facts: the attributes that are read of the stream.
        make: makes of them those of a time.
    """

    __slots__ = ("_attributes", "_facts", "_make", "_record", "_shown")

    def __init__(
        self,
        record: Callable[[float, Attributes], None],
        facts: Attributes,
        make: Callable[[Attributes], Attributes],
    ) -> None:
        self._record = record
        self._facts = facts
        self._make = make
        self._shown: tuple[object, ...] = ()
        self._attributes: Attributes = {}

    def record(self, seconds: float) -> None:
        """Record that a further chunk arrived so many `seconds` after the one before."""
        try:
            if (shown := tuple(map(self._facts.get, _OF_AN_ANSWER))) != self._shown:
                self._shown = shown
                self._attributes = self._make(self._facts)
            self._record(seconds, self._attributes)
        except Exception as error:  # noqa: BLE001 - also of the application's provider
            faults.absorb(error, "the time of a chunk")


def attributes_of(
    endpoint: Endpoint, server: Server, request_model: str | None, facts: Attributes
) -> Attributes:
    """Return the attributes that all metrics of a call have."""
    attributes = server_attributes(endpoint, server)
    if request_model is not None:
        attributes[semconv.REQUEST_MODEL] = request_model
    for name in _OF_A_FETCHED_RESPONSE if endpoint.polls else _OF_AN_ANSWER:
        if name in facts:
            attributes[name] = facts[name]
    return attributes


def _customer(
    payer: Mapping[str, Any], exporter: Callable[[], CmdrDataSpanExporter]
) -> Mapping[str, Any]:
    """Return who pays, as an attribute, where the settings want that."""
    settings = exporter().settings
    if not settings.metrics_customer or CUSTOMER_REFUSED in payer:
        return {}
    customer = payer.get(CUSTOMER_ID, settings.customer_id)
    return {} if customer is None else {CUSTOMER_ID: customer}
