"""What the tests of prices stand on. The table needs Python 3.11; what is said without it is tested everywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cmdrdata_exporter.prices import Cost, PriceTable

if sys.version_info < (3, 11):
    collect_ignore = [
        "test_by_hand.py",
        "test_files.py",
        "test_listed.py",
        "test_sums.py",
    ]

Priced = Callable[..., Cost]

CALL: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-4o",
    "service_tier": "default",
    "endpoint": "chat.completions",
    "context": "0",
    "day": "2026-11-20",
}
"""A call as most are."""


def cost_of(table: PriceTable, units: Mapping[str, float], **call: Any) -> Cost:
    """Return what usage of `CALL`, or of a call that differs from it, costs."""
    return table.cost(units, **{**CALL, **call})


@pytest.fixture(scope="session")
def shipped() -> PriceTable:
    """The table of the installed genai-prices."""
    return PriceTable.load()


@pytest.fixture
def priced(shipped: PriceTable) -> Priced:
    """Price usage of a call by that table."""

    def priced(units: Mapping[str, float], **call: Any) -> Cost:
        return cost_of(shipped, units, **call)

    return priced
