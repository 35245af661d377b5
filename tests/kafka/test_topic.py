"""Events that go to a topic of a real broker: each once, by its customer in order, whatever happens to the broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from tests.delivery.samples import wait_for
from tests.engines.kafka import PASSWORD, USER, Broker
from tests.files import contents
from tests.kafka.records import records

PROGRAM = Path(__file__).parent / "recording.py"


@pytest.fixture(autouse=True)
def _quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMDRDATA_PROBE_INTERVAL", "1")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A spool directory."""
    return tmp_path / "spool"


@pytest.fixture
def opened() -> Iterator[list[CmdrDataSpanExporter]]:
    """Exporters, shut down at the end."""
    exporters: list[CmdrDataSpanExporter] = []
    yield exporters
    for exporter in exporters:
        exporter.shutdown()


def delivery_to(endpoint: str, spool: Path, opened: list[CmdrDataSpanExporter]) -> DurableDelivery:
    """Return a delivery to a topic."""
    exporter = CmdrDataSpanExporter(endpoint=endpoint, spool_dir=spool)
    opened.append(exporter)
    delivery = exporter._delivery
    assert isinstance(delivery, DurableDelivery)
    return delivery


def body_of(number: int, customer: str | None, size: int = 0) -> bytes:
    """Return the body of an event."""
    event = {"customer_id": customer, "n": number, "filling": "x" * size}
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def record(delivery: DurableDelivery, number: int, customer: str | None, size: int = 0) -> None:
    """Record an event."""
    header = Header(
        customer, "m", "chat.completions", "reported", {"input_tokens": 1}, "2026-11-21"
    )
    delivery.record(f"{number:032x}", header, body_of(number, customer, size))


def counts(delivery: DurableDelivery) -> dict[str, int]:
    """Return what the ledger counts."""
    with LedgerReader(delivery.directory) as ledger:
        found = ledger.counts()
    assert found["recorded"] == sum(
        found[state]
        for state in ("delivered", "local", "pending", "in_flight", "held", "dead", "dropped")
    )
    return found


def test_events_of_several_customers(
    broker: Broker, spool: Path, opened: list[CmdrDataSpanExporter]
) -> None:
    """Each event is one record: its bytes, its id, its customer as key; one customer's stay in their order."""
    topic = broker.topic("several")
    delivery = delivery_to(f"kafka://{broker.servers}/{topic}", spool, opened)
    customers = ["acme", "grün & Söhne", "c" * 200, None]
    for number in range(2000):
        record(delivery, number, customers[number % 4])
    assert delivery.flush(30)
    found = records(broker.servers, topic)
    assert {each.id: each.body for each in found} == {
        f"{number:032x}": body_of(number, customers[number % 4]) for number in range(2000)
    }
    assert len(found) == 2000
    for customer in customers[:3]:
        assert customer is not None
        of_customer = [each.event["n"] for each in found if each.event["customer_id"] == customer]
        assert of_customer == sorted(of_customer)
        keys = {each.key for each in found if each.event["customer_id"] == customer}
        assert keys == {customer.encode()}
    assert {each.key for each in found if each.event["customer_id"] is None} == {None}
    known = counts(delivery)
    assert (known["delivered"], known["ambiguous"]) == (2000, 0)


def test_a_record_that_is_too_large(
    broker: Broker, spool: Path, opened: list[CmdrDataSpanExporter]
) -> None:
    """What the topic refuses is a dead letter with Kafka's own word for it; the other events go on."""
    topic = broker.topic("small", config={"max.message.bytes": "2000"})
    delivery = delivery_to(f"kafka://{broker.servers}/{topic}", spool, opened)
    # The second one is more than a client takes at all.
    sizes = {0: 10, 1: 5000, 2: 2_000_000, 3: 10}
    for number, size in sizes.items():
        record(delivery, number, "acme", size)
    assert delivery.flush(30)
    assert [each.event["n"] for each in records(broker.servers, topic)] == [0, 3]
    known = counts(delivery)
    assert (known["delivered"], known["dead"]) == (2, 2)
    with LedgerReader(delivery.directory) as ledger:
        assert ledger.reasons("dead") == {"MSG_SIZE_TOO_LARGE": 2}


def test_a_topic_that_is_not_there_yet(
    broker: Broker, spool: Path, opened: list[CmdrDataSpanExporter]
) -> None:
    """Delivery pauses, keeps everything, and goes on once the topic is there."""
    delivery = delivery_to(f"kafka://{broker.servers}/later", spool, opened)
    for number in range(10):
        record(delivery, number, "acme")
    assert not delivery.flush(3)
    assert counts(delivery)["pending"] + counts(delivery)["in_flight"] == 10
    broker.topic("later")
    wait_for(lambda: counts(delivery)["delivered"] == 10, timeout=50)
    assert sorted(each.event["n"] for each in records(broker.servers, "later")) == list(range(10))


def test_a_wrong_password_and_the_right_one(
    broker: Broker,
    spool: Path,
    opened: list[CmdrDataSpanExporter],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A refused password pauses delivery and is never shown; the options are read anew, and then everything is sent."""
    topic = broker.topic("secret")
    options = spool.with_name("kafka.properties")

    def write(password: str) -> None:
        options.write_text(
            "# who produces\nsecurity.protocol = sasl_plaintext\nsasl.mechanism=PLAIN\n"
            f"sasl.username={USER}\nsasl.password={password}\n"
        )

    write("another-secret")
    monkeypatch.setenv("CMDRDATA_KAFKA_OPTIONS", str(options))
    delivery = delivery_to(f"kafka://{broker.sasl_servers}/{topic}", spool, opened)
    record(delivery, 1, "acme")
    wait_for(lambda: "_AUTHENTICATION" in caplog.text, timeout=50)
    write(PASSWORD)
    wait_for(lambda: counts(delivery)["delivered"] == 1, timeout=50)
    assert [each.event["n"] for each in records(broker.servers, topic)] == [1]
    written = b"".join(contents(spool).values())
    for secret in ("another-secret", PASSWORD):
        assert secret not in caplog.text
        assert secret.encode() not in written


def test_a_broker_that_is_killed(
    mortal: Broker, spool: Path, opened: list[CmdrDataSpanExporter]
) -> None:
    """While the broker is dead everything is kept; afterwards each event is there, and doubles are counted."""
    topic = mortal.topic("outage")
    delivery = delivery_to(f"kafka://{mortal.servers}/{topic}", spool, opened)
    for number in range(500):
        record(delivery, number, f"c{number % 5}")
    mortal.kill()
    for number in range(500, 1000):
        record(delivery, number, f"c{number % 5}")
    mortal.start()
    wait_for(lambda: counts(delivery)["delivered"] == 1000, timeout=55)
    found = [each.event["n"] for each in records(mortal.servers, topic)]
    assert set(found) == set(range(1000))
    assert len(found) - 1000 <= counts(delivery)["ambiguous"]


def test_processes_that_are_killed(broker: Broker, spool: Path) -> None:
    """What a process has recorded is in the topic after its death, by who comes next; doubles are counted."""
    topic = broker.topic("deaths")
    environment = {
        **os.environ,
        "CMDRDATA_ENDPOINT": f"kafka://{broker.servers}/{topic}",
        "CMDRDATA_SPOOL_DIR": str(spool),
        "PYTHONPATH": str(PROGRAM.parents[2]),
    }
    acknowledged: list[int] = []
    for begin in range(0, 500_000, 100_000):
        program = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(begin)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        acknowledged += [int(program.stdout.readline()) for _ in range(300 + begin // 1000)]
        program.send_signal(signal.SIGKILL)
        acknowledged += [
            int(line)
            for line in program.stdout.read().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        program.wait()
        program.stdout.close()
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "rest"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    ambiguous = int(done.stdout)
    found = [each.event["n"] for each in records(broker.servers, topic)]
    assert set(acknowledged) - set(found) == set()
    assert len(found) - len(set(found)) <= ambiguous


def test_a_forked_child(broker: Broker, spool: Path, opened: list[CmdrDataSpanExporter]) -> None:
    """A child of a process that has produced records and ends as any other, and its events are delivered."""
    topic = broker.topic("forks")
    delivery = delivery_to(f"kafka://{broker.servers}/{topic}", spool, opened)
    record(delivery, 0, "acme")
    assert delivery.flush(30)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            record(delivery, 1, "acme")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0) == (child, 0)
    wait_for(lambda: counts(delivery)["delivered"] == 2, timeout=30)
    assert sorted(each.event["n"] for each in records(broker.servers, topic)) == [0, 1]
