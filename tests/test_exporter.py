"""The exporter: which spans it takes, where their events go, and which exporter meters."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from cmdrdata_exporter import (
    CmdrDataSpanExporter,
    ConfigurationError,
    current_exporter,
    exporter,
    faults,
    processes,
)
from cmdrdata_exporter.delivery import Header
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests.metering import RecordedEvents
from tests.test_events import span

KEY = "tk-0123456789abcdefghij"
CHAT: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "m",
    "gen_ai.usage.input_tokens": 3,
    "gen_ai.usage.output_tokens": 4,
}


def test_foreign_spans_are_billed_and_others_ignored(events: RecordedEvents) -> None:
    """`export` takes the charges among the spans, and never a span of our own instrumentation a second time."""
    taking = CmdrDataSpanExporter(delivery=events)
    ours = span(CHAT, scope="opentelemetry_instrumentation_cmdrdata")
    assert (
        taking.export([span(CHAT), span({"http.request.method": "GET"}), ours])
        is SpanExportResult.SUCCESS
    )
    assert [event["total_tokens"] for event in events.wire] == [7]
    header = events.headers[0]
    assert (
        header.customer,
        header.model,
        header.endpoint,
        header.status,
        header.units,
        header.day,
    ) == (
        None,
        "m",
        "chat.completions",
        "reported",
        {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
        "2023-11-14",
    )


def test_in_a_span_pipeline(events: RecordedEvents) -> None:
    """Registered with a provider, the exporter bills what any instrumentation reports there."""
    provider = TracerProvider()
    provider.add_span_processor(
        SimpleSpanProcessor(CmdrDataSpanExporter(customer_id="acme", delivery=events))
    )
    provider.get_tracer("anyone").start_span("chat m", attributes=CHAT).end()
    provider.shutdown()
    assert [(event["customer_id"], event["total_tokens"]) for event in events.wire] == [("acme", 7)]


def test_after_shutdown(events: RecordedEvents, caplog: pytest.LogCaptureFixture) -> None:
    """A pipeline that was shut down gets no more spans in; a call that ends later is metered all the same."""
    stopped = CmdrDataSpanExporter(delivery=events)
    stopped.shutdown()
    stopped.shutdown()
    with caplog.at_level(logging.WARNING, "cmdrdata"):
        assert stopped.export([span(CHAT)]) is SpanExportResult.FAILURE
    assert [record.getMessage() for record in caplog.records] == [
        "CmdrDataSpanExporter is shut down and ignores 1 spans"
    ]
    assert events.wire == []
    stopped.record(span(CHAT, scope="opentelemetry_instrumentation_cmdrdata"))
    assert len(events.wire) == 1


def test_metering_switched_off(events: RecordedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    """CMDRDATA_ENABLED=false, and nothing else, makes no event."""
    monkeypatch.setenv("CMDRDATA_ENABLED", "false")
    assert CmdrDataSpanExporter(delivery=events).export([span(CHAT)]) is SpanExportResult.SUCCESS
    assert events.wire == []


def test_reserved_metadata(events: RecordedEvents, caplog: pytest.LogCaptureFixture) -> None:
    """A key of the user that is reserved is sent under another name, and the log says so once."""
    taking = CmdrDataSpanExporter(customer_id="acme", delivery=events)
    with caplog.at_level(logging.WARNING, "cmdrdata"):
        taking.export(
            [
                span({**CHAT, "cmdrdata.metadata.usage": "mine"}, context=(1, number))
                for number in (1, 2)
            ]
        )
    assert [event["metadata"]["user_usage"] for event in events.wire] == ["mine", "mine"]
    assert [event["metadata"]["usage"] for event in events.wire] == [{}, {}]
    assert [record.getMessage() for record in caplog.records] == [
        "the metadata key 'usage' is reserved; it is sent as 'user_usage' (further ones of this kind are only counted)"
    ]
    faults.counts.clear()


def test_which_exporter_meters(events: RecordedEvents) -> None:
    """The exporter that the application built last meters; without one, the environment's, which is built once."""
    environments = current_exporter()
    assert current_exporter() is environments
    built = CmdrDataSpanExporter(delivery=events)
    assert current_exporter() is built


def test_one_delivery_per_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two exporters of one account share what delivers; two accounts do not."""
    monkeypatch.setenv("CMDRDATA_API_KEY", KEY)
    delivery = exporter._delivery
    one, same = CmdrDataSpanExporter(), CmdrDataSpanExporter()
    other = CmdrDataSpanExporter(api_key="tk-another-another-another")
    assert delivery(one.settings) is delivery(same.settings)
    assert delivery(one.settings) is not delivery(other.settings)


def test_instrumenting_builds_the_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """What delivers is built when instrumenting, and what cannot be built is refused there, not at the first call."""
    instrumentor = CmdrDataInstrumentor()
    monkeypatch.setenv("CMDRDATA_API_KEY", KEY)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example")
    with pytest.raises(ConfigurationError, match=r"^HTTPS_PROXY names a socks5:// proxy"):
        instrumentor.instrument()
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    instrumentor.instrument()
    try:
        assert len(exporter._deliveries) == 1
        assert current_exporter().settings.proxy == "http://proxy.example:3128"
        assert len(exporter._deliveries) == 1
    finally:
        instrumentor.uninstrument()


def test_the_start_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says where events go and what happens to those without a customer, and never the key."""
    with caplog.at_level(logging.INFO, "cmdrdata"):
        CmdrDataSpanExporter()
        CmdrDataSpanExporter()
        CmdrDataSpanExporter(api_key=KEY, account="production", unattributed="send")
    assert [record.getMessage() for record in caplog.records] == [
        "Neither CMDRDATA_API_KEY nor CMDRDATA_ENDPOINT is set: usage events stay in the memory of this process and "
        "end with it",
        "CmdrData usage metering: destination local, events without a customer are held",
        "CmdrData usage metering: destination production at https://api.cmdrdata.ai/api/events, events without a "
        "customer are sent with customer_id null",
    ]
    assert KEY not in caplog.text


def test_delivery_over_http(httpserver: HTTPServer) -> None:
    """An event arrives as it was encoded, with its id as the idempotency key, however often it is tried."""
    attempts: list[tuple[str, bytes]] = []

    def answer(request: Request) -> Response:
        attempts.append((request.headers["idempotency-key"], request.get_data()))
        return Response(status=503 if len(attempts) == 1 else 202, headers={"retry-after": "0"})

    httpserver.expect_request("/api/events", method="POST").respond_with_handler(answer)
    delivering = CmdrDataSpanExporter(KEY, httpserver.url_for("/api/events"), customer_id="acme")
    delivering.export([span(CHAT)])
    assert delivering.force_flush(10_000)
    delivering.shutdown()
    assert len(attempts) == 2
    assert attempts[0] == attempts[1]
    event = json.loads(attempts[0][1])
    assert event["request"]["id"] == attempts[0][0]
    assert (event["customer_id"], event["total_tokens"]) == ("acme", 7)
    assert (
        httpserver.log[0][0]
        .headers["user-agent"]
        .startswith("opentelemetry-instrumentation-cmdrdata/")
    )


def test_a_wrong_argument() -> None:
    """An argument that cannot be used is refused when the exporter is built."""
    with pytest.raises(ConfigurationError, match=r"^api_key has 5 characters"):
        CmdrDataSpanExporter(api_key="short")


EXIT = """
import sys
from cmdrdata_exporter import CmdrDataSpanExporter
from tests.test_events import span
from tests.test_exporter import CHAT

CmdrDataSpanExporter(sys.argv[1], sys.argv[2], customer_id="acme").export([span(CHAT)])
"""


def test_the_exit_of_the_process(httpserver: HTTPServer) -> None:
    """A process that simply ends has delivered what it recorded."""
    httpserver.expect_request("/", method="POST").respond_with_data(status=202)
    done = subprocess.run(
        [sys.executable, "-c", EXIT, KEY, httpserver.url_for("/")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    ((request, _),) = httpserver.log
    assert json.loads(request.get_data())["total_tokens"] == 7


def test_the_exit_with_a_dead_backend() -> None:
    """A process whose backend is down ends in time, and the log holds every event, whole."""
    done = subprocess.run(
        [sys.executable, "-c", EXIT, KEY, "http://127.0.0.1:1/"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert json.loads(line)["event"]["total_tokens"] == 7
    assert KEY not in done.stderr


class Patient:
    """A delivery whose flush takes all the time that it is given, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """Take nothing."""

    def flush(self, timeout: float) -> bool:
        """Wait."""
        self.waits.append(timeout)
        self.now += timeout
        return False

    def close(self, timeout: float) -> None:
        """Wait."""
        self.flush(timeout)

    def shutdown(self, timeout: float) -> None:
        """Wait."""
        self.flush(timeout)


def test_one_end_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`shutdown` and the exit share five seconds; who shuts down and goes on has them again."""
    patient = Patient()
    monkeypatch.setattr(exporter.time, "monotonic", lambda: patient.now)
    monkeypatch.setattr(exporter, "_waited_until", -math.inf)
    monkeypatch.setattr(exporter, "_deliveries", {1: patient, 2: patient})
    CmdrDataSpanExporter(delivery=patient).shutdown()
    exporter._close_deliveries()
    assert patient.waits == [5, 0, 0]
    patient.now += 60
    exporter._close_deliveries()
    assert patient.waits[3:] == [5, 0]


def test_every_delivery_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while one delivery is closed does not keep the others from it."""
    closed: list[int] = []

    class Interrupted(Patient):
        """Is interrupted each time."""

        def close(self, timeout: float) -> None:
            """Fail."""
            closed.append(id(self))
            raise KeyboardInterrupt

    both = {1: Interrupted(), 2: Interrupted()}
    monkeypatch.setattr(exporter, "_deliveries", both)
    with pytest.raises(KeyboardInterrupt):
        exporter._close_deliveries()
    assert sorted(closed) == sorted(map(id, both.values()))


CHILDREN = """
import multiprocessing
import sys
from tests.test_exporter import in_child

method, key, url = sys.argv[1:]
child = multiprocessing.get_context(method).Process(target=in_child, args=(key, url))
child.start()
child.join()
sys.exit(child.exitcode)
"""


def in_child(key: str, url: str) -> None:
    """Record an event, and another one when the process ends."""
    delivering = CmdrDataSpanExporter(key, url, customer_id="acme")

    def end() -> None:
        delivering.export([span(CHAT, context=(1, 2))])

    processes.at_exit(end, priority=200)
    delivering.export([span(CHAT, context=(1, 1))])


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing(method: str, httpserver: HTTPServer) -> None:
    """A child that multiprocessing ends without `atexit` has delivered what it recorded, at its end too."""
    httpserver.expect_request("/", method="POST").respond_with_data(status=202)
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, method, KEY, httpserver.url_for("/")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    ids = {json.loads(request.get_data())["metadata"]["span_id"] for request, _ in httpserver.log}
    assert ids == {"0000000000000001", "0000000000000002"}


def test_locks_in_a_forked_child(events: RecordedEvents) -> None:
    """A lock that a thread of the parent holds when it forks holds up nothing in the child."""
    forking = CmdrDataSpanExporter(delivery=events)
    held = exporter._lock
    with forking._calls._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - measured in the parent only
            fresh = exporter._lock is not held and forking._calls._lock.acquire(blocking=False)
            os._exit(0 if fresh else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
