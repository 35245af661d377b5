"""The site has every page, its links lead somewhere, and nothing of it comes from elsewhere."""

from __future__ import annotations

import functools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.site.conftest import ROOT

BESIDE = {
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "reporting",
}
"""The pages beside the README, and where they are in the site."""


def places() -> dict[Path, str]:
    """Return each source of a page with the path of the page in the site."""
    docs = ROOT / "docs"
    own = {path: str(path.relative_to(docs).with_suffix("")) for path in docs.rglob("*.md")}
    return {path: "" if place == "index" else place for path, place in own.items()} | {
        ROOT / name: place for name, place in BESIDE.items()
    }


@functools.cache
def parsed(page: Path) -> Html:
    """Return what is tested of a page."""
    return Html(page)


class Html(HTMLParser):
    """What is tested of a page: its links, what it loads, its ids, tables, and the text of its paragraphs."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.tables = 0
        self.paragraphs: list[str] = []
        self._inside = self._code = False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loaded.append(values["href"])
        self.tables += tag == "table"
        self._code = self._code or tag == "code"
        if tag == "p":
            self._inside = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        """Note the end of a paragraph."""
        self._inside = self._inside and tag != "p"
        self._code = self._code and tag != "code"

    def handle_data(self, data: str) -> None:
        """Note the text of a paragraph."""
        if self._inside:
            # What is set as code, `*` for instance, is no mark.
            self.paragraphs[-1] += "x" if self._code else data


PAGES = sorted(places().items(), key=lambda page: page[1])


@pytest.fixture(params=PAGES, ids=lambda page: page[1] or "index")
def page(request: pytest.FixtureRequest, site: Path) -> tuple[Path, Path, Html]:
    """A page: its source, its file in the site, and what is in that."""
    source, place = request.param
    file = site / place / "index.html"
    return source, file, parsed(file)


def test_links(page: tuple[Path, Path, Html], site: Path) -> None:
    """Every link within the site leads to a file of it, and to a place that is there."""
    _, file, html = page
    broken: list[str] = []
    for link in html.links:
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        target = target / "index.html" if target.is_dir() else target
        inside = target.is_file() and target.is_relative_to(site.resolve())
        # `#__` are places that the theme's scripts make.
        if not inside or (
            parts.fragment
            and not parts.fragment.startswith("__")
            and unquote(parts.fragment) not in parsed(target).ids
        ):
            broken.append(link)
    assert [] == broken


def test_nothing_comes_from_elsewhere(page: tuple[Path, Path, Html]) -> None:
    """Scripts, styles, fonts and pictures are the site's own, and are there."""
    _, file, html = page
    assert 3 < len(html.loaded)
    assert [] == [
        address
        for address in html.loaded
        if urlsplit(address).netloc or not (file.parent / urlsplit(address).path).is_file()
    ]


def test_tables_and_lists_are_such(page: tuple[Path, Path, Html]) -> None:
    """What is a table or a list on GitHub is one in the site, whose Markdown is stricter."""
    source, _, html = page
    text = re.sub(
        r"^```.*?^```", "", source.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    assert len(re.findall(r"^\|(?:\s*:?-+:?\s*\|)+$", text, re.MULTILINE)) == html.tables
    assert [] == [
        text for text in html.paragraphs if re.search(r"^\s*([-*|]|\d+\.)\s", text, re.MULTILINE)
    ]


def test_every_page_is_found(site: Path) -> None:
    """The search knows each page."""
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0].strip("/") for entry in index["docs"]}
    assert set(places().values()) == found


def test_styles_fetch_nothing(site: Path) -> None:
    """No style of the site loads a font or a picture of another host."""
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles
    assert [] == [
        found for style in styles for found in re.findall(r"url\([\"']?(?:https?:)?//[^)]*", style)
    ]
