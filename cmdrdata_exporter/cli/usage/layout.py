"""
Where the rows of a usage report stand, in a terminal of any width and in a pipe.

A pipe gets every column, at full width and without blanks at the ends of its lines. In a terminal the units that come
last are left out until a row fits. Where hardly any would be left beside long names, the names of a row stand on a
line of their own, and the numbers below it. A name is never broken, unless it is longer than the terminal is wide.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmdrdata_exporter.cli.terminal import (
    Json,
    cell,
    customer,
    encoding,
    number,
    plain,
    table,
    unpadded,
)
from cmdrdata_exporter.cli.usage import costs
from cmdrdata_exporter.cli.usage.numbers import EVENTS

ENOUGH = 3
"""So many units are shown beside the names, or the names stand above the numbers."""
BAR = range(8, 25)
"""How wide a bar may be."""
TOTAL_TOKENS = "total_tokens"
"""What bars stand for, where any are used; else it is the events."""
UNKNOWN = "-"
"""How a name is shown that is not known."""
BLOCKS = " ▏▎▍▌▋▊▉█"
GAP = "   "

_COLUMN = 3
"""What a column needs beside what is in it."""


def show_rows(console: Console, found: Json, units: Sequence[str]) -> list[str]:
    """
    Show the rows of a report.

    Args:
        console: where.
        found: what was used.
        units: the units to show, the most important first.

    Returns:
        the units for which there was room.
    """
    if not console.is_terminal:
        unpadded(console, _table(found, units, pad_edge=False))
        return list(units)
    beside = _room_for(console, [_table(found, units[:count]) for count in range(len(units) + 1)])
    if beside < min(ENOUGH, len(units)):
        above = _room_for(
            console, [_numbers(found, units[:count]) for count in range(len(units) + 1)]
        )
        if above > beside:
            _show_stacked(console, found, units[:above])
            return list(units[:above])
    shown = list(units[: max(beside, 0)])
    bar = _bar_width(console, _table(found, shown)) if beside == len(units) else 0
    console.print(_table(found, shown, bar=bar))
    return shown


def blocks(share: float, width: int) -> str:
    """Return a bar of at most `width` characters for a share of the largest number; what is not zero is seen."""
    if share <= 0:
        return ""
    whole, rest = divmod(max(1, round(share * width * 8)), 8)
    return BLOCKS[8] * whole + BLOCKS[rest].strip()


def _room_for(console: Console, tables: Sequence[Table]) -> int:
    """Return the index of the last table that fits, -1 where none does."""
    fitting = [index for index, shown in enumerate(tables) if _spare(console, shown) >= 0]
    return max(fitting, default=-1)


def _spare(console: Console, shown: Table) -> int:
    room = console.options.update(max_width=10_000)
    return console.width - console.measure(shown, options=room).maximum


def _bar_width(console: Console, shown: Table) -> int:
    """Return how wide bars beside a table may be; 0 where there are none."""
    width = min(_spare(console, shown) - _COLUMN, BAR[-1])
    blocks_are_shown = encoding().lower().startswith("utf")
    return width if width in BAR and blocks_are_shown and shown.row_count > 1 else 0


def _table(found: Json, units: Sequence[str], *, bar: int = 0, pad_edge: bool = True) -> Table:
    """Return a table of names and numbers; at its end with bars of a width, where that is not 0."""
    by = found["by"]
    shown = table()
    shown.pad_edge = pad_edge
    for name in by:
        shown.add_column(_heading(name), no_wrap=True)
    for unit in (*_first(found["total"]), *units):
        shown.add_column(_heading(unit), justify="right", no_wrap=True)
    drawn = TOTAL_TOKENS if TOTAL_TOKENS in units else EVENTS
    if bar:
        shown.add_column(_heading(drawn), width=bar, no_wrap=True)
    largest = max((_amount(row, drawn) for row in found["rows"]), default=0)
    for row in found["rows"]:
        share = _amount(row, drawn) / largest if largest > 0 else 0
        bars = [blocks(share, bar)] if bar else []
        shown.add_row(*(_cell(name, row[name]) for name in by), *_amounts(row, units), *bars)
    if len(found["rows"]) > 1:
        shown.add_section()
        shown.add_row(_total(), *[""] * (len(by) - 1), *_amounts(found["total"], units))
    return shown


def _numbers(found: Json, units: Sequence[str]) -> Table:
    """Return a table of the numbers alone, a little to the right, with the total where there are several rows."""
    shown = table("")
    for unit in (*_first(found["total"]), *units):
        shown.add_column(_heading(unit), justify="right", no_wrap=True)
    for row in (*found["rows"], found["total"])[: None if len(found["rows"]) > 1 else -1]:
        shown.add_row("", *_amounts(row, units))
    return shown


def _show_stacked(console: Console, found: Json, units: Sequence[str]) -> None:
    """Show each row as a line of names and a line of numbers."""
    numbers = _numbers(found, units)
    lines = [
        Text("".join(segment.text for segment in line))
        for line in console.render_lines(numbers, pad=False)
    ]
    head = len(lines) - numbers.row_count
    by = found["by"]
    _show_names(console, [_heading(name, wrap=False) for name in by])
    console.print(*lines[:head], sep="\n", style="bold")
    for row, line in zip(found["rows"], lines[head:], strict=False):
        _show_names(console, [_cell(name, row[name]) for name in by])
        console.print(line)
    if len(found["rows"]) > 1:
        console.print()
        _show_names(console, [_total()])
        console.print(lines[-1])


def _show_names(console: Console, names: Sequence[Text]) -> None:
    """Show names in one line if they fit, else each in its own."""
    line = Text.assemble(" ", Text(GAP).join(names))
    lines = (
        [line] if line.cell_len <= console.width else [Text.assemble(" ", name) for name in names]
    )
    for shown in lines:
        # A name that is too long is cut by the terminal alone: what is copied from it is whole.
        console.print(shown, soft_wrap=True)


def _heading(name: str, *, wrap: bool = True) -> Text:
    """Return the name of a column in lines so short that most numbers are as long."""
    words = plain(name.replace("_", " "))
    words = words[:1].upper() + words[1:]
    return Text("\n".join(textwrap.wrap(words, 11)) if wrap else words, style="bold")


def _cell(name: str, value: str | None) -> Text:
    if name == "customer":
        return customer(value)
    return cell(value) if value else Text(UNKNOWN, style="dim")


def _total() -> Text:
    return Text("Total", style="bold")


def _amount(row: Json, unit: str) -> float:
    return row[EVENTS] if unit == EVENTS else row["units"].get(unit, 0)


def _amounts(row: Json, units: Sequence[str]) -> list[str]:
    cost = [costs.shown(row)] if costs.HEADING in _first(row) else []
    return [number(row[EVENTS]), *cost, *(number(_amount(row, unit)) for unit in units)]


def _first(row: Json) -> tuple[str, ...]:
    """Return what stands before the units."""
    return (EVENTS, costs.HEADING) if "cost" in row else (EVENTS,)
