"""
What usage costs.

    table = PriceTable.load()
    cost = table.cost(
        {"input_tokens": 1_000_000},
        provider="openai", model="gpt-4o", service_tier="default", endpoint="chat.completions", context="0",
        day="2026-11-20",
    )
    assert (Decimal("2.5"), ()) == (cost.amount, cost.unpriced)

Prices come from the table that the package genai-prices ships, and from a file of one's own; nothing is asked over the
network. What cannot be priced for certain is not: it is named instead, with the reason, and the amount is the least
that the usage costs then. Cost is never part of an event.
"""

from __future__ import annotations

from cmdrdata_exporter.prices.rates import Cost, Gap, exactly
from cmdrdata_exporter.prices.table import PriceError, PriceTable

__all__ = ["Cost", "Gap", "PriceError", "PriceTable", "exactly"]
