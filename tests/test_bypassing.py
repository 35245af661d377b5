"""What goes past the SDK is said, once, and by its name."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from types import ModuleType

import openai
import pytest

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from opentelemetry_instrumentation_cmdrdata.openai import bypassing
from tests import replies
from tests.metering import RecordedEvents
from tests.provider import Provider, Reply

LINE = (
    "portkey_ai is loaded, whose calls do not all go through the openai SDK: it brings an SDK of its own; "
    "opentelemetry-instrumentation-genai-portkey makes the spans of its chats. Those are metered with "
    "OTEL_TRACES_EXPORTER=cmdrdata only; see docs/metering.md, Packages that go past the SDK"
)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No package was seen before."""
    monkeypatch.setattr(bypassing, "_known", set[str]())
    caplog.set_level(logging.INFO, logger="cmdrdata")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said of packages."""
    return [record.getMessage() for record in caplog.records if "is loaded" in record.getMessage()]


def test_a_package_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is loaded has one line at INFO, what is not has none."""
    monkeypatch.setitem(sys.modules, "portkey_ai", ModuleType("portkey_ai"))
    for _ in range(2):
        bypassing.report()
    assert [LINE] == lines(caplog)
    assert {logging.INFO} == {record.levelno for record in caplog.records}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_when_it_is_said(
    moment: str,
    provider: Provider,
    events: RecordedEvents,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was imported before the SDK is instrumented is said then, what comes later at the end of the first call."""
    provider.answer("/v1/chat/completions", Reply(json=replies.CHAT))
    if moment == "before":
        monkeypatch.setitem(sys.modules, "portkey_ai", ModuleType("portkey_ai"))
    instrumentor = CmdrDataInstrumentor()
    instrumentor.instrument(exporter=CmdrDataSpanExporter(delivery=events))
    try:
        assert ([LINE] if moment == "before" else []) == lines(caplog)
        monkeypatch.setitem(sys.modules, "portkey_ai", ModuleType("portkey_ai"))
        with openai.OpenAI(base_url=provider.url, api_key="sk-standin") as client:
            for _ in range(2):
                client.chat.completions.create(model="gpt-4o-mini", messages=[])
    finally:
        instrumentor.uninstrument()
    assert [LINE] == lines(caplog)
    assert 2 == len(events.bodies)


def test_the_page() -> None:
    """Each package has its row where what is not metered is described."""
    page = Path(__file__).parent.parent.joinpath("docs", "metering.md").read_text()
    section = page.partition("### Packages that go past the SDK")[2].partition("\n##")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(bypassing.PACKAGES) == sorted(rows)
