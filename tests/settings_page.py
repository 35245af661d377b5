"""
Writes `docs/reference/settings.md` from the constants of `settings` and the strings after them.

    python -m tests.settings_page
"""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

from cmdrdata_exporter import settings

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "settings.md"
SHOWN = (*settings.NAMES, "CAPTURE_CONTENT")
"""The constants whose variables the page has."""

_BEGINNING = """\
# Settings
`python -m tests.settings_page` makes this page from `cmdrdata_exporter/settings.py`; a test says when it is old.
Each is an environment variable; an empty one counts as unset.
Some are arguments of [`CmdrDataSpanExporter`](python.md#cmdrdataspanexporter) as well, which prevail.

A value that cannot be used is refused when instrumenting, with a message that never shows a key.
[`cmdrdata doctor`](../commands.md#doctor) finds it before, and a variable that is spelled wrong.
What goes wrong otherwise is in [troubleshooting](../troubleshooting.md#by-symptom).

Only commands read {of_commands}, in the place of [options](commands.md).
"""


def described() -> dict[str, str]:
    """Return what the string after each constant of `settings` says, by the constant's name."""
    source = (ROOT / "cmdrdata_exporter" / "settings.py").read_text(encoding="utf-8")
    return {
        assignment.targets[0].id: ast.literal_eval(text.value).strip()
        for assignment, text in itertools.pairwise(ast.parse(source).body)
        if isinstance(assignment, ast.Assign) and isinstance(assignment.targets[0], ast.Name)
        if isinstance(text, ast.Expr)
    }


def page() -> str:
    """Return the page."""
    texts = described()
    sections = [f"## {getattr(settings, name)}\n{texts[name]}\n" for name in SHOWN]
    of_commands = " and ".join(f"`{name}`" for name in sorted(settings.OF_COMMANDS))
    return "\n".join([_BEGINNING.format(of_commands=of_commands), *sections])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
