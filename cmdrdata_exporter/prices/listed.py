"""
The prices that genai-prices lists, in our units.

The library would answer every question, also with a guess: it takes the standard price where it has none for a service
tier, and another provider's where the name of one is like it. So its data is read here, and what is not in there is
not answered. https://github.com/pydantic/genai-prices
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timezone
from decimal import Decimal
from importlib.metadata import version

from genai_prices.data import providers
from genai_prices.data_units import unit_data
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from cmdrdata_exporter.prices.rates import Prices, Rate, Unseen
from cmdrdata_exporter.prices.units import (
    BATCH,
    INPUT,
    MODALITY,
    NAMES,
    OUTPUT,
    STANDARD,
    TOKENS,
    Marks,
)

PROVIDERS: Mapping[str, str] = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "aws.bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
    "moonshot_ai": "moonshotai",
}
"""What events call a provider, and the table: where the two are not the same."""

ENDPOINTS: Mapping[str, str] = {
    "decisions": "openai-decisions",
    "live.decisions": "openai-decisions",
}
"""Endpoints that the table has as providers of their own, since their prices differ."""

UNITS: Mapping[str, tuple[str, ...]] = {
    "input_characters": ("characters",),
    "audio_seconds": ("audio_seconds", "session_seconds"),
    # Sound that is heard alone is dearer, or not, than a session.
    "input_audio_seconds": ("audio_seconds",),
    "web_searches": ("web_search_calls",),
    "storage_searches": ("file_search_calls",),
}
"""The units of the table that are no tokens, and ours, in the order in which one prevails over those before."""

ALSO = ("requests", "messages", "document_pages", "pixels")
"""The families of units that a call certainly has, and no event."""

NOT_RECORDED: Mapping[tuple[str, str], str] = {
    # No call is charged as if it were shorter than ten seconds. https://groq.com/pricing
    ("groq", "whisper-large-v3"): "seconds of short calls",
    ("groq", "whisper-large-v3-turbo"): "seconds of short calls",
    # The table has the prices of global ones, which cost least.
    ("azure", "*"): "regional deployments",
}
"""What the table knows of in words only, by provider and model."""

_ANY_DAY = date(2000, 1, 1)
_OPENAI_HOST = "api.openai.com"
_UNITS = {unit["price_key"]: (name, unit) for name, unit in unit_data.items()}


class Listed:
    """
    A table.

    Args:
        providers: whose prices it has.
        version: says which table it is.
    """

    def __init__(self, providers: list[Provider], version: str) -> None:
        self._providers = providers
        self.version = version

    @classmethod
    def shipped(cls, today: date) -> Listed:
        """Return the table that the installed genai-prices ships; today decides which changes are to come."""
        models = [model for provider in providers for model in provider.models]
        latest = max(day for model in models for day in _days(model) if day <= today)
        return cls(
            providers,
            f"genai-prices {version('genai-prices')} (latest change of a price: {latest})",
        )

    def model(
        self, provider: str, host: str, name: str, endpoint: str
    ) -> tuple[Provider, ModelInfo] | str:
        """
        Find a model.

        Args:
            provider: as events have it.
            host: that was called; empty where it is not known.
            name: of the model.
            endpoint: that was called.

        Returns:
            it and whose it is, or why there is none.
        """
        if not provider:
            return "recorded before providers were kept"
        if not name:
            return "the model is not known"
        if provider == "openai" and host not in ("", _OPENAI_HOST):
            # Whoever speaks its protocol is called so.
            if (found := self._at_host(host)) is None:
                return f"the table has no host {host}"
        elif (found := self._named(ENDPOINTS.get(endpoint, provider))) is None:
            return f"the table has no provider {provider}"
        model = found.find_model(name, all_providers=self._providers)
        if model is None:
            return f"the table has no such model of {found.name}"
        return found, model

    def changes(self, model: ModelInfo) -> tuple[list[date], list[time]]:
        """Return the days on which prices of a model change, and the times of each day, in UTC."""
        times = [
            # A time without a zone is in UTC.
            datetime.combine(_ANY_DAY, at, at.tzinfo or timezone.utc)
            .astimezone(timezone.utc)
            .time()
            for constraint in _constraints(model)
            if isinstance(constraint, TimeOfDateConstraint)
            for at in (constraint.start_time, constraint.end_time)
        ]
        return list(_days(model)), times

    def prices(self, provider: Provider, model: ModelInfo, tier: str, at: datetime) -> Prices | str:
        """Return the prices of a model, or why there are none."""
        standard = _standard(model, at)
        if standard is None:
            return "the table has no price of that time"
        rates = {key: rate for key, rate in vars(standard).items() if rate is not None}
        if tier != STANDARD:
            # Those of another provider, of whom this one's model is, are not its own.
            is_own = any(model is one for one in provider.models)
            variants = [
                one for one in model.price_variants or () if is_own and _holds(one, tier, at)
            ]
            if not variants:
                return f"the table has no price of that time for service tier {tier}"
            # Of each price the first one that is there counts.
            for variant in reversed(variants):
                rates |= {k: rate for k, rate in vars(variant.prices).items() if rate is not None}
        prices = _in_our_units(rates)
        places = [(provider.id, name) for name in (model.id, "*")]
        known = tuple(NOT_RECORDED[place] for place in places if place in NOT_RECORDED)
        return prices._replace(also=prices.also + known)

    def _named(self, name: str) -> Provider | None:
        """Return the provider that has this name in events; never one whose name is only like it."""
        name = PROVIDERS.get(name, name)
        return next((provider for provider in self._providers if provider.id == name), None)

    def _at_host(self, host: str) -> Provider | None:
        """Return the provider that is at a host."""
        url = f"https://{host}"
        for provider in self._providers:
            found = re.match(provider.api_pattern, f"{url}/")
            if found is not None and found.end() >= len(url):
                return provider
        return None


def _constraints(
    model: ModelInfo,
) -> Iterator[StartDateConstraint | TimeOfDateConstraint | None]:
    """Yield when prices of a model hold."""
    priced: list[ConditionalPrice | PriceVariant] = [*(model.price_variants or ())]
    if isinstance(model.prices, list):
        priced += model.prices
    for one in priced:
        yield one.constraint


def _days(model: ModelInfo) -> Iterator[date]:
    """Yield the days on which prices of a model change."""
    for constraint in _constraints(model):
        if isinstance(constraint, StartDateConstraint):
            yield constraint.start_date


def _standard(model: ModelInfo, at: datetime) -> ModelPrice | None:
    """Return the usual prices, the last that hold; None where there are none yet."""
    if isinstance(model.prices, ModelPrice):
        return model.prices
    for one in reversed(model.prices):
        if one.constraint is None or one.constraint.active(at):
            return one.prices
    return None


def _holds(variant: PriceVariant, tier: str, at: datetime) -> bool:
    """Say whether prices are those of a service tier."""
    when = {"processing": BATCH} if tier == BATCH else {"service_tier": tier}
    return variant.when == when and (variant.constraint is None or variant.constraint.active(at))


def _in_our_units(listed: Mapping[str, Decimal | TieredPrices]) -> Prices:
    """Return prices by our units. A model that is listed without any is free."""
    if not listed:
        return Prices({INPUT: Rate(Decimal(0)), OUTPUT: Rate(Decimal(0))})
    rates: dict[str, Rate] = {}
    others: dict[str, Rate] = {}
    unseen: list[Unseen] = []
    also: list[str] = []
    for key, price in listed.items():
        name, unit = _UNITS[key]
        marks = dict(unit["dimensions"])
        family = marks.pop("family")
        rate = _rate(price, unit["per"])
        if family == "tokens":
            if (ours := NAMES.get(frozenset(marks.items()))) is not None:
                rates[ours] = rate
            else:
                whole = _whole(frozenset(marks.items()))
                unseen.append(Unseen(whole, name.replace("_", " "), MODALITY in marks, rate))
        elif family in ALSO:
            also.append(name)
        else:
            others[name] = rate
    for name, ours in UNITS.items():
        if name in others:
            rates |= dict.fromkeys(ours, others[name])
    return Prices(rates, tuple(unseen), tuple(also))


def _whole(marks: Marks) -> str:
    """Return the smallest unit of ours that contains such tokens."""
    return max(
        (unit for unit in TOKENS if TOKENS[unit] < marks), key=lambda unit: len(TOKENS[unit])
    )


def _rate(price: Decimal | TieredPrices, per: int) -> Rate:
    if isinstance(price, Decimal):
        return Rate(price, per)
    return Rate(price.base, per, tuple((tier.start, tier.price) for tier in price.tiers))
