"""
Which metrics a destination has. Pure.

`METRICS` is the one list: `telemetry` makes the instruments from it, `docs/monitoring.md` shows it, and the names in
`examples/monitoring` are held against it. The metrics of calls are in `measures` of the instrumentation.

Names of the SDK's own are those of https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/; an event is a span
there, and an operation is one POST.
Units are UCUM: what stands in braces says what is counted. No metric has the unit `1`, which Prometheus takes for a
ratio, and says so in the name: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.metrics import Histogram, Meter

from cmdrdata_exporter.attributes import USAGE_STATUS


class Kind(enum.Enum):
    """What an instrument does with its values."""

    COUNTER = "counter"
    UP_DOWN_COUNTER = "up-down counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, eq=False)
class Metric:
    """An instrument, and what it measures."""

    name: str
    unit: str
    description: str
    kind: Kind
    boundaries: tuple[float, ...] = ()
    """Of the buckets of a histogram."""
    attributes: tuple[str, ...] = ()
    """Those that it has beside the attributes of all."""

    @property
    def is_of_tokens(self) -> bool:
        """Whether it counts tokens, which somebody pays for."""
        return self.unit == "{token}"


def histogram(meter: Meter, metric: Metric) -> Histogram:
    """Make a histogram with its boundaries, or those of the SDK where a meter takes none (OpenTelemetry < 1.30)."""
    advisory = "explicit_bucket_boundaries_advisory"
    create: Callable[..., Histogram] = meter.create_histogram
    takes_it = advisory in inspect.signature(create).parameters
    more = {advisory: metric.boundaries} if takes_it else {}
    return create(metric.name, metric.unit, metric.description, **more)


OUTCOME = "cmdrdata.outcome"
MODEL = "cmdrdata.model"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - the name of an attribute
ERROR_TYPE = "error.type"
COMPONENT = (
    "otel.component.type",
    "otel.component.name",
    "cmdrdata.account",
    "server.address",
    "server.port",
)
"""The attributes of all; the last two only where events go to a backend."""

ATTEMPTS = Metric(
    "otel.sdk.exporter.operation.duration",
    "s",
    "The duration of each attempt to deliver an event; error.type says what one failed with",
    Kind.HISTOGRAM,
    # An attempt ends after ten seconds, and most take some milliseconds.
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    (ERROR_TYPE,),
)
EXPORTED = Metric(
    "otel.sdk.exporter.span.exported",
    "{span}",
    "Events that the backend accepted, or refused for good (error.type is rejected)",
    Kind.COUNTER,
    attributes=(ERROR_TYPE,),
)
IN_FLIGHT = Metric(
    "otel.sdk.exporter.span.inflight",
    "{span}",
    "Events that are recorded and not delivered yet",
    Kind.UP_DOWN_COUNTER,
)
EVENTS = Metric(
    "cmdrdata.events",
    "{event}",
    "Events by what this process did with them, attempts by their outcome",
    Kind.COUNTER,
    attributes=(OUTCOME,),
)
RECORDED = Metric(
    "cmdrdata.events.recorded",
    "{event}",
    "Events by what is known of their usage: reported, partial, missing or not_applicable",
    Kind.COUNTER,
    attributes=(USAGE_STATUS,),
)
UNATTRIBUTED = Metric(
    "cmdrdata.events.unattributed",
    "{event}",
    "Events that were recorded without a customer",
    Kind.COUNTER,
)
TOKENS = Metric(
    "cmdrdata.tokens",
    "{token}",
    "Input and output tokens of the events that were recorded, by the model that is billed",
    Kind.COUNTER,
    attributes=(MODEL, TOKEN_TYPE),
)
GAUGES = tuple(
    Metric(f"cmdrdata.{name}", unit, description, Kind.GAUGE)
    for name, unit, description in (
        ("events.pending", "{event}", "Events that wait for their delivery"),
        ("events.oldest_pending", "s", "How long the oldest of them waits"),
        ("events.held", "{event}", "Events that wait for a person's decision"),
        ("events.dead", "{event}", "Dead letters: events that were refused, expired or damaged"),
        (
            "jobs.open",
            "{job}",
            "Jobs of the provider whose end was not seen, and which no event bills",
        ),
        ("jobs.oldest_open", "s", "How long ago the oldest of them was started"),
        ("spool.size", "By", "The size of the destination's directory"),
        ("delivery.paused", "{destination}", "1 where the backend refuses the key or endpoint"),
        ("delivery.durable", "{destination}", "1 where events are kept on the disk, 0 in memory"),
    )
)
"""What `Measured.gauges` tells, by the name without `cmdrdata.`."""

METRICS = (EVENTS, RECORDED, UNATTRIBUTED, TOKENS, *GAUGES, ATTEMPTS, EXPORTED, IN_FLIGHT)
"""All of them."""
