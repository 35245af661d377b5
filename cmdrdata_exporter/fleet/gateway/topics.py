"""
Topics of Kafka, read by the members of a group, which are gateways.

How far a partition was read is stored in the database, in the transaction that stores what was read; a member that gets
a partition begins there. So it does not matter where a member dies, nor to whom its partitions go. The group's own
offsets are committed for those who watch the group; nothing is read from them.
Whatever goes wrong, a member leaves the group, waits and joins again: all that it knows is in the database.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.cimpl import OFFSET_BEGINNING

from cmdrdata_exporter import faults, processes
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.fleet.arrivals import Arrival, Position
from cmdrdata_exporter.fleet.gateway.answers import RefusedError
from cmdrdata_exporter.fleet.gateway.ledgers import Ledger
from cmdrdata_exporter.fleet.gateway.pieces import read_protobuf
from cmdrdata_exporter.fleet.gateway.records import read
from cmdrdata_exporter.fleet.gateway.shelf import Shelf
from cmdrdata_exporter.fleet.gateway.shelving import plain_error
from cmdrdata_exporter.fleet.gateway.spans import SpanRow, take
from cmdrdata_exporter.fleet.gateway.watching import Counts

BATCH = 1000
"""How many records are stored at once, at most."""
WAIT = 0.2
"""Seconds that are waited for a record."""
QUEUED = 16 << 10
"""KiB that are read ahead, of all partitions together, about."""
LONGEST_WAIT = 10.0
"""Seconds until a member joins again, at most."""


class Topic(NamedTuple):
    """What is read."""

    servers: str
    name: str
    group: str


class Target(Protocol):
    """What records are stored in."""

    def positions(self) -> Mapping[int, int]:
        """Return which record of each partition is to be read next."""
        ...

    def store(self, messages: Sequence[Any], positions: Sequence[Position]) -> None:
        """Store what records say, and the positions after them, in one transaction."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Member:
    """
    A member of a group.

    Args:
        topic: what is read.
        target: what it is stored in.
        read_options: returns the options of librdkafka that the user has set.
        counts: where failures are counted.
        intake: what the counters call it.
    """

    def __init__(
        self,
        topic: Topic,
        target: Target,
        read_options: Callable[[], Mapping[str, str]],
        counts: Counts,
        intake: str,
    ) -> None:
        self.topic = topic
        self.intake = intake
        self._target = target
        self._read_options = read_options
        self._counts = counts
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._failure: psycopg.Error | None = None
        self._reached = False
        self._trouble = ""
        self.joined = False
        """Whether it belongs to the group now, and reads what it was given: nothing, perhaps."""
        self.partitions = 0
        self.lag = 0

    @property
    def trouble(self) -> str | None:
        """What keeps it from reading; None: nothing."""
        if self.joined:
            return None
        why = f": {self._trouble}" if self._trouble else ""
        return f"the topic {self.topic.name} is not read{why}"

    def start(self) -> None:
        """Read in a thread of its own."""
        processes.start_thread(self._run, name=f"cmdrdata-gateway-{self.intake}")

    def stop(self) -> None:
        """Store what was read, and leave the group."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Wait until it has left the group; say whether it has."""
        return self._ended.wait(seconds)

    # The thread

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._reached = False
            try:
                self._read()
            except Exception as error:  # noqa: BLE001 - the thread must live
                self._fail(error)
            self.joined, self.partitions, self.lag = False, 0, 0
            failures = 0 if self._reached else failures + 1
            self._stop.wait(min(backoff(failures), LONGEST_WAIT))
        self._target.close()
        self._ended.set()

    def _fail(self, error: Exception) -> None:
        """Say what went wrong, unless it is the same as the last time."""
        self._counts.add("failures", part=self.intake)
        if isinstance(error, KafkaException):
            said = error.args[0].name()
        elif isinstance(error, psycopg.Error):
            said = plain_error(error)
        else:
            said = type(error).__name__
            faults.report(self.intake, "a topic cannot be read", exc_info=True)
        if said != self._trouble:
            faults.say(
                logging.WARNING,
                "the topic %s is not read for now, and nothing of it is lost: %s",
                self.topic.name,
                said,
            )
        self._trouble = said
        self._target.close()

    def _read(self) -> None:
        """Be a member of the group until something goes wrong, or the end."""
        self._failure = None
        consumer = Consumer(configuration(self.topic, self._read_options(), self._said))
        try:
            consumer.subscribe(
                [self.topic.name],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            while not self._stop.is_set():
                messages = consumer.consume(BATCH, WAIT)
                if self._failure is not None:
                    raise self._failure
                if messages:
                    self._take(consumer, messages)
                self._measure(consumer)
        finally:
            consumer.close()

    def _take(self, consumer: Consumer, messages: list[Any]) -> None:
        whole: list[Any] = []
        following: dict[int, int] = {}
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            whole.append(message)
            following[message.partition()] = message.offset() + 1
        topic = self.topic
        self._target.store(
            whole,
            [
                Position(topic.group, topic.name, number, offset)
                for number, offset in following.items()
            ],
        )
        if not self._reached and self._trouble:
            faults.say(logging.WARNING, "the topic %s is read again", topic.name)
        self._reached, self._trouble = True, ""
        told = [TopicPartition(topic.name, number, offset) for number, offset in following.items()]
        try:
            consumer.commit(offsets=told, asynchronous=True)
        except KafkaException:
            self._counts.add("failures", part="group offsets")

    def _measure(self, consumer: Consumer) -> None:
        if not self.partitions:
            return
        lag = 0
        for place in consumer.position(consumer.assignment()):
            known: Any = consumer.get_watermark_offsets(place, cached=True)
            if known is not None and place.offset >= 0:
                lag += max(0, known[1] - place.offset)
        self.lag = lag

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Begin where the database says."""
        try:
            known = self._target.positions()
        except psycopg.Error as error:
            # Raised by the loop: from here it would be said to have come from elsewhere.
            self._failure = error
            return
        for place in partitions:
            place.offset = known.get(place.partition, OFFSET_BEGINNING)
        consumer.assign(partitions)
        self.partitions = len(partitions)
        self.joined, self._trouble = True, ""

    def _revoked(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        # All that was read is stored: this is called where more is asked for.
        consumer.unassign()
        self.partitions = self.lag = 0

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Be no member until partitions are given again: the group, or its brokers, have gone without this one."""
        self._revoked(consumer, partitions)
        self.joined = False

    def _said(self, error: KafkaError) -> None:
        """Take note of what the client says of its connections."""
        if not self.joined:
            self._trouble = error.name()
        if error.fatal():
            self._counts.add("failures", part=self.intake)


def configuration(
    topic: Topic, options: Mapping[str, str], said: Callable[[KafkaError], None]
) -> dict[str, Any]:
    """Return how a member is made: the user's options and, above them, what nothing may be without."""
    return {
        "client.id": "cmdrdata-gateway",
        "queued.max.messages.kbytes": QUEUED,
        "session.timeout.ms": 10_000,
        **options,
        "bootstrap.servers": topic.servers,
        "group.id": topic.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "range",
        "error_cb": said,
        "log_level": 0,
    }


def _garbage(topic: Topic, message: Any, error: RefusedError) -> None:
    faults.say(
        logging.ERROR,
        "record %d of partition %d of %s is garbage, and left out: %s",
        message.offset(),
        message.partition(),
        topic.name,
        error,
    )


class Spans:
    """
    Stores the spans of a topic on the shelf.

    Args:
        topic: which.
        shelf: where to.
        counts: where to count.
    """

    def __init__(self, topic: Topic, shelf: Shelf, counts: Counts) -> None:
        self._topic = topic
        self._shelf = shelf
        self._counts = counts

    def positions(self) -> Mapping[int, int]:
        """See `Target`."""
        return self._shelf.positions(self._topic.group, self._topic.name)

    def store(self, messages: Sequence[Any], positions: Sequence[Position]) -> None:
        """See `Target`."""
        rows: list[SpanRow] = []
        spans = refused = without_usage = garbage = 0
        for message in messages:
            try:
                taken = take(read_protobuf(message.value() or b""))
            except RefusedError as error:
                garbage += 1
                _garbage(self._topic, message, error)
                continue
            rows += taken.rows
            spans += taken.spans
            refused += taken.refused
            without_usage += taken.without_usage
        self._shelf.store(rows, positions)
        self._counts.add("records", len(messages), intake="spans")
        self._counts.add("records_refused", garbage, intake="spans")
        self._counts.add("spans", spans, intake="spans")
        self._counts.add("spans_refused", refused, intake="spans")
        self._counts.add("spans_without_usage", without_usage, intake="spans")

    def close(self) -> None:
        """See `Target`."""
        self._shelf.close()


class Events:
    """
    Stores the events of a topic in the ledger, and what hosts say of themselves.

    Args:
        topic: which.
        open_ledger: opens the ledger.
        counts: where to count.
    """

    def __init__(self, topic: Topic, open_ledger: Callable[[], Ledger], counts: Counts) -> None:
        self._topic = topic
        self._open = open_ledger
        self._counts = counts
        self._ledger: Ledger | None = None

    @property
    def _opened(self) -> Ledger:
        if self._ledger is None:
            self._ledger = self._open()
        return self._ledger

    def positions(self) -> Mapping[int, int]:
        """See `Target`."""
        return self._opened.positions(self._topic.group, self._topic.name)

    def store(self, messages: Sequence[Any], positions: Sequence[Position]) -> None:
        """See `Target`."""
        arrivals: list[Arrival] = []
        garbage = reports = 0
        for message in messages:
            try:
                place = f"{self._topic.name}/{message.partition()}/{message.offset()}"
                found = read(message.value(), message.headers(), place)
            except RefusedError as error:
                garbage += 1
                _garbage(self._topic, message, error)
                continue
            if isinstance(found, Arrival):
                arrivals.append(found)
            else:
                # Before the position: one that comes twice says the same.
                self._opened.report(found)
                reports += 1
        new = self._opened.store(arrivals, positions)
        self._counts.add("records", len(messages), intake="events")
        self._counts.add("records_refused", garbage, intake="events")
        self._counts.add("reports", reports)
        self._counts.add("events", new, source="event")
        self._counts.add("events_repeated", len(arrivals) - new, source="event")

    def close(self) -> None:
        """See `Target`."""
        if self._ledger is not None:
            ledger, self._ledger = self._ledger, None
            ledger.close()
