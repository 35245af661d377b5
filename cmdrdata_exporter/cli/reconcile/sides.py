"""Our side, sorted for comparing: what counts, what is elsewhere, what is left out and why. Pure."""

from __future__ import annotations

import calendar
from collections import defaultdict

from cmdrdata_exporter.cli.reconcile.lines import DIMENSIONS, FIELDS, Group, Theirs
from cmdrdata_exporter.cli.reconcile.ours import EVENTS, JOBS, Ours, is_of_openai, units
from cmdrdata_exporter.cli.reconcile.surfaces import BY_NAME, REQUESTS, UNITS, surface_of

FIELD = {name: fields[0] for name, fields in FIELDS.items()}
"""The field of theirs that tells a dimension."""
_SUMS = frozenset(("total_tokens",))
"""Units that only add up others."""


class Side:
    """Our side, sorted for comparing."""

    def __init__(self) -> None:
        self.units: dict[Group, dict[str, float]] = defaultdict(lambda: defaultdict(int))
        self.elsewhere: dict[Group, dict[str, dict[str, float]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(int))
        )
        self.calls: dict[Group, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        """Of each group the calls without usage, and those with a part of it."""
        self.of_jobs: dict[Group, dict[str, float]] = defaultdict(lambda: defaultdict(int))
        """The part of the units that jobs have used."""
        self.left_out: dict[tuple[str, str], dict[str, float]] = defaultdict(
            lambda: defaultdict(int)
        )
        """Units that are not compared, by surface and reason."""
        self.months: set[str] = set()
        """Those of which only the sum is known."""


def sorted_side(theirs: Theirs, ours: Ours, by: tuple[str, ...], hosts: tuple[str, ...]) -> Side:
    """
    Sort our side.

    Args:
        theirs: what it is compared with.
        ours: read by `by` and the day.
        by: what is compared by.
        hosts: further hosts whose usage counts.
    """
    read = [name for name in DIMENSIONS if name in (*by, "day")]
    whole = {
        (surface, month)
        for surface, days in theirs.days.items()
        for month in {day[:7] for day in days}
        if sum(day.startswith(month) for day in days) == _days_in(month)
    }
    side = Side()
    for line in ours.lines:
        named = dict(zip(read, line.group, strict=True))
        day = named["day"]
        counts = is_of_openai(line.host, hosts)
        for unit, amount in units(line).items():
            surface = surface_of(line.endpoint, unit)
            known = BY_NAME[surface]
            is_told = unit in UNITS and unit in (
                theirs.told.get(surface) or {rule.unit for rule in known.rules}
            )
            reason = None
            if surface not in theirs.days:
                reason = "no usage of it was given"
            elif known.uncompared:
                reason = known.uncompared
            elif day not in theirs.days[surface] and (surface, day) not in whole:
                reason = "of days that are not in what was given"
            elif not is_told:
                reason = "their usage does not tell it"
            if reason is not None:
                if counts and unit != REQUESTS and unit not in _SUMS:
                    side.left_out[surface, reason][unit] += amount
                continue
            if len(day) == 7:
                side.months.add(day)
            # What a surface is not grouped by there is nothing here.
            group = tuple(
                named[name] if name == "day" or FIELD[name] in known.groups else "" for name in by
            )
            if counts:
                side.units[group][unit] += amount
                if line.endpoint in JOBS:
                    side.of_jobs[group][unit] += amount
            else:
                side.elsewhere[group][line.host][unit] += amount
            if counts and line.unit == EVENTS and line.status in ("missing", "partial"):
                side.calls[group][line.status] += int(line.amount)
    return side


def _days_in(month: str) -> int:
    return calendar.monthrange(int(month[:4]), int(month[5:]))[1]
