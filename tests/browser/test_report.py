"""The report of `cmdrdata usage --html` in a real browser: one file, from the disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from cmdrdata_exporter.cli.dashboard.report import usage_as_html
from cmdrdata_exporter.cli.destination import all_of
from cmdrdata_exporter.cli.usage.numbers import usage_of
from cmdrdata_exporter.cli.usage.report import footnotes
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.browser.conftest import Open, picture
from tests.browser.test_page import SCHEMES, WIDTHS, drawn, overflow, violations
from tests.ledgers import NOW
from tests.used import SHOWN


@pytest.fixture
def report(remote: Directory, spool: Path, tmp_path: Path, open_page: Open) -> Open:
    """Open the report of usage by customer, without a network."""
    (place,) = (place for place in all_of(spool) if place.directory.path == remote.path)
    file = tmp_path / "usage.html"
    found, by_day = usage_of(place, ["customer"]), usage_of(place, ["customer", "day"])
    html = usage_as_html(found, by_day, footnotes(found), NOW)
    file.write_text(html, encoding="utf-8")

    def report(**options: Any) -> Page:
        return open_page(file.as_uri(), offline=True, **options)

    return report


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width(report: Open, width: int, scheme: str) -> None:
    """From a phone to a wide screen, light and dark, nothing is beyond the window, and each series is drawn."""
    page = report(width=width, scheme=scheme)
    assert [f"--c{number}" for number in range(8)] == drawn(page)
    picture(page, f"report-{scheme}-{width}")
    assert overflow(page) <= 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_accessible(report: Open, scheme: str) -> None:
    """The report is as WCAG 2.2 AA asks, as the page is."""
    assert [] == violations(report(scheme=scheme))


def test_the_numbers(report: Open, remote: Directory) -> None:
    """Table and plot are of the same numbers, whatever unit is chosen."""
    page = report()
    page.get_by_role("combobox", name="Unit").select_option("input_tokens")
    page.get_by_text("The plot as a table").click()
    cells = page.locator("#plot tbody td").all_inner_texts()
    shown = page.locator("tfoot td").nth(1).inner_text()
    assert shown == f"{sum(int(cell.replace(',', '')) for cell in cells):,}"


def test_without_scripts(report: Open) -> None:
    """Where no script runs, in a mail for instance, the numbers are there, and names are text."""
    page = report(java_script_enabled=False)
    expect(page.locator("tbody th", has_text="hacked")).to_have_text(SHOWN)
    expect(page.locator("tfoot th")).to_have_text("Total")
    expect(page.locator(".notes li").first).to_contain_text("799 events = 700 delivered + ")
    expect(page.locator("#plotted")).to_be_hidden()


def test_names_are_text(report: Open) -> None:
    """A customer named like a script is none, in the plot either, and nothing is asked of any host."""
    page = report()
    expect(page.locator(".legend bdi", has_text="hacked")).to_have_text(re.compile("^<script>"))
    assert page.evaluate("window.hacked") is None
