"""
What was used, as a ledger has it summed: by any of its columns, and how much of it is not delivered.

A ledger of version 1 or 2 that was not migrated yet is asked the same. It has one row for each day, customer, model,
endpoint, status and unit; the other columns are empty.
"""

from __future__ import annotations

import datetime as dt
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.groups import COLUMNS, DROPPED, TIMES, Group, labels_of
from cmdrdata_exporter.delivery.spool.records import intact
from cmdrdata_exporter.delivery.spool.schema import DEAD, HELD, IN_FLIGHT, PENDING, STATES
from cmdrdata_exporter.delivery.spool.totals import KEPT_AS, Place, group_of, kept_as, storable

OUTSIDE = (PENDING, IN_FLIGHT, HELD, DEAD)
"""The states of events that are recorded, and neither delivered nor where they belong."""
EVENTS = "events"
"""The unit that each event has one of."""

_EXACT = 1 << 53
"""Up to this a float is as exact as an integer."""
_ROUNDING = 1e-12
"""What part of a sum of fractions may come of rounding."""
# SQLite refuses to sum integers beyond 63 bits. https://www.sqlite.org/lang_aggfunc.html#sumunc
_SUM = f"sum(CASE WHEN amount BETWEEN -{_EXACT} AND {_EXACT} THEN amount ELSE amount + 0.0 END)"
_TIMES = {"hour": "time", "day": "substr(time, 1, 10)", "month": "substr(time, 1, 7)"}
_OF_VERSION_2 = ("customer", "model", "endpoint", "status")

_Query = Callable[..., Iterator[tuple[Any, ...]]]


class UnreadableError(Exception):
    """The ledger cannot be read now."""


class Total(NamedTuple):
    """What was used of one unit, by what the caller grouped."""

    group: tuple[str, ...]
    unit: str
    amount: float


class Asked(NamedTuple):
    """Of which usage something is asked."""

    since: str | None = None
    """The first UTC day, `2026-11-01`."""
    until: str | None = None
    """The last one."""
    where: Mapping[str, str] = {}
    """What columns and labels must be, exactly."""
    fate: str | None = None

    @property
    def span(self) -> tuple[str, str]:
        """The times from the first, and before the last: a month comes before its first day, a day before its hours."""
        until = "\U0010ffff" if self.until is None else f"{self.until}U"
        return (self.since or "").removesuffix("-01"), until


class _Outside(NamedTuple):
    """An event that was recorded, and is neither delivered nor where it belongs."""

    state: int
    place: Place
    group: Group
    units: Mapping[str, float]


class UsageView:
    """
    The usage that a ledger has summed.

    Args:
        query: asks its database; there is nothing where the ledger is not there yet.
    """

    def __init__(self, query: _Query) -> None:
        self._query = query
        self.has_groups = any(query("SELECT 1 FROM sqlite_master WHERE name = 'groups'"))
        """Whether it is of a version that has them."""
        self._groups: dict[int, Group | None] = {}
        self._kept: dict[Place, str] = {}

    def labels(self) -> set[str]:
        """Return the user's metadata keys of which there are sums."""
        found: set[str] = set()
        if self.has_groups:
            for (text,) in self._query("SELECT DISTINCT labels FROM groups"):
                found |= labels_of(text).keys()
        return found

    # Sums

    def sums(self, by: Sequence[str], asked: Asked) -> Iterator[Total]:
        """Yield what was used, in the order of its groups."""
        names = in_order(by)
        query, values = (_query if self.has_groups else _query_of_version_2)(names, asked)
        for *group, unit, amount in self._query(query, values):
            yield Total(tuple(group), unit, amount)

    def billed(self, by: Sequence[str], asked: Asked) -> Iterator[Total]:
        """Yield what was used by events that are delivered or where they belong."""
        names = in_order(by)
        timed = not {*names, *asked.where}.isdisjoint(TIMES)
        events = self._outside(asked, timed=timed)
        outside = by_group(names, ((_values(event), event.units) for event in events))
        for left in without(outside, self.sums(by, asked._replace(fate=""))):
            # Units without any event are of one whose record is damaged.
            if any(total.unit == EVENTS and total.amount > 0 for total in left):
                yield from (total for total in left if total.amount)

    def outside(self, asked: Asked) -> dict[str, tuple[int, dict[str, float]]]:
        """Return how many events are not delivered, and what was used by them, by their state."""
        found: dict[str, dict[str, float]] = {STATES[state]: {} for state in OUTSIDE}
        timed = not set(asked.where).isdisjoint(TIMES)
        for event in self._outside(asked, timed=timed):
            units = found[STATES[event.state]]
            for unit, amount in event.units.items():
                units[unit] = units.get(unit, 0) + amount
        found[DROPPED] = self.dropped(asked)
        return {state: (int(units.pop(EVENTS, 0)), units) for state, units in found.items()}

    def dropped(self, asked: Asked) -> dict[str, float]:
        """Return what was used by events that a person gave up."""
        sums = self.sums((), asked._replace(fate=DROPPED))
        return {total.unit: total.amount for total in sums}

    # Events that are not delivered

    def _outside(self, asked: Asked, *, timed: bool) -> Iterator[_Outside]:
        """
        Yield these events.

        Args:
            asked: which.
            timed: whether it matters under which time they are counted now.
        """
        place = "time, group_number" if self.has_groups else "NULL, NULL"
        rows = self._query(
            # One of the two texts.
            f"SELECT state, key, crc, record, {place} FROM events INDEXED BY by_state"  # noqa: S608
            " WHERE state IN (?, ?, ?, ?)",
            OUTSIDE,
        )
        since, until = asked.span
        for state, key, crc, record, time, number in rows:
            found = self._event(state, intact(key, crc, record), time, number)
            if not since <= found.place.time < until:
                continue
            if timed:
                found = found._replace(place=found.place._replace(time=self._kept_as(found.place)))
            if asked.where:
                values = _values(found)
                if any(values.get(name, "") != value for name, value in asked.where.items()):
                    continue
            yield found

    def _event(self, state: int, event: Event | None, time: object, number: object) -> _Outside:
        group = self._group(number) if isinstance(number, int) else None
        if group is not None and isinstance(number, int) and isinstance(time, str):
            place = Place(time, number)
        else:
            # An earlier version has counted it, or its row was damaged.
            group = Group("", "", "", "") if event is None else group_of(event.header)
            place = Place("" if event is None else event.header.day, group.number)
        units: dict[str, float] = {EVENTS: 1}
        # What was used by an event whose record is damaged is unknown.
        for unit, amount in event.header.units.items() if event else ():
            if not isinstance(amount, bool):
                units[unit] = units.get(unit, 0) + storable(amount)
        return _Outside(state, place, group, units)

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

    # Months

    def require_whole_months(self, since: str | None, until: str | None) -> None:
        """Raise where a span of days begins or ends in the middle of a month of which only the sum is known."""
        column = "time" if self.has_groups else "day"
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


Amounts = dict[tuple[tuple[str, ...], str], float]
"""What was used, by the values of a group and the unit."""


def by_group(
    names: Sequence[str], events: Iterable[tuple[Mapping[str, str], Mapping[str, float]]]
) -> Amounts:
    """
    Return what events used.

    Args:
        names: what to group by.
        events: of each what it may be grouped by, and its units.
    """
    found: Amounts = {}
    for values, units in events:
        group = tuple(values.get(name, "") for name in names)
        for unit, amount in units.items():
            found[group, unit] = found.get((group, unit), 0) + amount
    return found


def without(amounts: Amounts, sums: Iterable[Total]) -> Iterator[list[Total]]:
    """Yield, for each group of sums, what is left of its units once these amounts are taken off."""
    for group, totals in itertools.groupby(sums, operator.attrgetter("group")):
        yield [
            total._replace(amount=_less(total.amount, amounts.get((group, total.unit), 0)))
            for total in totals
        ]


def _less(total: float, amount: float) -> float:
    """Return what is left of a total; nothing where it is no more than rounding leaves of fractions."""
    left = total - amount
    return 0 if isinstance(left, float) and abs(left) <= _ROUNDING * abs(total) else left


def in_order(by: Sequence[str]) -> list[str]:
    """Return what is grouped by in the order of `COLUMNS`, labels after these."""
    return [
        *(name for name in COLUMNS if name in by),
        *sorted(name for name in {*by} if name not in COLUMNS),
    ]


def _query(names: Sequence[str], asked: Asked) -> tuple[str, list[str]]:
    """Return how SQL asks for sums, and its values."""
    tests, values = ["time >= ?", "time < ?"], list(asked.span)
    of_group: list[str] = []
    of_group_values: list[str] = []
    for name, value in asked.where.items():
        if name in TIMES:
            tests.append(f"{_TIMES[name]} = ?")
            values.append(value)
        else:
            text, given = _of_group(name)
            of_group.append(f"{text} = ?")
            of_group_values += [*given, value]
    if asked.fate is not None:
        of_group.append("fate = ?")
        of_group_values.append(asked.fate)
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


def _query_of_version_2(names: Sequence[str], asked: Asked) -> tuple[str, list[str]]:
    """Return how SQL asks a ledger of an earlier version, and its values."""
    columns = _TIMES | {name: name for name in _OF_VERSION_2}
    tests, values = ["time >= ?", "time < ?"], list(asked.span)
    for name, value in asked.where.items():
        tests.append(f"{columns.get(name, _NOTHING)} = ?")
        values.append(value)
    if asked.fate:
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


def _values(event: _Outside) -> dict[str, str]:
    """Return what an event may be grouped by."""
    time = event.place.time
    return (
        labels_of(event.group.labels)
        | event.group._asdict()
        | {
            "hour": time,
            "day": time[:10],
            "month": time[:7],
        }
    )


def _day_after(day: str) -> str:
    """Return the day after one, as it is written."""
    return str(dt.date.fromisoformat(day) + dt.timedelta(days=1))
