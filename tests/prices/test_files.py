"""Files of one's own prices."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.prices import PriceError, PriceTable
from tests.prices.conftest import cost_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "prices.toml"
MILLION = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
GOOD: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-4o",
    "per_million": {"input_tokens": 3, "output_tokens": 4},
}


@pytest.mark.parametrize(
    ("units", "call", "expected"),
    [
        (MILLION, {"model": "gpt-5-mini-2025-08-07"}, "1.8"),
        ({**MILLION, "cache_read_input_tokens": 500_000}, {"model": "gpt-5-mini"}, "1.71"),
        # The table's, since that day is not in the file.
        (MILLION, {"model": "gpt-5-mini", "day": "2026-10-31"}, "2.25"),
        (MILLION, {"model": "gpt-5-mini", "day": "2026-11-01"}, "1.8"),
        (MILLION, {"model": "gpt-5-mini", "day": "2026-12-31"}, "1.8"),
        (MILLION, {"model": "gpt-5-mini", "day": "2027-01-01"}, "2.25"),
        (MILLION, {"model": "gpt-5-mini", "day": "2026-11"}, "1.8"),
        # The table's: the file has none for this tier.
        (MILLION, {"model": "gpt-5-mini", "service_tier": "flex"}, "1.125"),
        (MILLION, {"model": "gpt-5-mini", "endpoint": "batches"}, "0.9"),
        (MILLION, {"model": "llama-4", "host": "llm.internal"}, "0.2"),
        (MILLION, {"model": "llama-4", "host": "llm.internal", "context": "32000"}, "0.4"),
        ({"images": 3}, {"model": "dall-e-3", "service_tier": ""}, "0.12"),
        (
            {**MILLION, "web_search_calls": 7},
            {"model": "gpt-5.1-codex-mini", "host": "api.openai.com"},
            "2.32",
        ),
    ],
)
def test_the_example(units: dict[str, float], call: dict[str, str], expected: str) -> None:
    """The file that the docs show: its prices come before those of the table, for the calls and days it names."""
    cost = cost_of(PriceTable.load(EXAMPLE), units, **call)
    assert (Decimal(expected), ()) == (cost.amount, cost.gaps)


def test_what_the_example_does_not_price() -> None:
    """Calls of the same model at another host are others."""
    table = PriceTable.load(EXAMPLE)
    host = cost_of(table, MILLION, model="llama-4", host="llm.other")
    assert "the table has no host llm.other" == host.reason


def test_a_price_that_begins_within_a_month(tmp_path: Path) -> None:
    """Of a month whose days are not known any more the half has no price."""
    table = PriceTable.load(written(tmp_path, {**GOOD, "from": "2026-11-15"}))
    changed = "a price changed within the day or the month that was summed"
    assert changed == cost_of(table, MILLION, day="2026-11").reason
    ended = PriceTable.load(written(tmp_path, {**GOOD, "until": "2026-11-15"}))
    assert changed == cost_of(ended, MILLION, day="2026-11").reason
    assert 7 == cost_of(ended, MILLION, day="2026-11-15T23").amount
    assert Decimal("12.5") == cost_of(ended, MILLION, day="2026-11-16T00").amount


def test_the_version_names_both(tmp_path: Path) -> None:
    """A report tells which file it was: its name, its version, and the hash of its bytes; then the table."""
    digest = hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()[:12]
    version = PriceTable.load(EXAMPLE).version
    table = PriceTable.load().version
    assert f"prices.toml contract of 2026-11 (sha256 {digest}); {table}" == version
    unnamed = written(tmp_path, GOOD)
    digest = hashlib.sha256(unnamed.read_bytes()).hexdigest()[:12]
    assert PriceTable.load(unnamed).version.startswith(f"prices.json (sha256 {digest}); ")


def test_json_is_exact(tmp_path: Path) -> None:
    """A price is the number that stands there, not the float next to it."""
    path = tmp_path / "prices.json"
    path.write_text(
        '{"prices": [{"provider": "*", "model": "*", "per_unit": {"images": 0.1000000000000000000001}}]}'
    )
    cost = cost_of(PriceTable.load(path), {"images": 10})
    assert Decimal("1.000000000000000000001") == cost.amount


def test_what_an_entry_leaves_to_the_table(tmp_path: Path) -> None:
    """Beside the table, an entry's own prices count, and those of other units stay; alone, it is the whole price."""
    cached = {**MILLION, "cache_read_input_tokens": 1_000_000, "web_search_calls": 100}
    own = {"provider": "openai", "model": "gpt-4o"}
    beside = {**own, "per_million": {"output_tokens": 4}, "keep_table": True}
    table = PriceTable.load(written(tmp_path, beside))
    # 1.25 for what was cached, 4 for the output, and 1 for the searches.
    assert (Decimal("6.25"), ()) == cost_of(table, cached)
    assert Decimal("12.25") == cost_of(table.without_file, cached).amount
    alone = cost_of(PriceTable.load(written(tmp_path, GOOD)), cached)
    assert (7, ("web_search_calls",)) == (alone.amount, alone.unpriced)


def test_units_that_depend_on_the_size_of_a_call(tmp_path: Path) -> None:
    """Of units that are no tokens, too, the price is certain or not."""
    above = [{"input_tokens": 32_000, "per_unit": {"images": 2}}]
    table = PriceTable.load(written(tmp_path, {**GOOD, "per_unit": {"images": 1}, "above": above}))
    large = {"images": 3, "input_tokens": 100_000}
    assert Decimal("6.3") == cost_of(table, large, context="32000").amount
    unknown = cost_of(table, large, context="")
    assert (Decimal("0.3"), ("images",)) == (unknown.amount, unknown.unpriced)
    assert "calls with more than 32,000 input tokens have another price" in (unknown.reason or "")


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("gpt-4o", True),
        ("gpt-*", True),
        ("*4*", True),
        ("gpt-?o", False),
        ("gpt-[4]o", False),
        ("gpt", False),
    ],
)
def test_only_an_asterisk_is_any_text(wanted: str, fits: bool, tmp_path: Path) -> None:
    """All other characters are themselves, and the whole name has to fit."""
    table = PriceTable.load(written(tmp_path, {**GOOD, "model": wanted}))
    assert (7 if fits else Decimal("12.5")) == cost_of(table, MILLION).amount


def written(directory: Path, *entries: object) -> Path:
    """Write a file of entries."""
    path = directory / "prices.json"
    path.write_text(json.dumps({"prices": entries}))
    return path


PER = {"input_tokens": 1}
WRONG: list[tuple[object, str]] = [
    (3, "prices[1]: expected is a table of names and values, not 3"),
    (
        {"model": "m", "per_million": PER},
        "prices[1]: provider is missing: the provider as `--by provider` shows it; * is any text",
    ),
    (
        {"provider": "openai", "per_million": PER},
        "prices[1]: model is missing: the model as `--by model` shows it; * is any text",
    ),
    ({**GOOD, "modle": "m"}, "prices[1]: 'modle' is not known; did you mean model?"),
    (
        {**GOOD, "model": ""},
        "prices[1]: model is ''; expected is the model as `--by model` shows it; * is any text",
    ),
    (
        {**GOOD, "service_tier": None},
        "prices[1]: service_tier is missing; expected is the service tier; `batch` is for batches; * is any text",
    ),
    (
        {**GOOD, "from": "1.11.2026"},
        "prices[1]: from is '1.11.2026'; expected is the first UTC day, like 2026-11-29",
    ),
    (
        {**GOOD, "until": "2026-02-30"},
        "prices[1]: until is '2026-02-30'; expected is the last UTC day, like 2026-11-29",
    ),
    (
        {**GOOD, "from": "2026-11-02", "until": "2026-11-01"},
        "prices[1]: until is '2026-11-01'; expected is 2026-11-02, which is `from`, or a later day",
    ),
    (
        {**GOOD, "keep_table": "yes"},
        "prices[1]: keep_table is 'yes'; expected is true or false",
    ),
    (
        {"provider": "openai", "model": "m"},
        "prices[1]: per_million or per_unit is missing: US dollars per million of each unit",
    ),
    (
        {**GOOD, "per_million": {"input_token": 1}},
        "prices[1].per_million: 'input_token' is not known; did you mean input_tokens?",
    ),
    (
        {**GOOD, "per_million": {"input_tokens": "1"}},
        "prices[1].per_million: input_tokens is '1'; expected is a number of US dollars, 0 or more",
    ),
    (
        {**GOOD, "per_million": {"input_tokens": True}},
        "prices[1].per_million: input_tokens is True; expected is a number of US dollars, 0 or more",
    ),
    (
        {**GOOD, "per_million": {"input_tokens": -0.5}},
        "prices[1].per_million: input_tokens is -0.5; expected is a number of US dollars, 0 or more",
    ),
    (
        {**GOOD, "per_million": {"input_tokens": float("nan")}},
        "prices[1].per_million: input_tokens is nan; expected is a number of US dollars, 0 or more",
    ),
    (
        {**GOOD, "per_unit": {"input_tokens": 1}},
        "prices[1]: input_tokens is in per_million and in per_unit; remove one",
    ),
    (
        {**GOOD, "per_million": {"cache_read_input_tokens": 1}},
        "prices[1]: cache_read_input_tokens is a part of input_tokens, which has no price; name it, too, "
        "or set keep_table",
    ),
    (
        {
            **GOOD,
            "per_million": {
                "input_tokens": 1,
                "audio_input_tokens": 2,
                "cache_read_input_tokens": 3,
            },
        },
        "prices[1]: audio_input_tokens and cache_read_input_tokens have prices, and audio_cache_read_input_tokens, "
        "which are in both, has none; name it, too",
    ),
    ({**GOOD, "above": {}}, "prices[1]: above is {}; expected is a list"),
    (
        {**GOOD, "above": [{"input_tokens": 0, "per_million": PER}]},
        "prices[1].above[1]: input_tokens is 0; expected is a whole number, more than 0",
    ),
    (
        {**GOOD, "above": [{"per_million": PER}]},
        "prices[1].above[1]: input_tokens is missing; expected is a whole number, more than 0",
    ),
    (
        {**GOOD, "above": [{"input_tokens": n, "per_million": PER} for n in (2, 1)]},
        "prices[1].above[2]: input_tokens is 1; expected is a whole number, more than 2",
    ),
    (
        {**GOOD, "above": [{"input_tokens": 2, "per_unit": {"images": 1}}]},
        "prices[1].above[1]: images has a price above 2, and none below it",
    ),
]


@pytest.mark.parametrize(("entry", "message"), WRONG)
def test_what_is_wrong_is_said(entry: object, message: str, tmp_path: Path) -> None:
    """An error says where it is, what stands there, and what is expected."""
    path = written(tmp_path, entry)
    with pytest.raises(PriceError) as raised:
        PriceTable.load(path)
    assert f"{path}: {message}" == str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.json", "{", "is no valid JSON: Expecting property name enclosed in double quotes: "),
        ("p.json", '{"prices": [], "prices": []}', "is no valid JSON: 'prices' is there twice"),
        ("p.json", '{"prices": []}', ": prices is []; expected is a list with at least one entry"),
        ("p.json", "{}", ": prices is missing; expected is a list with at least one entry"),
        ("p.json", "[]", ": expected is a table of names and values, not []"),
        ("p.json", '{"price": 1}', ": 'price' is not known; did you mean prices?"),
        ("p.json", '{"version": 2}', ": version is 2; expected is a text of one line"),
        (
            "p.json",
            '{"currency": "EUR"}',
            ": currency is 'EUR'; expected is \"USD\", the currency ",
        ),
        ("p.toml", "prices = [", "is no valid TOML: "),
        ("p.yaml", "", ": expected is a file whose name ends in .toml or .json"),
    ],
)
def test_files_that_are_none(name: str, text: str, message: str, tmp_path: Path) -> None:
    """So do errors of the file as a whole."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(PriceError) as raised:
        PriceTable.load(path)
    assert f"{path} {message}".replace(" : ", ": ") in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is no table without prices."""
    path = tmp_path / "none.toml"
    with pytest.raises(PriceError) as raised:
        PriceTable.load(path)
    assert f"{path} cannot be read: No such file or directory" == str(raised.value)


def test_entries_that_contradict_each_other(tmp_path: Path) -> None:
    """Two prices of the same calls on one day are an error; prices one after the other are not."""
    first = {**GOOD, "until": "2026-11-15"}
    path = written(tmp_path, first, {**GOOD, "from": "2026-11-15"})
    with pytest.raises(PriceError) as raised:
        PriceTable.load(path)
    assert (
        f"{path}: prices[1] and prices[2] are for the same calls, and have days in common;"
        " end the earlier one with `until`"
    ) == str(raised.value)
    PriceTable.load(written(tmp_path, first, {**GOOD, "from": "2026-11-16"}))
    # Where the one is more special than the other, the first one counts.
    table = PriceTable.load(written(tmp_path, GOOD, {**GOOD, "model": "gpt-*"}))
    assert 7 == cost_of(table, MILLION).amount
