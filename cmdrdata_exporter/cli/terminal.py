"""
How the commands print: for a reader, at 80 columns and more, or one JSON document for a script.

A pipe gets whole lines: nothing is broken or cut to a width that nobody has, and no line ends in blanks.

Text from others (a customer, a model, a unit, a reason, a path) may hold control characters, marks that reverse text,
or markup of rich. So it goes through `plain`: by `cell` into a table, by `say` onto a line. Errors go through it where
they are shown.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import click
from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cmdrdata_exporter.cli.states import NO_CUSTOMER
from cmdrdata_exporter.wording import plural as plural  # noqa: PLC0414 - the commands print with it too

Json = dict[str, Any]

FINE, ATTENTION, REFUSED = range(3)
"""Exit codes: all is well; a person is needed; the command or the configuration cannot be used."""


USUAL = 80
"""Columns of a page that has no terminal to tell its own."""
_UNBROKEN = 10_000
"""Columns in a pipe, where lines may be as long as what they say."""


class Terminal(Console):
    """
    Where a command prints.

    Args:
        page: whether what is printed is laid out as a page, in a pipe too, which has the usual width then.
    """

    def __init__(self, *, page: bool = False) -> None:
        super().__init__(highlight=False)
        # Whoever exports COLUMNS has said how wide it is.
        if not self.is_terminal and not os.environ.get("COLUMNS"):
            self.width = USUAL if page else _UNBROKEN

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `Console.print` does; a pipe gets no blanks at the ends of lines."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        lines = captured.get().split("\n")
        self.file.write("\n".join(line.rstrip(" ") for line in lines))
        self.file.flush()

    def on_broken_pipe(self) -> None:
        """Let the group of commands handle a reader that has gone; rich would exit with an error."""
        raise BrokenPipeError


def print_json(document: Json) -> None:
    """Print one document, in characters that every terminal and script can read."""
    click.echo(json.dumps(document, indent=2))


def print_file(text: str) -> None:
    """Print what is meant for a file: it gets every character as it is, in UTF-8, a terminal what it can show."""
    click.echo(plain(text, keep="\n") if sys.stdout.isatty() else text.encode(), nl=False)


def heading(console: Console, title: str) -> None:
    """Begin a part of what is shown."""
    console.print()
    line = Rule(cell(title, "bold"), align="left", style="dim")
    console.print(line, width=console.width if console.is_terminal else min(console.width, USUAL))


_ASCII_HEAD = box.Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)
"""A line of hyphens below the head, for terminals without the characters that draw boxes."""


def table(*headers: str) -> Table:
    """Return a table without rows."""
    lines = box.SIMPLE_HEAD if is_utf_8() else _ASCII_HEAD
    return Table(*headers, box=lines, show_edge=False)


def encoding() -> str:
    """Return how standard output is encoded."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def is_utf_8() -> bool:
    """Say whether standard output takes every character."""
    return encoding().lower().startswith("utf")


def plain(text: object, keep: str = "") -> str:
    """
    Return text with everything escaped that a terminal must not get or cannot show.

    That is control characters, marks that reverse text, and characters that the encoding lacks.

    Args:
        text: text from others.
        keep: characters that stay.
    """
    return printable(text, keep).encode(encoding(), "backslashreplace").decode(encoding())


def printable(text: object, keep: str = "") -> str:
    """Return text in which control characters and marks that reverse text or take no room are escaped."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def printable_values(document: Any) -> Any:
    """Return a document of JSON in which every text is printable, those that are names, too."""
    if isinstance(document, str):
        return printable(document)
    if isinstance(document, dict):
        named = cast("Json", document)
        return {printable(name): printable_values(value) for name, value in named.items()}
    if isinstance(document, list):
        return [printable_values(value) for value in cast("list[Any]", document)]
    return document


def cell(text: str | None, style: str = "") -> Text:
    """Return text from others, a model for instance, as a cell or a line."""
    return Text(plain(text or ""), style=style)


def say(line: str, *, err: bool = False) -> None:
    """Print a line that may hold text from others."""
    click.echo(plain(line), err=err)


def customer(name: str | None) -> Text:
    """Return the name of a customer, or the word for none."""
    return cell(name, "bold") if name else Text(NO_CUSTOMER, style="italic")


UNKNOWN = "-"
"""How is shown what is not known."""


def at_least() -> str:
    """Return what stands before an amount that may be larger."""
    return "≥" if is_utf_8() else ">="


def number(amount: float) -> str:
    """Return an amount for a reader."""
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:,.3f}".rstrip("0").rstrip(".")


def moment(seconds: float) -> str:
    """Return a time, `2026-11-21T18:24:10Z`."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    """Return the time, as `moment` does."""
    return moment(time.time())


def minute(seconds: float) -> str:
    """Return a time for a reader, `2026-11-21 18:24`, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")


def day(days_ago: int) -> str:
    """Return the name of a UTC day, `2026-11-21`."""
    then = datetime.fromtimestamp(time.time(), timezone.utc) - timedelta(days=days_ago)
    return then.strftime("%Y-%m-%d")


def age(moment: str) -> float:
    """Return how many seconds ago a time was, as `moment` returns it."""
    # Python 3.10 does not know the Z.
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return max(0.0, time.time() - then.timestamp())


def duration(seconds: float) -> str:
    """Return a number of seconds for a reader: `3 min`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(number_of_bytes: int) -> str:
    """Return a number of bytes for a reader."""
    value = float(number_of_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
