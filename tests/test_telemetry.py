"""What the exporter reports of itself, through the MeterProvider that it is given."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from cmdrdata_exporter import CmdrDataSpanExporter, clocks, measures, runtime, telemetry
from cmdrdata_exporter.delivery import drainer
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests.delivery.samples import wait_for
from tests.measured import TAKES_BOUNDARIES
from tests.metering import RecordedEvents
from tests.test_events import span
from tests.test_exporter import CHAT
from tests.test_open_jobs import open_job

MODEL = "m"
TOKENS = {"input": 3, "output": 4}
"""Of each event."""
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


def key_of(number: int) -> bytes:
    """Return what stands for a job."""
    return bytes([number]) * 16


def by(name: str, points: dict[tuple[tuple[str, Any], ...], Any]) -> dict[Any, Any]:
    """Return the points of a metric by one of their attributes, which tells them apart."""
    found = {dict(attributes)[name]: value for attributes, value in points.items()}
    assert len(points) == len(found)
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
                "paused": 0,
                "retried": 0,
                "ambiguous": 0,
            }.items()
        },
        "cmdrdata.events.recorded": {
            (of_all[0], ("cmdrdata.usage_status", status), *of_all[1:]): number
            for status, number in {
                "reported": 2,
                "partial": 0,
                "missing": 0,
                "not_applicable": 0,
            }.items()
        },
        "cmdrdata.events.unattributed": {of_all: 0},
        "cmdrdata.tokens": {
            (of_all[0], ("cmdrdata.model", MODEL), ("gen_ai.token.type", kind), *of_all[1:]): 2
            * number
            for kind, number in TOKENS.items()
        },
        "cmdrdata.events.pending": {of_all: 0},
        "cmdrdata.events.oldest_pending": {of_all: 0},
        "cmdrdata.events.held": {of_all: 0},
        "cmdrdata.events.dead": {of_all: 1},
        "cmdrdata.jobs.open": {of_all: 0},
        "cmdrdata.jobs.oldest_open": {of_all: 0},
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
    assert {"missing": 2, "partial": 1, "reported": 1, "not_applicable": 0} == by(
        "cmdrdata.usage_status", reported(reader)["cmdrdata.events.recorded"]
    )


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
    assert 1 == sum(reported(reader)["cmdrdata.events.recorded"].values())


def test_who_does_not_pay() -> None:
    """Events without a customer are counted when they are recorded, and seen while they are held."""
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(meter_provider=MeterProvider([reader]))
    for number, customer in enumerate(("acme", None, None), 1):
        payer = {} if customer is None else {"cmdrdata.customer.id": customer}
        measured.export([span({**CHAT, **payer}, context=(number, number))])
    assert measured.force_flush(10_000)
    found = reported(reader)
    assert [2] == list(found["cmdrdata.events.unattributed"].values())
    assert [2] == list(found["cmdrdata.events.held"].values())


def test_the_customer_is_nowhere() -> None:
    """No metric of a destination tells a customer, of which there may be any number."""
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(customer_id="acme", meter_provider=MeterProvider([reader]))
    measured.export([span(CHAT)])
    assert measured.force_flush(10_000)
    assert "acme" not in repr(reported(reader))


def test_tokens_by_model() -> None:
    """
    Tokens are counted by the model, of any name; of too many models together.

    A label that cannot be encoded, or thousands of them, would keep all metrics of the application from being read.
    """
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(customer_id="acme", meter_provider=MeterProvider([reader]))
    models = ["gpt-5", "gpt-5", "\ud800" + "x" * 200]
    models += [f"model-{number}" for number in range(telemetry.MOST_MODELS)]
    for number, model in enumerate(models, 1):
        measured.export([span({**CHAT, "gen_ai.response.model": model}, context=(number, number))])
    found = reported(reader)["cmdrdata.tokens"]
    alone = [f"model-{number}" for number in range(telemetry.MOST_MODELS - 2)]
    expected = {"gpt-5": 2, "?" + "x" * 99: 1, **dict.fromkeys(alone, 1), telemetry.OTHER: 2}
    assert {
        (model, kind): number * TOKENS[kind]
        for model, number in expected.items()
        for kind in TOKENS
    } == {
        (dict(attributes)["cmdrdata.model"], dict(attributes)["gen_ai.token.type"]): number
        for attributes, number in found.items()
    }


def test_a_usage_status_of_others() -> None:
    """Another instrumentation may say anything of the usage; what is not known is counted together."""
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(meter_provider=MeterProvider([reader]))
    for number, status in enumerate(("guessed", "\ud800", "reported"), 1):
        measured.export([span({**CHAT, "cmdrdata.usage_status": status}, context=(number, number))])
    nothing = {"partial": 0, "missing": 0, "not_applicable": 0}
    assert {"reported": 1, telemetry.OTHER: 2, **nothing} == by(
        "cmdrdata.usage_status", reported(reader)["cmdrdata.events.recorded"]
    )


def test_jobs_that_nobody_asks_for() -> None:
    """Jobs whose end was not seen are counted, and how long ago the oldest was started; those that ended are not."""
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(meter_provider=MeterProvider([reader]))
    assert measured.keeps_jobs is not None
    now = clocks.wall()
    for number, ago in enumerate((100, 7200, 9000)):
        measured.keeps_jobs.start_job(open_job(key=key_of(number), until=now - ago))
    measured.keeps_jobs.end_job(key_of(2))
    assert measured.force_flush(10_000)
    found = reported(reader)
    assert [2] == list(found["cmdrdata.jobs.open"].values())
    (oldest,) = found["cmdrdata.jobs.oldest_open"].values()
    assert 7200 <= oldest < 7260


def test_a_destination_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is told also where nothing is to do, so that nobody drains: until a person has looked after it."""
    monkeypatch.setattr(drainer, "IDLE", 0.0)
    monkeypatch.setattr(telemetry, "_FRESH", 0.0)
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(meter_provider=MeterProvider([reader]))
    measured.export([span(CHAT)])
    assert measured.force_flush(10_000)
    (resting,) = runtime.process.deliveries
    assert isinstance(resting, DurableDelivery)
    wait_for(lambda: resting.drainer.rests)
    assert [1] == list(reported(reader)["cmdrdata.events.held"].values())
    # Where another process leads, or has led since, that one tells it.
    descriptor = resting.directory.try_to_lead()
    assert descriptor is not None
    assert "cmdrdata.events.held" not in reported(reader)
    ledger = Ledger(resting.directory)
    with ledger.transaction():
        ledger.note({"pid": os.getpid() + 1})
    ledger.close()
    os.close(descriptor)
    assert "cmdrdata.events.held" not in reported(reader)


def test_buckets_of_attempts(httpserver: HTTPServer) -> None:
    """Where OpenTelemetry can be told, attempts fall into buckets that tell a fast backend from a slow one."""
    httpserver.expect_request("/", method="POST").respond_with_data(status=202)
    reader = InMemoryMetricReader()
    measured = CmdrDataSpanExporter(
        KEY,
        httpserver.url_for("/"),
        customer_id="acme",
        meter_provider=MeterProvider([reader]),
    )
    measured.export([span(CHAT)])
    assert measured.force_flush(10_000)
    data = reader.get_metrics_data()
    assert data is not None
    (point,) = [
        point
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == "otel.sdk.exporter.operation.duration"
        for point in metric.data.data_points
    ]
    if TAKES_BOUNDARIES:
        assert measures.ATTEMPTS.boundaries == tuple(getattr(point, "explicit_bounds", ()))
