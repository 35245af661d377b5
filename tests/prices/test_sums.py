"""A sum of calls costs what the calls cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdrdata_exporter.delivery.spool.details import context
from cmdrdata_exporter.prices import PriceTable
from cmdrdata_exporter.prices.rates import exactly
from tests.prices.conftest import cost_of

CALLS: dict[str, tuple[dict[str, str], dict[str, str | None]]] = {
    # The units of a call, and of what each is a part.
    "chat": (
        {"model": "gpt-5.4"},
        {
            "input_tokens": None,
            "cache_read_input_tokens": "input_tokens",
            "output_tokens": None,
            "reasoning_output_tokens": "output_tokens",
            "web_search_calls": None,
        },
    ),
    "batch": (
        {"model": "gpt-4o", "endpoint": "batches"},
        {"input_tokens": None, "cache_read_input_tokens": "input_tokens", "output_tokens": None},
    ),
    "sound": (
        {"model": "gpt-realtime"},
        {
            "input_tokens": None,
            "text_input_tokens": "input_tokens",
            "output_tokens": None,
            "text_output_tokens": "output_tokens",
        },
    ),
    "seconds": ({"model": "gpt-realtime-whisper"}, {"audio_seconds": None}),
}


@pytest.fixture(scope="module")
def table() -> PriceTable:
    """The table of the installed genai-prices."""
    return PriceTable.load()


@pytest.mark.parametrize("kind", CALLS)
@settings(max_examples=50)
@given(data=st.data())
def test_a_sum_costs_what_its_calls_cost(kind: str, table: PriceTable, data: st.DataObject) -> None:
    """The price of a group is the sum of the prices of its calls, to the last digit."""
    call, parts = CALLS[kind]

    def units() -> dict[str, int]:
        amounts: dict[str, int] = {}
        for unit, whole in parts.items():
            largest = 10**6 if whole is None else amounts[whole]
            amounts[unit] = data.draw(st.integers(0, largest), unit)
        if "text_input_tokens" in amounts:
            for direction in ("input", "output"):
                rest = amounts[f"{direction}_tokens"] - amounts[f"text_{direction}_tokens"]
                amounts[f"audio_{direction}_tokens"] = rest
        return amounts

    calls = [units() for _ in range(data.draw(st.integers(1, 5), "calls"))]
    groups: dict[str, Counter[str]] = {}
    singly = Decimal(0)

    def priced(used: Mapping[str, float], step: str) -> Decimal:
        cost = cost_of(table, used, **call, context=step)
        assert () == cost.gaps
        assert cost.amount is not None
        return cost.amount

    for used in calls:
        step = context(used.get("input_tokens", 0))
        groups.setdefault(step, Counter()).update(used)
        singly = exactly().add(singly, priced(used, step))
    summed = Decimal(0)
    for step, used in groups.items():
        summed = exactly().add(summed, priced(used, step))
    if kind == "seconds":
        # One costs a fraction without end.
        assert abs(exactly().subtract(singly, summed)) < Decimal("1e-50")
    else:
        assert singly == summed
