"""
What was used, as a ledger has it summed: by any of its columns, and how much of it is not delivered.

A ledger of version 1 or 2 that was not migrated yet is asked the same. It has one row for each day, customer, model,
endpoint, status and unit; the other columns are empty.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.groups import COLUMNS, TIMES, Group, labels_of
from cmdrdata_exporter.delivery.spool.facts import TOTAL_BY, names_in
from cmdrdata_exporter.delivery.spool.records import intact
from cmdrdata_exporter.delivery.spool.schema import STATES
from cmdrdata_exporter.delivery.spool.totals import KEPT_AS, Place, group_of, kept_as, storable
from cmdrdata_exporter.delivery.usage import (
    ALL,
    EVENTS,
    OUTSIDE,
    Question,
    Total,
    UnreadableError,
    Unsettled,
    Usage,
    Values,
    times_of,
)

_EXACT = 1 << 53
"""Up to this a float is as exact as an integer."""
# SQLite refuses to sum integers beyond 63 bits. https://www.sqlite.org/lang_aggfunc.html#sumunc
_SUM = f"sum(CASE WHEN amount BETWEEN -{_EXACT} AND {_EXACT} THEN amount ELSE amount + 0.0 END)"
_TIMES = {"hour": "time", "day": "substr(time, 1, 10)", "month": "substr(time, 1, 7)"}
_OF_VERSION_2 = ("customer", "model", "endpoint", "status")

_Query = Callable[..., Iterator[tuple[Any, ...]]]


class LedgerUsage(Usage):
    """
    The usage that the ledger of a host has summed.

    Args:
        query: asks its database; there is nothing where the ledger is not there yet.
    """

    def __init__(self, query: _Query) -> None:
        self._query = query
        self.has_groups = any(query("SELECT 1 FROM sqlite_master WHERE name = 'groups'"))
        """Whether it is of a version that has them."""
        self._groups: dict[int, Group | None] = {}
        self._kept: dict[Place, str] = {}

    def labels(self) -> tuple[str, ...]:
        """See `Usage`."""
        rows = self._query("SELECT value FROM facts WHERE name = ?", (TOTAL_BY,))
        known = {name for (value,) in rows for name in names_in(value)}
        if self.has_groups:
            for (text,) in self._query("SELECT DISTINCT labels FROM groups"):
                known |= labels_of(text).keys()
        return tuple(sorted(known))

    def dropped_before(self) -> int:
        """See `Usage`."""
        for (number,) in self._query("SELECT value FROM counters WHERE name = 'dropped'"):
            return max(0, number - int(self._dropped(ALL).get(EVENTS, 0)))
        return 0

    def _sums(
        self, names: Sequence[str], question: Question, fate: str | None = None
    ) -> Iterator[Total]:
        self._require_whole_months(question)
        query, values = (_query if self.has_groups else _query_of_version_2)(names, question, fate)
        for *group, unit, amount in self._query(query, values):
            yield Total(tuple(group), unit, amount)

    # Events that are not delivered

    def _unsettled(self, question: Question, *, timed: bool) -> Iterator[Unsettled]:
        self._require_whole_months(question)
        place = "time, group_number" if self.has_groups else "NULL, NULL"
        rows = self._query(
            # One of the two texts.
            f"SELECT state, key, crc, record, {place} FROM events INDEXED BY by_state"  # noqa: S608
            " WHERE state IN (?, ?, ?, ?)",
            list(map(STATES.index, OUTSIDE)),
        )
        since, until = _span(question)
        for state, key, crc, record, *counted in rows:
            event = intact(key, crc, record)
            place, group = self._place(event, *counted)
            if not since <= place.time < until:
                continue
            units: dict[str, float] = {EVENTS: 1}
            # What was used by an event whose record is damaged is unknown.
            for unit, amount in event.header.units.items() if event else ():
                if not isinstance(amount, bool):
                    units[unit] = units.get(unit, 0) + storable(amount)
            hour = self._kept_as(place) if timed else place.time
            yield Unsettled(STATES[state], _values(group, hour), units)

    def _place(self, event: Event | None, time: object, number: object) -> tuple[Place, Group]:
        """Return where an event was counted."""
        group = self._group(number) if isinstance(number, int) else None
        if group is not None and isinstance(number, int) and isinstance(time, str):
            return Place(time, number), group
        # An earlier version has counted it, or its row was damaged.
        group = Group("", "", "", "") if event is None else group_of(event.header)
        return Place("" if event is None else event.header.day, group.number), group

    def _group(self, number: int) -> Group | None:
        if number not in self._groups:
            rows = self._query("SELECT * FROM groups WHERE number = ?", (number,))
            self._groups[number] = next((Group(*row[1:]) for row in rows), None)
        return self._groups[number]

    def _kept_as(self, place: Place) -> str:
        """Return the time under which what was counted at a place is kept now."""
        if place not in self._kept:
            times = kept_as(place.time)
            rows = (
                self._query(KEPT_AS, (*times, place.group))
                if self.has_groups
                else self._query("SELECT max(day) FROM totals WHERE day IN (?, ?, ?)", times)
            )
            (found,) = next(rows, (None,))
            self._kept[place] = found or place.time
        return self._kept[place]

    def _require_whole_months(self, question: Question) -> None:
        """Raise where a span of days begins or ends in the middle of a month of which only the sum is known."""
        column = "time" if self.has_groups else "day"
        since, until = question.since, question.until
        for day, inner in ((since, since), (until, None if until is None else _day_after(until))):
            if day is None or inner is None or inner.endswith("-01"):
                continue
            month = day[:7]
            # One of the two names.
            if any(self._query(f"SELECT 1 FROM totals WHERE {column} = ? LIMIT 1", (month,))):  # noqa: S608
                raise UnreadableError(
                    f"usage of {month} is known for the whole month only, since its days are longer ago than "
                    f"CMDRDATA_TOTALS_BY_DAY_FOR; ask for whole months, and {day} is in the middle of it"
                )


def _span(question: Question) -> tuple[str, str]:
    """Return the times from the first, and before the last: a month comes before its first day, a day before hours."""
    until = "\U0010ffff" if question.until is None else f"{question.until}U"
    return (question.since or "").removesuffix("-01"), until


def _query(names: Sequence[str], question: Question, fate: str | None) -> tuple[str, list[str]]:
    """Return how SQL asks for sums, and its values."""
    tests, values = ["time >= ?", "time < ?"], list(_span(question))
    of_group: list[str] = []
    of_group_values: list[str] = []
    for name, value in question.conditions.items():
        if name in TIMES:
            tests.append(f"{_TIMES[name]} = ?")
            values.append(value)
        else:
            text, given = _of_group(name)
            of_group.append(f"{text} = ?")
            of_group_values += [*given, value]
    if fate is not None:
        of_group.append("fate = ?")
        of_group_values.append(fate)
    if of_group:
        tests.append(f"group_number IN (SELECT number FROM groups WHERE {' AND '.join(of_group)})")  # noqa: S608
        values += of_group_values
    where = " AND ".join(tests)
    if all(name in TIMES for name in names):
        # In the order of the table, so that no more is sorted than there are times.
        source = (
            f"(SELECT time, unit, {_SUM} AS amount FROM totals WHERE {where} GROUP BY time, unit)"  # noqa: S608
        )
        return _summed([_TIMES[name] for name in names], source), values
    # First by numbers and times: there are far less groups than totals.
    inner: list[str] = []
    columns: list[str] = []
    for name in names:
        # The names of labels are the user's own.
        alias = f"column_{len(inner) + len(columns)}"
        if name in TIMES:
            inner.append(f"{_TIMES[name]} AS {alias}")
        else:
            text, given = _of_group(name)
            columns.append(f"{text} AS {alias}")
            values += given
    outer = [f"column_{index}" for index in range(len(names))]
    key = ", ".join([*outer[: len(inner)], "group_number", "unit"])
    summed = ", ".join([*inner, "group_number", "unit"])
    source = (
        f"(SELECT {summed}, {_SUM} AS amount FROM totals WHERE {where} GROUP BY {key})"  # noqa: S608
        # As a table of its own, so that labels are read once of each group.
        f" JOIN (SELECT number, {', '.join(columns)} FROM groups LIMIT -1) ON number = group_number"
    )
    return _summed(outer, source), values


def _query_of_version_2(
    names: Sequence[str], question: Question, fate: str | None
) -> tuple[str, list[str]]:
    """Return how SQL asks a ledger of an earlier version, and its values."""
    columns = _TIMES | {name: name for name in _OF_VERSION_2}
    tests, values = ["time >= ?", "time < ?"], list(_span(question))
    for name, value in question.conditions.items():
        tests.append(f"{columns.get(name, _NOTHING)} = ?")
        values.append(value)
    if fate:
        # Whatever was dropped is counted with all others.
        tests.append("false")
    source = f"(SELECT *, day AS time FROM totals) WHERE {' AND '.join(tests)}"  # noqa: S608
    return _summed([columns.get(name, _NOTHING) for name in names], source), values


_NOTHING = "(SELECT '')"
"""The empty text, which SQL can group by."""


def _summed(columns: Sequence[str], source: str) -> str:
    """Return a query of sums; what was moved to another group has left zeros."""
    group = ", ".join([*columns, "unit"])
    return (
        f"SELECT {group}, {_SUM} AS total FROM {source} GROUP BY {group} HAVING total != 0"  # noqa: S608
        f" ORDER BY {group}"
    )


def _of_group(name: str) -> tuple[str, list[str]]:
    """Return how SQL reads a column or a label of a group, and its values."""
    return (name, []) if name in COLUMNS else ("label(labels, ?)", [name])


def label(labels: object, name: str) -> str:
    """Return a label of a group, as an SQL function."""
    return labels_of(labels).get(name, "")


def _values(group: Group, hour: str) -> Values:
    """Return what an event may be grouped by."""
    return labels_of(group.labels) | group._asdict() | times_of(hour)


def _day_after(day: str) -> str:
    """Return the day after one, as it is written."""
    return str(dt.date.fromisoformat(day) + dt.timedelta(days=1))
