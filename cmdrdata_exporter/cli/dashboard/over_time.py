"""Usage by period: from a document of usage that is grouped by period, too, what is plotted and the sums beside it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from cmdrdata_exporter.cli.states import NO_CUSTOMER
from cmdrdata_exporter.cli.terminal import Json
from cmdrdata_exporter.cli.usage.costs import HEADING as COST
from cmdrdata_exporter.cli.usage.numbers import EVENTS, ordered
from cmdrdata_exporter.delivery.usage import Units, add

PLOTTED = 7
"""How many groups are told apart in a plot; the others are one."""

Group = tuple[str | None, ...]
"""A value for each column, None where there is none."""


class Range(NamedTuple):
    """A time that ends now, and the periods it is divided into."""

    title: str
    column: str
    """What usage is grouped by."""
    length: int
    """How many periods it has, the one that it is now among them."""
    written: int
    """How many characters of a time in ISO 8601 name its period."""
    before: Callable[[dt.datetime, int], dt.datetime]
    """Returns a time in the period that is so many before that of a time."""

    def periods(self, now: float) -> list[str]:
        """Return the names of the periods, the oldest first."""
        then = dt.datetime.fromtimestamp(now, dt.timezone.utc)
        times = (self.before(then, ago) for ago in reversed(range(self.length)))
        return [time.isoformat()[: self.written] for time in times]


def _hours_before(then: dt.datetime, ago: int) -> dt.datetime:
    return then - dt.timedelta(hours=ago)


def _days_before(then: dt.datetime, ago: int) -> dt.datetime:
    return then - dt.timedelta(days=ago)


def _months_before(then: dt.datetime, ago: int) -> dt.datetime:
    year, month = divmod(then.year * 12 + then.month - 1 - ago, 12)
    return then.replace(year=year, month=month + 1, day=1)


RANGES = {
    "hours": Range("Last 48 hours", "hour", 48, 13, _hours_before),
    "days": Range("Last 30 days", "day", 30, 10, _days_before),
    "months": Range("Last 12 months", "month", 12, 7, _months_before),
}
"""What may be chosen. All periods are of UTC."""


class OverTime:
    """
    Usage by group and period.

    Args:
        found: what `usage_of` returns, or that with costs.
        by: the columns of a group.
        column: that of the period.
        periods: those that are wanted.
    """

    def __init__(self, found: Json, by: Sequence[str], column: str, periods: Sequence[str]) -> None:
        self.by = list(by)
        self.periods = list(periods)
        self.elsewhere = 0
        """How many events have no such period, as an earlier version recorded them: an hour, for instance."""
        self.at_least: set[Group] = set()
        """The groups that may cost more than is known."""
        self._groups: dict[Group, dict[str, Units]] = {}
        wanted = set(periods)
        for row in found["rows"]:
            period: str = row[column] or ""
            if period in wanted:
                group = tuple(row[name] for name in by)
                of_group = self._groups.setdefault(group, {})
                add(of_group.setdefault(period, {}), _amounts(row))
                if row.get("cost_is_least"):
                    self.at_least.add(group)
            elif len(period) != len(self.periods[0]):
                self.elsewhere += row[EVENTS]

    def rows(self, unit: str) -> list[tuple[Group, Units]]:
        """Return the sums of each group, in the order of a unit, the most first."""
        rows = [(group, _sum(periods.values())) for group, periods in self._groups.items()]
        return sorted(
            rows,
            key=lambda row: (
                -row[1].get(unit, 0),
                -row[1][EVENTS],
                [(value is None, value or "") for value in row[0]],
            ),
        )

    def total(self) -> Units:
        """Return the sums of all groups."""
        return _sum(units for periods in self._groups.values() for units in periods.values())

    def series(self, unit: str) -> list[Json]:
        """Return what is plotted of each group, the most first, and of all the others together."""
        groups = [group for group, units in self.rows(unit) if units.get(unit)]
        shown = len(groups) if len(groups) <= PLOTTED + 1 else PLOTTED
        series: list[Json] = [
            {"names": self.names(group) or ["all"], "amounts": self._amounts(group, unit)}
            for group in groups[:shown]
        ]
        if rest := [self._amounts(group, unit) for group in groups[shown:]]:
            amounts = [sum(column) for column in zip(*rest, strict=True)]
            series.append({"names": [f"{len(rest):,} others"], "amounts": amounts})
        return series

    def names(self, group: Group) -> list[str | None]:
        """Return what a group is called."""
        return [named(column, value) for column, value in zip(self.by, group, strict=True)]

    def _amounts(self, group: Group, unit: str) -> list[float]:
        of_group = self._groups[group]
        return [of_group.get(period, {}).get(unit, 0) for period in self.periods]


def named(column: str, value: str | None) -> str | None:
    """Return what a value of a column is called; None is not known."""
    return NO_CUSTOMER if column == "customer" and value is None else value


def _amounts(row: Json) -> Units:
    """Return what a row of usage has of each unit; what it costs is one, where that is known."""
    cost = row.get("cost")
    return {EVENTS: row[EVENTS], **row["units"]} | ({} if cost is None else {COST: float(cost)})


def _sum(all_units: Iterable[Units]) -> Units:
    sums: Units = {EVENTS: 0}
    for units in all_units:
        add(sums, units)
    return in_order(sums)


def in_order(units: Mapping[str, float]) -> Units:
    """Return amounts of units, those that all have first."""
    first = [name for name in (EVENTS, COST) if name in units]
    return {name: units[name] for name in (*first, *ordered(set(units) - set(first)))}


def days_between(first: str, last: str) -> list[str]:
    """Return the names of the days from one to another."""
    begin, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    return [str(begin + dt.timedelta(days=number)) for number in range((end - begin).days + 1)]


def months_between(first: str, last: str) -> list[str]:
    """Return the names of the months from one to another."""
    begin, end = (int(month[:4]) * 12 + int(month[5:]) - 1 for month in (first, last))
    return [f"{number // 12:04}-{number % 12 + 1:02}" for number in range(begin, end + 1)]
