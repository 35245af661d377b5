"""What is done to the rows of the index: events come in, change, and go. All of it in a `transaction`."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cmdrdata_exporter.delivery import Event, Header
from cmdrdata_exporter.delivery.spool.details import Details
from cmdrdata_exporter.delivery.spool.index_tables import packed, unpacked, word
from cmdrdata_exporter.quick_json import quick_json

FILLED = 1000
"""How many events of the ledger are looked at in a round of upkeep."""
KINDS = 10_000
"""How many kinds are remembered."""

_ROW = "number, key, id, at, customer, kind, amounts, trace, response, request"


class Numbered(NamedTuple):
    """An event that is in the ledger."""

    number: int
    key: bytes
    event: Event
    known: Details | None
    """What its body says."""
    recorded: float
    """When it was imported, in Unix seconds."""


Before = Callable[[int, int], tuple[list[Numbered], int]]
"""
Returns the events of the ledger whose numbers come before one, at most so many, and the least number that was looked
at; 0 where there is none before that.
"""


class Rows:
    """
    The rows of an index.

    Args:
        db: its database.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._kinds: dict[tuple[str, ...], int] = {}
        """Those that were met, by what they are: model, endpoint, what is known of the usage, and the units."""

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """Make what is done inside one change, or none at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._kinds.clear()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def vacuum(self) -> None:
        """Give free pages back to the file system, a few at a time. Not in a transaction."""
        # It steps once for each page, of which `execute` makes the first only on Python 3.11.
        self._db.executescript("PRAGMA incremental_vacuum(256)")

    def facts(self) -> dict[str, Any]:
        """Return what is written down of the index itself."""
        return dict(self._db.execute("SELECT name, value FROM facts"))

    def note(self, facts: Mapping[str, object]) -> None:
        """Write down something of the index itself."""
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def insert(self, new: Iterable[Numbered], since: float = 0.0) -> None:
        """Insert events, but for those whose calls ended before a time."""
        rows: list[tuple[object, ...]] = []
        words: list[tuple[int, int]] = []
        for number, key, event, said, recorded in new:
            header = event.header
            at, trace, response, request = int(recorded), "", "", ""
            if said is not None:
                at = said.at if abs(said.at) < 1 << 62 else at
                trace, response, request = map(_text, said[-3:])
            if at < since:
                continue
            rows.append(
                (
                    number,
                    key,
                    None if key.hex() == event.id else _text(event.id),
                    at,
                    None if header.customer is None else _text(header.customer),
                    self._kind(header),
                    _json(list(header.units.values())),
                    packed(trace),
                    response or None,
                    request or None,
                )
            )
            words += [(word(text), number) for text in {trace, response, request} if text]
        # Of an import that the ledger has not committed there may be others with these numbers.
        self._db.executemany(
            f"INSERT OR REPLACE INTO events ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            rows,
        )
        self._db.executemany("INSERT OR IGNORE INTO words VALUES (?, ?)", words)

    def _kind(self, header: Header) -> int:
        """Return the number of what an event has in common with others."""
        met = header.model, header.endpoint, header.status, *header.units
        kind = self._kinds.get(met)
        if kind is None:
            units = json.dumps(list(header.units), separators=(",", ":"))
            known = tuple(map(_text, (*met[:3], units)))
            self._db.execute(
                "INSERT OR IGNORE INTO kinds (model, endpoint, status, units) VALUES (?, ?, ?, ?)",
                known,
            )
            (kind,) = self._db.execute(
                "SELECT kind FROM kinds WHERE (model, endpoint, status, units) = (?, ?, ?, ?)",
                known,
            ).fetchone()
            if len(self._kinds) >= KINDS:
                self._kinds.clear()
            self._kinds[met] = kind
        return kind

    def assign(self, assigned: Sequence[tuple[str, bytes]]) -> None:
        """Give events, which are named by their keys, a customer each."""
        self._db.executemany("UPDATE events SET customer = ? WHERE key = ?", assigned)

    def drop(self, keys: Iterable[bytes]) -> None:
        """Note that events were given up."""
        self._db.executemany(
            "UPDATE events SET dropped = 1 WHERE key = ?", [(key,) for key in keys]
        )

    def fill(self, before: Before, number: int, most: int, since: float) -> int:
        """
        Add events that the ledger has kept since before the index was begun.

        Args:
            before: gives them.
            number: before which they come.
            most: how many events the index may have.
            since: Unix seconds: older ones do not come into it.

        Returns:
            the number before which there may be more; 0: there are none.
        """
        found, least = before(number, FILLED)
        (last,) = self._db.execute("SELECT max(number) FROM events").fetchone()
        there = {
            each
            for (each,) in self._db.execute(
                "SELECT number FROM events WHERE number >= ? AND number < ?", (least, number)
            )
        }
        first = (last or 0) - most
        self.insert(
            (each for each in found if each.number > first and each.number not in there), since
        )
        return least

    def prune(self, most: int, since: float, limit: int) -> None:
        """
        Let the first events go, where they are too many or too old.

        Args:
            most: how many stay.
            since: Unix seconds: older ones go.
            limit: how many go now, at most.
        """
        first = self._db.execute(
            "SELECT number <= (SELECT max(number) FROM events) - ? OR at < ? FROM events ORDER BY number LIMIT 1",
            (most, since),
        ).fetchone()
        if first is None or not first[0]:
            return
        newest = self._remove(
            "number IN (SELECT number FROM events ORDER BY number LIMIT ?)"
            " AND (number <= (SELECT max(number) FROM events) - ? OR at < ?)",
            (limit, most, since),
        )
        moved = self._db.execute(
            "UPDATE facts SET value = ? WHERE name = 'missing_before' AND value < ?",
            (newest, newest),
        )
        if moved.rowcount:
            # That is not why any more.
            self._db.execute("DELETE FROM facts WHERE name = 'reason'")

    def remove_after(self, number: int) -> None:
        """Remove the events that have a larger number."""
        self._remove("number > ?", (number,))

    def _remove(self, condition: str, values: Sequence[object]) -> int:
        """Remove events and what leads to them; return the time of the newest."""
        newest = 0
        found = self._db.execute(
            f"SELECT number, at, trace, response, request FROM events WHERE {condition}",  # noqa: S608 - texts of this class
            values,
        ).fetchall()
        for number, at, trace, response, request in found:
            newest = max(newest, at)
            self._db.executemany(
                "DELETE FROM words WHERE word = ? AND number = ?",
                [(word(text), number) for text in {unpacked(trace), response, request} if text],
            )
            self._db.execute("DELETE FROM events WHERE number = ?", (number,))
        return newest


def _json(values: Sequence[object]) -> str:
    written = quick_json(values, values)
    return json.dumps(values, separators=(",", ":")) if written is None else written.decode()


def _text(text: str) -> str:
    """Return a text that SQLite takes: half of a surrogate pair becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
