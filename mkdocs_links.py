"""
Puts the repository around `docs/` into the site, so that links that hold on GitHub hold there, too.

The pages beside the README become pages of the site. Any other file that a page links to is copied, as text; of a
folder there is a list, with copies of what is in it.
MkDocs calls the functions: https://www.mkdocs.org/user-guide/configuration/#hooks
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
BESIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
"""What each page beside the README is called in the site."""

_LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside the README, and whatever outside of `docs/` a page links to."""
    for name, uri in BESIDE.items():
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=content))
    linked = {
        _in_repository(page.src_uri, path)
        for page in files.documentation_pages()
        for path, _ in _LINK.findall(page.content_string)
    }
    for path in sorted(linked):
        _copy(path, files, config)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs's signature
    """Return a page whose links lead to where their targets are in the site."""
    here = posixpath.dirname(page.file.src_uri) or "."

    def moved(link: re.Match[str]) -> str:
        target = _in_site(_in_repository(page.file.src_uri, link[1]))
        return f"]({posixpath.relpath(target, here)}{link[2] or ''})"

    return _LINK.sub(moved, markdown)


def _copy(path: str, files: Files, config: MkDocsConfig) -> None:
    """Add a file of the repository that is no page; what is not there is left to MkDocs, which says so."""
    source, uri = ROOT / path, _in_site(path)
    if not uri.startswith("files/") or uri in files.src_uris:
        return
    if source.is_dir():
        names = sorted(each.name for each in source.iterdir() if each.is_file())
        for name in names:
            _copy(f"{path}/{name}", files, config)
        files.append(File.generated(config, uri, content=_listing(path, names)))
    elif source.is_file():
        files.append(File.generated(config, uri, content=source.read_bytes()))


def _listing(path: str, names: list[str]) -> str:
    items = "".join(f'<li><a href="{name}.txt">{name}</a>' for name in map(html.escape, names))
    title = html.escape(path)
    return f'<!doctype html><meta charset="utf-8"><title>{title}</title><h1>{title}</h1><ul>{items}</ul>\n'


def _in_repository(uri: str, link: str) -> str:
    """Return the path in the repository to which a page of the site links."""
    names = {place: name for name, place in BESIDE.items()}
    here = posixpath.dirname(names.get(uri, f"docs/{uri}"))
    return posixpath.normpath(posixpath.join(here, link))


def _in_site(path: str) -> str:
    """Return where something of the repository is in the site; a copy is text, so that browsers show it."""
    if path in BESIDE:
        return BESIDE[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path}/index.html" if (ROOT / path).is_dir() else f"files/{path}.txt"
