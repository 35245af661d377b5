"""The dashboard in a real browser: for those who see it, and for those who do not."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[reportMissingTypeStubs]
from playwright.sync_api import Page, expect

from cmdrdata_exporter.cli.dashboard.server import DashboardServer
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from tests.browser.conftest import Open, picture
from tests.ledgers import NOW, event_id
from tests.used import EVENTS, HOSTILE, SHOWN, TRACE, record

WIDTHS = (360, 768, 1280, 1920)
SCHEMES = ("light", "dark")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def overflow(page: Page) -> int:
    """Return by how many pixels a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def drawn(page: Page) -> list[str]:
    """Return which of the colours of the series are in the plot."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector("#plot canvas");
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            const seen = new Set();
            for (let at = 0; at < pixels.length; at += 4)
                if (pixels[at + 3] === 255)
                    seen.add("#" + [0, 1, 2].map((part) => pixels[at + part].toString(16).padStart(2, "0")).join(""));
            const style = getComputedStyle(document.documentElement);
            return [...Array(8).keys()].map((number) => `--c${number}`)
                .filter((name) => seen.has(style.getPropertyValue(name).trim()));
        }"""
    )


def violations(page: Page) -> list[object]:
    """Return which rules a page breaks, and where."""
    found = cast("Any", Axe()).run(page, options=RULES).response
    assert len(found["passes"]) > 20
    return [
        (rule["id"], rule["help"], [node["html"] for node in rule["nodes"]])
        for rule in found["violations"]
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width(dashboard: Open, width: int, scheme: str) -> None:
    """From a phone to a wide screen, light and dark, nothing is beyond the window, and each series is drawn."""
    page = dashboard(width=width, scheme=scheme)
    page.get_by_label("Unit").select_option("total_tokens")
    expect(page.locator("#sums caption")).to_have_text("Last 30 days, UTC")
    assert [f"--c{number}" for number in range(8)] == drawn(page)
    picture(page, f"page-{scheme}-{width}")
    assert overflow(page) <= 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 1280])
def test_accessible(dashboard: Open, width: int, scheme: str) -> None:
    """Names, roles, landmarks, order of headings and contrast are as WCAG 2.2 AA asks."""
    page = dashboard(width=width, scheme=scheme)
    page.get_by_text("The plot as a table").click()
    assert [] == violations(page)


def test_names_are_text(dashboard: Open) -> None:
    """A customer named like a script is shown by that name, and is no script; what would reverse it is escaped."""
    page = dashboard()
    expect(page.locator("#sums tbody th", has_text="hacked")).to_have_text(SHOWN)
    expect(page.locator(".legend li", has_text="hacked").locator("bdi")).to_have_text(SHOWN)
    assert page.evaluate("window.hacked") is None
    assert page.locator("body script").count() == 0


FOCUS = """() => {
    const now = document.activeElement;
    const style = getComputedStyle(now);
    const seen = now.matches(":focus-visible") && parseFloat(style.outlineWidth) >= 2;
    return [now.tagName.toLowerCase(), now.getAttribute("name") ?? now.id, seen];
}"""


def test_keyboard(dashboard: Open) -> None:
    """Everything is reached by the keyboard, in the order of the page, and what has the focus is seen."""
    page = dashboard()
    reached: list[tuple[str, str]] = []
    for _ in range(15):
        page.keyboard.press("Tab")
        tag, name, visible = page.evaluate(FOCUS)
        if tag == "body":
            break
        assert visible, (tag, name)
        reached.append((tag, name))
    assert [
        ("a", ""),
        ("select", "destination"),
        ("button", "live"),
        ("select", "range"),
        ("select", "by"),
        ("select", "unit"),
        ("input", "customer"),
        ("input", "only"),
        ("input", ""),
        ("summary", ""),
        ("div", ""),
        ("input", "id"),
        ("button", ""),
        ("div", ""),
        ("button", ""),
    ] == reached


def test_the_plot_without_a_mouse(dashboard: Open) -> None:
    """The arrow keys read the plot period by period, and a table has all its numbers."""
    page = dashboard()
    slider = page.get_by_label("Period")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    told = re.compile(r"^2026-11-20: [\d,]+ events$")
    expect(slider).to_have_attribute("aria-valuetext", told)
    expect(page.locator("output")).to_have_text(re.compile(r"^2026-11-20 UTC: [\d,]+ events$"))
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    rows = page.locator("#plot tbody tr")
    expect(rows).to_have_count(30)
    cells = [text.replace(",", "") for text in rows.nth(28).locator("td").all_inner_texts()]
    assert f"2026-11-20: {sum(map(int, cells)):,} events" == slider.get_attribute("aria-valuetext")
    legend = page.locator(".legend .amount").all_inner_texts()
    assert cells == [text.replace(",", "") for text in legend]


def test_the_plot_with_a_mouse(dashboard: Open) -> None:
    """What the mouse points at is told."""
    page = dashboard()
    box = page.locator("#plot .u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.5 / 30, box["y"] + box["height"] / 2)
    expect(page.locator("output")).to_have_text(re.compile(r"^2026-10-23 UTC"))


def test_what_is_chosen(dashboard: Open) -> None:
    """Range, grouping, unit and customer change the plot and the sums, from the keyboard alone, too."""
    page = dashboard()
    page.get_by_role("combobox", name="By", exact=True).select_option("customer,model")
    expect(page.locator("#sums thead th").nth(1)).to_have_text("model")
    page.get_by_label("Range").select_option("hours")
    expect(page.locator("#sums caption")).to_have_text("Last 48 hours, UTC")
    expect(page.locator("output")).to_have_text(re.compile("^2026-11-21 18:00 UTC: "))
    page.get_by_label("Range").select_option("months")
    expect(page.locator("#sums caption")).to_have_text("Last 12 months, UTC")
    page.get_by_role("textbox", name="Customer", exact=True).fill("acme")
    page.keyboard.press("Enter")
    expect(page.locator("#sums tbody tr")).to_have_count(3)
    assert {"acme"} == {
        name.split(" · ")[0] for name in page.locator("#sums tbody th").all_inner_texts()
    }
    page.get_by_role("textbox", name="Customer", exact=True).fill("nobody-by-this-name")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing was used in this time.")).to_be_visible()


def test_destinations(dashboard: Open) -> None:
    """Each destination of the host can be chosen; what needs a person at the others is still said."""
    page = dashboard()
    expect(page.locator("#needs li").first).to_have_text(re.compile("^Paused: "))
    page.get_by_label("Destination").select_option("local")
    expect(page.locator("#description")).to_have_text("Events stay on this host.")
    expect(page.locator("#states .count").first).to_have_text("2")
    expect(page.locator("#needs li").first).to_have_text(re.compile("^default-[0-9a-f]+: Paused: "))


def test_live(dashboard: Open, remote: Directory) -> None:
    """What is recorded shows without a reload, until the page is paused."""
    page = dashboard(frozen=True)
    recorded = page.locator("#states .count").first
    expect(recorded).to_have_text(str(EVENTS))
    commands.append(remote, [record(5000, "acme")])
    page.clock.run_for(2000)
    expect(recorded).to_have_text(str(EVENTS + 1))
    page.clock.run_for(10_000)
    expect(page.locator("#notes")).to_contain_text("Not counted yet: 1 more event")
    button = page.get_by_role("button", name="Live")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert [] == asked
    button.click()
    with page.expect_request(re.compile("api/status")):
        page.clock.run_for(2000)


@pytest.mark.parametrize(
    ("said", "found", "text"),
    [
        (event_id(300), [300], "1 event found."),
        (f"  {event_id(300)[:20]} ", [300], "1 event found."),
        ("resp_0300", [300], "1 event found."),
        ("req_0300", [300], "1 event found."),
        (TRACE.format(101), [300, 301, 302], "3 events found."),
        ("resp_9999", [], "No such event."),
    ],
)
def test_find(dashboard: Open, said: str, found: list[int], text: str) -> None:
    """An event is found by any of its ids, also when it was delivered, and what became of it is told."""
    page = dashboard()
    page.get_by_role("searchbox").fill(said)
    page.keyboard.press("Enter")
    expect(page.locator("#found-text")).to_contain_text(text)
    ids = page.locator(".event div", has_text=re.compile("^event")).locator("dd").all_inner_texts()
    assert sorted(map(event_id, found)) == sorted(ids)
    for card in page.locator(".event").all():
        expect(card).to_contain_text("delivered")
    assert overflow(page) <= 0


def test_what_newest_events_used(dashboard: Open, remote: Directory) -> None:
    """Parts of which nothing was used are left away, and what is the least, or not known, is said to be."""
    commands.append(
        remote,
        [
            record(5001, "acme", at=NOW + 60, read=7, written=0),
            record(5002, "acme", at=NOW + 60, status="partial", read=8, written=0),
            record(5003, "acme", at=NOW + 60, status="missing", read=0, written=0),
            record(5004, "acme", at=NOW + 60, read=0, written=0),
        ],
    )
    page = dashboard()
    used = page.locator("#newest tbody tr td.used")
    for text in (
        "7 input tokens, 7 total tokens",
        "≥ 8 input tokens, ≥ 8 total tokens",
        "usage missing",
        "0 input tokens, 0 output tokens, 0 total tokens",
    ):
        expect(used.filter(has_text=re.compile(f"^{text}$"))).to_have_count(1)


def test_newest(dashboard: Open, remote: Directory) -> None:
    """The newest events are listed as they are recorded, and each leads to all that is known of it."""
    page = dashboard(frozen=True)
    first = page.locator("#newest tbody tr").first
    expect(first).to_be_visible()
    commands.append(remote, [record(5000, HOSTILE, at=NOW + 60)])
    page.clock.run_for(2000)
    expect(first).to_contain_text("2026-11-21 18:34:20")
    expect(first).to_contain_text(SHOWN)
    expect(first).to_contain_text("1,000 input tokens, 20 output tokens, 1,020 total tokens")
    first.get_by_role("button").press("Enter")
    expect(page.locator("#found dl")).to_contain_text("resp_5000")
    expect(page.locator("#found dl")).to_contain_text("pending")
    assert page.evaluate("window.hacked") is None


def test_a_ledger_that_cannot_be_read(
    dashboard: Open, remote: Directory, complaints: list[str]
) -> None:
    """It is said, and stays said while nothing changes; the other destinations can be looked at."""
    page = dashboard(frozen=True)
    (remote.path / LEDGER).write_bytes(b"no database at all, but longer than a header is" * 30)
    alert = page.get_by_role("alert")
    for _ in range(2):
        page.clock.run_for(12_000)
        expect(alert).to_have_text("the ledger cannot be read: file is not a database")
        expect(page.locator("#needs li").first).to_have_text(
            "the ledger cannot be read: file is not a database"
        )
    page.get_by_label("Destination").select_option("local")
    expect(alert).to_be_hidden()
    expect(page.locator("#sums tbody th")).to_have_text("acme")
    assert {"503 (Service Unavailable)"} == {text.rsplit("status of ")[-1] for text in complaints}
    complaints.clear()


def test_the_end(dashboard: Open, server: DashboardServer, complaints: list[str]) -> None:
    """When the command has ended, the page says so."""
    page = dashboard()
    server.shutdown()
    server.socket.close()
    expect(page.get_by_role("alert")).to_have_text(re.compile("does not answer any more"))
    assert {"Failed to load resource: net::ERR_CONNECTION_REFUSED"} == set(complaints)
    complaints.clear()
