"""How the commands print: for a reader, at 80 columns and more, or one JSON document for a script."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

UNATTRIBUTED = "unattributed"
"""How usage is shown that belongs to no customer."""
FINE, ATTENTION, REFUSED = range(3)
"""Exit codes: all is well; a person is needed; the command or the configuration cannot be used."""


class Terminal(Console):
    """Where a command prints."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Leave it to the group of commands what a reader that has gone means; rich would fail."""
        raise BrokenPipeError


def print_json(document: Json) -> None:
    """Print one document, in characters that every terminal and script can read."""
    click.echo(json.dumps(document, indent=2))


def heading(console: Console, title: str) -> None:
    """Begin a part of what is shown."""
    console.print()
    console.rule(Text(title, style="bold"), align="left", style="dim")


def table(*headers: str) -> Table:
    """Return a table without rows."""
    return Table(*headers, box=box.SIMPLE_HEAD, show_edge=False)


def cell(text: str | None, style: str = "") -> Text:
    """Return text that others have named, a model for instance, without what would command the terminal."""
    return Text("".join(c if c.isprintable() else "�" for c in text or ""), style=style)


def customer(name: str | None) -> Text:
    """Return the name of a customer, or that there is none."""
    return cell(name, "bold") if name else Text(UNATTRIBUTED, style="italic")


def number(amount: float) -> str:
    """Return an amount for a reader."""
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:,.3f}".rstrip("0").rstrip(".")


def plural(count: int, noun: str) -> str:
    """Return a number of things."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def moment(seconds: float) -> str:
    """Return a time, `2026-11-21T18:24:10Z`."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def minute(seconds: float) -> str:
    """Return a time for a reader, `2026-11-21 18:24`, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")


def age(moment: str) -> float:
    """Return how many seconds ago a time was, as `moment` returns it."""
    # Python 3.10 does not know the Z.
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return max(0.0, time.time() - then.timestamp())


def span(seconds: float) -> str:
    """Return a number of seconds for a reader."""
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
