"""Gateways as operators run them, beside a real PostgreSQL and a real broker: each event once, whatever dies."""

from __future__ import annotations

import itertools
import json
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.cimpl import Producer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.delivery.spool.schema import DEAD, HELD
from cmdrdata_exporter.fleet.states import DELIVERED
from cmdrdata_exporter.version import VERSION
from tests.engines.kafka import Broker
from tests.engines.postgres import Postgres
from tests.fleet.gateways import GatewayProcess, events, post, recorded, wait_for
from tests.fleet.otlp import BEGAN, CHAT, SECOND, request, span

SDK = "opentelemetry.instrumentation.openai.v1"
FRAMEWORK = "opentelemetry.instrumentation.langchain"
DYING = Path(__file__).parent / "dying.py"
LOOKING = Path(__file__).parent / "looking.py"
OTLP = ("--otlp", "127.0.0.1:0")
QUICK = ("--window", "0.2")

Run = Callable[..., GatewayProcess]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def run(database: str, tmp_path: Path) -> Iterator[Run]:
    """Starts gateways of a ledger, which are killed at the end."""
    running: list[GatewayProcess] = []
    numbers = itertools.count()

    def run(*options: str, url: str = database, **more: Any) -> GatewayProcess:
        log = tmp_path / f"gateway-{next(numbers)}.log"
        gateway = GatewayProcess(url, log, *options, **more)
        running.append(gateway)
        return gateway

    yield run
    for gateway in running:
        gateway.kill()


def body_of(trace: int, *numbers: int) -> bytes:
    """Return a request with calls beside each other."""
    return request(*((SDK, span(trace, number)) for number in numbers)).SerializeToString()


def spans_of(found: list[dict[str, Any]]) -> list[str]:
    """Return the ids of the traces and spans that were billed."""
    return sorted(f"{each['metadata']['trace_id']} {each['metadata']['span_id']}" for each in found)


def event_of(number: int, customer: str | None = "acme") -> bytes:
    """Return the body of a usage event."""
    from cmdrdata_exporter.events import UsageEvent, encode, reserved

    return encode(
        UsageEvent(
            id=f"{number:032x}",
            customer_id=customer,
            provider="openai",
            model="gpt-5",
            endpoint="chat.completions",
            usage_status="reported",
            input_tokens=2,
            output_tokens=1,
            total_tokens=3,
            usage={},
            metadata=reserved("chat.completions")
            | {"endpoint": "chat.completions", "usage_status": "reported"},
            timestamp=BEGAN // SECOND,
            start_time=BEGAN // SECOND,
            end_time=BEGAN // SECOND,
            duration_ms=0,
        )
    )


def produce(broker: Broker, topic: str, values: list[tuple[bytes, list[Any]]]) -> None:
    """Put records into a topic."""
    producer = Producer({"bootstrap.servers": broker.servers, "acks": "all"})
    for value, headers in values:
        producer.produce(topic, value, headers=headers)
        producer.poll(0)
    assert producer.flush(30) == 0


def produce_events(broker: Broker, topic: str, numbers: range) -> None:
    """Put usage events into a topic."""
    produce(
        broker,
        topic,
        [
            (event_of(n), [("Idempotency-Key", f"{n:032x}".encode()), ("CmdrData-Host", b"web-1")])
            for n in numbers
        ],
    )


def test_calls_of_several_requests(run: Run, database: str) -> None:
    """Spans of one call that come to two gateways are one event; the pages say what was counted."""
    first, second = run(*OTLP, "--window", "1"), run(*OTLP, "--window", "1")
    ports = [each.port("OTLP/HTTP") for each in (first, second)]
    outer = request((FRAMEWORK, span(1, 1, at=(0, 3)))).SerializeToString()
    inner = request((SDK, span(1, 2, parent=1, at=(1, 2)))).SerializeToString()
    assert [post(ports[0], outer), post(ports[1], inner)] == [200, 200]
    wait_for(lambda: recorded(database) == 1)
    [event] = events(database)
    assert event["metadata"]["span_id"] == f"{2:016x}"
    wait_for(lambda: "waiting_spans 0" in first.page("/metrics")[1])
    pages = first.page("/metrics")[1] + second.page("/metrics")[1]
    assert pages.count('cmdrdata_gateway_spans_total{intake="http"} 1\n') == 2
    assert "cmdrdata_gateway_calls_repeated_total 1\n" in pages
    assert 'cmdrdata_gateway_events_total{source="span"} 1\n' in pages
    assert first.page("/healthz") == (200, "alive\n")
    assert [first.end(), second.end()] == [0, 0]


def test_death_between_store_and_answer(run: Run, database: str) -> None:
    """A client that got no answer sends again what was stored: it is one event."""
    body = body_of(1, 1)
    dying = run(*OTLP, *QUICK, program=DYING)
    assert post(dying.port("OTLP/HTTP"), body) is None
    assert dying.process.wait(10) == -signal.SIGKILL
    gateway = run(*OTLP, *QUICK)
    wait_for(lambda: recorded(database) == 1)
    assert post(gateway.port("OTLP/HTTP"), body) == 200
    assert post(gateway.port("OTLP/HTTP"), body_of(2, 2)) == 200
    wait_for(lambda: recorded(database) == 2)
    assert len(set(spans_of(events(database)))) == 2


def test_random_deaths(run: Run, database: str) -> None:
    """Of what was acknowledged nothing is lost, and nothing is billed twice, however often gateways are killed."""
    gateways = [run(*OTLP, *QUICK), run(*OTLP, *QUICK)]
    ports = [each.port("OTLP/HTTP") for each in gateways]
    done = threading.Event()
    acknowledged: list[int] = []
    numbers = itertools.count(1)

    def send() -> None:
        while not done.is_set():
            number = next(numbers)
            body = body_of(number, number)
            # As exporters do, at whichever gateway answers.
            while post(random.choice(ports), body, timeout=5) != 200:
                if done.wait(0.05):
                    return
            acknowledged.append(number)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for each in threads:
        each.start()
    for turn in range(6):
        wait_for(lambda least=200 * (turn + 1): len(acknowledged) >= least)
        place = turn % 2
        gateways[place].kill()
        gateways[place] = run(*OTLP, *QUICK)
        ports[place] = gateways[place].port("OTLP/HTTP")
    done.set()
    for each in threads:
        each.join()
    expected = {span(number, number).trace_id.hex() for number in acknowledged}
    found: list[str] = []

    def are_there() -> bool:
        found[:] = [each["metadata"]["trace_id"] for each in events(database)]
        return expected <= set(found)

    wait_for(are_there)
    assert len(found) == len(set(found))


def test_a_database_that_dies(run: Run, mortal_postgres: Postgres) -> None:
    """While the ledger is away nothing is acknowledged, and the gateway says that it is not ready; then it goes on."""
    url = mortal_postgres.database()
    gateway = run(*OTLP, *QUICK, url=url)
    port = gateway.port("OTLP/HTTP")
    assert post(port, body_of(1, 1)) == 200
    mortal_postgres.kill()
    wait_for(lambda: post(port, body_of(2, 2)) == 503)
    status, said = gateway.page("/readyz")
    assert (status, said) == (503, "the ledger cannot be written\n")
    assert gateway.page("/healthz")[0] == 200
    mortal_postgres.start()
    wait_for(lambda: post(port, body_of(2, 2)) == 200)
    wait_for(lambda: recorded(url) == 2)
    gateway.wait_until_ready()
    assert gateway.end() == 0


def test_a_topic_of_events(run: Run, database: str, broker: Broker) -> None:
    """Each record is an event once, with its host; reports of hosts are noted; garbage keeps nothing back."""
    # Of one partition, so that what comes again comes after what it repeats.
    topic = broker.topic("usage-events", partitions=1)
    produce_events(broker, topic, range(300))
    report = {"host": "web-1", "version": "1", "at": 1.5, "recorded": 9, "pending": 1, "held": 2}
    report |= {"dead": 3, "unspooled": 4}
    produce(
        broker,
        topic,
        [
            (json.dumps(report).encode(), [("CmdrData-Report", b"1")]),
            (b"{}", [("CmdrData-Report", b"1")]),
            (b"\xff garbage", [("Of", b"nobody")]),
            (event_of(7), [("Idempotency-Key", f"{7:032x}".encode())]),
        ],
    )
    produce_events(broker, topic, range(300, 500))
    gateway = run("--events-topic", f"kafka://{broker.servers}/{topic}")
    wait_for(lambda: recorded(database) == 500)
    wait_for(lambda: 'records_total{intake="events"} 504' in gateway.page("/metrics")[1])
    assert {each["request"]["id"] for each in events(database)} == {f"{n:032x}" for n in range(500)}
    with psycopg.connect(database) as connection:
        hosts = connection.execute("SELECT DISTINCT host FROM fleet_events").fetchall()
        reports = connection.execute(
            "SELECT host, version, at, recorded, pending, held, dead, unspooled FROM fleet_hosts"
        ).fetchall()
        aside = connection.execute("SELECT body FROM fleet_set_aside").fetchall()
    assert hosts == [("web-1",)]
    assert reports == [("web-1", "1", 1.5, 9, 1, 2, 3, 4)]
    assert [bytes(body) for (body,) in aside] == [b"\xff garbage"]
    assert "is garbage, and left out: expected is the report of a host" in gateway.log
    assert gateway.end() == 0


def test_a_broker_that_goes(run: Run, database: str, mortal: Broker) -> None:
    """While no broker is there a gateway is not ready, and it is again once one is."""
    topic = mortal.topic("usage-events")
    gateway = run("--events-topic", f"kafka://{mortal.servers}/{topic}")
    gateway.wait_until_ready()
    mortal.kill()
    wait_for(lambda: gateway.page("/readyz")[0] == 503)
    assert f"the topic {topic} is not read" in gateway.page("/readyz")[1]
    mortal.start()
    gateway.wait_until_ready()
    produce_events(mortal, topic, range(5))
    wait_for(lambda: recorded(database) == 5)
    assert gateway.end() == 0


def test_a_topic_of_spans(run: Run, database: str, broker: Broker) -> None:
    """Records as the Collector writes them are taken, and garbage among them is said and left out."""
    topic = broker.topic("otlp-spans")
    produce(broker, topic, [(body_of(n, n), []) for n in range(1, 200)])
    produce(broker, topic, [(b"\xff", [])])
    gateway = run("--spans-topic", f"kafka://{broker.servers}/{topic}", *QUICK)
    wait_for(lambda: recorded(database) == 199)
    wait_for(lambda: 'records_total{intake="spans"} 200' in gateway.page("/metrics")[1])
    assert 'records_refused_total{intake="spans"} 1\n' in gateway.page("/metrics")[1]
    assert "is garbage" in gateway.log
    # What was read is not read again.
    assert gateway.end() == 0
    second = run("--spans-topic", f"kafka://{broker.servers}/{topic}", *QUICK)
    second.wait_until_ready()
    produce(broker, topic, [(body_of(1000, 1000), [])])
    wait_for(lambda: recorded(database) == 200)
    assert 'records_total{intake="spans"} 1\n' in second.page("/metrics")[1]


def test_from_an_application(
    run: Run, database: str, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an application records is in the ledger of the fleet, with its host, which says how it is."""
    topic = broker.topic("whole-way")
    endpoint = f"kafka://{broker.servers}/{topic}"
    gateway = run("--events-topic", endpoint)
    monkeypatch.setattr(socket, "gethostname", lambda: "web-3")
    exporter = CmdrDataSpanExporter(endpoint=endpoint, spool_dir=tmp_path / "spool")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for customer in ("acme", "", "globex"):
        with provider.get_tracer(SDK).start_as_current_span("chat") as its:
            its.set_attributes(CHAT | {"cmdrdata.customer.id": customer})
    assert exporter.force_flush(20_000)
    wait_for(lambda: recorded(database) == 2)
    found = {(each["customer_id"], each["total_tokens"]) for each in events(database)}
    assert found == {("acme", 15), ("globex", 15)}
    with psycopg.connect(database) as connection:
        hosts = connection.execute("SELECT DISTINCT host FROM fleet_events").fetchall()
        wait_for(lambda: connection.execute("SELECT host FROM fleet_hosts").fetchall())
        [(host, version)] = connection.execute("SELECT host, version FROM fleet_hosts").fetchall()
    assert (hosts, host, version) == ([("web-3",)], "web-3", VERSION)
    provider.shutdown()
    assert gateway.end() == 0


def test_members_that_come_and_go(run: Run, database: str, broker: Broker) -> None:
    """Partitions move to members that join, and from members that die or end; every event is there once."""
    topic = broker.topic("moving", partitions=6)
    options = ("--events-topic", f"kafka://{broker.servers}/{topic}")
    gateways = [run(*options)]
    gateways[0].wait_until_ready()
    produce_events(broker, topic, range(5000))
    gateways.append(run(*options))
    produce_events(broker, topic, range(5000, 10000))
    wait_for(lambda: 'partitions{intake="events"} 3' in gateways[1].page("/metrics")[1])
    gateways[0].kill()
    produce_events(broker, topic, range(10000, 15000))
    gateways.append(run(*options))
    gateways[2].wait_until_ready()
    assert gateways[1].end() == 0
    produce_events(broker, topic, range(15000, 20000))
    wait_for(lambda: recorded(database) == 20000)
    with psycopg.connect(database) as connection:
        [[total]] = connection.execute("SELECT sum(next) FROM fleet_positions").fetchall()
    assert total == 20000


def status(database: str) -> dict[str, Any]:
    """Return what `cmdrdata status` says of a ledger."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from cmdrdata_exporter.cli import main; main()"),
            *("status", "--ledger", database, "--json"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    [found] = json.loads(done.stdout)["destinations"]
    return found


def test_retention_that_is_faster_than_the_gateways(
    run: Run, database: str, broker: Broker
) -> None:
    """Records that the broker has removed before they were read are counted, and said: once, by whoever finds it."""
    topic = broker.topic("short", partitions=1)
    options = ("--events-topic", f"kafka://{broker.servers}/{topic}")
    first = run(*options)
    produce_events(broker, topic, range(10))
    wait_for(lambda: recorded(database) == 10)
    assert first.end() == 0
    assert status(database)["needs"] == {}
    produce_events(broker, topic, range(10, 40))
    broker.delete_records(topic, 0, 25)
    second = run(*options)
    wait_for(lambda: recorded(database) == 25)
    assert {each["request"]["id"] for each in events(database)} == {
        f"{n:032x}" for n in (*range(10), *range(25, 40))
    }
    assert f"up to 15 records of the topic {topic} were removed by the broker" in second.log
    assert 'records_lost_total{intake="events"} 15\n' in second.page("/metrics")[1]
    assert second.end() == 0
    third = run(*options)
    third.wait_until_ready()
    assert "were removed" not in third.log
    found = status(database)
    assert found["topics"] == {"records_lost": 15, "partitions_renewed": 0}
    assert list(found["needs"]) == ["records_lost"]


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_a_topic_that_is_made_anew(
    run: Run, database: str, broker: Broker, *, running: bool
) -> None:
    """A topic that was deleted and made again is read from its beginning, though it has more than was read before."""
    topic = broker.topic(f"anew-{running}", partitions=1)
    options = ("--events-topic", f"kafka://{broker.servers}/{topic}")
    gateway = run(*options, program=LOOKING)
    produce_events(broker, topic, range(10))
    wait_for(lambda: recorded(database) == 10)
    if not running:
        assert gateway.end() == 0
    broker.delete_topic(topic)
    broker.topic(topic, partitions=1)
    produce_events(broker, topic, range(100, 130))
    if not running:
        gateway = run(*options)
    wait_for(lambda: recorded(database) == 40)
    assert f"the topic {topic} is not the one that was read" in gateway.log
    assert 'partitions_renewed_total{intake="events"} 1\n' in gateway.page("/metrics")[1]
    produce_events(broker, topic, range(130, 140))
    wait_for(lambda: recorded(database) == 50)
    found = status(database)
    assert found["topics"] == {"records_lost": 0, "partitions_renewed": 1}
    assert list(found["needs"]) == ["partitions_renewed"]


def test_on_to_cmdrdata(run: Run, database: str, httpserver: HTTPServer) -> None:
    """Each event is sent on once, by whichever gateway; one without a customer waits, one that is refused is dead."""
    got: list[tuple[str, bytes]] = []

    def take(taken: Request) -> Response:
        body = taken.get_data()
        got.append((taken.headers["Idempotency-Key"], body))
        return Response(status=400 if json.loads(body)["customer_id"] == "bad" else 200)

    httpserver.expect_request("/api/events").respond_with_handler(take)
    environment = {
        "CMDRDATA_API_KEY": "tk-0123456789abcdef0123",
        "CMDRDATA_ENDPOINT": httpserver.url_for("/api/events"),
    }
    options = (*OTLP, "--window", "0")
    gateways = [run(*options, environment=environment) for _ in range(2)]
    for number in range(1, 101):
        port = gateways[number % 2].port("OTLP/HTTP")
        assert post(port, body_of(number, number)) == 200
    for number, customer in ((101, ""), (102, "bad")):
        its = span(number, number, attributes=CHAT | {"cmdrdata.customer.id": customer})
        assert post(gateways[0].port("OTLP/HTTP"), request((SDK, its)).SerializeToString()) == 200

    def states() -> dict[int, int]:
        with psycopg.connect(database) as connection:
            return dict(
                connection.execute(
                    "SELECT state, count(*) FROM fleet_events GROUP BY state"
                ).fetchall()
            )

    wait_for(lambda: states() == {DELIVERED: 100, HELD: 1, DEAD: 1})
    assert len(got) == len({event_id for event_id, _ in got}) == 101
    assert all(json.loads(body)["request"]["id"] == event_id for event_id, body in got)
    assert [each.end() for each in gateways] == [0, 0]
    assert "tk-0123" not in "".join(each.log for each in gateways)


def test_the_second_signal(run: Run, database: str) -> None:
    """A second signal ends a gateway at once, whatever it waits for."""
    gateway = run(*OTLP)
    port = gateway.port("OTLP/HTTP")
    gateway.wait_until_ready()
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE gateway_spans IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=post, args=(port, body_of(1, 1)))
        thread.start()
        wait_for(lambda: "in_flight_bytes 0" not in gateway.page("/metrics")[1])
        gateway.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "SIGTERM: ending" in gateway.log)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(5) == 128 + signal.SIGTERM
        thread.join()


REFUSED = {
    "nothing": ((), "nothing is to be taken"),
    "everybody": (("--otlp", "0.0.0.0:4318"), "can be reached from other machines"),
    "every address": (("--otlp-grpc", ":4317"), "can be reached from other machines"),
    "address": (("--otlp", "here"), "expected is HOST:PORT"),
    "topic": (("--events-topic", "http://x/y"), "expected is kafka://HOST:PORT/TOPIC"),
    "half of TLS": ((*OTLP, "--tls-cert", "x"), "--tls-cert and --tls-key belong together"),
    "no TLS": ((*OTLP, "--client-ca", "x"), "--client-ca asks clients for certificates"),
    "no certificate": ((*OTLP, "--tls-cert", "x", "--tls-key", "y"), "No such file"),
    "no token": ((*OTLP, "--token-file", "/nonexistent"), "cannot read '/nonexistent'"),
    "limits": ((*OTLP, "--max-request", "100"), "--max-request is more than"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used(case: str, tmp_path: Path) -> None:
    """A gateway that would let everybody in, or cannot work, ends at once and says what to do."""
    options, said = REFUSED[case]
    gateway = GatewayProcess("postgresql://127.0.0.1:1/none", tmp_path / "log", *options)
    assert gateway.process.wait(30) == 2
    assert said in " ".join(gateway.log.split())


def test_a_short_token(tmp_path: Path) -> None:
    """A token that can be guessed is refused, and not shown."""
    gateway = GatewayProcess(
        "postgresql://127.0.0.1:1/none",
        tmp_path / "log",
        *OTLP,
        environment={"CMDRDATA_GATEWAY_TOKEN": "hunter2"},
    )
    assert gateway.process.wait(30) == 2
    assert "16 or more" in " ".join(gateway.log.split())
    assert "hunter2" not in gateway.log


def test_a_ledger_that_is_not_there(tmp_path: Path) -> None:
    """A database that cannot be reached is said, without the password that is in its URL."""
    url = "postgresql://meter:hunter2@127.0.0.1:1/usage"
    gateway = GatewayProcess(url, tmp_path / "log", *OTLP)
    assert gateway.process.wait(30) == 1
    assert "the ledger 127.0.0.1:1/usage cannot be used" in gateway.log
    assert "hunter2" not in gateway.log


def test_a_failed_start_leaves_nothing(tmp_path: Path, database: str) -> None:
    """An address that is taken is said."""
    first = GatewayProcess(database, tmp_path / "1", *OTLP)
    port = first.port("OTLP/HTTP")
    second = GatewayProcess(database, tmp_path / "2", "--otlp", f"127.0.0.1:{port}")
    assert second.process.wait(30) == 1
    assert "in use" in second.log
    third = GatewayProcess(database, tmp_path / "3", "--otlp-grpc", f"127.0.0.1:{port}")
    assert third.process.wait(30) == 1
    assert "nobody can listen" in third.log
    first.kill()
