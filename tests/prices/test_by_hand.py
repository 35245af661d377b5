"""Costs that were calculated by hand, from the prices that providers have published."""

from __future__ import annotations

from decimal import Decimal
from importlib.metadata import version

import pytest

from cmdrdata_exporter.prices import PriceTable
from tests.prices.conftest import Priced

MILLION = 1_000_000

# What was used, what the call was, and what it costs. Of `a * p` the first is the amount, the second the price.
BY_HAND: dict[str, tuple[dict[str, float], dict[str, str], str]] = {
    "input and output: 1000 * 2.50 + 20 * 10, by the million": (
        {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020},
        {},
        "0.0027",
    ),
    "cached input is a part of the input: 600 * 2.50 + 400 * 1.25": (
        {"input_tokens": 1000, "cache_read_input_tokens": 400},
        {},
        "0.002",
    ),
    "reasoning is a part of the output: 1000 * 10": (
        {"input_tokens": 0, "output_tokens": 1000, "reasoning_output_tokens": 900},
        {"model": "gpt-5"},
        "0.01",
    ),
    "predictions are, too: 100 * 10": (
        {"output_tokens": 100, "accepted_prediction_tokens": 3, "rejected_prediction_tokens": 7},
        {},
        "0.001",
    ),
    "a batch costs half: 1000000 * 1.25 + 1000000 * 5": (
        {"input_tokens": MILLION, "output_tokens": MILLION, "batch_requests": 5000},
        {"endpoint": "batches"},
        "6.25",
    ),
    "flex: 1000000 * 0.625 + 1000000 * 5": (
        {"input_tokens": MILLION, "output_tokens": MILLION},
        {"model": "gpt-5", "service_tier": "flex"},
        "5.625",
    ),
    "priority: 1000000 * 2.50 + 1000000 * 20": (
        {"input_tokens": MILLION, "output_tokens": MILLION},
        {"model": "gpt-5", "service_tier": "priority"},
        "22.5",
    ),
    "a long call, all of its tokens: 300000 * 5 + 1000 * 22.50": (
        {"input_tokens": 300_000, "output_tokens": 1000},
        {"model": "gpt-5.4", "context": "272000"},
        "1.5225",
    ),
    "two calls of half of that: 300000 * 2.50 + 1000 * 15": (
        {"input_tokens": 300_000, "output_tokens": 1000},
        {"model": "gpt-5.4", "context": "128000"},
        "0.765",
    ),
    # Of 1000: 500 are sound, 100 of these cached; of the 500 of text 300 are.
    "sound: 400 * 32 + 100 * 0.40 + 200 * 4 + 300 * 0.40, and out 200 * 64 + 50 * 16": (
        {
            "input_tokens": 1000,
            "audio_input_tokens": 500,
            "text_input_tokens": 500,
            "cache_read_input_tokens": 400,
            "audio_cache_read_input_tokens": 100,
            "text_cache_read_input_tokens": 300,
            "output_tokens": 250,
            "audio_output_tokens": 200,
            "text_output_tokens": 50,
        },
        {"model": "gpt-realtime", "endpoint": "realtime", "service_tier": ""},
        "0.02736",
    ),
    "a picture: 50 * 5 + 200 * 8 in, 1000 * 32 out; how many there were is no charge": (
        {
            "images": 1,
            "input_tokens": 250,
            "text_input_tokens": 50,
            "image_input_tokens": 200,
            "output_tokens": 1000,
            "image_output_tokens": 1000,
        },
        {"model": "gpt-image-1.5", "endpoint": "images.edit", "service_tier": ""},
        "0.03385",
    ),
    "seconds that were transcribed: 12.5 * 0.36 an hour": (
        {"audio_seconds": 12.5},
        {"model": "whisper-1", "endpoint": "audio.transcriptions", "service_tier": ""},
        "0.00125",
    ),
    "seconds of a session: 60 * 3 an hour": (
        {"session_seconds": 60, "active_seconds": 40, "paused_seconds": 20},
        {"model": "gpt-live-1", "endpoint": "live", "service_tier": ""},
        "0.05",
    ),
    "characters: 2000 * 15": (
        {"characters": 2000},
        {"model": "tts-1", "endpoint": "audio.speech", "service_tier": ""},
        "0.03",
    ),
    "an embedding: 5000 * 0.02": (
        {"input_tokens": 5000, "total_tokens": 5000},
        {"model": "text-embedding-3-small", "endpoint": "embeddings", "service_tier": ""},
        "0.0001",
    ),
    "tools: 100 * 1.25, 2 searches * 10 by the thousand, 3 of files * 2.50": (
        {"input_tokens": 100, "web_search_calls": 2, "file_search_calls": 3},
        {"model": "gpt-5", "endpoint": "responses"},
        "0.027625",
    ),
    "moderation is free": (
        {"input_tokens": 100, "output_tokens": 1},
        {"model": "omni-moderation-latest", "endpoint": "moderations"},
        "0",
    ),
    "a decision has prices of its own: 1000 * 0.10": (
        {"input_tokens": 1000, "cache_read_input_tokens": 900},
        {"model": "gpt-6-luna", "endpoint": "decisions"},
        "0.0001",
    ),
    "another host that the table knows, with prices of its own": (
        {"input_tokens": 1000, "output_tokens": 20},
        {"model": "openai/gpt-4o", "host": "openrouter.ai"},
        "0.0027",
    ),
    "nothing was used": ({"events": 7, "input_tokens": 0}, {"model": "anything"}, "0"),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case: str, priced: Priced) -> None:
    """Usage costs what its provider's price list says, to the last digit, and nothing of it is left out."""
    units, call, expected = BY_HAND[case]
    cost = priced(units, **call)
    assert cost.amount is not None
    assert (Decimal(expected), ()) == (round(cost.amount, 20), cost.gaps)


UNPRICED: dict[str, tuple[dict[str, float], dict[str, str], str | None, dict[str, str]]] = {
    "a model that is not in the table": (
        {"input_tokens": 5, "cache_read_input_tokens": 1, "output_tokens": 2, "total_tokens": 7},
        {"model": "my-llama"},
        None,
        dict.fromkeys(("input_tokens", "output_tokens"), "the table has no such model of OpenAI"),
    ),
    "recorded before providers were": (
        {"input_tokens": 5},
        {"provider": ""},
        None,
        {"input_tokens": "recorded before providers were kept"},
    ),
    "a provider whose name is only like one of the table": (
        {"input_tokens": 5},
        {"provider": "my-openai-proxy"},
        None,
        {"input_tokens": "the table has no provider my-openai-proxy"},
    ),
    "a server that only speaks OpenAI's protocol": (
        {"input_tokens": 5},
        {"host": "llm.internal"},
        None,
        {"input_tokens": "the table has no host llm.internal"},
    ),
    "a host that begins like one": (
        {"input_tokens": 5},
        {"host": "api.openai.com.proxy.test"},
        None,
        {"input_tokens": "the table has no host api.openai.com.proxy.test"},
    ),
    "a region, which costs more": (
        {"input_tokens": 5},
        {"host": "eu.api.openai.com"},
        None,
        {"input_tokens": "the table has no host eu.api.openai.com"},
    ),
    "a service tier without prices": (
        {"input_tokens": 5},
        {"service_tier": "flex"},
        None,
        {"input_tokens": "the table has no price of that time for service tier flex"},
    ),
    "a service tier that says nothing": (
        {"input_tokens": 5},
        {"service_tier": "auto"},
        None,
        {"input_tokens": "the table has no price of that time for service tier auto"},
    ),
    "a tier before its prices were known": (
        {"input_tokens": 5},
        {"service_tier": "priority", "day": "2026-10-11"},
        None,
        {"input_tokens": "the table has no price of that time for service tier priority"},
    ),
    "a tier of a model that another provider has made": (
        {"input_tokens": 5},
        {"provider": "azure.ai.openai", "service_tier": "priority"},
        None,
        {"input_tokens": "the table has no price of that time for service tier priority"},
    ),
    "a batch without prices": (
        {"output_tokens": 5},
        {"model": "gpt-realtime", "endpoint": "batches"},
        None,
        {"output_tokens": "the table has no price of that time for service tier batch"},
    ),
    "a tool without a price": (
        {"output_tokens": 1000, "code_interpreter_calls": 1},
        {},
        "0.01",
        {"code_interpreter_calls": "it has no price"},
    ),
    "only a number of images": (
        {"images": 2},
        {"model": "gpt-image-1.5"},
        None,
        {"images": "it has no price"},
    ),
    "a total that is more than its parts": (
        {"input_tokens": 1000, "output_tokens": 0, "total_tokens": 1500},
        {},
        "0.0025",
        {"total_tokens": "in the total, but neither input nor output"},
    ),
    "parts that are more than the total": (
        {"input_tokens": 10, "cache_read_input_tokens": 11, "output_tokens": 1000},
        {},
        "0.01",
        {"input_tokens": "its parts are more than the total"},
    ),
    "a part alone": (
        {"cache_read_input_tokens": 11},
        {},
        None,
        {"input_tokens": "parts are known, and not the total"},
    ),
    "less than nothing": (
        {"web_search_calls": -1},
        {"model": "gpt-5"},
        None,
        {"web_search_calls": "less than nothing was counted"},
    ),
    "sound of which it is not known how much was cached": (
        {"input_tokens": 100, "audio_input_tokens": 60, "cache_read_input_tokens": 50},
        {"model": "gpt-realtime"},
        None,
        {
            "input_tokens": "how many of the cache read input tokens are audio input tokens is not known"
        },
    ),
    "output of which it is not told how much is a picture": (
        {"output_tokens": 1000},
        {"model": "gpt-image-1.5"},
        "0.01",
        {"output_tokens": "how many of them are image is not known; counted as if none"},
    ),
    "a batch that is larger than a step of the price": (
        {"input_tokens": 300_000},
        {"model": "gpt-5.4", "endpoint": "batches", "context": "272000"},
        None,
        {
            "input_tokens": "calls with more than 272,000 input tokens have another price, "
            "and the sum does not tell their size"
        },
    ),
    "calls recorded before their size was": (
        {"input_tokens": 300_000},
        {"model": "gpt-5.4", "context": ""},
        None,
        {
            "input_tokens": "calls with more than 272,000 input tokens have another price, "
            "and the sum does not tell their size"
        },
    ),
    "a request that costs, too": (
        {"input_tokens": MILLION},
        {"model": "sonar", "provider": "perplexity"},
        "1",
        {"requests": "charged where it applies, and not recorded"},
    ),
    "a minimum of each call": (
        {"audio_seconds": 3600},
        {"model": "whisper-large-v3", "provider": "groq"},
        "0.111",
        {"seconds of short calls": "charged where it applies, and not recorded"},
    ),
    "a deployment that may be regional": (
        {"input_tokens": MILLION},
        {"provider": "azure.ai.openai"},
        "2.5",
        {"regional deployments": "charged where it applies, and not recorded"},
    ),
    "no day": ({"input_tokens": 5}, {"day": ""}, None, {"input_tokens": "the day is not known"}),
}


@pytest.mark.parametrize("case", UNPRICED)
def test_what_is_not_certain_is_said(case: str, priced: Priced) -> None:
    """What has no certain price is named with the reason; the amount is the least, and none where none is known."""
    units, call, amount, gaps = UNPRICED[case]
    cost = priced(units, **call)
    assert (None if amount is None else Decimal(amount)) == (
        None if cost.amount is None else round(cost.amount, 20)
    )
    assert gaps == {gap.unit: gap.reason for gap in cost.gaps}
    assert tuple(gaps) == cost.unpriced
    assert "; ".join(dict.fromkeys(gaps.values())) == cost.reason
    amounts = {unit: units.get(unit) for unit in gaps}
    if "total_tokens" in gaps:
        amounts["total_tokens"] = 500
    assert amounts == {gap.unit: gap.amount for gap in cost.gaps}


def test_a_batch_that_is_smaller_than_a_step(priced: Priced) -> None:
    """Where all calls together have fewer tokens, none of them can have more, and the price is certain."""
    used = {"input_tokens": 272_000}
    cost = priced(used, model="gpt-5.4", endpoint="batches", context="256000", service_tier="")
    assert (Decimal("0.34"), ()) == (cost.amount, cost.gaps)
    part = priced({"output_tokens": 1}, model="gpt-5.4", context="", input_tokens=272_001)
    assert ("output_tokens",) == part.unpriced


def test_version(shipped: PriceTable) -> None:
    """A report can say which prices these are."""
    assert shipped.version.startswith(f"genai-prices {version('genai-prices')} (")
