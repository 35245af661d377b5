"""A comparison as it is shown: for a reader, as one JSON document, as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console

from cmdrdata_exporter.cli.reconcile.compare import Comparison
from cmdrdata_exporter.cli.reconcile.lines import Group
from cmdrdata_exporter.cli.reconcile.rows import Cause, Pair, Row
from cmdrdata_exporter.cli.reconcile.surfaces import CHARGED, REQUESTS
from cmdrdata_exporter.cli.terminal import Json, cell, heading, number, plain, plural

MOST = 50
"""Rows that are shown to a reader; JSON and CSV have all."""
INCLUSIVE = (
    "Units are those of the ledger: cached tokens, and those of sound and images, are part of the input and output "
    "tokens. Theirs exclude each other, and were added up."
)
"""How both sides are made the same."""
_HEADS = ("", "Theirs", "Ours", "Difference", "Covered")
_NARROW = ((0, 1, 2, 3, 4), (0, 1, 3, 4), (0, 3, 4), (0, 3))
"""The columns that are shown, where there is less and less room; the others are named."""


class Report(NamedTuple):
    """A comparison, and of what it is."""

    found: Comparison
    source: str
    """Where theirs is from."""
    destinations: Sequence[str]
    since: str
    until: str
    outside: Mapping[str, int]
    """Our events of all times that the backend does not have, by their state."""
    name_of_key: Callable[[str], str]

    def values(self, group: Group) -> dict[str, str | None]:
        """Return the values of a group by their dimensions; None where there is none."""
        named = dict(zip(self.found.by, group, strict=True))
        if named.get("key"):
            named["key"] = self.name_of_key(named["key"])
        return {name: value or None for name, value in named.items()}


def as_json(report: Report) -> Json:
    """Return what `cmdrdata reconcile --json` prints. A difference is ours less theirs."""
    found = report.found
    return {
        "source": report.source,
        "destinations": list(report.destinations),
        "by": list(found.by),
        "since": report.since,
        "until": report.until,
        "rows": [
            {
                **report.values(row.group),
                "units": {unit: _pair(pair) for unit, pair in row.units.items()},
                "causes": [_cause(cause) for cause in row.causes],
                "unexplained": dict(row.unexplained),
            }
            for row in found.rows
        ],
        "total": {
            unit: {**_pair(pair), "covered": found.covered.get(unit)}
            for unit, pair in found.totals.items()
        },
        "lowest_coverage": found.lowest,
        "other_hosts": [
            {"host": host or None, "units": amounts} for host, amounts in found.elsewhere.items()
        ],
        "not_compared": [
            {"surface": surface, "units": amounts, "reason": reason}
            for surface, amounts, reason in found.uncompared
        ],
        "not_delivered": dict(report.outside),
        "notes": list(found.notes),
    }


def _pair(pair: Pair) -> Json:
    return {
        "theirs": pair.theirs,
        "ours": pair.ours,
        "difference": pair.difference,
        "covered": pair.covered,
    }


def _cause(cause: Cause) -> Json:
    return {
        "cause": cause.code,
        "text": cause.text,
        "number": cause.number,
        "units": dict(cause.amounts),
    }


def as_csv(report: Report) -> str:
    """
    Return what `cmdrdata reconcile --csv` prints: a line for each unit of each row.

    A cause is named by its code; several are separated by blanks.
    """
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    columns = ("unit", "theirs", "ours", "difference", "covered", "causes", "unexplained")
    lines.writerow([*report.found.by, *columns])
    for row in report.found.rows:
        values = [plain(value or "") for value in report.values(row.group).values()]
        for unit, pair in row.units.items():
            causes = " ".join(
                cause.code for cause in row.causes if not cause.amounts or unit in cause.amounts
            )
            covered = "" if pair.covered is None else f"{pair.covered:.6f}"
            lines.writerow(
                [
                    *values,
                    unit,
                    pair.theirs,
                    pair.ours,
                    pair.difference,
                    covered,
                    causes if pair.difference else "",
                    row.unexplained.get(unit, 0),
                ]
            )
    return written.getvalue()


def show(console: Console, report: Report) -> None:
    """Show a reader what differs, and what is known of it."""
    found = report.found
    _say(
        console,
        f"{report.source}, {report.since} to {report.until} (UTC), "
        f"beside what {' and '.join(report.destinations)} recorded.",
    )
    if not found.rows:
        _say(console, "Neither has any usage that can be compared.")
    else:
        console.print()
        hidden = _numbers(
            console, {unit: (pair, found.covered.get(unit)) for unit, pair in found.totals.items()}
        )
        console.print()
        _say(console, INCLUSIVE)
        hidden = {*hidden, *_rows(console, report)}
        if hidden:
            console.print()
            left = ", ".join(head.lower() for head in _HEADS if head in hidden)
            _say(console, f"Not shown everywhere: {left}. Use a wider terminal, --csv or --json.")
    _rest(console, report)
    _verdict(console, report)


def _rows(console: Console, report: Report) -> set[str]:
    """Show the rows that differ, and return the columns that there was no room for in one of them."""
    hidden: set[str] = set()
    rows = report.found.rows
    differing = [row for row in rows if row.differs]
    if not differing:
        console.print()
        _say(console, f"All of {plural(len(rows), 'row')} are equal, to the last unit.")
        return hidden
    by = ", ".join(report.found.by) or "all in one"
    verb = "differs" if len(differing) == 1 else "differ"
    heading(console, f"{len(differing):,} of {plural(len(rows), 'row')} {verb}, by {by}")
    for row in differing[:MOST]:
        console.print()
        name = "  ".join(value or "none" for value in report.values(row.group).values())
        console.print(cell(name or "all", "bold"), soft_wrap=True)
        hidden |= {
            *_numbers(
                console,
                {unit: (pair, pair.covered) for unit, pair in row.units.items() if pair.difference},
            )
        }
        for line in _known(row):
            _say(console, line)
    if len(differing) > MOST:
        console.print()
        _say(console, f"{plural(len(differing) - MOST, 'more row')} in --csv and --json.")
    return hidden


def _known(row: Row) -> list[str]:
    """Return what is known of a difference, a line each."""
    known = [
        f"- {cause.text}{': ' if cause.amounts else ''}{_listed(cause.amounts)}"
        for cause in row.causes
    ]
    if row.unexplained:
        amounts = {unit: amount for unit, amount in row.unexplained.items() if unit != REQUESTS}
        requests = -row.unexplained.get(REQUESTS, 0)
        more = f" ({plural(int(requests), 'more request')} there than calls here)"
        known.append(f"- UNEXPLAINED: {_listed(amounts)}{more if requests else ''}")
    return known


def _rest(console: Console, report: Report) -> None:
    """Say what is not in the rows."""
    found = report.found
    lines = [
        f"Not counted, at {host or 'a host that an earlier version did not record'}: {_listed(amounts)}."
        for host, amounts in found.elsewhere.items()
    ]
    lines += [
        f"Not compared, {surface.replace('_', ' ')}: {_listed(amounts)}; {reason}."
        for surface, amounts, reason in found.uncompared
    ]
    if report.outside:
        states = ", ".join(
            f"{amount:,} {state.replace('_', ' ')}" for state, amount in report.outside.items()
        )
        lines.append(
            f"Ours is what was recorded. The backend does not have, of all times: {states}."
        )
    lines += found.notes
    if lines:
        console.print()
    for line in lines:
        _say(console, line)


def _verdict(console: Console, report: Report) -> None:
    found = report.found
    if found.lowest is None:
        return
    unit = min((unit for unit in CHARGED if unit in found.covered), key=found.covered.__getitem__)
    unexplained = sum(bool(row.unexplained) for row in found.rows)
    console.print()
    _say(
        console,
        f"Least covered: {_word(unit)}, {share(found.lowest)}. "
        + (
            f"Unexplained: {plural(unexplained, 'row')}."
            if unexplained
            else "Nothing is unexplained."
        ),
    )


def _numbers(console: Console, units: Mapping[str, tuple[Pair, float | None]]) -> Sequence[str]:
    """
    Print a line for each unit, with the columns that there is room for; no number is broken.

    Returns:
        the columns that there is no room for.
    """
    lines = [
        _HEADS,
        *(
            (
                _word(unit),
                number(pair.theirs),
                number(pair.ours),
                _signed(pair.difference),
                "" if covered is None else share(covered),
            )
            for unit, (pair, covered) in units.items()
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = next(
        (
            columns
            for columns in _NARROW
            if 2 * len(columns) + sum(widths[column] for column in columns) <= console.width
        ),
        _NARROW[-1],
    )
    for at, line in enumerate(lines):
        cells = [
            line[column].ljust(widths[column])
            if column == 0
            else line[column].rjust(widths[column])
            for column in shown
        ]
        console.print(
            cell("  " + "  ".join(cells).rstrip(), "dim" if at == 0 else ""), soft_wrap=True
        )
    return [head for column, head in enumerate(_HEADS) if column not in shown]


def share(covered: float) -> str:
    """Return a share as a percentage; never rounded up, so that 100 % is all of it."""
    return f"{math.floor(covered * 10_000 + 1e-9) / 100:.2f} %"


def _listed(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{number(abs(amount))} {_word(unit)}" for unit, amount in amounts.items())


def _signed(amount: float) -> str:
    return f"+{number(amount)}" if amount > 0 else number(amount)


def _word(unit: str) -> str:
    return unit.replace("_", " ")


def _say(console: Console, line: str) -> None:
    console.print(cell(line))
