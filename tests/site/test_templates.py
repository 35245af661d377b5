"""The forms for issues and changes are such as GitHub takes, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.site.conftest import ROOT

GITHUB = ROOT / ".github"
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
PARTS = {"markdown": {"value"}, "textarea": {"label"}}
"""The kinds of a form's parts that we use, and what each must have."""


@pytest.mark.parametrize(
    "path", [form for form in FORMS if form.stem != "config"], ids=lambda path: path.stem
)
def test_forms(path: Path) -> None:
    """A form has what GitHub asks for: https://docs.github.com/communities/using-templates-to-encourage-useful-issues-and-pull-requests/syntax-for-issue-forms."""
    form: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "labels", "body"} == set(form)
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert ids
    assert sorted(set(ids)) == sorted(ids)
    for part in form["body"]:
        assert PARTS[part["type"]] <= set(part["attributes"])


def test_links() -> None:
    """Links lead to files of the main branch, which are there."""
    texts = [
        path.read_text(encoding="utf-8") for path in (*FORMS, GITHUB / "pull_request_template.md")
    ]
    linked = {path for text in texts for path in re.findall(r"\]\(([^)]+)\)", text)}
    assert 2 < len(linked)
    assert [] == [
        path for path in linked if not (ROOT / path.removeprefix("../blob/main/")).is_file()
    ]
