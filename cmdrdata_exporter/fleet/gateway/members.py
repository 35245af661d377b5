"""
Topics of Kafka, read by the members of a group, which are gateways.

How far a partition was read is stored in the database, in the transaction that stores what was read; a member that gets
a partition begins there. So it does not matter where a member dies, nor to whom its partitions go. The group's own
offsets are committed for those who watch the group; nothing is read from them.
Where that position is not in the partition any more, a member begins at the earliest record and says what is missing.
That is looked for when partitions are assigned: a member that learns later that they are others joins again.
Whatever goes wrong, a member leaves the group, waits and joins again: all that it knows is in the database.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.fleet.arrivals import Position
from cmdrdata_exporter.fleet.gateway.brokers import Brokers, Topic
from cmdrdata_exporter.fleet.gateway.ledgers import Open
from cmdrdata_exporter.fleet.gateway.shelving import plain_error
from cmdrdata_exporter.fleet.gateway.watching import Counts
from cmdrdata_exporter.fleet.positions import Beginning

BATCH = 1000
"""How many records are stored at once, at most."""
WAIT = 0.2
"""Seconds that are waited for a record."""
LOOK = 30.0
"""Seconds between two looks whether the topic was made anew."""
QUEUED = 16 << 10
"""KiB that are read ahead, of all partitions together, about."""
LONGEST_WAIT = 10.0
"""Seconds until a member joins again, at most."""


class Target(Protocol):
    """What records are stored in."""

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
        open_ledger: opens the ledger, which knows how far the group is.
        read_options: returns the options of librdkafka that the user has set.
        counts: where failures are counted.
        intake: what the counters call it.
    """

    def __init__(
        self,
        topic: Topic,
        target: Target,
        open_ledger: Open,
        read_options: Callable[[], Mapping[str, str]],
        *,
        counts: Counts,
        intake: str,
    ) -> None:
        self.topic = topic
        self.intake = intake
        self._target = target
        self._open = open_ledger
        self._read_options = read_options
        self._counts = counts
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._topic_id = ""
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
        options = self._read_options()
        brokers = Brokers(self.topic, options)
        consumer = Consumer(configuration(self.topic, options, self._said))
        look = clocks.monotonic() + LOOK
        try:
            consumer.subscribe(
                [self.topic.name],
                on_assign=partial(self._assigned, brokers),
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            while not self._stop.is_set():
                messages = consumer.consume(BATCH, WAIT)
                if self._failure is not None:
                    raise self._failure
                if any(_is_out_of_range(message.error()) for message in messages):
                    return
                if messages:
                    self._take(consumer, messages)
                self._measure(consumer)
                if clocks.monotonic() >= look:
                    look = clocks.monotonic() + LOOK
                    if self._is_another(brokers):
                        return
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
                Position(topic.group, topic.name, number, offset, self._topic_id)
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

    def _is_another(self, brokers: Brokers) -> bool:
        """Say whether the topic was made anew: it may have what is beyond the position, too."""
        try:
            return bool(self.partitions) and brokers.topic_id() != self._topic_id
        except KafkaException:
            # Whether the group still has this member is told elsewhere.
            return False

    def _assigned(
        self, brokers: Brokers, consumer: Consumer, partitions: list[TopicPartition]
    ) -> None:
        """Begin where the database says."""
        topic, ledger = self.topic, self._open()
        try:
            self._topic_id = brokers.topic_id()
            bounds = brokers.bounds([place.partition for place in partitions])
            beginning = ledger.begin(topic.group, topic.name, self._topic_id, bounds)
        except (psycopg.Error, KafkaException) as error:
            # Raised by the loop: from here it would be said to have come from elsewhere.
            self._failure = error
            return
        finally:
            ledger.close()
        self._say_missing(beginning)
        for place in partitions:
            place.offset = beginning.offsets[place.partition]
        consumer.assign(partitions)
        self.partitions = len(partitions)
        self.joined, self._trouble = True, ""

    def _say_missing(self, beginning: Beginning) -> None:
        """Say what is lost. Each loss is found once, by one gateway."""
        lost = sum(beginning.lost.values())
        if lost:
            faults.say(
                logging.ERROR,
                "up to %d records of the topic %s were removed by the broker before they were read, and are lost: %s. "
                "Its retention must be longer than the gateways may be away or behind",
                lost,
                self.topic.name,
                ", ".join(f"{count} of partition {each}" for each, count in beginning.lost.items()),
            )
        if beginning.renewed:
            faults.say(
                logging.ERROR,
                "the topic %s is not the one that was read: it was made anew, or its end was lost (partitions %s). "
                "It is read from its beginning; what it had before and was not read is lost",
                self.topic.name,
                ", ".join(map(str, beginning.renewed)),
            )
        self._counts.add("records_lost", lost, intake=self.intake)
        self._counts.add("partitions_renewed", len(beginning.renewed), intake=self.intake)

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


def _is_out_of_range(error: KafkaError | None) -> bool:
    """Say whether a position is not in its partition any more, so that it must be asked where to read on."""
    return error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - as the client names it


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
        # Not without a word: see `Member`.
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "range",
        "error_cb": said,
        "log_level": 0,
    }
