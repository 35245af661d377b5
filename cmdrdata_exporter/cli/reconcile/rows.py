"""What a comparison is made of: amounts on both sides, and what is known of their difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cmdrdata_exporter.cli.reconcile.lines import Group
from cmdrdata_exporter.cli.reconcile.surfaces import REQUESTS


class Pair(NamedTuple):
    """An amount of one unit on both sides."""

    theirs: float
    ours: float

    @property
    def difference(self) -> float:
        """What is more here, or less where it is negative."""
        return self.ours - self.theirs

    @property
    def covered(self) -> float | None:
        """The share of theirs that is here, 1 at most; None where they have nothing."""
        return min(self.ours, self.theirs) / self.theirs if self.theirs else None


class Cause(NamedTuple):
    """What is known of a difference."""

    code: str
    text: str
    number: int | None = None
    """How many calls, or jobs, it is about."""
    amounts: Mapping[str, float] = {}
    """As much as it explains at most; empty where that is not known."""


class Row(NamedTuple):
    """A group on both sides."""

    group: Group
    units: dict[str, Pair]
    causes: tuple[Cause, ...] = ()
    unexplained: Mapping[str, float] = {}
    """What no cause explains, as a difference. With `requests`: how many of theirs are no call here."""

    @property
    def differs(self) -> bool:
        """Whether any unit does, but for the requests, which are counted otherwise."""
        return any(pair.difference for unit, pair in self.units.items() if unit != REQUESTS)
