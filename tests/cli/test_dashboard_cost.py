"""What usage costs, on the page and in the report: by prices of one's own, so that the numbers here stay right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmdrdata_exporter.cli.dashboard.answers import Answers
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.prices import PriceTable
from tests import used
from tests.cli.conftest import Run
from tests.cli.test_dashboard import Reader
from tests.cli.test_usage_html import rows
from tests.dashboards import serving
from tests.ledgers import NOW, fill

PRICES = """
version = "test"
currency = "USD"

[[prices]]
provider = "openai"
model = "gpt-5-mini"
per_million = { input_tokens = 2, output_tokens = 50 }
"""
# 1,000 input tokens and 20 output tokens of this model are 0.003 dollars.


@pytest.fixture
def price_file(tmp_path: Path) -> Path:
    """A file of prices."""
    file = tmp_path / "prices.toml"
    file.write_text(PRICES)
    return file


@pytest.fixture
def sold(remote: Directory) -> Directory:
    """The ledger of calls, not all of which have a price."""
    fill(
        remote,
        [
            used.record(1, "acme"),
            used.record(2, "acme", at=NOW - 86400),
            used.record(3, "globex"),
            used.record(4, "globex", model="model-of-nobody"),
            used.record(5, "initech", model="model-of-nobody"),
        ],
    )
    return remote


@pytest.fixture
def reader(spool: Path, price_file: Path) -> Iterator[Reader]:
    """Read from a server that has prices."""
    answers = Answers(spool, prices=PriceTable.load(price_file), clock=lambda: NOW + 180)
    with serving(answers) as server:
        yield Reader(server.url)


def test_cost_on_the_page(sold: Directory, reader: Reader) -> None:
    """A cost is a unit of its own, which may be plotted; where it is not all, or not known, that is said."""
    found = reader.ask("usage", destination=sold.path.name, unit="cost in USD")
    assert [
        (["acme"], 0.006, False),
        (["globex"], 0.003, True),
        (["initech"], None, True),
    ] == [(row["names"], row["units"].get("cost in USD"), row["at_least"]) for row in found["rows"]]
    assert (pytest.approx(0.009), True) == (
        found["total"]["units"]["cost in USD"],
        found["total"]["at_least"],
    )
    assert ["events", "cost in USD", "input_tokens"] == list(found["total"]["units"])[:3]
    assert [(["acme"], [0.003, 0.003]), (["globex"], [0, 0.003])] == [
        (one["names"], one["amounts"][-2:]) for one in found["series"]
    ]
    assert found["notes"][0].startswith("Cost in US dollars, without taxes, by prices.toml test")
    assert any("model-of-nobody" in note for note in found["notes"])
    assert reader.ask("choices")["cost"]
    without = reader.ask("usage", destination=sold.path.name, cost="no")
    assert "cost in USD" not in without["total"]["units"]


def test_cost_in_the_report(sold: Directory, run: Run, tmp_path: Path, price_file: Path) -> None:
    """The report shows costs as the command does, and by which prices."""
    file = tmp_path / "usage.html"
    done = run("usage", "--html", str(file), "--cost", "--prices", str(price_file))
    assert (0, "") == (done.returncode, done.stderr)
    html = file.read_text(encoding="utf-8")
    assert [
        ["customer", "events", "cost in USD"],
        ["acme", "2", "0.0060"],
        ["globex", "2", "≥0.0030"],
        ["initech", "1", "-"],
        ["Total", "5", "≥0.0090"],
    ] == [row[:3] for row in rows(html)]
    notes = re.findall("<li>(.*?)</li>", html)
    assert notes[0].startswith("Cost in US dollars, without taxes, by prices.toml test")
    assert '"unit": "cost in USD"' in html


def test_prices_that_cannot_be_used(remote: Directory, run: Run, tmp_path: Path) -> None:
    """A file of prices that was given must be right."""
    file = tmp_path / "prices.toml"
    file.write_text("currency = 'EUR'")
    done = run("dashboard", "--prices", str(file), "--port", "0")
    assert (2, True) == (done.returncode, "EUR" in done.stderr)
