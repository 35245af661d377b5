"""
Events as the records of a topic.

The value is the body, unchanged; the headers, see `headers`, have the event's id and this host's name. The key is the
customer, so that what one customer used is in one partition, in order. A record counts as delivered once all replicas
in sync have it.
Nothing is produced where a call is made: a record that waits in memory is lost with its process.
Now and then a record says how this host is. It may be lost: the next one says more.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException

# Not the name in the package, which instrumentations replace: none shall see what we send.
from confluent_kafka.cimpl import Producer

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery import ATTEMPT_TIMEOUT, Outcome, Verdict
from cmdrdata_exporter.delivery.kafka.answers import DELIVERED, classify
from cmdrdata_exporter.delivery.kafka.headers import HOST, KEY, REPORT
from cmdrdata_exporter.delivery.kafka.loop import Loop
from cmdrdata_exporter.version import VERSION

POLL = 0.02
"""Seconds between two looks at the time."""

_abandoned: list[Producer] = []
"""Those of a parent process: to free one in a forked child waits for threads that are not there."""


class Client:
    """
    Produces the records of one topic. Safe to use from several threads.

    Args:
        servers: `host:port`, separated by commas.
        topic: its name.
        read_options: returns the options of librdkafka that the user has set; asked again after a refusal.
        note: is given the outcome of each attempt, and how many seconds it took.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        read_options: Callable[[], Mapping[str, str]],
        *,
        note: Callable[[Outcome, float], object] | None = None,
    ) -> None:
        self._servers = servers
        self._topic = topic
        self._read_options = read_options
        self._note = note
        self._producer: Producer | None = None
        self._trouble: KafkaError | None = None
        """What the client has said of its connections last, since a record was acknowledged."""
        self._is_stale = False
        """Whether a new producer is to be made: the options may have been mended, or it has given up."""
        self._under_way = 0
        """How many records are with the producer."""
        self._lock = threading.Lock()
        self._host = socket.gethostname()
        self.loop = Loop(self)

    def reset(self) -> None:
        """Begin anew in a forked child."""
        if self._producer is not None:
            _abandoned.append(self._producer)
        self._producer = self._trouble = None
        self._is_stale = False
        self._under_way = 0
        self._lock = threading.Lock()

    def post(self, event_id: str, body: bytes, timeout: float) -> Outcome:
        """Send one event, and wait until it is acknowledged, at most `timeout` seconds."""
        began = clocks.monotonic()
        outcomes: list[Outcome] = []
        self.produce(event_id, body, outcomes.append)
        # The record itself runs out of time before.
        while not outcomes and clocks.monotonic() - began < timeout + 2 * POLL:
            self.poll(POLL)
        late = Outcome(Verdict.RETRY, "timeout", ambiguous=True)
        return self.noted(outcomes[0] if outcomes else late, began)

    def noted(self, outcome: Outcome, began: float) -> Outcome:
        """Take note of an attempt that began at that time, and return its outcome."""
        if self._note is not None:
            self._note(outcome, clocks.monotonic() - began)
        return outcome

    def produce(self, event_id: str, body: bytes, done: Callable[[Outcome], object]) -> None:
        """Begin to send one event; `done` is called with what came of it, now or by `poll`, from any thread."""
        try:
            key, producer = _key(body), self._producing()
        except Exception as error:  # noqa: BLE001 - the options cannot be read, say
            faults.report("kafka", "usage events cannot be produced", exc_info=True)
            done(Outcome(Verdict.RETRY, type(error).__name__))
            return
        try:
            producer.produce(
                self._topic,
                value=body,
                key=key,
                headers={
                    KEY: event_id.encode("utf-8", "replace"),
                    HOST: self._host.encode("utf-8", "replace"),
                },
                on_delivery=partial(self._acknowledged, done),
            )
        except KafkaException as error:
            self._acknowledged(done, error.args[0], None)
        except BufferError as error:
            self._acknowledged(done, KafkaError(KafkaError._QUEUE_FULL, str(error)), None)  # noqa: SLF001

    def poll(self, seconds: float) -> None:
        """Wait for acknowledgements, so long at most."""
        if (producer := self._producer) is not None:
            producer.poll(seconds)

    @faults.guarded
    def report(self, counted: Mapping[str, int]) -> None:
        """Begin to say how this host is, and wait for nothing."""
        said = {"host": self._host, "version": VERSION, "at": clocks.wall(), **counted}
        # A failure: events find that out, too, and say so.
        with self._borrowed() as producer, suppress(KafkaException, BufferError):
            # What became of the last one is taken off.
            producer.poll(0)
            producer.produce(self._topic, value=json.dumps(said).encode(), headers={REPORT: b"1"})

    def end(self) -> None:
        """Have no threads and connections any more, once nothing is under way; a further record makes new ones."""
        self._is_stale = True
        self.release()

    def release(self) -> None:
        """Let a producer go that is of no use any more."""
        with self._lock:
            producer = None
            if self._is_stale and not self._under_way:
                producer, self._producer = self._producer, None
        # It waits for its threads: not under the lock.
        del producer

    def ask(self, timeout: float) -> KafkaError | None:
        """
        Ask for the topic, which produces nothing.

        Returns:
            Why it cannot be produced to, as far as that shows within `timeout` seconds; None where nothing is wrong.
        """
        with self._borrowed() as producer:
            try:
                return producer.list_topics(self._topic, timeout=timeout).topics[self._topic].error
            except KafkaException as error:
                # Its callbacks say why there is no connection.
                producer.poll(0)
                return self._trouble or error.args[0]

    def _acknowledged(
        self, done: Callable[[Outcome], object], error: KafkaError | None, _: Any
    ) -> None:
        with self._lock:
            self._under_way -= 1
            if error is None:
                self._trouble, outcome = None, DELIVERED
            else:
                outcome = classify(error, self._trouble)
                self._is_stale |= error.fatal() or outcome.verdict is Verdict.MISCONFIGURED
        done(outcome)

    def _producing(self) -> Producer:
        """Return the producer of a further record, another one where the last one is of no use any more."""
        with self._lock:
            if self._is_stale and not self._under_way:
                self._producer = None
            if self._producer is None:
                self._is_stale, self._trouble = False, None
                self._producer = Producer(
                    configuration(self._servers, self._read_options(), self._said)
                )
            self._under_way += 1
            return self._producer

    @contextmanager
    def _borrowed(self) -> Generator[Producer]:
        """Use the producer for something else than an event; it stays meanwhile."""
        producer = self._producing()
        try:
            yield producer
        finally:
            with self._lock:
                self._under_way -= 1

    def _said(self, error: KafkaError) -> None:
        """Take note of what the client says of its connections."""
        self._trouble = error
        self._is_stale |= error.fatal()


def configuration(
    servers: str, options: Mapping[str, str], said: Callable[[KafkaError], None]
) -> dict[str, Any]:
    """Return how a producer is made: the user's options and, above them, what no event may be without."""
    return {
        "linger.ms": 0,
        "client.id": "cmdrdata",
        **options,
        # A broker refuses a batch as a whole, and the others shall not pay for one that is too large.
        "batch.num.messages": 1,
        "bootstrap.servers": servers,
        "acks": "all",
        "enable.idempotence": True,
        "message.timeout.ms": int(ATTEMPT_TIMEOUT * 1000),
        "error_cb": said,
        # Its log goes to the standard error of an application that is not asked.
        "log_level": 0,
    }


def refusal(servers: str, options: Mapping[str, str]) -> str | None:
    """Return why no producer can be made with these options, None where one can. Says no option's value."""
    try:
        Producer(configuration(servers, options, lambda _: None))
    except Exception as error:  # noqa: BLE001 - of an option that is none for a file, a callback for one, any
        words = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        # They may repeat a value; what follows these is an option's name.
        named = re.search(
            r'configuration property:? "([\w.]+)"|producer: ([\w.]+) failed'
            r"|xpected ([\w.]+) (?:to be|property)",
            words,
        )
        if named is None:
            return "librdkafka makes no producer of these options"
        return f"{named[named.lastindex or 0]} is no option of librdkafka, or its value is none that this takes"
    return None


_BEGINNING = b'{"customer_id":'
_read = json.JSONDecoder().raw_decode


def _key(body: bytes) -> bytes | None:
    """Return the customer of an event, None where it has none."""
    text = body.decode()
    customer = (
        _read(text, len(_BEGINNING))[0]
        if body.startswith(_BEGINNING)
        else json.loads(text).get("customer_id")
    )
    return None if customer is None else str(customer).encode("utf-8", "replace")
