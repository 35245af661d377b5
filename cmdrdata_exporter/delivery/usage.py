"""
What was used, as every ledger answers it: that of a host, and that of a fleet.

A ledger says how it sums, and which events are neither delivered nor where they belong; what comes of that is the same
for all. Pure.
"""

from __future__ import annotations

import itertools
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from cmdrdata_exporter.delivery.groups import COLUMNS, DROPPED, TIMES

EVENTS = "events"
"""The unit that each event has one of."""
OUTSIDE = ("pending", "in_flight", "held", "dead")
"""The states of events that are recorded, and neither delivered nor where they belong, nor given up."""
_ROUNDING = 1e-12
"""What part of a sum of fractions may come of rounding."""

Values = Mapping[str, str]
"""What an event may be grouped by."""
Units = dict[str, float]


class UnreadableError(Exception):
    """The ledger cannot be read now."""


class Total(NamedTuple):
    """What was used of one unit, by what the caller grouped."""

    group: tuple[str, ...]
    unit: str
    amount: float


class Question(NamedTuple):
    """Which usage is asked for."""

    since: str | None = None
    """The first UTC day, `2026-11-01`."""
    until: str | None = None
    """The last one."""
    customer: str | None = None
    """Of whom alone; the empty string is nobody."""
    billed: bool = False
    """Whether usage of events that were not delivered is left out, unless they are local."""
    where: Mapping[str, str] = {}
    """What columns and labels must be, exactly."""

    @property
    def conditions(self) -> Values:
        """What columns and labels must be, that of the customer among them."""
        return {**self.where, **({} if self.customer is None else {"customer": self.customer})}


ALL = Question()


class Unsettled(NamedTuple):
    """An event that is in one of the states `OUTSIDE`."""

    state: str
    values: Values
    units: Mapping[str, float]
    """`EVENTS` among them."""


class Usage(ABC):
    """The usage that a ledger has summed."""

    _own: ClassVar[tuple[str, ...]] = ()
    """What such a ledger may be asked by, beside `COLUMNS` and labels."""

    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Return the user's metadata keys by which usage is summed, or was: `CMDRDATA_TOTAL_BY`."""

    def columns(self) -> tuple[str, ...]:
        """Return all that totals may be grouped by."""
        return tuple(dict.fromkeys((*COLUMNS, *sorted({*self.labels(), *self._own}))))

    def totals(self, by: Sequence[str], question: Question = ALL) -> Iterator[Total]:
        """
        Yield what was used of each unit, summed by some of `columns`, in the order of the groups.

        Of an old day or month only its sum is known: by the hour, or the day, it is one row, whose hour or day is
        `2026-09`. What an earlier version counted has the empty text in the columns that it did not know.

        Raises:
            UnreadableError: it cannot be read, or a part of a month is asked for of which only the sum is known.
        """
        names = in_order(by)
        if not question.billed:
            yield from self._sums(names, question)
            return
        amounts: dict[tuple[tuple[str, ...], str], float] = {}
        for event in self._selected(question, {*names, *question.conditions}):
            group = tuple(event.values.get(name, "") for name in names)
            for unit, amount in event.units.items():
                amounts[group, unit] = amounts.get((group, unit), 0) + amount
        for left in _without(amounts, self._sums(names, question, fate="")):
            # Units without any event are of one whose record is damaged.
            if any(total.unit == EVENTS and total.amount > 0 for total in left):
                yield from (total for total in left if total.amount)

    def outside(self, question: Question = ALL) -> dict[str, tuple[int, Units]]:
        """
        Return how many events were recorded that are neither delivered nor where they belong, and what they used.

        By their state: pending, in_flight, held, dead and dropped. What an earlier version dropped is not among it:
        nobody knows its usage any more, see `dropped_before`. Nor is what an event used whose record is damaged.

        Raises:
            UnreadableError: likewise as for `totals`.
        """
        found: dict[str, Units] = {state: {} for state in OUTSIDE}
        for event in self._selected(question, question.conditions):
            add(found[event.state], event.units)
        found[DROPPED] = self._dropped(question)
        return {state: (int(units.pop(EVENTS, 0)), units) for state, units in found.items()}

    def dropped_before(self) -> int:
        """Return how many events an earlier version dropped, which are not told from those that were delivered."""
        return 0

    def _dropped(self, question: Question) -> Units:
        """Return what was used by events that a person gave up."""
        return {total.unit: total.amount for total in self._sums((), question, fate=DROPPED)}

    def _selected(self, question: Question, names: Iterable[str]) -> Iterator[Unsettled]:
        conditions = question.conditions
        for event in self._unsettled(question, timed=not set(TIMES).isdisjoint(names)):
            if all(event.values.get(name, "") == value for name, value in conditions.items()):
                yield event

    @abstractmethod
    def _sums(
        self, names: Sequence[str], question: Question, fate: str | None = None
    ) -> Iterator[Total]:
        """
        Yield what was recorded.

        Args:
            names: what to group by, `in_order`.
            question: which usage; `billed` is not looked at.
            fate: that of its groups; None: any.
        """

    @abstractmethod
    def _unsettled(self, question: Question, *, timed: bool) -> Iterator[Unsettled]:
        """
        Yield the events of some days that are in the states `OUTSIDE`.

        Args:
            question: of which days.
            timed: whether it matters under which time they are counted now.
        """


def add(sums: Units, units: Mapping[str, float]) -> None:
    """Add amounts of units to sums."""
    for unit, amount in units.items():
        sums[unit] = sums.get(unit, 0) + amount


def in_order(by: Sequence[str]) -> list[str]:
    """Return what is grouped by in the order of `COLUMNS`, labels after these."""
    return [
        *(name for name in COLUMNS if name in by),
        *sorted(name for name in {*by} if name not in COLUMNS),
    ]


def times_of(hour: str) -> dict[str, str]:
    """Return how an event may be grouped by time, of the hour under which it is counted."""
    return {"hour": hour, "day": hour[:10], "month": hour[:7]}


def _without(
    amounts: Mapping[tuple[tuple[str, ...], str], float], sums: Iterable[Total]
) -> Iterator[list[Total]]:
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
