"""The page about a new endpoint: its example is a row, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from opentelemetry_instrumentation_cmdrdata.openai import answers
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "add-an-endpoint.md").read_text(encoding="utf-8")


def test_the_row() -> None:
    """The example is a row as the table takes it."""
    (source,) = re.findall(r"^```py\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    row = eval(source, {"Endpoint": Endpoint, "answers": answers})  # noqa: S307 - our own documentation
    assert (row.name, row.path, row.method) == ("searches", "/searches", "post")
    assert row.read is answers.read_answer


def test_what_it_names_is_there() -> None:
    """Each file of the page exists, as it is written or below the instrumentation."""
    package = ROOT / "opentelemetry_instrumentation_cmdrdata"
    named = set(re.findall(r"`([\w/.]+(?:\.py|/))`", TEXT))
    assert 8 < len(named)
    bases = (ROOT, package, package / "openai")
    assert [] == [name for name in named if not any((base / name).exists() for base in bases)]


def test_what_it_names_of_the_code() -> None:
    """The names that it says of the code are in the files in which it says they are."""
    for name, path in (
        ("ENDPOINTS = (", "opentelemetry_instrumentation_cmdrdata/openai/endpoints.py"),
        ("RESERVED", "cmdrdata_exporter/events.py"),
        ("class Case", "tests/charges.py"),
        ("class Rule", "cmdrdata_exporter/cli/reconcile/surfaces.py"),
        ("def read_answer", "opentelemetry_instrumentation_cmdrdata/openai/answers.py"),
    ):
        assert name in (ROOT / path).read_text(encoding="utf-8")
    fields = {"name", "path", "read", "read_chunk", "polled_at", "polls", "content"}
    assert fields <= set(Endpoint.__dataclass_fields__)
    assert all(f"`{field}" in TEXT for field in fields)
