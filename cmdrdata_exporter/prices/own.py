"""
A file of one's own prices: TOML, or the same as JSON.

It is read strictly. What is wrong is said with the place in the file and with what is expected there, since a price
that is passed over without a word is a wrong invoice. examples/prices.toml is one, with comments.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, cast

from cmdrdata_exporter.prices.rates import Prices, Rate
from cmdrdata_exporter.prices.units import NAMES, PRICEABLE, STANDARD, TOKENS, can_overlap

_MILLION = 1_000_000
_ANY = "*"
_KEYS = {
    "provider": "the provider as `--by provider` shows it",
    "host": "the host that was called, as `--by host` shows it",
    "model": "the model as `--by model` shows it",
    "service_tier": "the service tier; `batch` is for batches",
    "from": "the first UTC day",
    "until": "the last UTC day",
    "per_million": "US dollars per million of each unit",
    "per_unit": "US dollars per one of each unit",
    "above": "other prices of calls with many input tokens",
    "keep_table": "whether other units keep the prices of the table",
}


class FileError(Exception):
    """A file of prices cannot be used: where, what is wrong, and what is expected."""


class Entry(NamedTuple):
    """Prices that hold for some calls on some days."""

    provider: str
    host: str
    model: str
    tier: str
    first: date
    last: date
    rates: Mapping[str, Rate]
    keeps_table: bool

    def is_for(self, *, provider: str, host: str, model: str, tier: str, day: date) -> bool:
        """Say whether these are the prices of calls."""
        return self.first <= day <= self.last and all(
            _pattern(wanted).fullmatch(text)
            for wanted, text in (
                (self.provider, provider),
                (self.host, host),
                (self.model, model),
                (self.tier, tier),
            )
        )

    def over(self, listed: Prices | str) -> Prices:
        """Return the prices that hold, where `listed` are those of the table."""
        if self.keeps_table and isinstance(listed, Prices):
            return listed._replace(rates={**listed.rates, **self.rates})
        return Prices(self.rates)


class OwnPrices(NamedTuple):
    """The prices of a file."""

    version: str
    """Names the file, what it says its version is, and what its bytes hash to."""
    entries: tuple[Entry, ...] = ()
    """Of several that fit, the first one counts."""


def read(path: Path) -> OwnPrices:
    """
    Read a file.

    Raises:
        FileError: it cannot be used.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    document = _table(_parsed(path, content), str(path), ("version", "currency", "prices"))
    named = document.get("version")
    if named is not None and not (isinstance(named, str) and named.isprintable()):
        raise _wrong(path, "version", "a text of one line", named)
    if document.get("currency", "USD") != "USD":
        raise _wrong(path, "currency", '"USD", the currency of the table', document["currency"])
    listed = cast("object", document.get("prices"))
    if not isinstance(listed, list) or not listed:
        raise _wrong(path, "prices", "a list with at least one entry", cast("object", listed))
    entries = [
        _entry(f"{path}: prices[{number}]", one)
        for number, one in enumerate(cast("list[object]", listed), 1)
    ]
    for (one, first), (other, second) in combinations(enumerate(entries, 1), 2):
        if first[:4] == second[:4] and first.first <= second.last and second.first <= first.last:
            raise FileError(
                f"{path}: prices[{one}] and prices[{other}] are for the same calls, and have days in common;"
                " end the earlier one with `until`"
            )
    digest = hashlib.sha256(content).hexdigest()[:12]
    said = path.name if named is None else f"{path.name} {named}"
    return OwnPrices(f"{said} (sha256 {digest})", tuple(entries))


@functools.cache
def _pattern(wanted: str) -> re.Pattern[str]:
    """Return what fits a text of a file, in which `*` is any text and all else is itself."""
    return re.compile(".*".join(map(re.escape, wanted.split(_ANY))), re.DOTALL)


def _parsed(path: Path, content: bytes) -> object:
    try:
        text = content.decode()
        if path.suffix == ".json":
            return json.loads(text, parse_float=Decimal, object_pairs_hook=_once)
        if path.suffix == ".toml" and sys.version_info >= (3, 11):
            import tomllib

            return tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        kind = path.suffix.removeprefix(".").upper()
        raise FileError(f"{path} is no valid {kind}: {error}") from error
    raise FileError(f"{path}: expected is a file whose name ends in .toml or .json")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a dict, in which no name may be there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{next(name for name in names if names.count(name) > 1)!r} is there twice"
        )
    return found


def _entry(place: str, found: object) -> Entry:
    given = _table(found, place, _KEYS)
    for name in ("provider", "model"):
        if name not in given:
            raise FileError(f"{place}: {name} is missing: {_KEYS[name]}; * is any text")
    texts = {name: _wanted(place, name, given) for name in ("provider", "host", "model")}
    tier = _wanted(place, "service_tier", given, STANDARD)
    first = _day(place, "from", given, date.min)
    last = _day(place, "until", given, date.max)
    if last < first:
        raise _wrong(place, "until", f"{first}, which is `from`, or a later day", str(last))
    keeps_table = given.get("keep_table", False)
    if not isinstance(keeps_table, bool):
        raise _wrong(place, "keep_table", "true or false", keeps_table)
    rates = _rates(place, given)
    if not rates:
        raise FileError(f"{place}: per_million or per_unit is missing: {_KEYS['per_million']}")
    if not keeps_table:
        _require_wholes(place, rates)
    return Entry(
        texts["provider"], texts["host"], texts["model"], tier, first, last, rates, keeps_table
    )


def _rates(place: str, given: Mapping[str, Any]) -> dict[str, Rate]:
    """Return the prices of an entry, with those above some number of input tokens."""
    rates = _amounts(place, given)
    steps: dict[str, list[tuple[int, Decimal]]] = {}
    above: object = given.get("above", [])
    if not isinstance(above, list):
        raise _wrong(place, "above", "a list", above)
    last = 0
    for number, one in enumerate(cast("list[object]", above), 1):
        where = f"{place}.above[{number}]"
        step = _table(one, where, ("input_tokens", "per_million", "per_unit"))
        start = step.get("input_tokens")
        if not isinstance(start, int) or isinstance(start, bool) or start <= last:
            expected = (
                "a whole number, more than 0" if last == 0 else f"a whole number, more than {last}"
            )
            raise _wrong(where, "input_tokens", expected, start)
        last = start
        for unit, rate in _amounts(where, step).items():
            if unit not in rates or rates[unit].per != rate.per:
                raise FileError(f"{where}: {unit} has a price above {start}, and none below it")
            steps.setdefault(unit, []).append((start, rate.price))
    return {unit: rate._replace(steps=tuple(steps.get(unit, ()))) for unit, rate in rates.items()}


def _amounts(place: str, given: Mapping[str, Any]) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for name, per in (("per_million", _MILLION), ("per_unit", 1)):
        for unit, price in _table(given.get(name, {}), f"{place}.{name}", PRICEABLE).items():
            is_number = isinstance(price, (int, Decimal)) and not isinstance(price, bool)
            if not is_number or not Decimal(price).is_finite() or price < 0:
                raise _wrong(f"{place}.{name}", unit, "a number of US dollars, 0 or more", price)
            if unit in rates:
                raise FileError(f"{place}: {unit} is in per_million and in per_unit; remove one")
            rates[unit] = Rate(Decimal(price), per)
    return rates


def _require_wholes(place: str, rates: Mapping[str, Rate]) -> None:
    """Raise where a part has a price, and what it is a part of, or what it has in common with another, has none."""
    priced = [unit for unit in rates if unit in TOKENS]
    for unit in priced:
        for whole in TOKENS:
            if TOKENS[whole] < TOKENS[unit] and whole not in rates:
                raise FileError(
                    f"{place}: {unit} is a part of {whole}, which has no price; name it, too, or set keep_table"
                )
    for one, other in combinations(priced, 2):
        both = NAMES.get(TOKENS[one] | TOKENS[other])
        if can_overlap(TOKENS[one], TOKENS[other]) and both is not None and both not in rates:
            raise FileError(
                f"{place}: {one} and {other} have prices, and {both}, which are in both, has none; name it, too"
            )


def _table(found: object, place: str, names: Iterable[str]) -> dict[str, Any]:
    """Return a table of the file, all of whose names are known."""
    if not isinstance(found, dict):
        raise FileError(f"{place}: expected is a table of names and values, not {_shown(found)}")
    table = cast("dict[str, Any]", found)
    known = list(names)
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = (
                f"; did you mean {near[0]}?"
                if near
                else f"; expected is one of: {', '.join(known)}"
            )
            raise FileError(f"{place}: {name!r} is not known{hint}")
    return table


def _wanted(place: str, name: str, given: Mapping[str, Any], default: str = _ANY) -> str:
    value = given.get(name, default)
    if not isinstance(value, str) or not value:
        raise _wrong(place, name, f"{_KEYS[name]}; * is any text", value)
    return value


def _day(place: str, name: str, given: Mapping[str, Any], default: date) -> date:
    value = given.get(name, default)
    # TOML has dates of its own; one with a time is a subclass.
    if type(value) is date:
        return value
    try:
        if isinstance(value, str) and len(value) == len("2026-11-29"):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise _wrong(place, name, f"{_KEYS[name]}, like 2026-11-29", value)


def _wrong(place: object, name: str, expected: str, value: object) -> FileError:
    return FileError(f"{place}: {name} is {_shown(value)}; expected is {expected}")


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    return str(value) if isinstance(value, Decimal) else repr(value)[:80]
