"""
Where the rows of a usage report stand, in a terminal of any width and in a pipe.

A pipe gets every column, at full width and without blanks at the ends of its lines. In a terminal the units that come
last are left out until a row fits. Where hardly any would be left beside long names, the names of a row stand on a
line of their own, and the numbers below it. A name is never broken, unless it is longer than the terminal is wide.

Lines are made here and not by a table of rich, which takes seconds for some thousand rows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from cmdrdata_exporter.cli.terminal import (
    UNKNOWN,
    Json,
    cell,
    customer,
    encoding,
    number,
    plain,
)
from cmdrdata_exporter.cli.usage import costs
from cmdrdata_exporter.cli.usage.numbers import EVENTS

ENOUGH = 3
"""So many units are shown beside the names, or the names stand above the numbers."""
BAR = range(8, 25)
"""How wide a bar may be."""
TOTAL_TOKENS = "total_tokens"
"""What bars stand for, where any are used; else it is the events."""
BLOCKS = " ▏▎▍▌▋▊▉█"
GAP = "   "
"""What is between two columns."""
MARGIN = " "
"""What is before the first one in a terminal."""
INDENT = "   "
"""What is before numbers that stand below their names."""


class Column(NamedTuple):
    """What stands below each other."""

    heading: Sequence[Text]
    """In lines so short that most numbers are as long."""
    cells: Sequence[Text]
    """One of each row, and of the total."""
    width: int
    right: bool = False
    """Whether it is flush right, as numbers are."""


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
    names = [_names(found, name) for name in found["by"]]
    fixed = [_numbers(found, EVENTS), *_costs(found)]
    of_units = [_numbers(found, unit) for unit in units]
    if not console.is_terminal:
        _print(console, _rows(found, [*names, *fixed, *of_units], margin=""))
        return list(units)
    room = console.width
    beside = _fitting(room, [*names, *fixed], of_units, MARGIN)
    above = _fitting(room, fixed, of_units, INDENT)
    if beside < min(ENOUGH, len(units), above) or beside < 0:
        above = max(above, 0)
        _print(console, _stacked(found, names, [*fixed, *of_units[:above]], room))
        return list(units[:above])
    shown = [*names, *fixed, *of_units[:beside]]
    bars = _bars(found, room - _width(shown, MARGIN)) if beside == len(units) else []
    _print(console, _rows(found, [*shown, *bars], margin=MARGIN))
    return list(units[:beside])


def blocks(share: float, width: int) -> str:
    """Return a bar of at most `width` characters for a share of the largest number; what is not zero is seen."""
    if share <= 0:
        return ""
    whole, rest = divmod(max(1, round(share * width * 8)), 8)
    return BLOCKS[8] * whole + BLOCKS[rest].strip()


def _names(found: Json, name: str) -> Column:
    cells = [_cell(name, row[name]) for row in found["rows"]]
    # The word for the total stands in the first column alone.
    total = Text("Total" if name == found["by"][0] else "", style="bold")
    return _column(name, [*cells, *[total] * _has_total(found)])


def _numbers(found: Json, unit: str) -> Column:
    rows = [*found["rows"], *[found["total"]] * _has_total(found)]
    return _column(unit, [Text(number(_amount(row, unit))) for row in rows], right=True)


def _costs(found: Json) -> list[Column]:
    """Return a column of what rows cost, none where that was not asked for."""
    if "cost" not in found["total"]:
        return []
    rows = [*found["rows"], *[found["total"]] * _has_total(found)]
    return [_column(costs.HEADING, [Text(costs.shown(row)) for row in rows], right=True)]


def _bars(found: Json, room: int) -> list[Column]:
    """Return a column of bars beside the others, none where there is no room, or nothing to compare."""
    width = min(room - len(GAP), BAR[-1])
    if width not in BAR or not _has_blocks() or not _has_total(found):
        return []
    drawn = TOTAL_TOKENS if TOTAL_TOKENS in found["total"]["units"] else EVENTS
    amounts = [_amount(row, drawn) for row in found["rows"]]
    largest = max(amounts)
    shares = [amount / largest if largest > 0 else 0 for amount in amounts]
    return [_column(drawn, [*(Text(blocks(share, width)) for share in shares), Text("")])]


def _column(name: str, cells: Sequence[Text], *, right: bool = False) -> Column:
    heading = [Text(line, style="bold") for line in textwrap.wrap(_title(name), 11)]
    width = max(text.cell_len for text in (*heading, *cells))
    return Column(heading, cells, width, right)


def _title(name: str) -> str:
    words = plain(name.replace("_", " "))
    return words[:1].upper() + words[1:]


def _fitting(room: int, fixed: Sequence[Column], more: Sequence[Column], before: str) -> int:
    """Return how many columns fit beside those that are fixed, -1 where not even these do."""
    counts = range(len(more) + 1)
    return max((n for n in counts if _width([*fixed, *more[:n]], before) <= room), default=-1)


def _width(columns: Sequence[Column], before: str) -> int:
    return len(before) + sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def _rows(found: Json, columns: Sequence[Column], *, margin: str) -> list[Text]:
    """Return each row as a line, and what is above and below them."""
    count = len(found["rows"])
    lines = _head(columns, margin)
    lines += [_line(columns, [c.cells[row] for c in columns], margin) for row in range(count)]
    if _has_total(found):
        lines += [Text(""), _line(columns, [c.cells[-1] for c in columns], margin)]
    return lines


def _stacked(
    found: Json, names: Sequence[Column], numbers: Sequence[Column], width: int
) -> list[Text]:
    """Return each row as a line of names and a line of numbers."""
    titles = [Text(_title(name), "bold") for name in found["by"]]
    lines = [*_in_line(titles, width), *_head(numbers, INDENT)]
    for row in range(len(found["rows"])):
        lines += _in_line([name.cells[row] for name in names], width)
        lines.append(_line(numbers, [c.cells[row] for c in numbers], INDENT))
    if _has_total(found):
        lines += [Text(""), *_in_line([names[0].cells[-1]], width)]
        lines.append(_line(numbers, [c.cells[-1] for c in numbers], INDENT))
    return lines


def _in_line(names: Sequence[Text], width: int) -> list[Text]:
    """Return names in one line if they fit, else each in its own."""
    line = Text.assemble(MARGIN, Text(GAP).join(names))
    return [line] if line.cell_len <= width else [Text.assemble(MARGIN, name) for name in names]


def _head(columns: Sequence[Column], margin: str) -> list[Text]:
    """Return the headings, which end in the same line, and a rule."""
    height = max(len(column.heading) for column in columns)
    lines = [
        _line(columns, [_from_below(column.heading, height)[line] for column in columns], margin)
        for line in range(height)
    ]
    rule = "─" if _has_blocks() else "-"
    return [*lines, Text(rule * _width(columns, margin))]


def _from_below(heading: Sequence[Text], height: int) -> list[Text]:
    return [*[Text("")] * (height - len(heading)), *heading]


def _line(columns: Sequence[Column], cells: Iterable[Text], margin: str) -> Text:
    line = Text(margin)
    for index, (column, shown) in enumerate(zip(columns, cells, strict=True)):
        blank = " " * (column.width - shown.cell_len)
        line.append(GAP if index else "")
        line.append_text(Text.assemble(blank, shown) if column.right else shown)
        line.append("" if column.right else blank)
    line.rstrip()
    return line


def _print(console: Console, lines: Sequence[Text]) -> None:
    # Whatever is too long is cut by the terminal alone: what is copied from it is whole.
    console.print(Text("\n").join(lines), soft_wrap=True)


def _has_total(found: Json) -> bool:
    return len(found["rows"]) > 1


def _has_blocks() -> bool:
    return encoding().lower().startswith("utf")


def _cell(name: str, value: str | None) -> Text:
    if name == "customer":
        return customer(value)
    return cell(value) if value else Text(UNKNOWN, style="dim")


def _amount(row: Json, unit: str) -> float:
    return row[EVENTS] if unit == EVENTS else row["units"].get(unit, 0)
