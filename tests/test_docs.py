"""
The examples of the documentation run as they stand, and bill whom they say.

A block that is headed `python` is run; one that shows what another package does is headed `py`, and is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import openai
import pytest

from cmdrdata_exporter import CmdrDataSpanExporter, faults, runtime
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from opentelemetry_instrumentation_cmdrdata.openai import seam
from tests import replies
from tests.metering import RecordedEvents
from tests.provider import Provider, Reply

ROOT = Path(__file__).parent.parent

PAGES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "README.md#quickstart": [("acme", {"plan": "pro"})],
    "README.md#who-pays": [("acme", {}), ("globex", {}), ("initech", {"plan": "pro"})],
    "docs/customers.md": [
        ("acme", {"plan": "pro"}),
        ("acme", {"plan": "pro"}),
        ("acme", {"plan": "pro"}),
        ("globex", {}),
        ("acme", {}),
        ("acme", {}),
        ("acme", {}),
        ("acme", {}),
        ("acme", {}),
        ("acme", {}),
        ("acme", {}),
        ("globex", {}),
        ("globex", {"plan": "pro"}),
        ("acme", {"user_endpoint": "chat-window", "seats": 5}),
    ],
    # They make no call.
    "docs/content.md": [],
    "docs/delivery.md": [],
    "docs/migration.md": [
        ("customer-123", {"feature": "data_analysis"}),
        ("customer-456", {"feature": "data_analysis"}),
        ("customer-789", {"feature": "chat"}),
        # Of the predecessors' other names.
        ("acme", {"user_trace_id": "your-trace-id", "tags": ["production"]}),
        ("acme", {"tags": ["support"]}),
        ("acme", {}),
    ],
}
"""Of each page, or one of its sections, the customers and the metadata of the calls that its examples make."""

ELSEWHERE = {
    "docs/migration.md#from-cmdrdata-anthropic": "anthropic",
    "docs/migration.md#from-cmdrdata-gemini": "google",
}
"""Sections whose examples need packages that are not here: see instrumentations/test_migration.py."""

FAULTS = {"docs/customers.md": {"metadata key endpoint": 1}}
"""What the log says of the mistakes that a page shows."""


@pytest.fixture
def environment(
    provider: Provider, events: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Where the examples call a provider on loopback, and every exporter keeps its events here."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-standin")
    # The oldest SDK reads no base URL from the environment.
    initialise: Any = openai.OpenAI.__init__

    def initialise_on_loopback(self: Any, **options: Any) -> None:
        initialise(self, **{"base_url": provider.url, **options})

    monkeypatch.setattr(openai.OpenAI, "__init__", initialise_on_loopback)
    monkeypatch.setattr(runtime.process, "delivery", lambda _: (events, None))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType] - of one event's settings
    # There is no place to speak of.
    monkeypatch.setattr(runtime, "announce_destination", Mock())
    monkeypatch.setattr(seam, "_tracked_clients", False)
    provider.answer("/v1/chat/completions", Reply(json=replies.CHAT))
    CmdrDataSpanExporter()
    yield
    CmdrDataInstrumentor().uninstrument()
    monkeypatch.undo()
    seam.unpatch()


def examples(page: str) -> str:
    """Return the Python of a page, or of one of its sections, as one program that keeps the lines' numbers."""
    path, _, section = page.partition("#")
    program: list[str] = []
    inside, here = False, not section
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            name = re.sub(r"\W+", "-", line[3:].lower())
            here = section == name if section else f"{path}#{name}" not in ELSEWHERE
        fence = line.startswith("```")
        program.append(line if inside and here and not fence else "")
        inside = line == "```python" if fence else inside
    return "\n".join(program)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("page", PAGES)
def test_examples(page: str, provider: Provider, events: RecordedEvents) -> None:
    """Every example runs as it stands, one after the other, and its calls are billed to whom it names."""
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(examples(page), page, "exec", dont_inherit=True), namespace)  # noqa: S102 - our own documentation
    for value in namespace.values():
        if isinstance(value, openai.OpenAI):
            value.close()

    assert PAGES[page] == [(event["customer_id"], own(event)) for event in events.wire]
    assert FAULTS.get(page, {}) == dict(faults.counts)
    faults.counts.clear()
    assert not [customer for customer, _ in PAGES[page] if customer in str(provider.requests)]


def own(event: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of an event that the application gave."""
    return {k: v for k, v in event["metadata"].items() if k in OWN}


OWN = frozenset(key for page in PAGES.values() for _, metadata in page for key in metadata)
