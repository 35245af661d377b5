"""
Puts the repository around `docs/` into the site, so that links that hold on GitHub hold there, too.

The pages beside the README become pages of the site; any other file that a page links to is copied, as text.
MkDocs calls the functions: https://www.mkdocs.org/user-guide/configuration/#hooks
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
"""What each page beside the README is called in the site."""

_LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside the README, and every file outside of `docs/` that a page links to."""
    for name, uri in PAGES.items():
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=content))
    for page in files.documentation_pages():
        for path, _ in _LINK.findall(page.content_string):
            uri = _in_site(_in_repository(page.src_uri, path))
            if uri.startswith("files/") and uri not in files.src_uris:
                source = ROOT / uri.removeprefix("files/").removesuffix(".txt")
                # A link that leads nowhere is left to MkDocs, which says so.
                if source.is_file():
                    files.append(File.generated(config, uri, content=source.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs's signature
    """Return a page whose links lead to where their targets are in the site."""
    here = posixpath.dirname(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = _in_site(_in_repository(page.file.src_uri, link[1]))
        return f"]({posixpath.relpath(target, here or '.')}{link[2] or ''})"

    return _LINK.sub(moved, markdown)


def _in_repository(uri: str, link: str) -> str:
    """Return the path in the repository to which a page of the site links."""
    beside = {place: name for name, place in PAGES.items()}
    return posixpath.normpath(
        posixpath.join(posixpath.dirname(beside.get(uri, f"docs/{uri}")), link)
    )


def _in_site(path: str) -> str:
    """Return where a file of the repository is in the site; a copy is text, so that browsers show it."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}.txt"
