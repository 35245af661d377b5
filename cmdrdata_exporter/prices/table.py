"""What calls cost: the prices of a file of one's own, and those of the table where it has none."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cmdrdata_exporter import clocks
from cmdrdata_exporter.prices.rates import Cost, Prices, charge, reach, unpriced, used
from cmdrdata_exporter.prices.spans import Span
from cmdrdata_exporter.prices.units import BATCH, INPUT, STANDARD

if TYPE_CHECKING:
    from cmdrdata_exporter.prices.listed import Listed
    from cmdrdata_exporter.prices.own import OwnPrices

_OLDEST = (3, 11)
_USUAL = frozenset(("", "standard", "on_demand"))
"""What providers call the usual service tier, or do not; `auto` only leaves the choice to them."""
_SEVERAL = "a price changed within the day or the month that was summed"


class PriceError(Exception):
    """There are no prices, or a file of prices cannot be used: what is wrong, and what to do."""


class _Calls(NamedTuple):
    """What decides on the prices of calls."""

    provider: str
    host: str
    model: str
    tier: str
    endpoint: str


class PriceTable:
    """
    Prices; see the package for an example.

    Args:
        listed: the table.
        own: the prices that override it.
    """

    def __init__(self, listed: Listed, own: OwnPrices | None) -> None:
        self._listed = listed
        self._own = () if own is None else own.entries
        self._known: dict[tuple[_Calls, str], list[Prices | str]] = {}
        versions = [] if own is None else [own.version]
        self.version = "; ".join([*versions, listed.version])
        """Says which prices these are; for whoever reads a report."""

    @classmethod
    def load(cls, file: Path | None = None) -> PriceTable:
        """
        Return the prices of the installed genai-prices. Nothing is asked over the network.

        Args:
            file: with prices that override them.

        Raises:
            PriceError: genai-prices is missing, or the file cannot be used.
        """
        if sys.version_info < _OLDEST:
            raise PriceError(
                f"prices need Python 3.11 or newer, and this is {sys.version_info[0]}.{sys.version_info[1]};"
                " run the command with a newer Python, in an environment of its own if need be"
            )
        try:
            from cmdrdata_exporter.prices import own
            from cmdrdata_exporter.prices.listed import Listed
        except ImportError as error:
            raise PriceError(
                f"genai-prices 0.2.3 or newer is needed ({error});"
                " run: pip install 'opentelemetry-instrumentation-cmdrdata[cli,prices]'"
            ) from error
        today = datetime.fromtimestamp(clocks.wall(), timezone.utc).date()
        try:
            return cls(Listed.shipped(today), None if file is None else own.read(file))
        except own.FileError as error:
            raise PriceError(str(error)) from error

    @functools.cached_property
    def without_file(self) -> PriceTable:
        """The same table, without the file that overrides it."""
        return PriceTable(self._listed, None) if self._own else self

    def cost(
        self,
        units: Mapping[str, float | Decimal],
        *,
        provider: str,
        model: str,
        service_tier: str,
        endpoint: str,
        context: str,
        day: str,
        host: str = "",
        input_tokens: float | None = None,
    ) -> Cost:
        """
        Return what usage costs: that of one call, or of several that have all of this in common.

        Args:
            units: what was used, by unit, as events and ledgers have it.
            provider: as events have it; empty where it is not known, like all below.
            model: that served the calls.
            service_tier: in which they were served.
            endpoint: of their events.
            context: the step of the price ladder that their input tokens exceed.
            day: when they ended: an hour, a day or a month, as a ledger has it.
            host: that was called.
            input_tokens: how many the calls had in all, where `units` are only some of what they used.
        """
        amounts = used(units)
        if not amounts:
            return Cost(Decimal(0))
        span = Span.read(day)
        if span is None:
            return unpriced(amounts, "the day is not known")
        tier = STANDARD if service_tier in _USUAL else service_tier
        calls = _Calls(provider, host, model, BATCH if endpoint == "batches" else tier, endpoint)
        if (calls, day) not in self._known:
            self._known[calls, day] = self._within(calls, span)
        total = amounts.get(INPUT, 0) if input_tokens is None else input_tokens
        size = reach(Decimal(total), context=context, endpoint=endpoint)
        costs = {
            unpriced(amounts, prices) if isinstance(prices, str) else charge(prices, amounts, size)
            for prices in self._known[calls, day]
        }
        if len(costs) > 1:
            return unpriced(amounts, _SEVERAL)
        return costs.pop()

    def changes_within_days(self, *, provider: str, model: str, endpoint: str, host: str) -> bool:
        """Say whether prices depend on the hour, so that a sum of a whole day has none."""
        found = self._listed.model(provider, host, model, endpoint)
        return not isinstance(found, str) and bool(self._listed.changes(found[1])[1])

    def _within(self, calls: _Calls, span: Span) -> list[Prices | str]:
        """Return all prices that hold at some time within a span, or why there are none."""
        found = self._listed.model(calls.provider, calls.host, calls.model, calls.endpoint)
        days, times = ([], []) if isinstance(found, str) else self._listed.changes(found[1])
        for entry in self._own:
            days += [entry.first, *([] if entry.last == date.max else [entry.last + timedelta(1)])]
        prices: list[Prices | str] = []
        for at in span.instants(days, times):
            listed = (
                found if isinstance(found, str) else self._listed.prices(*found, calls.tier, at)
            )
            entry = next(
                (
                    entry
                    for entry in self._own
                    if entry.is_for(
                        provider=calls.provider,
                        host=calls.host,
                        model=calls.model,
                        tier=calls.tier,
                        day=at.date(),
                    )
                ),
                None,
            )
            held = listed if entry is None else entry.over(listed)
            if held not in prices:
                prices.append(held)
        return prices
