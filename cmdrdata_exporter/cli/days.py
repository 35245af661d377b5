"""Days as the commands take them: `2026-11-21`, or as a person says it: `yesterday`, `7d`, `month`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any

import click

from cmdrdata_exporter.cli.destination import Command

KINDS = "2026-11-21, 2026-11, today, yesterday, 7d (seven days ago), month, last-month"
"""What can be said."""

_AGO = re.compile(r"(\d{1,4})d")


def day_option(name: str, text: str, *, last: bool = False) -> Callable[[Command], Command]:
    """
    Return an option that takes a UTC day, and gives it as a ledger has it: `2026-11-01`.

    Args:
        name: of the option.
        text: what it is for.
        last: whether it ends a time, so that a month means its last day.
    """

    def written(ctx: click.Context, param: click.Parameter, said: str | None) -> str | None:
        if said is None:
            return None
        day = day_of(said, datetime.fromtimestamp(time.time(), timezone.utc).date(), last=last)
        if day is None:
            raise click.BadParameter(f"{said!r} is no day; expected is one of: {KINDS}", ctx, param)
        return day.isoformat()

    options: dict[str, Any] = {"metavar": "DAY", "callback": written, "help": text}
    return click.option(name, **options)


def day_of(said: str, today: date, *, last: bool = False) -> date | None:
    """
    Return the day that is meant, None where it is none.

    Args:
        said: one of `KINDS`.
        today: the day on which it is said.
        last: whether a month means its last day, else its first.
    """
    said = said.strip().lower()
    try:
        if (ago := _AGO.fullmatch(said)) is not None:
            return today - timedelta(days=int(ago[1]))
        if re.fullmatch(r"\d{4}-\d\d-\d\d", said, re.ASCII):
            return date.fromisoformat(said)
        first = _first_of_month(said, today)
        if first is None:
            return {"today": today, "yesterday": today - timedelta(days=1)}.get(said)
        return _next_month(first) - timedelta(days=1) if last else first
    except (ValueError, OverflowError):
        return None


def _first_of_month(said: str, today: date) -> date | None:
    """Return the first day of a month that is named; None where none is."""
    if said == "month":
        return today.replace(day=1)
    if said == "last-month":
        return (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    if re.fullmatch(r"\d{4}-\d\d", said, re.ASCII):
        return date.fromisoformat(f"{said}-01")
    return None


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)
