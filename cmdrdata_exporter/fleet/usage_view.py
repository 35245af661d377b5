"""What was used, as a fleet's ledger has it summed: by the day, and by the hour and host."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar

from cmdrdata_exporter.delivery.groups import COLUMNS, Group, labels_of
from cmdrdata_exporter.delivery.spool.facts import TOTAL_BY, names_in
from cmdrdata_exporter.delivery.usage import (
    EVENTS,
    Question,
    Total,
    Unsettled,
    Usage,
    times_of,
)
from cmdrdata_exporter.fleet.states import STATES
from cmdrdata_exporter.fleet.totals import DAY, FOLDED, hour_of

SOURCE_HOST = "source_host"
"""Who recorded or sent the events."""


class FleetUsage(Usage):
    """
    The usage that a fleet's ledger has summed.

    Args:
        query: asks its database.
    """

    _own: ClassVar[tuple[str, ...]] = (SOURCE_HOST,)

    def __init__(self, query: Callable[..., list[tuple[Any, ...]]]) -> None:
        self._query = query

    def labels(self) -> tuple[str, ...]:
        """See `Usage`."""
        rows = self._query("SELECT value FROM fleet_facts WHERE name = %s", (TOTAL_BY,))
        known = {name for (value,) in rows for name in names_in(value)}
        for (text,) in self._query("SELECT DISTINCT labels FROM fleet_groups WHERE labels <> ''"):
            known |= labels_of(text).keys()
        return tuple(sorted(known))

    def _sums(
        self, names: Sequence[str], question: Question, fate: str | None = None
    ) -> Iterator[Total]:
        query, values = _sums_query(names, question, fate)
        for *group, unit, amount in self._query(query, values):
            yield Total(tuple(group), unit, _number(amount))

    def _unsettled(self, question: Question, *, timed: bool) -> Iterator[Unsettled]:
        tests, given = ["state < 4"], list[object]()
        for test, value in (("day >= %s", question.since), ("day <= %s", question.until)):
            if value is not None:
                tests.append(test)
                given.append(value)
        columns = ", ".join(f"g.{name}" for name in Group._fields)
        folded = self._folded() if timed else ""
        for state, at, host, units, *group in self._query(
            f"SELECT e.state, e.at, e.host, e.units, {columns} FROM fleet_events e"  # noqa: S608 - texts of this module
            f" JOIN fleet_groups g ON g.number = e.group_number WHERE {' AND '.join(tests)}",
            given,
        ):
            known, hour = Group(*group), hour_of(at)
            times = times_of(hour[:DAY] if hour[:DAY] <= folded else hour)
            values = {**labels_of(known.labels), **known._asdict(), **times, SOURCE_HOST: host}
            used = {EVENTS: 1}
            for unit, amount in json.loads(units).items():
                if not isinstance(amount, bool):
                    used[unit] = used.get(unit, 0) + amount
            yield Unsettled(STATES[state], values, used)

    def _folded(self) -> str:
        """Return the last day whose hours have become one."""
        rows = self._query("SELECT value FROM fleet_facts WHERE name = %s", (FOLDED,))
        return next((json.loads(value) for (value,) in rows), "")


_DAILY = {"day": ("day", "day::text"), "month": ("day", "to_char(day, 'YYYY-MM')")}
_HOURLY = {
    "hour": ("time", "time"),
    "day": ("time", "left(time, 10)"),
    "month": ("time", "left(time, 7)"),
    SOURCE_HOST: (SOURCE_HOST, SOURCE_HOST),
}
"""What a table has of times and hosts: its column, and as it is shown."""


def _sums_query(
    names: Sequence[str], question: Question, fate: str | None
) -> tuple[str, list[object]]:
    """
    Return how SQL asks for sums, and its values.

    It sums by what is in the tables first; of these sums, which are few, times and labels are read, and summed again.
    """
    fine = not {*names, *question.conditions}.isdisjoint(("hour", SOURCE_HOST))
    table, day, own = (
        ("fleet_totals_by_hour", "left(time, 10)", _HOURLY)
        if fine
        else ("fleet_totals", "day", _DAILY)
    )
    tests: list[str] = []
    values: list[object] = []
    for test, value in ((f"{day} >= %s", question.since), (f"{day} <= %s", question.until)):
        if value is not None:
            tests.append(test)
            values.append(value)
    of_group: list[str] = []
    of_group_values: list[object] = []
    for name, value in question.conditions.items():
        _, text, given = _column(name, own)
        if name in own:
            tests.append(f"{text} = %s")
            values.append(value)
        else:
            of_group.append(f"{text} = %s")
            of_group_values += [*given, value]
    if fate is not None:
        of_group.append("fate = %s")
        of_group_values.append(fate)
    if of_group:
        of = " AND ".join(of_group)
        tests.append(f"group_number IN (SELECT number FROM fleet_groups WHERE {of})")  # noqa: S608 - texts of this module
    columns = [_column(name, own) for name in names]
    inner = ", ".join(dict.fromkeys((*(raw for raw, _, _ in columns), "unit")))
    source = table
    if any(name not in own for name in names):
        source += " JOIN fleet_groups ON number = group_number"
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    sums = f"(SELECT {inner}, sum(amount) AS amount FROM {source}{where} GROUP BY {inner}) AS sums"  # noqa: S608 - texts of this module
    outer = [f'({text}) COLLATE "C"' for text in (*(text for _, text, _ in columns), "unit")]
    places = ", ".join(map(str, range(1, len(outer) + 1)))
    return (
        f"SELECT {', '.join(outer)}, sum(amount) FROM {sums} GROUP BY {places}"  # noqa: S608 - texts of this module
        f" HAVING sum(amount) <> 0 ORDER BY {places}",
        [*(value for _, _, given in columns for value in given), *values, *of_group_values],
    )


def _column(name: str, own: Mapping[str, tuple[str, str]]) -> tuple[str, str, list[object]]:
    """Return in which column of the tables something is, how SQL reads it there, and the values of that."""
    if name in own:
        return (*own[name], [])
    if name in COLUMNS:
        return name, name, []
    return "labels", "coalesce(nullif(labels, '')::json ->> %s, '')", [name]


def _number(amount: Decimal) -> float:
    whole = int(amount)
    return whole if whole == amount else float(amount)
