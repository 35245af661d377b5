"""The transport to Kafka, with librdkafka's own broker in the process; tests/kafka has a real one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import pytest
from confluent_kafka import KafkaError

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.cli.doctor import backend
from cmdrdata_exporter.delivery import Handed, Outcome, Verdict
from cmdrdata_exporter.delivery import senders as module
from cmdrdata_exporter.delivery.attempts import Attempt
from cmdrdata_exporter.delivery.destination import KAFKA, Destination
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.kafka.answers import DELIVERED, classify
from cmdrdata_exporter.delivery.kafka.client import Client, refusal
from cmdrdata_exporter.delivery.kafka.loop import Loop
from cmdrdata_exporter.delivery.senders import Done, Senders
from cmdrdata_exporter.runtime import options
from cmdrdata_exporter.settings import ConfigurationError, Settings

Inbox: TypeAlias = "queue.SimpleQueue[Done | None]"

URL = "kafka://127.0.0.1:9092/usage"
IN_PROCESS = {"test.mock.num.brokers": "1"}
"""Options with which librdkafka has a broker of its own, which makes each topic that it is asked for."""


def client(given: dict[str, str], note: Callable[[Outcome, float], None] | None = None) -> Client:
    """Return a client with these options."""
    return Client("127.0.0.1:9", "usage", lambda: given, note=note)


def handed(number: int, body: bytes) -> Handed:
    """Return an event that is in flight."""
    return Handed(number, bytes([number]) * 16, f"id-{number}", body, 0, 0)


@pytest.mark.parametrize(
    "url", [URL, "kafka://a:9092,b.example:19092/usage.events-1", "kafka://[::1]:9092/usage"]
)
def test_a_topic(url: str, tmp_path: Path) -> None:
    """A topic needs no key, and has a directory of its own."""
    settings = Settings.read({"CMDRDATA_ENDPOINT": url}, spool_dir=tmp_path)
    assert (settings.endpoint, settings.api_key, settings.proxy) == (url, None, None)
    assert settings.target.kind == KAFKA
    assert settings.target.name != Destination(URL + "x", "default").name


@pytest.mark.parametrize(
    ("url", "server"),
    [(URL, ("127.0.0.1", 9092)), ("kafka://a.example:1,b:2/usage", ("a.example", 1))],
)
def test_the_server_that_metrics_name(url: str, server: tuple[str, int]) -> None:
    """Of several servers the first one stands for all."""
    assert Destination(url, "default").server == server


@pytest.mark.parametrize(
    "url",
    [
        "kafka://broker/usage",
        "kafka://broker:9092",
        "kafka://broker:9092/",
        "kafka://broker:9092/a/b",
        "kafka://broker:0/usage",
        "kafka://broker:99999/usage",
        "kafka://broker:9092,/usage",
        "kafka://broker:9092/usage?x=1",
        "kafka:broker",
    ],
)
def test_what_is_no_topic(url: str) -> None:
    """It is refused with what is expected."""
    with pytest.raises(ConfigurationError) as error:
        Settings.read({"CMDRDATA_ENDPOINT": url})
    assert str(error.value) == (
        f"CMDRDATA_ENDPOINT is {url!r}; expected is kafka://HOST:PORT/TOPIC, "
        "with several hosts kafka://HOST:PORT,HOST:PORT/TOPIC"
    )


def test_a_password_in_the_url() -> None:
    """It is refused and not repeated: an endpoint is written into logs and the spool."""
    with pytest.raises(ConfigurationError, match="holds a user name or password") as error:
        Settings.read({"CMDRDATA_ENDPOINT": "kafka://meter:secret@broker:9092/usage"})
    assert "secret" not in str(error.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where confluent-kafka is missing, the message says how to get it."""

    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr("cmdrdata_exporter.setting_urls.find_spec", nothing)
    with pytest.raises(ConfigurationError, match=r"pip install '.*\[kafka\]'"):
        Settings.read({"CMDRDATA_ENDPOINT": URL})


def read(tmp_path: Path, text: str, url: str = URL) -> Settings:
    """Return the settings with a file of options."""
    file = tmp_path / "kafka.properties"
    file.write_text(text)
    variables = {"CMDRDATA_ENDPOINT": url, "CMDRDATA_KAFKA_OPTIONS": str(file)}
    return Settings.read(variables, spool_dir=tmp_path)


def test_a_file_of_options(tmp_path: Path) -> None:
    """Comments and blank lines are left out, and a value may hold anything."""
    settings = read(tmp_path, "\ufeff# us\n\nclient.rack = a\nsasl.password= x=y # no comment \n")
    assert settings.read_kafka_options() == {
        "client.rack": "a",
        "sasl.password": "x=y # no comment",
    }
    assert "x=y" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("secret words\n", "line 1 of .* is no option"),
        ("\nacks=1\n", "line 2 of .* sets acks, which is not for the user"),
        ("enable.idempotence=false", "line 1 of .* sets enable.idempotence"),
        ("bootstrap.servers=elsewhere:1", "line 1 of .* sets bootstrap.servers"),
    ],
)
def test_options_that_must_not_be(tmp_path: Path, text: str, message: str) -> None:
    """What no event may be without cannot be set, and no line is repeated."""
    with pytest.raises(ConfigurationError, match=message) as error:
        read(tmp_path, text)
    assert "secret" not in str(error.value)
    assert "elsewhere" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The message names it."""
    variables = {"CMDRDATA_ENDPOINT": URL, "CMDRDATA_KAFKA_OPTIONS": str(tmp_path / "none")}
    with pytest.raises(ConfigurationError, match="none': No such file or directory; expected is"):
        Settings.read(variables)


@pytest.mark.parametrize("protocol", ["", "security.protocol=sasl_plaintext\n"])
def test_a_password_in_the_clear(tmp_path: Path, protocol: str) -> None:
    """A password goes to no other host without TLS."""
    text = f"{protocol}sasl.username=meter\nsasl.password=secret\n"
    with pytest.raises(ConfigurationError, match="would send the password in the clear") as error:
        read(tmp_path, text, "kafka://127.0.0.1:1,broker.example:9092/usage")
    assert "secret" not in str(error.value)
    assert read(tmp_path, text).endpoint == URL
    with_tls = text.replace(protocol, "", 1) + "security.protocol=sasl_ssl\n"
    assert read(tmp_path, with_tls, "kafka://broker.example:9092/usage").kafka_options is not None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("no.such.option=secret", "no.such.option"),
        ("security.protocol=secret", "security.protocol"),
        # By its other name.
        ("linger.ms=secret", "queue.buffering.max.ms"),
        ("security.protocol=ssl\nssl.ca.location=/secret", "ssl.ca.location"),
        ("stats_cb=secret", "stats_cb"),
        ("throttle_cb=secret", "throttle_cb"),
        # With it no success would ever be told.
        ("delivery.report.only.error=true", "delivery.report.only.error"),
    ],
)
def test_what_librdkafka_refuses(tmp_path: Path, text: str, named: str) -> None:
    """It is refused at configuration time, by the option's name and without its value."""
    with pytest.raises(ConfigurationError, match=f"CMDRDATA_KAFKA_OPTIONS: {named} is no") as error:
        options(read(tmp_path, text))
    assert "secret" not in str(error.value)
    assert refusal("127.0.0.1:9", IN_PROCESS) is None


def _error(code: int) -> KafkaError:
    return KafkaError(code, "words of the broker tk-0123456789abcdefghij")


@pytest.mark.parametrize(
    ("code", "trouble", "verdict", "ambiguous"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, None, Verdict.REFUSED, False),
        (KafkaError.INVALID_RECORD, None, Verdict.REFUSED, False),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, None, Verdict.MISCONFIGURED, False),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, None, Verdict.MISCONFIGURED, False),
        (KafkaError._MSG_TIMED_OUT, KafkaError._AUTHENTICATION, Verdict.MISCONFIGURED, False),
        (KafkaError._MSG_TIMED_OUT, KafkaError._SSL, Verdict.MISCONFIGURED, False),
        (KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, Verdict.RETRY, True),
        (KafkaError._MSG_TIMED_OUT, None, Verdict.RETRY, True),
        (KafkaError.NOT_ENOUGH_REPLICAS, None, Verdict.RETRY, True),
        (KafkaError._QUEUE_FULL, None, Verdict.RETRY, False),
        (KafkaError._PURGE_QUEUE, None, Verdict.RETRY, False),
        (KafkaError._PURGE_INFLIGHT, None, Verdict.RETRY, True),
    ],
)
def test_what_an_error_means(
    code: int, trouble: int | None, verdict: Verdict, *, ambiguous: bool
) -> None:
    """One event is refused, all are, or it is tried again; in doubt the broker may have it. No key is repeated."""
    outcome = classify(_error(code), None if trouble is None else _error(trouble))
    assert (outcome.verdict, outcome.ambiguous) == (verdict, ambiguous)
    assert "tk-0123456789" not in outcome.explanation


def test_one_event_and_its_acknowledgement() -> None:
    """`post` waits for the acknowledgement, and each attempt is noted once."""
    noted: list[Outcome] = []
    posting = client(IN_PROCESS, lambda outcome, _: noted.append(outcome))
    outcome = posting.post("id-1", b'{"customer_id":"acme"}', 20)
    assert outcome.verdict is Verdict.DELIVERED
    assert noted == [outcome]


def test_many_events_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop makes all attempts, hands over what came of each, and its thread ends."""
    monkeypatch.setattr(module, "threads", module.Threads())
    done: Inbox = queue.SimpleQueue()
    topic = client(IN_PROCESS)
    senders = Senders(topic.post, Gate(8), done, most=8)
    # The last one is larger than a producer takes.
    bodies = [b'{"customer_id":null}'] * 49 + [b'{"customer_id":"a","x":"%s"}' % (b"x" * 2_000_000)]
    senders.start()
    senders.give([handed(number, body) for number, body in enumerate(bodies)])
    found: dict[int, Verdict] = {}
    for _ in bodies:
        came = done.get(timeout=30)
        assert came is not None
        assert came[1] is not None
        found[came[0].seq] = came[1].verdict
    assert found == {**dict.fromkeys(range(49), Verdict.DELIVERED), 49: Verdict.REFUSED}
    senders.end()


def test_a_body_that_is_none() -> None:
    """It is no verdict on the others, and leaves the producer as it was."""
    posting = client(IN_PROCESS)
    assert posting.post("id-1", b"nonsense", 1) == Outcome(Verdict.RETRY, "JSONDecodeError")
    assert faults.counts.pop("kafka") == 1
    assert posting._under_way == 0
    assert posting.post("id-2", b'{"customer_id":"a"}', 20).verdict is Verdict.DELIVERED


class _Told:
    """A client whose acknowledgements come in another thread."""

    loop: Loop

    def produce(self, event_id: str, body: bytes, done: Callable[[Outcome], object]) -> None:
        """Begin to send an event."""
        thread = threading.Thread(target=done, args=(DELIVERED,))
        thread.start()
        thread.join()

    def poll(self, seconds: float) -> None:
        """Wait for nothing."""

    def noted(self, outcome: Outcome, began: float) -> Outcome:
        """Return the outcome."""
        return outcome

    def release(self) -> None:
        """Have nothing to let go."""


class _Once:
    """A source of one attempt, which notes the threads that call it."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.outcomes: list[Outcome] = []
        self._left = [handed(1, b"{}")]

    @property
    def has_waiting(self) -> bool:
        """Whether it has it still."""
        return bool(self._left)

    def next_attempt(self) -> Attempt | None:
        """Return it, once."""
        self.threads.append(threading.get_ident())
        if not self._left:
            return None
        return Attempt(self, None, self._left.pop(), None, clocks.monotonic(), float("inf"))

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take note of what came of it."""
        self.threads.append(threading.get_ident())
        self.outcomes.append(outcome)

    def hand_over(self) -> None:
        """Pass nothing on."""


def test_acknowledgements_in_other_threads() -> None:
    """Whoever polls, a source is called in the loop's thread alone: it counts without a lock."""
    source, loop = _Once(), Loop(cast("Any", _Told()))
    jobs: list[Callable[[], None]] = []

    def put(job: Callable[[], None]) -> bool:
        jobs.append(job)
        return True

    assert loop.serve(source, put)
    jobs[0]()
    assert source.outcomes == [DELIVERED]
    assert set(source.threads) == {threading.get_ident()}


def test_no_threads_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends no more has no producer any more, with what was under way at the end or without."""
    monkeypatch.setattr(module, "threads", module.Threads())
    done: Inbox = queue.SimpleQueue()
    topic = client(IN_PROCESS)
    senders = Senders(topic.post, Gate(8), done, most=8)
    senders.start()
    senders.give([handed(1, b'{"customer_id":"a"}')])
    assert done.get(timeout=30) is not None
    senders.end()
    assert topic._producer is None
    topic.produce("id-2", b'{"customer_id":"a"}', lambda _: None)
    topic.end()
    assert topic._producer is not None
    while topic._under_way:
        topic.poll(1)
    topic.release()
    assert topic._producer is None


def test_options_that_cannot_be_read() -> None:
    """An event that could not even be produced waits, and may be sent again."""

    def read() -> dict[str, str]:
        raise ConfigurationError("gone")

    outcome = Client("127.0.0.1:9", "usage", read).post("id-1", b'{"customer_id":"a"}', 1)
    assert outcome == Outcome(Verdict.RETRY, "ConfigurationError")
    assert faults.counts.pop("kafka") == 1


def test_what_the_doctor_finds(tmp_path: Path) -> None:
    """A broker that is not there is found; one that is there, with its topic, is well."""
    nobody = Settings.read({"CMDRDATA_ENDPOINT": "kafka://127.0.0.1:9/usage"}, spool_dir=tmp_path)
    [finding] = backend.check(nobody, timeout=2, now=0)
    assert finding.id == "unreachable"
    assert finding.what.startswith("kafka://127.0.0.1:9/usage cannot be reached: ")
    there = read(tmp_path, "test.mock.num.brokers=1")
    assert [] == list(backend.check(there, timeout=10, now=0))
