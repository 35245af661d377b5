"""What is stored of the records of a topic, of OTLP spans or of events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from cmdrdata_exporter import faults
from cmdrdata_exporter.fleet.arrivals import Arrival, Position
from cmdrdata_exporter.fleet.gateway.answers import RefusedError
from cmdrdata_exporter.fleet.gateway.brokers import Topic
from cmdrdata_exporter.fleet.gateway.ledgers import Ledger
from cmdrdata_exporter.fleet.gateway.pieces import read_protobuf
from cmdrdata_exporter.fleet.gateway.records import read
from cmdrdata_exporter.fleet.gateway.shelf import Shelf
from cmdrdata_exporter.fleet.gateway.spans import SpanRow, take
from cmdrdata_exporter.fleet.gateway.watching import Counts


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
