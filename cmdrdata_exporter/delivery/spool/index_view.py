"""
What became of an event: read from the index, the ledger and the journals together, without changing any of them.

The index has what an event was, also of those that are delivered; the ledger has the state of all others; what was
recorded a moment ago is in a journal only. Where there is no index, or it does not have all of the ledger, the records
of the ledger are read themselves, which takes longer.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import operator
import re
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cmdrdata_exporter.delivery.spool.directory import INDEX, LOCAL, Directory
from cmdrdata_exporter.delivery.spool.index_tables import VERSION, packed, unpacked, word
from cmdrdata_exporter.delivery.spool.indexed import (
    ANY,
    IndexedEvent,
    Wanted,
    new_events,
    of_record,
)
from cmdrdata_exporter.delivery.spool.kept import PART, Kept, KeptEvents
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, read_only
from cmdrdata_exporter.delivery.spool.records import key_of
from cmdrdata_exporter.delivery.spool.schema import STATES

if TYPE_CHECKING:
    from typing_extensions import Self

MOST = 1000
"""How many events `find` returns at most."""
_DAMAGED = "a row of it is damaged"
_HEX = re.compile(r"[0-9a-f]{1,32}")


class About(NamedTuple):
    """What is known of an index."""

    there: bool
    """Whether there is one that can be read."""
    missing_before: float | None
    """Unix seconds before which events may have been delivered that are not in it; None: none is missing."""
    filling: bool
    """Whether events of the ledger of before are still to be added."""
    reason: str | None
    """Why it was begun anew, or why there is none; None: nothing was wrong with it."""


class IndexReader:
    """
    The events of a destination at one instant; use it as a context manager.

    Args:
        directory: whose.

    Raises:
        UnreadableError: the ledger cannot be read. Without an index all is told that is known without it.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._reason: str | None = None
        self._db: sqlite3.Connection | None = None
        self.ledger = LedgerReader(directory)
        self._events = KeptEvents(self.ledger.query)
        path = directory.path / INDEX
        if path.exists():
            with self._reading():
                self._db = read_only(path)

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            # Nobody calls `__exit__` then.
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        # The ledger's instant comes first, so that the index has all that the ledger has, and perhaps more.
        self.ledger.__enter__()
        self.last = self.ledger.last()
        """The number that the ledger had given last: what the index has beyond that, the ledger is about to have."""
        facts: dict[str, Any] = {}
        with self._reading():
            if self._db is not None:
                self._db.execute("BEGIN")
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if version != VERSION:
                    raise sqlite3.DatabaseError(f"it is of version {version}")
                facts = dict(self._db.execute("SELECT name, value FROM facts"))
                numbers = (facts.get(name, 0) for name in ("fill", "missing_before"))
                if not all(isinstance(number, int | float) for number in numbers):
                    raise sqlite3.DatabaseError(_DAMAGED)
        self._facts = facts if self._db is not None else {}

    def __exit__(self, *error: object) -> None:
        self.ledger.__exit__(*error)
        if self._db is not None:
            self._db.close()

    @contextlib.contextmanager
    def _reading(self) -> Generator[None]:
        """Go on without an index that cannot be read."""
        try:
            yield
        except sqlite3.Error as error:
            self._reason = f"the index cannot be read: {error}"
            db, self._db = self._db, None
            if db is not None:
                db.close()

    def _query(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._reading():
            if self._db is not None:
                return self._db.execute(query, values).fetchall()
        return []

    def about(self) -> About:
        """Return what is known of the index."""
        if self._db is None:
            reason = self._reason or self.ledger.facts().get("index")
            return About(there=False, missing_before=None, filling=False, reason=reason)
        facts = self._facts
        return About(
            there=True,
            missing_before=facts.get("missing_before") or None,
            filling=bool(facts.get("fill")),
            reason=facts.get("reason"),
        )

    def count(self) -> int:
        """Return how many events are in the index; of a million that takes some milliseconds."""
        [(events,)] = self._query("SELECT count(*) FROM events INDEXED BY by_time") or [(0,)]
        return events

    # Sources

    def _journaled(self) -> Iterator[IndexedEvent]:
        """Yield the events that are in journals only."""
        for event in new_events(self.ledger):
            yield of_record(None, key_of(event.id), event, None)

    def _indexed(self, condition: str, values: Sequence[object]) -> list[IndexedEvent]:
        """Return events of the index with the state that they are in."""
        rows = self._query(
            "SELECT number, key, id, at, customer, model, endpoint, status, units, amounts, trace, response, request,"  # noqa: S608 - texts of this module
            f" dropped FROM events JOIN kinds USING (kind) WHERE {condition}",
            values,
        )
        kept = self._events.with_keys([row[1] for row in rows])
        with self._reading():
            try:
                return [self._of_row(row, kept.get(row[1])) for row in rows]
            except (ValueError, TypeError, AttributeError) as error:
                raise sqlite3.DatabaseError(_DAMAGED) from error
        return []

    def _of_row(self, row: tuple[Any, ...], kept: Kept | None) -> IndexedEvent:
        number, key, event_id, at, customer, model, endpoint, status, names, amounts, *rest = row
        trace, response, request, dropped = rest
        if kept is not None:
            state = kept.state
        elif number > self.last:
            state = "pending"
        else:
            state = "dropped" if dropped else LOCAL if self._directory.is_local else "delivered"
        return IndexedEvent(
            number,
            key,
            event_id or key.hex(),
            at,
            customer,
            model,
            endpoint,
            status,
            dict(zip(json.loads(names), json.loads(amounts), strict=True)),
            unpacked(trace),
            response or "",
            request or "",
            state,
            None if kept is None else kept.reason,
            None if kept is None else kept.since,
            None if kept is None else kept.attempts,
        )

    def _kept(self, found: Iterable[tuple[int, Kept]]) -> Iterator[IndexedEvent]:
        """Yield events of the ledger."""
        for number, kept in found:
            yield of_record(number, kept.key, kept.event, kept)

    def _unindexed(self) -> int | None:
        """Return the number before which events of the ledger may be missing in the index; None: all may be."""
        [(first,)] = self._query("SELECT min(number) FROM events") or [(None,)]
        if first is None:
            return None
        return max(first, self._facts.get("fill", 0))

    # Questions

    def newest(
        self, limit: int, wanted: Wanted = ANY, *, after: int | None = None
    ) -> list[IndexedEvent]:
        """
        Return events, the one whose call ended last first.

        Args:
            limit: how many at most.
            wanted: which ones.
            after: only those that have a larger number, and those that are in journals only.
        """
        state = wanted.state
        found: dict[bytes, IndexedEvent] = {}

        def take(events: Iterable[IndexedEvent]) -> int:
            """Take what is wanted until there is enough; return how many that were."""
            taken = 0
            for event in events:
                if taken >= limit:
                    break
                if wanted.fits(event):
                    # What was read first is what is known best.
                    found.setdefault(event.key, event)
                    taken += 1
            return taken

        if state in STATES:
            take(self._kept(self._events.latest(state, after=after or 0)))
        if state is None or state not in STATES or state == LOCAL:
            enough = take(self._by_time(wanted, after)) >= limit
            before = self._unindexed()
            if state is None and not (enough and before and not self._facts.get("fill")):
                take(self._kept(self._events.latest(after=after or 0, before=before)))
        if state in (None, "pending"):
            new = filter(wanted.fits, self._journaled())
            take(reversed(heapq.nlargest(limit, new, key=operator.attrgetter("at"))))
        return heapq.nlargest(limit, found.values(), key=_time)

    def _by_time(self, wanted: Wanted, after: int | None) -> Iterator[IndexedEvent]:
        """Yield events of the index, but for their state those that are wanted, the last first."""
        condition, values = wanted.condition()
        end = 1 << 62
        position = end, 0
        while True:
            # Only few come after a number: these are not looked for among all times.
            place, order, given = (
                ("(at, number) < (?, ?)", "at DESC, number DESC", position)
                if after is None
                else ("number > ? AND number < ?", "number DESC", (after, end))
            )
            part = self._indexed(
                f"{condition} AND {place} ORDER BY {order} LIMIT ?", [*values, *given, PART]
            )
            yield from part
            if len(part) < PART:
                return
            end = part[-1].number or 0
            position = part[-1].at, end

    def find(self, text: str) -> list[IndexedEvent]:
        """
        Return the events that have a text for their id, response id, request id or trace id, in the order of time.

        Where there is none, those whose ids begin with it.
        """
        text = text.strip()
        found = self._exactly(text) if text else {}
        if not found and _HEX.fullmatch(text):
            found = self._beginning(text)
        return sorted(found.values(), key=_time)

    def _exactly(self, text: str) -> dict[bytes, IndexedEvent]:
        key, number, trace = key_of(text), word(text), packed(text)
        events = [
            *self._indexed("key = ?", [key]),
            *self._indexed(
                "number IN (SELECT number FROM words WHERE word = ?) AND (trace = ? OR ? IN (response, request))"
                " LIMIT ?",
                [number, trace, text, MOST],
            ),
            *self._kept(self._events.beginning_with(key, key, 1)),
        ]

        def fits(event: IndexedEvent) -> bool:
            return text in (event.id, event.response_id, event.request_id, event.trace_id)

        # Their records have the text somewhere, as JSON writes it.
        part = json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
        events += filter(
            fits, self._kept(self._events.latest(before=self._unindexed(), holding=part))
        )
        events += filter(fits, self._journaled())
        return _by_key(event for event in events if fits(event))

    def _beginning(self, text: str) -> dict[bytes, IndexedEvent]:
        low, high = bytes.fromhex(text.ljust(32, "0")), bytes.fromhex(text.ljust(32, "f"))
        events = [
            *self._indexed("key BETWEEN ? AND ? LIMIT ?", [low, high, MOST]),
            *self._kept(self._events.beginning_with(low, high, MOST)),
            *self._journaled(),
        ]
        return _by_key(event for event in events if event.id.startswith(text))

    def bodies(self, states: Iterable[str]) -> Iterator[tuple[IndexedEvent, bytes | None]]:
        """Yield the events in some states whose bodies are here, and these, the oldest first; None: it is damaged."""
        for state in states:
            for kept in self.ledger.kept(state):
                body = None if kept.event is None else kept.event.body
                yield of_record(None, kept.key, kept.event, kept), body
            if state == "pending":
                for event in new_events(self.ledger):
                    yield of_record(None, key_of(event.id), event, None), event.body

    def body(self, event: IndexedEvent) -> bytes | None:
        """Return what is sent of an event, or would be; None where it is not here any more, or is damaged."""
        for _, kept in self._events.beginning_with(event.key, event.key, 1):
            return None if kept.event is None else kept.event.body
        return next((new.body for new in new_events(self.ledger) if new.id == event.id), None)


def _time(event: IndexedEvent) -> tuple[int, float]:
    """Return by what events are sorted; what was not imported yet comes last."""
    return event.at, math.inf if event.number is None else event.number


def _by_key(events: Iterable[IndexedEvent]) -> dict[bytes, IndexedEvent]:
    """Return events by their keys; of one that was read twice what was read first."""
    found: dict[bytes, IndexedEvent] = {}
    for event in events:
        found.setdefault(event.key, event)
    return found
