"""
The metrics of calls by the GenAI conventions, on the application's MeterProvider: see docs/metering.md.

Nothing is measured, and nothing prepared, while there is none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import metrics
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.metrics import Histogram, Meter, MeterProvider

from cmdrdata_exporter import CmdrDataSpanExporter, faults
from cmdrdata_exporter.attributes import CUSTOMER_ID, CUSTOMER_REFUSED, OUR_SCOPE
from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.providers import Server
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes
from opentelemetry_instrumentation_cmdrdata.spans import server_attributes
from opentelemetry_instrumentation_cmdrdata.version import __version__

SECONDS = tuple(0.01 * 2**power for power in range(14))
"""The boundaries of the buckets of times."""
TOKENS = tuple(4**power for power in range(14))
"""Those of numbers of tokens."""

_TOKEN_TYPES = (("input", semconv.INPUT_TOKENS), ("output", semconv.OUTPUT_TOKENS))
_OF_AN_ANSWER = (
    semconv.RESPONSE_MODEL,
    semconv.RESPONSE_SERVICE_TIER,
    semconv.SYSTEM_FINGERPRINT,
)
_OF_A_FETCHED_RESPONSE = (semconv.RESPONSE_MODEL,)


class Instruments:
    """
    The instruments of one provider.

    Args:
        provider: makes them.
    """

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(OUR_SCOPE, __version__)
        self.duration = _histogram(
            meter,
            "gen_ai.client.operation.duration",
            "s",
            "Duration of GenAI client operation",
            SECONDS,
        )
        self.tokens = _histogram(
            meter,
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used by GenAI clients",
            TOKENS,
        )
        self.first_chunk = _histogram(
            meter,
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time from the request to the first chunk of a streamed answer",
            SECONDS,
        )
        self.further_chunk = _histogram(
            meter,
            "gen_ai.client.operation.time_per_output_chunk",
            "s",
            "Time from one chunk of a streamed answer to the next",
            SECONDS,
        )


def _histogram(
    meter: Meter, name: str, unit: str, description: str, boundaries: tuple[float, ...]
) -> Histogram:
    """Return a histogram with these boundaries, or those of the SDK where a meter takes none (OpenTelemetry < 1.30)."""
    advisory = "explicit_bucket_boundaries_advisory"
    create: Callable[..., Histogram] = meter.create_histogram
    takes_it = advisory in inspect.signature(create).parameters
    return create(name, unit, description, **({advisory: boundaries} if takes_it else {}))


class ClientMetrics:
    """
    What calls are measured by.

    Args:
        provider: where metrics go. Default: the global one, which the application may set at any time.
    """

    def __init__(self, provider: MeterProvider | None = None) -> None:
        self._own = provider
        self._provider: MeterProvider | None = None
        self._instruments: Instruments | None = None

    def _instruments_now(self) -> Instruments | None:
        """Return the instruments, None while the application has no MeterProvider."""
        provider = metrics.get_meter_provider() if self._own is None else self._own
        if provider is not self._provider:
            # Those of the API stand for one that is not there.
            is_real = not type(provider).__module__.startswith("opentelemetry.metrics")
            self._instruments = Instruments(provider) if is_real else None
            self._provider = provider
        return self._instruments

    def measures(self, endpoint: Endpoint) -> bool:
        """
        Return whether a call that starts now is to be measured.

        The conventions have an operation for one kind of poll only.
        """
        try:
            return (
                self._instruments_now() is not None
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
        instruments = self._instruments_now()
        if instruments is None:
            return
        attributes = attributes_of(endpoint, server, request_model, facts)
        error = facts.get(semconv.ERROR_TYPE)
        instruments.duration.record(
            seconds, attributes if error is None else {**attributes, semconv.ERROR_TYPE: error}
        )
        if (first_chunk := facts.get(semconv.TIME_TO_FIRST_CHUNK)) is not None:
            instruments.first_chunk.record(first_chunk, attributes)
        if endpoint.polls:
            return
        customer = _customer(payer, exporter)
        for token_type, name in _TOKEN_TYPES:
            if name in facts:
                of_type = {**attributes, **customer, semconv.TOKEN_TYPE: token_type}
                instruments.tokens.record(facts[name], of_type)

    @faults.guarded
    def chunk(
        self,
        endpoint: Endpoint,
        server: Server,
        request_model: str | None,
        facts: Attributes,
        seconds: float,
    ) -> None:
        """Record that a further chunk arrived so many `seconds` after the one before. See `record`."""
        instruments = self._instruments_now()
        if instruments is None:
            return
        attributes = attributes_of(endpoint, server, request_model, facts)
        instruments.further_chunk.record(seconds, attributes)


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
