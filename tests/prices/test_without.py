"""Where there is no table, that is said, with what to do."""

from __future__ import annotations

import sys

import pytest

from cmdrdata_exporter.prices import PriceError, PriceTable


def test_python_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below Python 3.11 there is no genai-prices."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    with pytest.raises(PriceError) as raised:
        PriceTable.load()
    assert (
        "prices need Python 3.11 or newer, and this is 3.10; run the command with a newer Python,"
        " in an environment of its own if need be"
    ) == str(raised.value)


def test_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra that brings it."""
    monkeypatch.setattr(sys, "version_info", (3, 12, 0, "final", 0))
    # As if it was not installed, also where it was imported before.
    monkeypatch.delitem(sys.modules, "cmdrdata_exporter.prices.listed", raising=False)
    for module in ("genai_prices", "genai_prices.data"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PriceError) as raised:
        PriceTable.load()
    said = str(raised.value)
    assert said.startswith("genai-prices 0.2.3 or newer is needed (")
    assert said.endswith("; run: pip install 'opentelemetry-instrumentation-cmdrdata[cli,prices]'")
