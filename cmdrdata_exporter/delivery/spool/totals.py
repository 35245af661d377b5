"""What is counted in a ledger: usage totals and counters, added up in memory and written once per transaction."""

from __future__ import annotations

import sqlite3
import time as clock
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cmdrdata_exporter.delivery import Event, Header
from cmdrdata_exporter.delivery.groups import Group
from cmdrdata_exporter.delivery.spool.details import Details, details
from cmdrdata_exporter.delivery.spool.facts import FOLDED, read_names, write_facts
from cmdrdata_exporter.delivery.spool.labels import Labels, stored_text

HOURS_FOR = 8
"""Days after which totals are kept by the day."""

_LARGEST = 10**100
"""No amount is counted as more than this."""
_MOST_KNOWN = 10_000
"""Of how many groups the numbers are known without making them again."""


class Place(NamedTuple):
    """Where an event is counted."""

    time: str
    """The UTC hour, `2026-11-29T16`, or only the day where no more is known."""
    group: int
    """The number of its group."""


class Counted(NamedTuple):
    """Where an event of the ledger was counted, and what it is counted by."""

    place: Place
    group: Group


class Totals:
    """
    What a transaction adds to the totals and counters of a ledger.

    Args:
        db: the ledger's database.
        total_by: the user's metadata keys by which usage is summed.
    """

    def __init__(self, db: sqlite3.Connection, total_by: Sequence[str] = ()) -> None:
        self._db = db
        self._total_by = total_by
        self._amounts: dict[Place, dict[str, int | float]] = {}
        self._new: dict[int, Group] = {}
        """Groups that may have no row yet."""
        self._numbers: dict[tuple[Any, ...], int] = {}
        """Of groups that have one, or are new, by what makes them."""
        self.labels = Labels(db, total_by)
        self._folded: Sequence[str] | None = None
        """The last month of which only the sum is kept, and the last such day; None: not read yet."""
        self._hour: tuple[int, str, str] | None = None
        """The last hour that an event was of, in hours since 1970, its day, and under which time it is counted."""
        self.counts: Counter[str] = Counter()
        """What is added to the counters, by their names."""

    # Where

    def details(self, event: Event) -> Details | None:
        """Return what the body of an event says, with what usage is summed by; None where it is no event."""
        return details(event.body, self._total_by)

    def place(self, event: Event, known: Details | None) -> Place:
        """Return where an event is to be counted, of whose body that is known."""
        header = event.header
        parts: tuple[Any, ...] = header.customer, header.model, header.endpoint, header.status
        if known is not None:
            parts += (*known[1:9], *(known.labels.items() if self._total_by else ()))
        number = self._numbers.get(parts)
        if number is None:
            number = self._add(
                group_of(header, known, "" if known is None else self.labels.told(known.labels))
            )
            if len(self._numbers) >= _MOST_KNOWN:
                self._numbers.clear()
            self._numbers[parts] = number
        return Place(self._time(known and known.at, header.day), number)

    def _add(self, group: Group) -> int:
        number = group.number
        self._new[number] = group
        return number

    def _time(self, at: int | None, day: str) -> str:
        """Return under which time an event is counted: its hour, or its day where the two do not fit."""
        if at is None:
            return self._folded_time(stored_text(day))
        number, last = at // 3600, self._hour
        if last is None or last[0] != number or last[1] != day:
            try:
                hour = clock.strftime("%Y-%m-%dT%H", clock.gmtime(number * 3600))
            except (ValueError, OverflowError, OSError):
                hour = ""
            time = self._folded_time(hour if hour[:10] == day else stored_text(day))
            self._hour = last = number, day, time
        return last[2]

    def _folded_time(self, time: str) -> str:
        """Return the day or month of a time that has become a part of it."""
        if self._folded is None:
            self._folded = (*read_names(self._db, FOLDED), "", "")[:2]
        month, day = self._folded
        return (
            time[:_MONTH] if time[:_MONTH] <= month else time[:_DAY] if time[:_DAY] <= day else time
        )

    def counted(self, event: Event | None, time: object, number: object) -> Counted | None:
        """
        Return where an event of the ledger was counted.

        Args:
            event: it; None where its record is damaged.
            time: when, as its row says; None where an earlier version has counted it.
            number: likewise the number of its group.

        Returns:
            the place, with the time under which its usage is kept now; None where nothing tells it.
        """
        if isinstance(time, str) and isinstance(number, int) and self._is_of(event, number):
            place = Place(time, number)
        elif event is None:
            return None
        elif number is None:
            place = Place(stored_text(event.header.day), self._add(group_of(event.header)))
        else:
            # Its row was damaged, or that of its group, which is written anew.
            self._numbers.clear()
            place = self.place(event, self.details(event))
        group = self._group(place.group)
        return group and Counted(Place(self._kept_as(place), place.group), group)

    def _is_of(self, event: Event | None, number: int) -> bool:
        """Say whether there is such a group, of which an event may be."""
        group = self._group(number)
        return group is not None and (event is None or group[:4] == group_of(event.header)[:4])

    def _group(self, number: int) -> Group | None:
        if number in self._new:
            return self._new[number]
        row = self._db.execute("SELECT * FROM groups WHERE number = ?", (number,)).fetchone()
        # A damaged row may hold anything.
        if row is None or not all(isinstance(text, str) for text in row[1:]):
            return None
        group = Group(*row[1:])
        return group if group.number == number else None

    def _kept_as(self, place: Place) -> str:
        """Return the time under which an amount is kept now: its hour, or the day or month that this has become."""
        if place in self._amounts:
            return place.time
        (time,) = self._db.execute(KEPT_AS, (*kept_as(place.time), place.group)).fetchone()
        return time or place.time

    # How much

    def add(self, place: Place, units: Mapping[str, int | float], sign: int = 1) -> None:
        """Add the usage of an event, or take it off with -1."""
        amounts = self._amounts.get(place)
        if amounts is None:
            amounts = self._amounts[place] = {}
        amounts["events"] = amounts.get("events", 0) + sign
        for unit, amount in units.items():
            if amount and not isinstance(amount, bool):
                # A unit may be called `events`, too.
                amounts[unit] = amounts.get(unit, 0) + storable(amount) * sign

    def move(self, counted: Counted, units: Mapping[str, int | float], **changes: str) -> Place:
        """Have the usage of an event counted in a group that is another one in a few columns; return where."""
        texts = {name: stored_text(text) for name, text in changes.items()}
        after = Place(counted.place.time, self._add(counted.group._replace(**texts)))
        self.add(counted.place, units, -1)
        self.add(after, units)
        return after

    def write(self) -> None:
        """Write what was added. In a transaction."""
        if self._new:
            marks = ", ".join("?" * (1 + len(Group._fields)))
            # The row of one that is here already is the same, unless it was damaged.
            self._db.executemany(
                f"INSERT OR REPLACE INTO groups VALUES ({marks})",  # noqa: S608 - question marks
                [(number, *group) for number, group in self._new.items()],
            )
        if self._amounts:
            self._db.executemany(
                "INSERT INTO totals VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                [
                    (place.time, stored_text(unit), place.group, storable(amount))
                    for place, amounts in self._amounts.items()
                    for unit, amount in amounts.items()
                    if amount
                ],
            )
        if self.counts:
            self._db.executemany(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
                [(name, number) for name, number in self.counts.items() if number],
            )
        self._written()

    def _written(self) -> None:
        self._amounts.clear()
        self._new.clear()
        self.counts.clear()

    def clear(self) -> None:
        """Forget what was added, since its transaction has failed, and which groups and labels there are."""
        self._written()
        self._numbers.clear()
        self.labels.clear()
        self._folded = self._hour = None

    # Time

    def tidy(self, after: str, months_before: str, days_before: str = "") -> tuple[str, int]:
        """
        Go on to the next day or month of the totals. In a transaction.

        The hours of a day that is old become one, and a day that is older becomes a part of its month.

        Args:
            after: the day or month that was the last; the empty string begins.
            months_before: the first month whose days are kept, `2026-11`.
            days_before: the first day whose hours are kept, `2026-11-21`.

        Returns:
            which one it was, the empty string where there is none; and about how many bytes its totals take, in the
            end those that the groups take.
        """
        # What was added in this transaction belongs to what becomes one sum.
        self.write()
        last = after + _HOURS_END if len(after) == _DAY else after
        (first,) = self._db.execute(
            "SELECT min(time) FROM totals WHERE time > ?", (last,)
        ).fetchone()
        # A damaged row may hold any type.
        if not isinstance(first, str):
            (size,) = self._db.execute(f"SELECT sum(40 + {_LENGTHS}) FROM groups").fetchone()  # noqa: S608
            return "", size or 0
        day = first.partition("T")[0]
        whole = len(day) == _DAY
        end = day + _HOURS_END if whole else day
        if whole and day < months_before:
            self._fold(day[:_MONTH], day, end)
            self._note_folded(day[:_MONTH], day)
        elif whole and day < days_before:
            self._fold(day, day + "T", end)
            self._note_folded("", day)
        (size,) = self._db.execute(
            "SELECT sum(24 + length(time) + length(unit)) FROM totals WHERE time BETWEEN ? AND ?",
            (day, end),
        ).fetchone()
        return day, size or 0

    def _fold(self, into: str, first: str, last: str) -> None:
        """Add the totals of some times to those of a longer one, and remove them."""
        self._db.execute(
            "INSERT INTO totals SELECT ?, unit, group_number, amount FROM totals WHERE time BETWEEN ? AND ?"
            " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            (into, first, last),
        )
        self._db.execute("DELETE FROM totals WHERE time BETWEEN ? AND ?", (first, last))

    def _note_folded(self, month: str, day: str) -> None:
        """Note what is kept as one sum, so that no part of it begins again: its events are found in the sum."""
        self._folded_time("")
        before = self._folded or ("", "")
        self._folded = max(month, before[0]), max(day, before[1])
        if self._folded != tuple(before):
            self._hour = None
            write_facts(self._db, {FOLDED: self._folded})


_MONTH, _DAY = len("2026-11"), len("2026-11-29")
_HOURS_END = "U"
"""What a day is followed by after all its hours, and before the next day."""
_LENGTHS = " + ".join(f"length({name})" for name in Group._fields)

KEPT_AS = (
    "SELECT max(time) FROM totals WHERE time IN (?, ?, ?) AND unit = 'events' AND group_number = ?"
)
"""Asks for the time under which an amount is kept, of those of `kept_as`."""


def kept_as(counted: str) -> tuple[str, str, str]:
    """Return the times under which usage may be kept that was counted at one, an hour say: it, its day, its month."""
    return counted, counted[:_DAY], counted[:_MONTH]


def group_of(header: Header, known: Details | None = None, labels: str = "") -> Group:
    """Return the group of an event, of which an earlier version knew no more than the line of its record."""
    # No customer has the empty id.
    line = header.customer or "", header.model, header.endpoint, header.status
    return Group(*map(stored_text, (*line, *(known or ())[1:9])), labels=labels)


def storable(amount: float) -> int | float:
    """Return an amount as SQLite can store it: beyond 63 bits only roughly, and within what a sum of floats can be."""
    if isinstance(amount, int) and -(2**63) <= amount < 2**63:
        return amount
    return float(min(max(amount, -_LARGEST), _LARGEST))
