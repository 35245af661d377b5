"""When which price holds: tables made of literals, as genai-prices has them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time, timezone
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from cmdrdata_exporter.delivery.spool.details import LADDER, context
from cmdrdata_exporter.prices import Cost, PriceTable
from cmdrdata_exporter.prices.listed import Listed
from tests.prices.conftest import cost_of

CHANGED = "a price changed within the day or the month that was summed"
NONE_YET = "the table has no price of that time"


def model(prices: Any, variants: list[PriceVariant] | None = None) -> PriceTable:
    """Return a table of one model."""
    info = ModelInfo("gpt-4o", ClauseEquals("gpt-4o"), prices=prices, price_variants=variants)
    return PriceTable(
        Listed([Provider("openai", "OpenAI", "https://api.openai.com", models=[info])], "test"),
        None,
    )


def dollars(price: str, cached: str | None = None) -> ModelPrice:
    """Return prices by the million."""
    parts = {} if cached is None else {"cache_read_mtok": Decimal(cached)}
    return ModelPrice(input_mtok=Decimal(price), **parts)


def since(day: str, price: str, cached: str | None = None) -> ConditionalPrice:
    """Return a price that holds from a day on."""
    return ConditionalPrice(
        StartDateConstraint(date.fromisoformat(day)), prices=dollars(price, cached)
    )


def cost(table: PriceTable, units: Mapping[str, float] | None = None, **call: Any) -> Cost:
    """Return what a million input tokens cost."""
    return cost_of(table, units or {"input_tokens": 1_000_000}, **call)


CHANGES = model(
    [ConditionalPrice(prices=dollars("5")), since("2026-07-15", "4"), since("2026-08-01", "3")]
)


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2026-06", 5),
        ("2026-07-14", 5),
        ("2026-07-14T23", 5),
        ("2026-07-15", 4),
        ("2026-07-15T00", 4),
        ("2026-07-31", 4),
        ("2026-08-01", 3),
        ("2026-08", 3),
        ("2026-12", 3),
        ("2026-07", CHANGED),
    ],
)
def test_a_change_of_price(day: str, expected: int | str) -> None:
    """A price holds from its UTC day on; of a month in which it changed nobody knows when what was used."""
    found = cost(CHANGES, day=day)
    assert expected == (found.reason if found.amount is None else found.amount)


def test_a_change_that_does_not_matter() -> None:
    """Where the price of what was used stayed, the month has a price: here that of cached tokens changed."""
    table = model([ConditionalPrice(prices=dollars("5", "1")), since("2026-07-15", "5", "2")])
    assert 5 == cost(table, day="2026-07").amount
    cached = {"input_tokens": 1_000_000, "cache_read_input_tokens": 1}
    assert CHANGED == cost(table, cached, day="2026-07").reason


def test_before_the_first_price() -> None:
    """Before a price holds there is none; the library itself would take the first one."""
    table = model([since("2026-07-15", "5")])
    assert (NONE_YET, 5) == (cost(table, day="2026-07-14").reason, cost(table).amount)
    assert CHANGED == cost(table, day="2026-07").reason


PEAK = model(
    [
        ConditionalPrice(prices=dollars("1")),
        ConditionalPrice(
            TimeOfDateConstraint(time(0, 30, tzinfo=timezone.utc), time(16, 0)),
            prices=dollars("2"),
        ),
    ]
)


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2026-11-20T00", CHANGED),
        ("2026-11-20T01", 2),
        ("2026-11-20T15", 2),
        ("2026-11-20T16", 1),
        ("2026-11-20", CHANGED),
        ("2026-11", CHANGED),
    ],
)
def test_prices_of_the_hour(day: str, expected: int | str) -> None:
    """Where the price depends on the hour, only hours have one, and those in which it does not change."""
    found = cost(PEAK, day=day)
    assert expected == (found.reason if found.amount is None else found.amount)


def test_which_prices_need_the_hour() -> None:
    """Whoever sums by the day can ask for which models that is not enough."""
    asked = {"provider": "openai", "model": "gpt-4o", "endpoint": "chat.completions", "host": ""}
    assert PEAK.changes_within_days(**asked)
    assert not CHANGES.changes_within_days(**asked)
    assert not PEAK.changes_within_days(**{**asked, "model": "another"})


def test_prices_of_a_tier() -> None:
    """Prices of a tier come before the usual ones, the first of them where there are several; the others stay."""
    october = StartDateConstraint(date(2026, 10, 12))
    table = model(
        dollars("4", "2"),
        [
            PriceVariant({"service_tier": "flex"}, dollars("1"), october),
            PriceVariant({"service_tier": "flex"}, dollars("3", "0.5")),
            PriceVariant({"processing": "batch"}, ModelPrice()),
            PriceVariant({"service_tier": "eu", "route": "a"}, dollars("9")),
        ],
    )
    cached = {"input_tokens": 2_000_000, "cache_read_input_tokens": 1_000_000}
    assert Decimal("1.5") == cost(table, cached, service_tier="flex").amount
    assert Decimal("3.5") == cost(table, cached, service_tier="flex", day="2026-10-11").amount
    # Listed, and not cheaper.
    assert 6 == cost(table, cached, endpoint="batches").amount
    # It depends on more than the tier.
    assert cost(table, cached, service_tier="eu").amount is None


STEPS = TieredPrices(Decimal(1), [Tier(start, Decimal(start)) for start in LADDER])


@pytest.mark.parametrize("tokens", [1, *(step + more for step in LADDER for more in (0, 1))])
def test_the_ladder(tokens: int) -> None:
    """What is kept of a call's size tells its price, exactly as the library tells it from the size itself."""
    table = model(ModelPrice(input_mtok=STEPS))
    usage = {"input_tokens": tokens * 3}
    expected = ModelPrice(input_mtok=STEPS).calc_price({"input_tokens": tokens})["total_price"] * 3
    assert expected == cost(table, usage, context=context(tokens)).amount


@pytest.mark.parametrize(
    ("step", "context", "total", "expected"),
    [
        (150_000, "128000", 1_000_000, None),
        (150_000, "128000", 150_000, 1),
        (150_000, "199999", 1_000_000, 2),
        (150_000, "100000", 1_000_000, 1),
        (9_000_000, "524288", 9_000_000, 1),
        (9_000_000, "524288", 9_000_001, None),
        (150_000, "140000", 1_000_000, None),
        (150_000, "", 150_000, 1),
        (0, "0", 1, None),
    ],
)
def test_a_step_that_is_not_on_the_ladder(
    step: int, context: str, total: int, expected: int | None
) -> None:
    """Such a step has a price where all calls are certainly on one side of it, and else none."""
    price = TieredPrices(Decimal(1), [Tier(step, Decimal(2))])
    table = model(ModelPrice(input_mtok=price))
    found = cost(table, {"input_tokens": total}, context=context).amount
    assert expected == (None if found is None else found * 1_000_000 / total)


def test_parts_that_events_do_not_tell() -> None:
    """A dearer part that is not told apart makes the amount the least; a cheaper one leaves none."""
    table = model(
        ModelPrice(
            input_mtok=Decimal(1), cache_write_mtok=Decimal(2), cache_write_1h_mtok=Decimal(4)
        )
    )
    written = {"input_tokens": 1_000_000, "cache_write_input_tokens": 1_000_000}
    found = cost(table, written)
    assert (2, "how many of them are cache write 1h tokens is not known; counted as if none") == (
        found.amount,
        found.reason,
    )
    assert (1, ()) == cost(table)
    cheaper = model(ModelPrice(input_mtok=Decimal(2), input_video_mtok=Decimal(1)))
    assert (None, "how many of them are input video tokens is not known") == (
        cost(cheaper).amount,
        cost(cheaper).reason,
    )
    # What is certain of the rest is priced, and only that.
    both = model(
        ModelPrice(input_mtok=Decimal(2), input_video_mtok=Decimal(1), output_mtok=Decimal(5))
    )
    found = cost(both, {"input_tokens": 1_000_000, "output_tokens": 1_000_000})
    assert (5, ("input_tokens",)) == (found.amount, found.unpriced)
    told = {"input_tokens": 1_000_000, "text_input_tokens": 1_000_000}
    assert (2, ()) == cost(cheaper, told)
    sound = {"input_tokens": 1_000_000, "audio_input_tokens": 10}
    assert "no price of their own; counted as other tokens" == cost(CHANGES, sound).reason
