"""What the exporter reports of itself, through the MeterProvider that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.delivery.durable import DurableDelivery
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests.metering import RecordedEvents
from tests.test_events import span
from tests.test_exporter import CHAT

KEY = "tk-0123456789abcdefghij"


def reported(reader: InMemoryMetricReader) -> dict[str, dict[tuple[tuple[str, Any], ...], Any]]:
    """Return every point by metric and by its own attributes; of a histogram, how many values it has."""
    data = reader.get_metrics_data()
    found: dict[str, dict[tuple[tuple[str, Any], ...], Any]] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            if scope.scope.name == "opentelemetry_instrumentation_cmdrdata":
                continue  # Of the calls: see test_metrics.py.
            assert scope.scope.name == "cmdrdata_exporter"
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    attributes = dict(point.attributes or {})
                    assert attributes.pop("otel.component.type") == "cmdrdata_http_span_exporter"
                    name = str(attributes.pop("otel.component.name"))
                    assert name.startswith("cmdrdata_http_span_exporter/")
                    value = getattr(point, "value", None)
                    found.setdefault(metric.name, {})[tuple(sorted(attributes.items()))] = (
                        getattr(point, "count", None) if value is None else value
                    )
    return found


def test_a_delivery_is_measured(httpserver: HTTPServer) -> None:
    """Events by what became of them, attempts, and what is in the directory: each by its name and attributes."""

    def answer(request: Request) -> Response:
        refused = b'"globex"' in request.get_data()
        return Response(status=400 if refused else 202)

    httpserver.expect_request("/", method="POST").respond_with_handler(answer)
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(
        KEY,
        httpserver.url_for("/"),
        account="production",
        customer_id="acme",
        meter_provider=MeterProvider([reader]),
    )
    measured.export([span(CHAT, context=(1, 1))])
    measured.export([span({**CHAT, "cmdrdata.customer.id": "globex"}, context=(1, 2))])
    assert measured.force_flush(10_000)
    found = reported(reader)
    of_all = (
        ("cmdrdata.account", "production"),
        ("server.address", "localhost"),
        ("server.port", httpserver.port),
    )
    assert found.pop("cmdrdata.spool.size")[of_all] > 1000
    assert found == {
        "otel.sdk.exporter.span.exported": {
            of_all: 1,
            (of_all[0], ("error.type", "rejected"), *of_all[1:]): 1,
        },
        "otel.sdk.exporter.span.inflight": {of_all: 0},
        "otel.sdk.exporter.operation.duration": {
            of_all: 1,
            (of_all[0], ("error.type", "400"), *of_all[1:]): 1,
        },
        "cmdrdata.events": {
            (of_all[0], ("cmdrdata.outcome", outcome), *of_all[1:]): number
            for outcome, number in {
                "recorded": 2,
                "unspooled": 0,
                "handed_over": 0,
                "delivered": 1,
                "refused": 1,
                "ambiguous": 0,
            }.items()
        },
        "cmdrdata.events.recorded": {
            (of_all[0], ("cmdrdata.usage_status", "reported"), *of_all[1:]): 2
        },
        "cmdrdata.events.pending": {of_all: 0},
        "cmdrdata.events.oldest_pending": {of_all: 0},
        "cmdrdata.delivery.paused": {of_all: 0},
        "cmdrdata.delivery.durable": {of_all: 1},
    }


def test_a_refused_key_is_measured(httpserver: HTTPServer) -> None:
    """While the backend refuses the key, the gauges say so, and that events wait."""
    httpserver.expect_request("/", method="POST").respond_with_data(status=401)
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(
        KEY,
        httpserver.url_for("/"),
        account="production",
        customer_id="acme",
        meter_provider=MeterProvider([reader]),
    )
    measured.export([span(CHAT)])
    assert not measured.force_flush(10_000)
    found = reported(reader)
    assert list(found["cmdrdata.delivery.paused"].values()) == [1]
    assert list(found["cmdrdata.events.pending"].values()) == [1]
    (age,) = found["cmdrdata.events.oldest_pending"].values()
    assert 0 <= age < 60


def test_nothing_durable_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, httpserver: HTTPServer
) -> None:
    """Where nothing can be written, a gauge says that events are in memory only."""
    file = tmp_path / "file"
    file.touch()
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(
        KEY,
        httpserver.url_for("/"),
        spool_dir=file / "below",
        meter_provider=MeterProvider([reader]),
    )
    assert list(reported(reader)["cmdrdata.delivery.durable"].values()) == [0]
    measured.shutdown()


def test_the_provider_of_the_instrumentor(monkeypatch: pytest.MonkeyPatch) -> None:
    """`instrument(meter_provider=)` says where the metrics go; from then on they go nowhere else."""
    before, after = InMemoryMetricReader(), InMemoryMetricReader()
    measured = CmdrDataSpanExporter(meter_provider=MeterProvider([before]))
    instrumentor = CmdrDataInstrumentor()
    instrumentor.instrument(exporter=measured, meter_provider=MeterProvider([after]))
    try:
        assert reported(before) == {}
        assert list(reported(after)["cmdrdata.delivery.durable"].values()) == [1]
    finally:
        instrumentor.uninstrument()


def test_a_delivery_of_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that the application has made itself is its own to measure."""
    reader = InMemoryMetricReader()

    class Discarding:
        def record(self, event_id: str, header: object, body: bytes) -> None:
            """Take nothing."""

        def flush(self, timeout: float) -> bool:
            """Wait for nothing."""
            return True

        def shutdown(self, timeout: float) -> None:
            """Wait for nothing."""

    CmdrDataSpanExporter(delivery=Discarding(), meter_provider=MeterProvider([reader]))
    assert reported(reader) == {}


@dataclass
class Unhashable(RecordedEvents):
    """A delivery that is equal to others."""


def test_a_delivery_that_cannot_be_hashed() -> None:
    """A delivery of the application's may be of any kind, also beside a provider of metrics."""
    events = Unhashable()
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(delivery=events, meter_provider=MeterProvider([reader]))
    measured.export([span(CHAT)])
    assert 1 == len(events.bodies)
    assert reported(reader) == {}


def test_usage_that_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are counted by what is known of their usage, so that a stream that tells none is seen on a dashboard."""
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(meter_provider=MeterProvider([reader]))
    for number, status in enumerate(("missing", "reported", "missing", "partial"), 1):
        measured.export([span({**CHAT, "cmdrdata.usage_status": status}, context=(number, number))])
    found = reported(reader)["cmdrdata.events.recorded"]
    assert {"missing": 2, "partial": 1, "reported": 1} == {
        dict(attributes)["cmdrdata.usage_status"]: number for attributes, number in found.items()
    }


def test_an_event_that_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event whose recording a signal handler interrupts is counted when it is kept, and then only."""
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(meter_provider=MeterProvider([reader]))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DurableDelivery, "record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measured.record(span(CHAT))
    measured.record(span(CHAT))
    assert [1] == list(reported(reader)["cmdrdata.events.recorded"].values())
