"""What both sides have: amounts of units, of a UTC day, a model, a tier, a project, a key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

DIMENSIONS = ("day", "model", "tier", "project", "key")
"""What may be compared by, in this order."""
FIELDS: Mapping[str, tuple[str, ...]] = {
    "model": ("model",),
    "tier": ("service_tier", "batch"),
    "project": ("project_id",),
    "key": ("api_key_id",),
}
"""The provider's fields of each; `model` of a result that is not grouped by it is null."""

Group = tuple[str, ...]
"""A value of each dimension that is compared by, in the order of `DIMENSIONS`. Empty where there is none."""
DAY_SECONDS = 86400


class LayoutError(Exception):
    """What was read is not what it should be: says what, what is expected, and how to get that."""


class TheirLine(NamedTuple):
    """A line of the provider's usage, whichever way it came; without units where a time had no usage."""

    surface: str
    start: int
    """Unix seconds of the begin of the bucket, and of its end."""
    end: int
    model: str = ""
    tier: str = ""
    project: str = ""
    key: str = ""
    """The provider's id of the key."""
    units: Mapping[str, float] = {}
    """In our units."""
    is_odd: bool = False
    """Whether the parts of its input tokens are not as many as they are said to be."""
    told: frozenset[str] = frozenset()
    """The dimensions that the line tells."""

    @property
    def day(self) -> str:
        """The UTC day."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.start))


class Theirs:
    """
    The provider's side, added up.

    Args:
        by: the dimensions.
        hash_of: returns what our side has in the place of an id of a key.
    """

    def __init__(self, by: Iterable[str], hash_of: Callable[[str], str] = str) -> None:
        self._hash_of = hash_of
        self.by = tuple(name for name in DIMENSIONS if name in by)
        self.amounts: dict[tuple[str, Group], dict[str, float]] = {}
        """By surface and group: our units."""
        self.days: dict[str, set[str]] = {}
        """The days of which there are buckets, by surface."""
        self.told: dict[str, set[str]] = {}
        """The units that are told, by surface."""
        self.dimensions: dict[str, set[str]] = {}
        """The dimensions that are told, by surface."""
        self.lines = 0
        self.odd = 0
        self.notes: list[str] = []

    def add(self, lines: Iterable[TheirLine], *, since: str | None, until: str | None) -> None:
        """
        Add lines up, those of a time only.

        Args:
            lines: in any order.
            since: the first UTC day.
            until: the last one.

        Raises:
            LayoutError: a bucket is of more than one day.
        """
        for line in lines:
            day = line.day
            if line.end - line.start - 1 + line.start % DAY_SECONDS >= DAY_SECONDS:
                raise LayoutError(
                    f"a bucket from {_moment(line.start)} to {_moment(line.end)} is of more than one UTC day; "
                    "ask for buckets of a day, an hour or a minute"
                )
            if (since is not None and day < since) or (until is not None and day > until):
                continue
            self.days.setdefault(line.surface, set()).add(day)
            if not line.units:
                continue
            self.lines += 1
            self.odd += line.is_odd
            line = line._replace(key=self._hash_of(line.key))  # noqa: PLW2901 - the same line
            group = tuple(getattr(line, name) for name in self.by)
            amounts = self.amounts.setdefault((line.surface, group), {})
            for unit, amount in line.units.items():
                amounts[unit] = amounts.get(unit, 0) + amount
            self.told.setdefault(line.surface, set()).update(line.units)
            self.dimensions.setdefault(line.surface, set()).update(line.told)


def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
