"""The exporter: which spans it takes, where their events go, and which exporter meters."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from cmdrdata_exporter import (
    CmdrDataSpanExporter,
    ConfigurationError,
    bodies,
    current_exporter,
    exporter,
    faults,
    processes,
    runtime,
)
from cmdrdata_exporter.delivery import Event, Header, drainer, senders
from cmdrdata_exporter.delivery.destination import Destination
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import assigned, decode, encode_event
from cmdrdata_exporter.events import UsageEvent
from cmdrdata_exporter.settings import DEFAULT_ENDPOINT
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


FULL: dict[str, Any] = {
    **CHAT,
    "gen_ai.response.model": "m-2026",
    "gen_ai.usage.cache_read.input_tokens": 2,
    "cmdrdata.usage.images": 5,
    # Nothing that the user says is taken for the event's own customer.
    "cmdrdata.metadata.customer_id": "null",
    "cmdrdata.metadata.quoted": '"customer_id":null',
    "cmdrdata.metadata.list": ("customer_id", "null"),
}


def repeated(header: Header, body: bytes) -> dict[str, Any]:
    """Return what a header repeats of its body, as the body has it."""
    event = json.loads(body)
    usage = event["metadata"]["usage"]
    totals = {name: event[name] for name in ("input_tokens", "output_tokens", "total_tokens")}
    assert {
        "customer": event["customer_id"],
        "model": event["model"],
        "endpoint": event["metadata"]["endpoint"],
        "status": event["metadata"]["usage_status"],
        "units": {**totals, **usage},
        "day": time.strftime("%Y-%m-%d", time.gmtime(event["timestamp"])),
    } == {name: getattr(header, name) for name in HEADER}
    return event


HEADER = ("customer", "model", "endpoint", "status", "units", "day")


@pytest.mark.parametrize("customer", [None, "acme"])
@pytest.mark.parametrize("unattributed", ["hold", "send"])
def test_what_a_header_repeats(
    customer: str | None, unattributed: Literal["hold", "send"], events: RecordedEvents
) -> None:
    """Header and body say the same of whom to bill for what; only what is held has a place for a customer."""
    taking = CmdrDataSpanExporter(customer_id=customer, unattributed=unattributed, delivery=events)
    taking.export([span(FULL)])
    (header,), (body,) = events.headers, events.bodies.values()
    assert customer == repeated(header, body)["customer_id"]
    held = customer is None and unattributed == "hold"
    assert (held, held) == (header.hold, header.customer_at is not None)


@pytest.mark.parametrize("keys", ["as-they-are", "reversed", "sorted"])
def test_the_customer_of_a_held_event(
    keys: str, events: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event is assigned wherever its customer stands among its keys, and nothing else of it changes."""
    to_wire = UsageEvent.to_wire
    order: dict[str, Callable[[Iterable[Any]], Iterable[Any]]] = {
        "as-they-are": list,
        "reversed": lambda items: reversed(list(items)),
        "sorted": sorted,
    }

    def ordered(event: UsageEvent) -> dict[str, Any]:
        return dict(order[keys](to_wire(event).items()))

    monkeypatch.setattr(UsageEvent, "to_wire", ordered)
    CmdrDataSpanExporter(delivery=events).export([span(FULL)])
    (header,), ((event_id, body),) = events.headers, events.bodies.items()
    record = assigned(encode_event(event_id, header, body), 'Größe "&" Söhne')
    assert record is not None
    event = decode(record)
    assert isinstance(event, Event)
    assert {**json.loads(body), "customer_id": 'Größe "&" Söhne'} == repeated(
        event.header, event.body
    )
    assert list(json.loads(body)) == list(json.loads(event.body))
    assert (False, None) == (event.header.hold, event.header.customer_at)


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
        "CmdrDataSpanExporter is shut down and ignores 1 span"
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


def test_metadata_without_bounds(events: RecordedEvents, caplog: pytest.LogCaptureFixture) -> None:
    """However large the metadata are, the event is not: what is cut is said, and no unit is."""
    metering = CmdrDataSpanExporter(customer_id="acme", delivery=events)
    many = {f"cmdrdata.metadata.n{number:06}": "x" * 100 for number in range(3000)}
    text = {"cmdrdata.metadata.text": "x" * 20_000_000, "cmdrdata.metadata.plan": "pro"}
    for number, more in enumerate(({}, text, many | {f"cmdrdata.metadata.{'k' * 300_000}": 1})):
        metering.export([span(CHAT | more, context=(1, number + 1))])
    plain, one, several = events.wire
    known = {key: value for key, value in plain["metadata"].items() if key != "span_id"}
    assert known | {"text": "x" * 1000 + "\u2026", "plan": "pro"} == {
        key: value for key, value in one["metadata"].items() if key != "span_id"
    }
    assert known.items() <= several["metadata"].items()
    assert 200 < len(several["metadata"]) < 400
    for event in (one, several):
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            assert plain[name] == event[name]
    assert all(len(body) < bodies.LARGEST_BODY for body in events.bodies.values())
    (message,) = (text for text in caplog.messages if "too large" in text)
    assert message.endswith(
        "(more than 262144 bytes in all); these are cut or left out: 'text' "
        "(further ones of this kind are only counted)"
    )
    assert faults.counts.pop("metadata size") == 2


def test_which_exporter_meters(events: RecordedEvents) -> None:
    """The exporter that the application built last meters; without one, the environment's, which is built once."""
    environments = current_exporter()
    assert current_exporter() is environments
    built = CmdrDataSpanExporter(delivery=events)
    assert current_exporter() is built


def test_one_delivery_per_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two exporters of one account share what delivers; two accounts do not."""
    monkeypatch.setenv("CMDRDATA_API_KEY", KEY)
    delivery = runtime.process.delivery
    one, same = CmdrDataSpanExporter(), CmdrDataSpanExporter()
    other = CmdrDataSpanExporter(api_key="tk-another-another-another")
    assert delivery(one.settings)[0] is delivery(same.settings)[0]
    assert delivery(one.settings)[0] is not delivery(other.settings)[0]


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
        assert len(runtime.process.deliveries) == 1
        assert current_exporter().settings.proxy == "http://proxy.example:3128"
        assert len(runtime.process.deliveries) == 1
    finally:
        instrumentor.uninstrument()


def test_the_start_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says where events go and are kept, and what happens to those without a customer, and never the key."""
    spool = Path(os.environ["CMDRDATA_SPOOL_DIR"])
    with caplog.at_level(logging.INFO, "cmdrdata"):
        CmdrDataSpanExporter()
        CmdrDataSpanExporter()
        CmdrDataSpanExporter(api_key=KEY, account="production", unattributed="send")
    assert [record.getMessage() for record in caplog.records] == [
        f"CmdrData usage metering: destination local, kept in {spool / 'local'}, events without a customer are held. "
        "Neither CMDRDATA_API_KEY nor CMDRDATA_ENDPOINT is set, so usage events stay on this machine: "
        "cmdrdata usage shows them",
        "CmdrData usage metering: destination production at https://api.cmdrdata.ai/api/events, "
        f"kept in {spool / Destination(DEFAULT_ENDPOINT, 'production').name}, events without a customer are sent with "
        "customer_id null",
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

exporter = CmdrDataSpanExporter(sys.argv[1], sys.argv[2], account="a", customer_id="acme")
for number in range(int(sys.argv[3])):
    exporter.export([span(CHAT, context=(1, number + 1))])
print("over", flush=True)
"""


def run_to_the_exit(url: str, number: int) -> tuple[float, int, str]:
    """Run a process that records a number of events and ends; return the seconds its end took, its status, its log."""
    with subprocess.Popen(
        [sys.executable, "-c", EXIT, KEY, url, str(number)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "over\n"
        over = time.monotonic()
        _, log = process.communicate(timeout=30)
        return time.monotonic() - over, process.returncode, log


def ids_of(httpserver: HTTPServer) -> list[str]:
    """Return the idempotency keys that a backend has received."""
    return [request.headers["idempotency-key"] for request, _ in httpserver.log]


def test_the_exit_of_the_process(httpserver: HTTPServer) -> None:
    """A process that simply ends has delivered what it recorded."""
    httpserver.expect_request("/", method="POST").respond_with_data(status=202)
    _, status, log = run_to_the_exit(httpserver.url_for("/"), 1)
    assert (status, log.count("\n")) == (0, 1)
    assert log.startswith("CmdrData usage metering: destination a at http://localhost:")
    ((request, _),) = httpserver.log
    assert json.loads(request.get_data())["total_tokens"] == 7


def test_the_exit_with_a_dead_backend() -> None:
    """A process whose backend is down ends in time and logs no event; the next one delivers what it has left."""
    # Taken, so that nobody answers there, and free again once it is closed.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    seconds, status, log = run_to_the_exit(url, 2)
    assert status == 0
    # Five, and what the end of an interpreter takes on a busy machine.
    assert seconds <= 7
    # It may say that the backend cannot be reached, but no event is in it.
    assert "{" not in log
    assert KEY not in log
    with HTTPServer(port=port) as backend:
        backend.expect_request("/", method="POST").respond_with_data(status=202)
        _, status, _ = run_to_the_exit(url, 0)
        assert status == 0
        assert len(set(ids_of(backend))) == 2


def begin_anew(patch: pytest.MonkeyPatch) -> None:
    """Stand where a process does that has just been started."""
    for delivery in runtime.process.deliveries:
        delivery.close(0)
    patch.setattr(runtime, "process", runtime.Runtime())


def test_a_key_that_is_rotated_in_code(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter that is built with another key for the same account takes over what waits for it."""
    monkeypatch.setenv("CMDRDATA_PROBE_INTERVAL", "1")
    url = httpserver.url_for("/")
    refused = httpserver.expect_request("/", headers={"authorization": f"Bearer {KEY}"})
    refused.respond_with_data(status=401)
    rotated = "tk-rotated-rotated-rotated"
    accepted = httpserver.expect_request("/", headers={"authorization": f"Bearer {rotated}"})
    accepted.respond_with_data(status=202)
    old = CmdrDataSpanExporter(KEY, url, account="production", customer_id="acme")
    old.export([span(CHAT)])
    assert not old.force_flush(100)
    new = CmdrDataSpanExporter(rotated, url, account="production", customer_id="acme")
    assert new._delivery is old._delivery
    assert new.force_flush(10_000)


def test_a_rotated_key(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events that were recorded under a key that is refused are delivered under the next one of the same account."""
    url = httpserver.url_for("/")
    refused = httpserver.expect_oneshot_request("/", headers={"authorization": f"Bearer {KEY}"})
    refused.respond_with_data(status=401)
    old = CmdrDataSpanExporter(KEY, url, account="production", customer_id="acme")
    old.export([span(CHAT)])
    assert not old.force_flush(10_000)
    begin_anew(monkeypatch)
    rotated = "tk-rotated-rotated-rotated"
    accepted = httpserver.expect_request("/", headers={"authorization": f"Bearer {rotated}"})
    accepted.respond_with_data(status=202)
    new = CmdrDataSpanExporter(rotated, url, account="production")
    assert new.force_flush(10_000)
    assert [response.status_code for _, response in httpserver.log] == [401, 202]
    first, second = ids_of(httpserver)
    assert first == second
    assert "HTTP 401" in caplog.text


def test_two_accounts(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of one account never leave under the key of another one, not even in a later process."""
    httpserver.expect_request("/").respond_with_data(status=202)
    one, other = "tk-one-one-one-one-one-one", "tk-other-other-other-other"
    first = CmdrDataSpanExporter(one, httpserver.url_for("/"), customer_id="acme")
    second = CmdrDataSpanExporter(other, httpserver.url_for("/"), customer_id="emca")
    first.export([span(CHAT, context=(1, 1))])
    second.export([span(CHAT, context=(1, 2))])
    assert first.force_flush(10_000)
    assert second.force_flush(10_000)
    assert sorted(
        (request.headers["authorization"], json.loads(request.get_data())["customer_id"])
        for request, _ in httpserver.log
    ) == [(f"Bearer {one}", "acme"), (f"Bearer {other}", "emca")]
    assert len(list(Path(os.environ["CMDRDATA_SPOOL_DIR"]).iterdir())) == 2


def has_at_most(threads: int, files: int) -> bool:
    """Say whether this process has no more threads and open files than these."""
    found = [sum(1 for _ in Path("/proc/self", name).iterdir()) for name in ("task", "fd")]
    return found[0] <= threads and found[1] <= files


def test_an_account_per_tenant(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many accounts there are, those with nothing to do keep no thread, no file and no connection."""
    monkeypatch.setattr(drainer, "IDLE", 0.1)
    monkeypatch.setattr(senders, "IDLE", 0.1)
    monkeypatch.setattr(senders, "threads", senders.Threads())
    httpserver.expect_request("/").respond_with_data(status=202)
    url = httpserver.url_for("/")
    tenants = 50
    threads, files = (sum(1 for _ in Path("/proc/self", name).iterdir()) for name in ("task", "fd"))
    exporters = [
        CmdrDataSpanExporter(f"tk-tenant-{number:012}", url, customer_id="acme")
        for number in range(tenants)
    ]
    for turn in (1, 2):
        for number, each in enumerate(exporters, 1):
            each.export([span(CHAT, context=(turn, number))])
        deadline = time.monotonic() + 30
        # One thread looks after them all.
        while len(httpserver.log) < turn * tenants or not has_at_most(threads + 1, files):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len(set(ids_of(httpserver))) == len(httpserver.log) == 2 * tenants


def test_where_events_are_kept(tmp_path: Path) -> None:
    """`spool_dir=` prevails over the variable, and what is held is there."""
    kept = CmdrDataSpanExporter(spool_dir=tmp_path / "spool")
    kept.export([span(CHAT)])
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["local"]
    assert kept.force_flush(10_000)
    with LedgerReader(Directory(tmp_path / "spool" / "local")) as ledger:
        counts = {name: number for name, number in ledger.counts().items() if number}
    assert counts == {"recorded": 1, "held": 1}


def test_what_usage_is_summed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage of an event is in the ledger by the user's metadata that `CMDRDATA_TOTAL_BY` names."""
    monkeypatch.setenv("CMDRDATA_TOTAL_BY", "plan,team")
    metering = CmdrDataSpanExporter(spool_dir=tmp_path / "spool", customer_id="acme")
    names = {"cmdrdata.metadata.plan": "pro", "cmdrdata.metadata.other": "x"}
    metering.export([span(CHAT), span(CHAT | names, context=(1, 2))])
    assert metering.force_flush(10_000)
    with LedgerReader(Directory(tmp_path / "spool" / "local")) as ledger:
        assert ("plan", "team") == ledger.usage.labels()
        found = {
            total.group: total.amount
            for total in ledger.usage.totals(("month", "customer", "provider", "plan", "team"))
            if total.unit == "total_tokens"
        }
    of = ("2023-11", "acme", "openai")
    assert {(*of, "", ""): 7, (*of, "pro", ""): 7} == found


def test_no_writable_directory(
    httpserver: HTTPServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing can be written, events are kept in memory, and a warning says so."""
    (tmp_path / "file").touch()
    spool = tmp_path / "file" / "state" / "spool"
    httpserver.expect_request("/").respond_with_data(status=202)
    in_memory = CmdrDataSpanExporter(
        KEY, httpserver.url_for("/"), customer_id="acme", spool_dir=spool
    )
    CmdrDataSpanExporter(spool_dir=spool).export([span(CHAT)])
    warnings = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert warnings[:1] == [
        f"CmdrData: the spool directory {spool} cannot be used (Not a directory): usage events are kept in memory, and "
        "what is not delivered when this process ends goes to its log. "
        "Set CMDRDATA_SPOOL_DIR to a directory that can be written"
    ]
    in_memory.export([span(CHAT)])
    assert in_memory.force_flush(10_000)
    assert len(ids_of(httpserver)) == 1


def test_the_exporter_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As OTEL_TRACES_EXPORTER builds it, it never raises: others' traces go on where a setting cannot be used."""
    assert type(exporter.EnvironmentSpanExporter()) is CmdrDataSpanExporter
    caplog.clear()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv("CMDRDATA_SPOOL_DIR", str(tmp_path / "link"))
    built = exporter.EnvironmentSpanExporter()
    assert built.export([span(CHAT)]) is SpanExportResult.SUCCESS
    assert built.force_flush()
    built.shutdown()
    [record] = caplog.records
    assert (logging.ERROR, None) == (record.levelno, record.exc_info)
    assert record.getMessage().startswith(
        "CmdrData: NOTHING WILL BE METERED: the spool directory cannot be used: "
    )


def test_a_refused_key_in_memory(
    httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events in memory wait for a mended key as long as those on the disk: by CMDRDATA_PROBE_INTERVAL."""
    monkeypatch.setenv("CMDRDATA_PROBE_INTERVAL", "1")
    httpserver.expect_oneshot_request("/").respond_with_data(status=401)
    httpserver.expect_oneshot_request("/").respond_with_data(status=202)
    (tmp_path / "file").touch()
    in_memory = CmdrDataSpanExporter(
        KEY, httpserver.url_for("/"), customer_id="acme", spool_dir=tmp_path / "file" / "spool"
    )
    in_memory.export([span(CHAT)])
    assert in_memory.force_flush(10_000)
    assert [response.status_code for _, response in httpserver.log] == [401, 202]


def test_an_unsafe_directory(tmp_path: Path) -> None:
    """A directory that must not be used is refused when the exporter is built."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigurationError) as raised:
        CmdrDataSpanExporter(spool_dir=tmp_path / "link")
    assert str(raised.value) == (
        f"the spool directory cannot be used: '{tmp_path / 'link'}' is a symbolic link; events are kept in real "
        "directories. Set CMDRDATA_SPOOL_DIR to a directory that only this user can write"
    )


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


def in_a_process_with(*deliveries: Any, patch: pytest.MonkeyPatch) -> None:
    """Stand in a process whose destinations have these deliveries."""
    process = runtime.Runtime()
    built: Any = {(str(number),): (delivery, None) for number, delivery in enumerate(deliveries)}
    process._built = built
    patch.setattr(runtime, "process", process)


def test_one_end_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`shutdown` and the exit share five seconds; who shuts down and goes on has them again."""
    patient = Patient()
    monkeypatch.setattr(runtime.clocks, "monotonic", lambda: patient.now)
    in_a_process_with(patient, patient, patch=monkeypatch)
    CmdrDataSpanExporter(delivery=patient).shutdown()
    runtime.close()
    assert patient.waits == [5, 0, 0]
    patient.now += 60
    runtime.close()
    assert patient.waits[3:] == [5, 0]
    patient.now += 60
    CmdrDataSpanExporter(delivery=patient, shutdown_timeout=1.0).shutdown()
    runtime.close()
    assert patient.waits[5:] == [1, 0, 0]


def test_every_delivery_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while one delivery is closed does not keep the others from it."""
    closed: list[int] = []

    class Interrupted(Patient):
        """Is interrupted each time."""

        def close(self, timeout: float) -> None:
            """Fail."""
            closed.append(id(self))
            raise KeyboardInterrupt

    both = [Interrupted(), Interrupted()]
    in_a_process_with(*both, patch=monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        runtime.close()
    assert sorted(closed) == sorted(map(id, both))


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
    assert (done.returncode, done.stdout) == (0, "")
    assert all(line.startswith("CmdrData usage metering: ") for line in done.stderr.splitlines())
    ids = {json.loads(request.get_data())["metadata"]["span_id"] for request, _ in httpserver.log}
    assert ids == {"0000000000000001", "0000000000000002"}


def test_locks_in_a_forked_child(events: RecordedEvents) -> None:
    """A lock that a thread of the parent holds when it forks holds up nothing in the child."""
    forking = CmdrDataSpanExporter(delivery=events)
    held = runtime.process.lock
    with forking._calls._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - measured in the parent only
            fresh = runtime.process.lock is not held and forking._calls._lock.acquire(
                blocking=False
            )
            os._exit(0 if fresh else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_flush_of_what_could_not_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An event that went to the log is neither delivered nor held, which a flush says."""
    metering = CmdrDataSpanExporter(spool_dir=tmp_path / "spool")
    metering.record(span(CHAT))
    assert metering.force_flush()
    delivery: Any = metering._delivery
    monkeypatch.setattr(delivery.drainer, "_measure", lambda: None)
    delivery._journal.is_full = True
    metering.record(span(CHAT, context=(1, 2)))
    assert not metering.force_flush()


@pytest.mark.parametrize(("drain", "drains"), [("none", False), ("thread", True), ("", True)])
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9/events", None])
def test_where_another_process_drains(
    endpoint: str | None, drain: str, drains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `CMDRDATA_DRAIN=none` the application delivers neither a backend's events nor local ones."""
    monkeypatch.setenv("CMDRDATA_DRAIN", drain)
    delivery = CmdrDataSpanExporter(endpoint=endpoint)._delivery
    assert isinstance(delivery, DurableDelivery)
    assert delivery.drainer._options.drains is drains
