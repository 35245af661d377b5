"""
Usage as a FOCUS 1.2 dataset, which finance tools read: a line for each meter of each group of charges.

The specification: https://focus.finops.org/focus-specification/v1-2/. It wants a value in some columns for which a
ledger has none. They are empty then, never filled by guess, and `wanted` names them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import NamedTuple

from cmdrdata_exporter.cli.usage.costs import CURRENCY, cost_of, rounded
from cmdrdata_exporter.cli.usage.meters import Reading, readings
from cmdrdata_exporter.cli.usage.numbers import DESTINATION, EVENTS, Group, Numbers
from cmdrdata_exporter.prices import PriceTable

FINE = (
    "day",
    "customer",
    "model",
    "endpoint",
    "status",
    "provider",
    "host",
    "service_tier",
    "context",
    "organization",
    "project",
    "key",
    DESTINATION,
)
"""What charges are grouped by, beside the labels."""

COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
REQUIRED = (
    *COSTS,
    "BillingAccountId",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "InvoiceIssuerName",
    "ListUnitPrice",
    "PricingQuantity",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuPriceId",
)
"""The columns that have a value in each line of usage, as the specification has it."""
PAIRS = {
    "ConsumedUnit": "ConsumedQuantity",
    "PricingUnit": "PricingQuantity",
    "SubAccountName": "SubAccountId",
}
"""Those that have a value where another one has."""
OPTIONAL = (
    "BillingAccountName",
    "ChargeClass",
    "ChargeDescription",
    "CommitmentDiscountStatus",  # What the specification says of quantities depends on it.
    "InvoiceId",
    "SkuMeter",
    "SkuPriceDetails",
    "SubAccountId",
    "Tags",
)
"""Those that may have none."""
CUSTOM = (
    "x_Destination",
    "x_Endpoint",
    "x_Host",
    "x_InputTokensAbove",
    "x_KeyHash",
    "x_Model",
    "x_ServiceTier",
    "x_UsageStatus",
)
"""Our own, which the specification has at the end."""
COLUMNS = (*sorted((*REQUIRED, *PAIRS, *OPTIONAL)), *CUSTOM)

PROVIDERS = {
    "openai": ("OpenAI", "OpenAI API"),
    "azure.ai.openai": ("Microsoft", "Azure OpenAI"),
    "aws.bedrock": ("Amazon Web Services", "Amazon Bedrock"),
    "gcp.gemini": ("Google", "Gemini API"),
    "gcp.vertex_ai": ("Google Cloud", "Vertex AI"),
    "groq": ("Groq", "GroqCloud"),
    "deepseek": ("DeepSeek", "DeepSeek API"),
    "mistral_ai": ("Mistral AI", "Mistral AI API"),
    "x_ai": ("xAI", "xAI API"),
    "perplexity": ("Perplexity", "Perplexity API"),
}
"""Who makes a service available, and what it is called. Another provider has its own name for both."""
_LEAST = Decimal("1e-12")
_OPENAI_HOST = "api.openai.com"


class Charge(NamedTuple):
    """What one line is about."""

    named: dict[str, str]
    """The group: a value for each of `FINE`, the empty string where none is known."""
    tags: dict[str, str]
    """The customer, and the labels that are known."""
    reading: Reading
    cost: Decimal | None = None
    """In US dollars; None where it is not known."""
    list_cost: Decimal | None = None
    """By the table, whatever a file of one's own says."""


def charges(
    numbers: Numbers, labels: Iterable[str], prices: PriceTable | None = None
) -> Iterator[Charge]:
    """
    Yield the charges that make up what was used.

    Args:
        numbers: read by `FINE` and the labels.
        labels: the user's metadata keys, which become tags.
        prices: by which they cost something.
    """
    labels = tuple(labels)
    for group, units in sorted(numbers.groups.items()):
        named = dict(zip(numbers.columns, group, strict=True))
        tags = {name: named[name] for name in ("customer", *labels) if named[name]}
        found = list(readings({unit: units[unit] for unit in units if unit != EVENTS}))
        paid = _costs(prices, numbers, group, found)
        listed = _costs(prices and prices.without_file, numbers, group, found)
        for reading, cost, list_cost in zip(found, paid, listed, strict=True):
            yield Charge(named, tags, reading, cost, list_cost)


def _costs(
    prices: PriceTable | None, numbers: Numbers, group: Group, found: Sequence[Reading]
) -> list[Decimal | None]:
    """Return what each of the readings of a group costs, as far as that is certain; together it is what that costs."""
    unknown: list[Decimal | None] = [None] * len(found)
    if prices is None:
        return unknown
    whole = cost_of(prices, numbers, group)
    costs = [cost_of(prices, numbers, group, reading.units) for reading in found]
    if whole.gaps:
        # Of tokens that may be two things at once each reading has a price alone, and all together have none.
        unsure = set(whole.unpriced)
        return [
            None if cost.gaps or not unsure.isdisjoint(reading.units) else cost.amount
            for reading, cost in zip(found, costs, strict=True)
        ]
    # What has no price alone is nothing but a number of what was charged.
    amounts = [cost.amount or Decimal(0) for cost in costs]
    # A price of a part that has no reading of its own, of text for instance, is in none of the lines.
    is_all = abs(sum(amounts) - (whole.amount or 0)) < _LEAST
    return list(amounts) if is_all else unknown


def line_of(charge: Charge) -> dict[str, str]:
    """Return what stands in the columns for a charge; a column that is not in it is empty."""
    named, reading = charge.named, charge.reading
    provider, service = _service(named["provider"], named["host"])
    first, after = _period(named["day"])
    month, next_month = _period(named["day"][:7])
    model = named["model"]
    meter = reading.meter
    return {
        **_price(charge),
        "BillingAccountId": named["organization"],
        "BillingPeriodStart": month,
        "BillingPeriodEnd": next_month,
        "ChargeCategory": "Usage",
        "ChargeDescription": ", ".join(filter(None, (meter.name, model, named["endpoint"]))),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": first,
        "ChargePeriodEnd": after,
        "ConsumedQuantity": decimal(reading.quantity),
        "ConsumedUnit": meter.unit,
        "InvoiceIssuerName": provider,
        "ProviderName": provider,
        "PublisherName": provider,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": service,
        "ServiceSubcategory": "Generative AI",
        "SkuId": f"{model}/{meter.counted[0]}" if model else "",
        "SkuMeter": meter.name if model else "",
        "SubAccountId": named["project"],
        "Tags": json.dumps(charge.tags) if charge.tags else "",
        "x_Destination": named[DESTINATION],
        "x_Endpoint": named["endpoint"],
        "x_Host": named["host"],
        "x_InputTokensAbove": named["context"],
        "x_KeyHash": named["key"],
        "x_Model": model,
        "x_ServiceTier": named["service_tier"],
        "x_UsageStatus": named["status"],
    }


def as_focus(lines: Iterable[dict[str, str]]) -> str:
    """Return what `cmdrdata usage --focus` prints."""
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return written.getvalue()


def wanted(lines: Iterable[dict[str, str]]) -> list[str]:
    """Return the columns in which the specification wants a value, and a line has none."""
    missing = {
        name
        for line in lines
        for name in (*REQUIRED, *(name for name, other in PAIRS.items() if line.get(other)))
        if not line.get(name)
    }
    return sorted(missing)


def decimal(amount: float | Decimal) -> str:
    """Return a number with digits and a point, by which whoever reads the file knows that the column has decimals."""
    text = format(Decimal(str(amount)), "f")
    return text if "." in text else f"{text}.0"


def _price(charge: Charge) -> dict[str, str]:
    """Return the columns that a price fills: none where no price is certain. A cost of 0 would be a guess."""
    cost, listed, reading = charge.cost, charge.list_cost, charge.reading
    columns: dict[str, str] = {}
    if cost is not None:
        paid = decimal(rounded(cost))
        columns |= dict.fromkeys((name for name in COSTS if name != "ListCost"), paid)
        columns["BillingCurrency"] = CURRENCY
        columns["PricingQuantity"] = decimal(reading.quantity)
        columns["PricingUnit"] = reading.meter.unit
    if listed is not None:
        columns["ListCost"] = decimal(rounded(listed))
        columns["ListUnitPrice"] = decimal(rounded(listed / Decimal(str(reading.quantity)), 18))
        tier = charge.named["service_tier"] or "default"
        sku = f"{charge.named['model']}/{reading.meter.counted[0]}"
        columns["SkuPriceId"] = f"{sku}/{tier}/{charge.named['context'] or '-'}"
    return columns


def _service(provider: str, host: str) -> tuple[str, str]:
    """Return who makes a service available, and what it is called."""
    if provider == "openai" and host and not f".{host}".endswith(f".{_OPENAI_HOST}"):
        # It speaks OpenAI's protocol, and may be anybody's.
        return host, host
    return PROVIDERS.get(provider, (provider, provider))


def _period(day: str) -> tuple[str, str]:
    """Return when a day or a month begins and when the next one does; empty where it is neither."""
    try:
        first = date.fromisoformat(day if len(day) > 7 else f"{day}-01")
    except ValueError:
        return "", ""
    after = first + timedelta(days=1 if len(day) > 7 else 31)
    return _moment(first), _moment(after if len(day) > 7 else after.replace(day=1))


def _moment(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"
