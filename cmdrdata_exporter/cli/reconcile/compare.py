"""Both sides compared, group by group. Pure."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from cmdrdata_exporter.cli.reconcile.causes import Explaining
from cmdrdata_exporter.cli.reconcile.lines import Group, LayoutError, Theirs
from cmdrdata_exporter.cli.reconcile.ours import Ours, is_counted
from cmdrdata_exporter.cli.reconcile.rows import Pair, Row
from cmdrdata_exporter.cli.reconcile.sides import FIELD, sorted_side
from cmdrdata_exporter.cli.reconcile.surfaces import BY_NAME, CHARGED, REQUESTS, UNITS
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.usage import Units, add
from cmdrdata_exporter.wording import plural

JOBS_ELSEWHERE = (
    "Jobs that were not seen to end are known to their hosts alone: run cmdrdata jobs there."
)


class Comparison(NamedTuple):
    """Both sides, compared."""

    by: tuple[str, ...]
    rows: list[Row]
    totals: dict[str, Pair]
    covered: dict[str, float]
    """Of each unit the share that is here, where what is more in one row makes up for nothing in another."""
    elsewhere: dict[str, dict[str, float]]
    """Usage at hosts that do not count, by host; an empty one is not known."""
    uncompared: list[tuple[str, dict[str, float], str]]
    """What only one side counts: of what, how much, why."""
    notes: list[str]

    @property
    def lowest(self) -> float | None:
        """The lowest share covered of a unit that is charged; None where they have none."""
        return min((self.covered[unit] for unit in CHARGED if unit in self.covered), default=None)


def require_told(theirs: Theirs, by: Iterable[str]) -> None:
    """
    See to it that the provider's lines tell what they are to be compared by.

    Raises:
        LayoutError: a surface does not.
    """
    for surface, told in theirs.dimensions.items():
        for name in by:
            field = FIELD.get(name)
            if (
                field in BY_NAME[surface].groups
                and name not in told
                and not BY_NAME[surface].uncompared
            ):
                also = " and group_by=batch" if name == "tier" else ""
                raise LayoutError(
                    f"the usage of {surface} is not grouped by {field}, so it cannot be compared by {name}; "
                    f"ask the usage API with group_by={field}{also}, or choose another --by"
                )


def compare(
    theirs: Theirs, ours: Ours, by: tuple[str, ...], *, hosts: Iterable[str] = (), today: str
) -> Comparison:
    """
    Compare both sides.

    Args:
        theirs: added up by `by`.
        ours: read by `by` and the day.
        by: what to compare by, in the order of `DIMENSIONS`.
        hosts: further hosts whose usage the provider charges.
        today: the UTC day that is not over.

    Raises:
        LayoutError: theirs does not tell one of `by`.
    """
    require_told(theirs, by)
    hosts = tuple(hosts)
    ours = ours._replace(jobs=_jobs_of(ours, theirs))
    side = sorted_side(theirs, ours, by, hosts)
    their_units: dict[Group, Units] = defaultdict(dict)
    asked: dict[Group, set[str]] = defaultdict(set)
    only_theirs: dict[tuple[str, str], Units] = defaultdict(dict)
    for (surface, group), amounts in theirs.amounts.items():
        if (reason := BY_NAME[surface].uncompared) is not None:
            add(only_theirs[surface, reason], amounts)
            continue
        at = _of_month(group, by, side.months)
        add(their_units[at], amounts)
        if REQUESTS in amounts:
            asked[at].add(surface)
    uncompared = [
        (surface, dict(amounts), reason)
        for one in (only_theirs, side.left_out)
        for (surface, reason), amounts in one.items()
    ]
    rows: list[Row] = []
    for group in sorted({*their_units, *side.units}):
        there, here = their_units.get(group, {}), side.units.get(group, {})
        pairs = {
            unit: Pair(there.get(unit, 0), here.get(unit, 0))
            for unit in UNITS
            if there.get(unit) or here.get(unit)
        }
        if len(asked[group]) > 1:
            # A request may be in several of their surfaces.
            pairs.pop(REQUESTS, None)
        if pairs:
            rows.append(Row(group, pairs))
    rows = Explaining(rows, side, ours, by, hosts, today).rows()
    totals: dict[str, Pair] = {}
    least: dict[str, float] = defaultdict(int)
    for row in rows:
        for unit, pair in row.units.items():
            before = totals.get(unit, Pair(0, 0))
            totals[unit] = Pair(before.theirs + pair.theirs, before.ours + pair.ours)
            least[unit] += min(pair)
    elsewhere: dict[str, Units] = defaultdict(dict)
    for by_host in side.elsewhere.values():
        for host, amounts in by_host.items():
            add(elsewhere[host], amounts)
    return Comparison(
        by,
        rows,
        {unit: totals[unit] for unit in UNITS if unit in totals},
        {unit: least[unit] / pair.theirs for unit, pair in totals.items() if pair.theirs},
        dict(sorted(elsewhere.items())),
        sorted(uncompared, key=operator.itemgetter(0, 2)),
        _notes(theirs, ours, hosts),
    )


def _jobs_of(ours: Ours, theirs: Theirs) -> list[OpenJob]:
    """Return the open jobs that may be counted in the time that theirs is of."""
    days = {day for found in theirs.days.values() for day in found}
    return [job for job in ours.jobs if days and is_counted(job, min(days), max(days))]


def _of_month(group: Group, by: tuple[str, ...], months: set[str]) -> Group:
    """Return the group of theirs that is compared: of a month of which only the sum is known, that month."""
    if "day" in by and group[0][:7] in months:
        return (group[0][:7], *group[1:])
    return group


def _notes(theirs: Theirs, ours: Ours, hosts: Iterable[str]) -> list[str]:
    notes = list(theirs.notes)
    used = {line.host for line in ours.lines}
    notes += [
        f"Nothing was recorded at the host {host!r} in this time; expected is a name, without a port, as "
        "cmdrdata usage --by host shows it."
        for host in hosts
        if host not in used
    ]
    if theirs.odd:
        notes.append(
            f"In {plural(theirs.odd, 'line')} of theirs the parts of the input tokens are not as many as they are "
            "said to be; what is said is compared."
        )
    if ours.not_imported:
        notes.append(
            f"Not counted here yet: {plural(ours.not_imported, 'more event')}, recorded just now."
        )
    if ours.losses.get("jobs_given_up"):
        number = plural(ours.losses["jobs_given_up"], "job")
        notes.append(f"{number} never seen to end, and given up: not in our numbers.")
    if not ours.knows_jobs:
        notes.append(JOBS_ELSEWHERE)
    for name, what in (
        ("unspooled", "could not be written to the disk, and are in the application's log"),
        ("damaged", "were damaged on the disk"),
        ("lost", "were lost with a damaged ledger"),
    ):
        if ours.losses.get(name):
            notes.append(f"{plural(ours.losses[name], 'event')} {what}: not in our numbers.")
    return notes
