"""
What `cmdrdata usage` counts: read from the ledgers, each at one instant, and summed.

Whatever shows usage begins with `read`, by as fine groups as it needs, and sums them with `Numbers.summed`.
So a price, say, is asked for each fine group, and a row shows the sum of its groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from cmdrdata_exporter.cli.destination import ALL, Place
from cmdrdata_exporter.cli.reading import Ledger
from cmdrdata_exporter.cli.states import STATES
from cmdrdata_exporter.cli.terminal import Json
from cmdrdata_exporter.delivery import groups
from cmdrdata_exporter.delivery.spool.indexed import WITHOUT_USAGE as INCOMPLETE
from cmdrdata_exporter.delivery.usage import ALL as ALL_USAGE
from cmdrdata_exporter.delivery.usage import EVENTS, Question, Units, Usage, add

FIRST = ("input_tokens", "output_tokens", "total_tokens")
"""The units that are shown first."""
DESTINATION = "destination"
"""A column that no ledger has: which ledger it is."""
COLUMNS = (*groups.COLUMNS, DESTINATION)
"""What usage of every ledger may be grouped by; a ledger adds its labels."""

Group = tuple[str, ...]


class Numbers(NamedTuple):
    """What was used."""

    destinations: tuple[str, ...]
    """The names of those that are in it."""
    columns: tuple[str, ...]
    groups: dict[Group, Units]
    """Each unit's amount for each group: a value for each of the columns, the empty string where none is known."""
    states: dict[str, int]
    """How many events of the question there are in each state, also where only what was billed is asked for."""
    dropped_before: int
    """How many events an earlier version dropped, whatever the question: they are among those delivered."""
    incomplete: dict[str, int]
    not_imported: int

    def summed(self, by: Sequence[str]) -> dict[Group, Units]:
        """Return the sums by some of the columns, or all of them in another order."""
        places = [self.columns.index(name) for name in by]
        sums: dict[Group, Units] = {}
        for group, units in self.groups.items():
            add(sums.setdefault(tuple(group[place] for place in places), {}), units)
        return sums


def read(destinations: Iterable[Place], columns: Sequence[str], question: Question) -> Numbers:
    """
    Read what was used.

    Args:
        destinations: whose ledgers.
        columns: what to group by: some of `COLUMNS` and of the labels. A ledger without a label has no value for it.
        question: which usage.

    Raises:
        UnreadableError: a ledger cannot be read, or knows only whole months where a part of one is asked for.
    """
    names: list[str] = []
    groups: dict[Group, Units] = {}
    states = dict.fromkeys(STATES, 0)
    unknown: dict[str, int] = dict.fromkeys(INCOMPLETE, 0)
    dropped = waiting = 0
    for destination in destinations:
        names.append(destination.name)
        with destination.ledger() as ledger:
            found = _groups(ledger, columns, question, destination.name)
            for group, units in found.items():
                add(groups.setdefault(group, {}), units)
            events = sum(units.get(EVENTS, 0) for units in found.values())
            for state, count in _states(destination, ledger, question, int(events)).items():
                states[state] += count
            for status, count in incomplete(ledger, question).items():
                unknown[status] += count
            dropped += ledger.usage.dropped_before()
            waiting += ledger.not_imported()
    return Numbers(tuple(names), tuple(columns), groups, states, dropped, unknown, waiting)


def columns_of(destinations: Iterable[Place]) -> tuple[str, ...]:
    """Return all by which usage of any of the ledgers may be grouped."""
    return tuple(dict.fromkeys((*COLUMNS, *_of_any(destinations, lambda usage: usage.columns()))))


def labels_of(destinations: Iterable[Place]) -> tuple[str, ...]:
    """Return the user's metadata keys by which any of the ledgers sums usage."""
    return tuple(dict.fromkeys(_of_any(destinations, lambda usage: usage.labels())))


def _of_any(
    destinations: Iterable[Place], names: Callable[[Usage], Iterable[str]]
) -> Iterator[str]:
    for destination in destinations:
        with destination.ledger() as ledger:
            yield from names(ledger.usage)


def incomplete(ledger: Ledger, question: Question) -> dict[str, int]:
    """Return how many calls reported no usage, and how many only a part of it."""
    totals = ledger.usage.totals(["status"], question)
    events = {found.group[0]: int(found.amount) for found in totals if found.unit == EVENTS}
    return {status: events.get(status, 0) for status in INCOMPLETE}


def usage_of(destination: Place, by: Sequence[str]) -> Json:
    """Return what `cmdrdata usage --json` prints of all that a destination has."""
    return document(read([destination], by, ALL_USAGE), by, ALL_USAGE)


def document(numbers: Numbers, by: Sequence[str], question: Question) -> Json:
    """Return what `cmdrdata usage --json` prints of what was read, by some of its columns."""
    total: Units = {}
    for units in numbers.groups.values():
        add(total, units)
    rows = [
        {**{name: value or None for name, value in zip(by, group, strict=True)}, **_counted(units)}
        for group, units in sorted(
            numbers.summed(by).items(), key=lambda row: [(not value, value) for value in row[0]]
        )
        # Of events that were given a customer nothing is left with nobody.
        if any(units.values())
    ]
    return {
        "destination": numbers.destinations[0] if len(numbers.destinations) == 1 else ALL,
        "destinations": list(numbers.destinations),
        "by": list(by),
        "since": question.since,
        "until": question.until,
        "only": "billed" if question.billed else None,
        "rows": rows,
        "total": _counted(total),
        "states": numbers.states,
        "dropped_before": numbers.dropped_before,
        "incomplete_usage": numbers.incomplete,
        "not_imported": numbers.not_imported,
    }


def ordered(units: Iterable[str]) -> list[str]:
    """Return the names of units, those that all have first."""
    names = set(units)
    return [unit for unit in FIRST if unit in names] + sorted(names - {EVENTS, *FIRST})


def _groups(
    ledger: Ledger, columns: Sequence[str], question: Question, name: str
) -> dict[Group, Units]:
    # A ledger gives what it groups by in an order of its own.
    asked = [column for column in ledger.usage.columns() if column in columns]
    groups: dict[Group, Units] = {}
    for found in ledger.usage.totals(asked, question):
        named = dict(zip(asked, found.group, strict=True), **{DESTINATION: name})
        group = tuple(named.get(column, "") for column in columns)
        add(groups.setdefault(group, {}), {found.unit: found.amount})
    return groups


def _states(destination: Place, ledger: Ledger, question: Question, events: int) -> dict[str, int]:
    """Return how many events there are in each state: what is nowhere else was delivered, or is local."""
    outside = ledger.usage.outside(question)
    states = {state: count for state, (count, _) in outside.items()}
    return {
        **states,
        destination.settles_as: events - (0 if question.billed else sum(states.values())),
    }


def _counted(units: Units) -> Json:
    return {
        EVENTS: units.get(EVENTS, 0),
        "units": {unit: units[unit] for unit in ordered(units) if units[unit]},
    }
