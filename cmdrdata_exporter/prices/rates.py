"""
The arithmetic of a price: what units cost by rates.

Pure. It gives the least that usage costs, and says of each unit whether more may have to be paid for it, and why.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from decimal import Decimal
from itertools import combinations
from typing import NamedTuple

from cmdrdata_exporter.delivery.spool.details import LADDER
from cmdrdata_exporter.prices.units import (
    COUNTS,
    DIRECTION,
    INPUT,
    KIND,
    MODALITY,
    NAMES,
    NEVER_CHARGED,
    OUTPUT,
    SUMS,
    TOKENS,
    TOTAL,
    can_overlap,
    mark,
)

DIGITS = 60
"""Sums are exact. Only a price per hour, of which a second costs a fraction without end, is rounded: after these."""

_NEXT: Mapping[int, int] = dict(zip((0, *LADDER), LADDER, strict=False))


class Gap(NamedTuple):
    """Usage that is not priced, or for which more may have to be paid than was counted."""

    unit: str
    amount: Decimal | None
    """None where it is not known."""
    reason: str


class Cost(NamedTuple):
    """What usage costs, in US dollars."""

    amount: Decimal | None
    """What is priced; None where nothing could be. The least that all of it costs, where there are gaps."""
    gaps: tuple[Gap, ...] = ()

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The units that are not priced, or not for certain."""
        return tuple(dict.fromkeys(gap.unit for gap in self.gaps))

    @property
    def reason(self) -> str | None:
        """Why they are not."""
        return "; ".join(dict.fromkeys(gap.reason for gap in self.gaps)) or None


class Reach(NamedTuple):
    """How many input tokens each of the calls has: more than `low`, if that is not zero, and at most `high`."""

    low: int
    high: Decimal


class Rate(NamedTuple):
    """What a unit costs."""

    price: Decimal
    """In US dollars."""
    per: int = 1_000_000
    """Of how many."""
    steps: tuple[tuple[int, Decimal], ...] = ()
    """Other prices, of calls with more input tokens than that; the smallest number first."""

    def at(self, reach: Reach) -> Decimal | None:
        """Return the price of one, None where it is not the same for all calls within reach."""
        price = self.price
        for start, other in self.steps:
            if 0 < start <= reach.low:
                price = other
            elif start < reach.high and other != price:
                return None
        return price / self.per


class Unseen(NamedTuple):
    """A part of a unit that has a price of its own, and that events do not tell."""

    whole: str
    name: str
    is_modality: bool
    """Whether it is not there where a modality is told."""
    rate: Rate


class Prices(NamedTuple):
    """The prices of a model at one time, in one service tier."""

    rates: Mapping[str, Rate]
    """By unit."""
    unseen: tuple[Unseen, ...] = ()
    also: tuple[str, ...] = ()
    """What is charged beside the units, and not recorded."""


class _NotCertainError(Exception):
    """It is not certain what the tokens of a direction cost."""


def exactly() -> decimal.Context:
    """Return a context in which money is added up."""
    return decimal.Context(prec=DIGITS)


def used(units: Mapping[str, float | Decimal]) -> dict[str, Decimal]:
    """Return the amounts of the units that may be charged, without those that are zero."""
    return {
        unit: amount if isinstance(amount, Decimal) else Decimal(repr(amount))
        for unit, amount in units.items()
        if amount and unit not in NEVER_CHARGED
    }


def reach(total: Decimal, *, context: str, endpoint: str) -> Reach:
    """
    Return how large the calls were whose usage was summed.

    Args:
        total: how many input tokens they had together.
        context: the step of `LADDER` that is the same for all of them; another text, where that is not known.
        endpoint: of their events.
    """
    if not context.isdecimal() or int(context) not in (0, *LADDER):
        return Reach(0, total)
    step = int(context)
    # Of an event that is a sum itself the step is that of its sum, than which none of its calls is larger.
    return Reach(0 if endpoint in SUMS else step, min(total, Decimal(_NEXT.get(step, total))))


def unpriced(units: Mapping[str, Decimal], reason: str) -> Cost:
    """Return the cost of usage of which nothing can be priced."""
    wholes = [unit for unit in units if unit not in TOKENS or unit in (INPUT, OUTPUT)]
    if len(wholes) > 1 and (INPUT in wholes or OUTPUT in wholes):
        wholes = [unit for unit in wholes if unit != TOTAL]
    return Cost(None, tuple(Gap(unit, units[unit], reason) for unit in wholes or units))


def charge(prices: Prices, units: Mapping[str, Decimal], size: Reach) -> Cost:
    """
    Return what usage costs.

    Args:
        prices: of the model.
        units: what was used, as `used` returns it.
        size: how large the calls were.
    """
    amount, gaps = Decimal(0), list[Gap]()
    is_priced = False
    with decimal.localcontext(exactly()):
        for whole in (INPUT, OUTPUT):
            tokens = {
                unit: units[unit]
                for unit in TOKENS
                if unit in units and mark(unit, DIRECTION) == mark(whole, DIRECTION)
            }
            if tokens:
                try:
                    least = _tokens(prices, whole, tokens, size)
                    gaps += _perhaps_more(prices, whole, tokens, size)
                    amount += least
                    is_priced = True
                except _NotCertainError as error:
                    gaps.append(Gap(whole, tokens.get(whole), str(error)))
        has_tokens = is_priced
        for unit, number in units.items():
            if unit in TOKENS or unit == TOTAL:
                continue
            rate = prices.rates.get(unit)
            price = None if rate is None else rate.at(size)
            if number < 0:
                gaps.append(Gap(unit, number, "less than nothing was counted"))
            elif price is not None:
                amount += number * price
                is_priced = True
            elif rate is not None:
                gaps.append(Gap(unit, number, _sizes(rate)))
            elif unit not in COUNTS or not has_tokens:
                gaps.append(Gap(unit, number, "it has no price"))
        rest = units.get(TOTAL, 0) - units.get(INPUT, 0) - units.get(OUTPUT, 0)
        if rest > 0:
            gaps.append(Gap(TOTAL, Decimal(rest), "in the total, but neither input nor output"))
    gaps += [Gap(name, None, "charged where it applies, and not recorded") for name in prices.also]
    return Cost(amount if is_priced or not gaps else None, tuple(gaps))


def _tokens(prices: Prices, whole: str, tokens: Mapping[str, Decimal], size: Reach) -> Decimal:
    """
    Return what the tokens of a direction cost.

    Raises:
        _NotCertainError: that cannot be told.
    """
    if whole not in prices.rates:
        raise _NotCertainError("it has no price")
    priced = [unit for unit in tokens if unit in prices.rates]
    if whole not in tokens:
        raise _NotCertainError("parts are known, and not the total")
    _require_overlaps(prices, tokens, priced)
    # What is left of a unit without its parts that have prices of their own; the smallest parts come first.
    left: dict[str, Decimal] = {}
    cost = Decimal(0)
    for unit in sorted(priced, key=lambda unit: -len(TOKENS[unit])):
        parts = sum(amount for part, amount in left.items() if TOKENS[unit] < TOKENS[part])
        left[unit] = tokens[unit] - parts
        if left[unit] < 0:
            raise _NotCertainError("its parts are more than the total")
        price = prices.rates[unit].at(size)
        if price is not None:
            cost += left[unit] * price
        elif left[unit]:
            raise _NotCertainError(_sizes(prices.rates[unit]))
    return cost


def _require_overlaps(prices: Prices, tokens: Mapping[str, Decimal], priced: list[str]) -> None:
    """Raise where tokens may be two things at once that have prices of their own, and it is not told how many are."""
    for one, other in combinations(priced, 2):
        if not can_overlap(TOKENS[one], TOKENS[other]):
            continue
        both = NAMES.get(TOKENS[one] | TOKENS[other])
        # Where one of the overlaps of a kind was reported, the others are zero.
        kinds = {mark(one, KIND), mark(other, KIND)} - {None}
        is_told = any(
            mark(unit, KIND) in kinds and mark(unit, MODALITY) is not None for unit in tokens
        )
        if both is None or not is_told:
            raise _NotCertainError(f"how many of the {_said(one)} are {_said(other)} is not known")
        if both in tokens and both not in prices.rates:
            raise _NotCertainError(f"{_said(both)} have no price")


def _perhaps_more(
    prices: Prices, whole: str, tokens: Mapping[str, Decimal], size: Reach
) -> list[Gap]:
    """
    Return for which tokens more may have to be paid, since a dearer part of them is not told apart.

    Raises:
        _NotCertainError: less may have to be paid.
    """
    gaps: list[Gap] = []
    untold = prices.unseen
    if any(mark(unit, MODALITY) for unit in tokens):
        untold = tuple(part for part in untold if not part.is_modality)
    else:
        untold += tuple(
            Unseen(whole, modality, True, rate)
            for unit, rate in prices.rates.items()
            if (modality := _modality_of(unit, whole)) is not None
        )
    for unit, amount in tokens.items():
        rate = prices.rates.get(unit)
        if rate is None:
            # Of images and text the price of a model is that of its other tokens; of sound it hardly ever is.
            if mark(unit, MODALITY) == "audio" and mark(unit, KIND) is None:
                gaps.append(Gap(unit, amount, "no price of their own; counted as other tokens"))
            continue
        plain = rate.at(size)
        names: list[str] = []
        for part in untold:
            if part.whole != unit:
                continue
            other = part.rate.at(size)
            if plain is None or other is None or other < plain:
                raise _NotCertainError(f"how many of them are {part.name} is not known")
            if other > plain:
                names.append(part.name)
        if names:
            reason = f"how many of them are {' or '.join(names)} is not known; counted as if none"
            gaps.append(Gap(unit, amount, reason))
    return gaps


def _modality_of(unit: str, whole: str) -> str | None:
    """Return which modality a unit is of, if it is nothing else beside a part of `whole`."""
    if unit not in TOKENS or mark(unit, KIND) or mark(unit, DIRECTION) != mark(whole, DIRECTION):
        return None
    return mark(unit, MODALITY)


def _sizes(rate: Rate) -> str:
    """Return why a rate gives no price."""
    steps = " or ".join(f"{start:,}" for start, _ in rate.steps)
    return f"calls with more than {steps} input tokens have another price, and the sum does not tell their size"


def _said(unit: str) -> str:
    return unit.replace("_", " ")
