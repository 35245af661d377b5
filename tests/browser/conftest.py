"""A real browser: Chromium as the system has it, which playwright drives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cmdrdata_exporter.cli import terminal
from cmdrdata_exporter.cli.dashboard.answers import Answers
from cmdrdata_exporter.cli.dashboard.server import DashboardServer
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests import used
from tests.dashboards import serving
from tests.ledgers import NOW

INSTALL = "apt-get install -y --no-install-recommends chromium"
SHOTS = os.environ.get("SCREENSHOTS")
"""A directory for pictures of the page, for whoever wants to look at them."""

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start the browser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail(f"chromium is missing: {INSTALL}")
    with sync_playwright() as playwright:
        # Without its sandbox, which root in a container cannot have; it opens nothing but our page.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def spool() -> Path:
    """The spool directory of the environment."""
    return Path(os.environ["CMDRDATA_SPOOL_DIR"])


@pytest.fixture
def remote(spool: Path) -> Directory:
    """The destination of a spool directory in which there is some of everything."""
    return used.make(spool)


@pytest.fixture
def server(
    spool: Path, remote: Directory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DashboardServer]:
    """The dashboard, three minutes after the last event."""
    monkeypatch.setattr(terminal, "time", SimpleNamespace(time=lambda: NOW + 180))
    with serving(Answers(spool, remote.path.name, clock=lambda: NOW + 180)) as server:
        yield server


@pytest.fixture
def complaints() -> list[str]:
    """What a page complains of, in its console for instance, and what it asks other hosts for."""
    return []


@pytest.fixture
def open_page(browser: Browser, complaints: list[str]) -> Iterator[Open]:
    """Open a page; its complaints fail the test that has not taken them away."""
    with ExitStack() as stack:

        def open_page(
            url: str,
            *,
            width: int = 1280,
            scheme: Any = "light",
            frozen: bool = False,
            **more: Any,
        ) -> Page:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, **more
            )
            stack.callback(context.close)
            page = context.new_page()
            if frozen:
                page.clock.install()
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            start = url.split("/", 3)[:3]

            def check(requested: str) -> None:
                if requested.split("/", 3)[:3] != start:
                    complaints.append(f"asked for {requested}")

            page.on("request", lambda request: check(request.url))
            page.goto(url)
            return page

        yield open_page
    assert [] == complaints


@pytest.fixture
def dashboard(server: DashboardServer, open_page: Open) -> Open:
    """Open the dashboard, and wait until its usage is shown."""

    def dashboard(**options: Any) -> Page:
        page = open_page(server.url, **options)
        page.wait_for_selector("#sums tbody tr")
        return page

    return dashboard


def picture(page: Page, name: str) -> None:
    """Keep a picture of a page where they are wanted."""
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)
