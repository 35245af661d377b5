"""The metrics of calls as a reader of the application's MeterProvider gets them: whole points."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests.metering import RecordedEvents
from tests.provider import Provider

BOUNDARIES = {
    "s": (
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
        *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    ),
    "{token}": (
        *(1, 4, 16, 64, 256, 1024, 4096),
        *(16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
    ),
}
TAKES_BOUNDARIES = (
    "explicit_bucket_boundaries_advisory" in inspect.signature(Meter.create_histogram).parameters
)


Point = tuple[dict[str, Any], int | None, float]
"""The attributes of a point, how many values it has (None of a counter), and the sum of those that are no times."""


@dataclass
class Measured:
    """The instrumentor at work with a MeterProvider of its own."""

    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)
    events: RecordedEvents = field(default_factory=RecordedEvents)

    @functools.cached_property
    def provider(self) -> MeterProvider:
        """The provider that is read."""
        return MeterProvider([self.reader])

    def metrics(self) -> dict[str, tuple[str, list[Any]]]:
        """Return the unit and the points of each metric of calls."""
        data = self.reader.get_metrics_data()
        found: dict[str, tuple[str, list[Any]]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                if scope.scope.name != "opentelemetry_instrumentation_cmdrdata":
                    continue
                for metric in scope.metrics:
                    points: list[Any] = list(metric.data.data_points)
                    found[metric.name] = (metric.unit or "", points)
        return found

    def points(self) -> dict[str, list[Point]]:
        """Return the points of each metric. Times are checked and cut."""
        found: dict[str, list[Point]] = {}
        for name, (unit, points) in self.metrics().items():
            for point in points:
                if unit == "s":
                    assert 0 < point.sum < 60
                is_counter = isinstance(point, NumberDataPoint)
                total = 0.0 if unit == "s" else point.value if is_counter else point.sum
                found.setdefault(name, []).append(
                    (dict(point.attributes or {}), None if is_counter else point.count, total)
                )
        return found


@contextmanager
def instrumented(**options: Any) -> Generator[Measured]:
    """Measure the calls that are made inside."""
    measured = Measured()
    instrumentor = CmdrDataInstrumentor()
    exporter = CmdrDataSpanExporter(delivery=measured.events)
    given: dict[str, Any] = {"meter_provider": measured.provider, **options}
    instrumentor.instrument(exporter=exporter, **given)
    try:
        yield measured
    finally:
        instrumentor.uninstrument()


def of_server(provider: Provider, operation: str) -> dict[str, Any]:
    """Return attributes of a call to the stand-in provider."""
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "openai",
        "server.address": "127.0.0.1",
        "server.port": provider.port,
    }


def of_chat(provider: Provider) -> dict[str, Any]:
    """Return the attributes of a chat that is answered."""
    return {
        **of_server(provider, "chat"),
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "openai.response.service_tier": "default",
        "openai.response.system_fingerprint": "fp_1",
    }
