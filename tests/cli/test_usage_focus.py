"""`cmdrdata usage --focus`: what the FOCUS specification says of its columns, and that no usage stands twice in it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.cli.usage import focus
from cmdrdata_exporter.cli.usage.focus import COLUMNS, CUSTOM, FINE, Charge, line_of, wanted
from cmdrdata_exporter.cli.usage.meters import METERS, OTHER, PARTS, Meter, Reading, readings
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.cli.conftest import Run
from tests.ledgers import DELIVERED, REFUSED, fill, record

RunJson = Callable[..., tuple[int, Any]]
SPECIFICATION: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "recorded" / "focus_1_2_columns.json").read_text()
)
"""
The columns of FOCUS 1.2, as its model of requirements, version 1.2.0.1, has them: whether a column is present, where it
applies, and whether it may be empty. https://github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec, CC BY 4.0.
"""
APPLIES = {
    "USAGE_MEASUREMENT_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED",
    "SUB_ACCOUNT_SUPPORTED",
    "TAGGING_SUPPORTED",
}
"""What providers of models have, of that on which columns depend."""
OURS = [name for name in COLUMNS if name not in CUSTOM]


def test_the_columns_of_the_specification() -> None:
    """Every column that must be there, or should be, is there under its name; ours come after them, with the prefix."""
    needed = {name for name, said in SPECIFICATION.items() if set(said["when"]) <= APPLIES}
    # On its status of a commitment depends what is said of quantities.
    assert sorted({*needed, "CommitmentDiscountStatus"}) == OURS
    assert list(COLUMNS) == [*OURS, *CUSTOM]
    assert [] == [name for name in CUSTOM if not re.fullmatch(r"x_([A-Z][a-z]+)+", name)]


def test_which_columns_may_be_empty() -> None:
    """They are those of the specification, where a line is of usage."""
    empty = {name: SPECIFICATION[name]["empty"] for name in OURS}
    assert set(focus.REQUIRED) == {n for n in OURS if empty[n] in ("never", "not in usage")}
    assert {name: f"with {other}" for name, other in focus.PAIRS.items()} == {
        name: said
        for name, said in empty.items()
        if said.startswith("with ") and said.removeprefix("with ") in OURS
    }


NAMED = {
    **dict.fromkeys(FINE, ""),
    "day": "2026-11-20",
    "customer": "acme",
    "model": "gpt-5-mini",
    "endpoint": "responses",
    "status": "reported",
    "provider": "openai",
    "host": "api.openai.com",
    "service_tier": "flex",
    "context": "200000",
    "organization": "org-1",
    "project": "proj_1",
    "key": "9f86d081",
    "destination": "default-705ddb24c323",
}
CACHED = Reading(Meter("Cached Input Tokens", ("cache_read_input_tokens", "input_tokens")), 4096)


def test_a_line() -> None:
    """What is known stands in its column, and nothing in those that only a price could fill."""
    assert {
        "BillingAccountId": "org-1",
        "BillingPeriodStart": "2026-11-01T00:00:00Z",
        "BillingPeriodEnd": "2026-12-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeDescription": "Cached Input Tokens, gpt-5-mini, responses",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": "2026-11-20T00:00:00Z",
        "ChargePeriodEnd": "2026-11-21T00:00:00Z",
        "ConsumedQuantity": "4096.0",
        "ConsumedUnit": "Tokens",
        "InvoiceIssuerName": "OpenAI",
        "ProviderName": "OpenAI",
        "PublisherName": "OpenAI",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "OpenAI API",
        "ServiceSubcategory": "Generative AI",
        "SkuId": "gpt-5-mini/cache_read_input_tokens",
        "SkuMeter": "Cached Input Tokens",
        "SubAccountId": "proj_1",
        "Tags": '{"customer": "acme", "plan": "pro"}',
        "x_Destination": "default-705ddb24c323",
        "x_Endpoint": "responses",
        "x_Host": "api.openai.com",
        "x_InputTokensAbove": "200000",
        "x_KeyHash": "9f86d081",
        "x_Model": "gpt-5-mini",
        "x_ServiceTier": "flex",
        "x_UsageStatus": "reported",
    } == line_of(Charge(NAMED, {"customer": "acme", "plan": "pro"}, CACHED))


@pytest.mark.parametrize(
    ("known", "column", "value"),
    [
        ({"provider": "openai", "host": "eu.api.openai.com"}, "ProviderName", "OpenAI"),
        ({"provider": "openai", "host": ""}, "ProviderName", "OpenAI"),
        ({"provider": "openai", "host": "llm.internal"}, "ProviderName", "llm.internal"),
        ({"provider": "openai", "host": "notapi.openai.com"}, "ServiceName", "notapi.openai.com"),
        (
            {"provider": "azure.ai.openai", "host": "x.openai.azure.com"},
            "ServiceName",
            "Azure OpenAI",
        ),
        ({"provider": "someone", "host": "api.someone.dev"}, "ProviderName", "someone"),
        ({"provider": "", "host": ""}, "ProviderName", ""),
        ({"day": "2026-09"}, "ChargePeriodStart", "2026-09-01T00:00:00Z"),
        ({"day": "2026-09"}, "ChargePeriodEnd", "2026-10-01T00:00:00Z"),
        ({"day": "2025-12"}, "ChargePeriodEnd", "2026-01-01T00:00:00Z"),
        ({"day": "2026-12-31"}, "ChargePeriodEnd", "2027-01-01T00:00:00Z"),
        ({"day": "?"}, "ChargePeriodStart", ""),
        ({"model": ""}, "SkuId", ""),
        ({"model": ""}, "ChargeDescription", "Cached Input Tokens, responses"),
    ],
)
def test_what_is_known(known: dict[str, str], column: str, value: str) -> None:
    """A server that only speaks OpenAI's protocol is not OpenAI; a month that is not kept by the day is one period."""
    line = line_of(Charge({**NAMED, **known}, {}, CACHED))
    assert (value, "") == (line[column], line["Tags"])


def test_what_the_specification_misses() -> None:
    """The columns that it wants filled and that are empty are named; prices would fill most of them."""
    line = line_of(Charge(NAMED, {}, CACHED))
    assert [
        "BilledCost",
        "BillingCurrency",
        "ContractedCost",
        "EffectiveCost",
        "ListCost",
        "ListUnitPrice",
        "PricingQuantity",
        "SkuPriceId",
        "SubAccountName",
    ] == wanted([line])
    assert "PricingUnit" in wanted([{**line, "PricingQuantity": "1"}])
    assert [] == wanted([])


MULTIMODAL = {
    "input_tokens": 1000,
    "output_tokens": 100,
    "total_tokens": 1100,
    "text_input_tokens": 500,
    "image_input_tokens": 200,
    "audio_input_tokens": 300,
    "cache_read_input_tokens": 450,
    "text_cache_read_input_tokens": 250,
    "audio_cache_read_input_tokens": 200,
    "cache_write_input_tokens": 50,
    "audio_output_tokens": 60,
    "reasoning_output_tokens": 30,
}


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (
            MULTIMODAL,
            {
                "Cached Audio Input Tokens": 200,
                "Cached Input Tokens": 250,
                "Cache Write Input Tokens": 50,
                "Audio Input Tokens": 100,
                "Image Input Tokens": 200,
                "Input Tokens": 200,
                "Audio Output Tokens": 60,
                "Output Tokens": 40,
            },
        ),
        ({"input_tokens": 5, "total_tokens": 5}, {"Input Tokens": 5}),
        ({"total_tokens": 7}, {"Other Tokens": 7}),
        (
            {"input_tokens": 5, "output_tokens": 1, "total_tokens": 9},
            {"Input Tokens": 5, "Output Tokens": 1, "Other Tokens": 3},
        ),
        ({"input_tokens": 5, "cache_read_input_tokens": 6}, {"Input Tokens": 5}),
        ({"input_tokens": 5, "cache_read_input_tokens": 5}, {"Cached Input Tokens": 5}),
        (
            {"audio_seconds": 1.5, "images": 2, "batch_requests": 0, "web_search_calls": 1},
            {"Audio Seconds": 1.5, "Images": 2, "Web Search Calls": 1},
        ),
        ({"session_seconds": 9, "active_seconds": 7, "paused_seconds": 2}, {"Session Seconds": 9}),
        ({}, {}),
    ],
)
def test_meters(units: dict[str, float], expected: dict[str, float]) -> None:
    """Each token stands in one meter: a part is not in its whole, unless it is more than that."""
    found = list(readings(units))
    assert expected == {reading.meter.name: reading.quantity for reading in found}


def test_meters_add_up() -> None:
    """What the meters count is what the event says, so that pricing them one by one prices the event."""
    units: Counter[str] = Counter()
    for reading in readings(MULTIMODAL):
        units.update(reading.units)
    parts = (
        "total_tokens",
        "text_input_tokens",
        "text_cache_read_input_tokens",
        "reasoning_output_tokens",
    )
    assert {unit: n for unit, n in MULTIMODAL.items() if unit not in parts} == dict(units)


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (4096, "4096.0"),
        (12.5, "12.5"),
        (1e22, "1" + "0" * 22 + ".0"),
        (1e-7, "0.0000001"),
        (1e15, "1000000000000000.0"),
    ],
)
def test_numbers(amount: float, written: str) -> None:
    """They have digits and one point, however large or small."""
    assert written == focus.decimal(amount)


@pytest.fixture
def used(remote: Directory) -> Directory:
    """A ledger of several customers, days, models and units."""
    fill(
        remote,
        [
            record(1, 'a "b", c', units=dict(MULTIMODAL)),
            record(2, 'a "b", c', units=dict(MULTIMODAL)),
            record(
                3,
                "globex",
                model="whisper-1",
                endpoint="audio.transcriptions",
                units={"audio_seconds": 0.25},
            ),
            record(4, None, day="2026-11-19"),
            record(5, "globex", status="missing", units={}),
        ],
        [DELIVERED, DELIVERED, REFUSED],
    )
    return remote


def parsed(text: str) -> list[dict[str, str]]:
    """Return the lines of a CSV document."""
    return list(csv.DictReader(io.StringIO(text)))


def test_the_file_is_the_json(used: Directory, run: Run, run_json: RunJson) -> None:
    """Read back, the lines add up to what --json says, of each customer and day."""
    done = run("usage", "--focus")
    assert ",".join(COLUMNS) == done.stdout.partition("\n")[0]
    sums: dict[tuple[Any, str], Counter[str]] = {}
    meters = {meter.name: meter for meter in (*METERS, OTHER)}
    for line in parsed(done.stdout):
        customer = json.loads(line["Tags"] or "{}").get("customer")
        of = sums.setdefault((customer, line["ChargePeriodStart"][:10]), Counter())
        name = line["SkuMeter"]
        counted = meters[name].counted if name in meters else (name.lower().replace(" ", "_"),)
        of.update(dict.fromkeys(counted, Decimal(line["ConsumedQuantity"])))
    _, found = run_json("usage", "--by", "customer,day")
    assert {
        (row["customer"], row["day"]): {u: n for u, n in row["units"].items() if u not in PARTS}
        for row in found["rows"]
        if row["units"]
    } == {group: {unit: float(n) for unit, n in units.items()} for group, units in sums.items()}


def test_what_is_said_beside_it(used: Directory, run: Run) -> None:
    """The notes of a report, and the columns that have no value, are on standard error: the file is a file."""
    commands.append(used, [record(6)])
    done = run("usage", "--focus", "--customer", "globex")
    assert 1 == len(parsed(done.stdout))
    assert (
        "Note: 2 events = 1 pending + 1 dead. Delivered alone: --only billed\n"
        "Note: Totals are too low: 1 call reported no usage. To see which: --by endpoint,model,status\n"
        "Note: Not counted yet: 1 more event, recorded just now.\n"
    ) == done.stderr.partition("Note: FOCUS wants")[0]
    assert "BilledCost, BillingAccountId, BillingCurrency, " in done.stderr
