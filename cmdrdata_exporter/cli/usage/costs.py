"""
What usage costs: `--cost`.

Each fine group is priced by itself, and a row shows the sum of its groups. What has no certain price is in no sum: it
is named below, and the sum is the least that the row costs.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import click

from cmdrdata_exporter.cli.destination import Command, Place
from cmdrdata_exporter.cli.terminal import UNKNOWN, Json, at_least, number
from cmdrdata_exporter.cli.usage.numbers import (
    INCOMPLETE,
    Group,
    Numbers,
    Question,
    document,
    read,
)
from cmdrdata_exporter.prices import Cost, PriceError, PriceTable, exactly

CURRENCY = "USD"
HEADING = f"cost in {CURRENCY}"
_MODEL = ("provider", "host", "model", "endpoint")
FINE = (*_MODEL, "service_tier", "context")
"""What a price depends on, beside the time."""
DIGITS = 12
"""So many digits after the point are told of a sum. All of it, unless a price is by the hour."""
SHOWN = 4
"""So many a reader is shown."""
NAMED = 5
"""Of so many models it is said below the numbers what has no certain price, and why; JSON has all."""


class Sum(NamedTuple):
    """What several groups cost together."""

    amount: Decimal | None = None
    """None where none of them has a price."""
    is_least: bool = False
    """Whether more may have to be paid."""

    def plus(self, cost: Cost, *, is_whole: bool) -> Sum:
        """
        Return the sum with that of one more group.

        Args:
            cost: of the group.
            is_whole: whether all of its calls told their usage.
        """
        least = self.is_least or bool(cost.gaps) or not is_whole
        if cost.amount is None:
            return Sum(self.amount, least)
        return Sum(exactly().add(self.amount or Decimal(0), cost.amount), least)

    def document(self) -> Json:
        """
        Return it as JSON has it: a number in a text, since a float would be another one; null where it is not known.

        That it costs at least nothing is true of everything, so that is not known, too.
        """
        known = self.amount is not None and (self.amount or not self.is_least)
        amount = format(rounded(self.amount or Decimal(0)), "f") if known else None
        return {"cost": amount, "cost_is_least": self.is_least}


def prices_option(prices: str) -> Callable[[Command], Command]:
    """Return the option that takes a file of prices; its help begins with `prices`."""
    return click.option(
        "--prices",
        "price_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help=f"{prices} of your own, which come before those of the table; TOML or JSON.",
    )


def load(file: Path | None) -> PriceTable:
    """
    Return the prices.

    Raises:
        click.UsageError: there are none, or the file cannot be used.
    """
    try:
        return PriceTable.load(file)
    except PriceError as error:
        raise click.UsageError(str(error)) from error


def read_priced(
    destinations: Sequence[Place],
    by: Sequence[str],
    question: Question,
    table: PriceTable | None,
) -> Numbers:
    """
    Read what was used, by all that its prices depend on, too: by the hour only where one of them does.

    Args:
        destinations: whose usage.
        by: the columns that are wanted.
        question: which usage.
        table: the prices; None: no cost is wanted.

    Raises:
        UnreadableError: as `read` does.
    """
    if table is None:
        return read(destinations, by, question)
    columns = tuple(dict.fromkeys((*by, *FINE, "status", "day")))
    numbers = read(destinations, columns, question)
    models = numbers.summed(_MODEL)
    if any(table.changes_within_days(**dict(zip(_MODEL, model, strict=True))) for model in models):
        return read(destinations, tuple(dict.fromkeys((*columns, "hour"))), question)
    return numbers


def priced(
    numbers: Numbers, by: Sequence[str], question: Question, table: PriceTable | None
) -> Json:
    """Return what `cmdrdata usage --json` prints of what `read_priced` has read, by some of its columns."""
    found = document(numbers, by, question)
    return found if table is None else with_costs(found, numbers, table)


def with_costs(found: Json, numbers: Numbers, table: PriceTable) -> Json:
    """Return a document of usage with what it costs, from numbers that are read by `FINE`, too."""
    by: list[str] = found["by"]
    rows: dict[Group, Sum] = {}
    total = Sum()
    unpriced: dict[tuple[str, ...], Decimal | None] = {}
    for group in numbers.groups:
        named = dict(zip(numbers.columns, group, strict=True))
        cost = cost_of(table, numbers, group)
        is_whole = named["status"] not in INCOMPLETE
        row = tuple(named[name] for name in by)
        rows[row] = rows.get(row, Sum()).plus(cost, is_whole=is_whole)
        total = total.plus(cost, is_whole=is_whole)
        for gap in cost.gaps:
            what = (*(named[name] for name in UNPRICED[:-2]), gap.unit, gap.reason)
            amount = None if gap.amount is None else (unpriced.get(what) or 0) + gap.amount
            unpriced[what] = amount
    none = Sum()
    return {
        **found,
        "rows": [
            {**row, **rows.get(tuple(row[name] or "" for name in by), none).document()}
            for row in found["rows"]
        ],
        "total": {**found["total"], **total.document()},
        "currency": CURRENCY,
        "prices": table.version,
        "unpriced": [
            {
                **dict(zip(UNPRICED, what, strict=True)),
                "amount": None if unpriced[what] is None else _plain(unpriced[what] or Decimal(0)),
            }
            for what in sorted(unpriced)
        ],
    }


UNPRICED = ("provider", "host", "model", "service_tier", "endpoint", "unit", "reason")
"""What is said of usage without a certain price, beside its amount."""


def cost_of(
    table: PriceTable, numbers: Numbers, group: Group, units: Mapping[str, float] | None = None
) -> Cost:
    """Return what the usage of a group costs, or only some units of it."""
    named = dict(zip(numbers.columns, group, strict=True))
    used = numbers.groups[group]
    return table.cost(
        used if units is None else units,
        input_tokens=used.get("input_tokens", 0),
        **{name: named[name] for name in _MODEL},
        service_tier=named["service_tier"],
        context=named["context"],
        day=named.get("hour") or named["day"],
    )


def rounded(amount: Decimal, digits: int = DIGITS) -> Decimal:
    """Return an amount of money with so many digits after the point, without zeros at its end."""
    with decimal.localcontext(exactly()):
        return round(amount, digits).normalize() or Decimal(0)


def shown(row: Json) -> str:
    """Return what a row costs for a reader, who sees whether it is the least."""
    if row["cost"] is None:
        return UNKNOWN
    amount = Decimal(row["cost"])
    least = Decimal(1).scaleb(-SHOWN)
    text = f"{amount:,.{SHOWN}f}"
    if row["cost_is_least"]:
        return f"{at_least()}{text}"
    return f"<{least}" if 0 < amount < least / 2 else text


def footnotes(found: Json) -> list[str]:
    """Return by which prices the costs are, and what is not in them."""
    if "prices" not in found:
        return []
    notes = [f"Cost in US dollars, without taxes, by {found['prices']}."]
    if found["total"]["cost_is_least"]:
        notes.append(
            f"{at_least()} at least, - unknown: not all of the usage is known, or has a certain price."
        )
    models: dict[tuple[str, ...], dict[str, float | None]] = {}
    for one in found["unpriced"]:
        what = (one["model"], one["provider"], one["host"], one["service_tier"], one["reason"])
        amounts = models.setdefault(what, {})
        unit, amount = one["unit"], one["amount"]
        amounts[unit] = None if amount is None else (amounts.get(unit) or 0) + amount
    for (model, *whose, reason), amounts in list(models.items())[:NAMED]:
        said = f" ({', '.join(filter(None, whose))})" if any(whose) else ""
        units = ", ".join(_amount(unit, amount) for unit, amount in amounts.items())
        notes.append(f"No certain price: {model or 'no model'}{said}: {units}: {reason}.")
    if len(models) > NAMED:
        notes.append(f"And {len(models) - NAMED} more: see `unpriced` of --json.")
    if models:
        notes.append("Prices of your own: --prices FILE.")
    return notes


def _amount(unit: str, amount: float | None) -> str:
    name = unit.replace("_", " ")
    if amount is None:
        return name
    return f"{number(amount)} {name.removesuffix('s') if amount == 1 else name}"


def _plain(amount: Decimal) -> int | float:
    """Return an amount of a unit as usage has it."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)
