"""
The recipes of examples/, each with its real framework, a provider on loopback and the instrumentor at work.

Every request asks for a model of its own, which its event tells, so that a test sees which request was billed to whom.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests import replies
from tests.metering import Meter
from tests.provider import Provider, Reply

EXAMPLES = Path(__file__).parents[2] / "examples"
CHAT = "/v1/chat/completions"


class MeetingProvider(Provider):
    """A provider that answers the first requests only when all of them are there."""

    def __init__(self) -> None:
        super().__init__()
        self._meeting: threading.Barrier | None = None

    def expect(self, number: int) -> None:
        """Let the next `number` requests meet, so that they are under way at the same time."""
        self._meeting = threading.Barrier(number)

    def next_reply(self, path: str) -> Reply:
        """Return the reply to a request, once those it was to meet are there."""
        if self._meeting is not None:
            self._meeting.wait(timeout=30)
        return super().next_reply(path)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, clean_state: None) -> Iterator[MeetingProvider]:
    """A stand-in for OpenAI that clients of the environment call."""
    with MeetingProvider() as running:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-standin")
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        running.answer(CHAT, Reply(json=replies.CHAT))
        yield running


@pytest.fixture
def streaming(provider: MeetingProvider) -> MeetingProvider:
    """The same, with streams for answers."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    return provider


@pytest.fixture
def example(
    monkeypatch: pytest.MonkeyPatch, provider: Provider, meter: Meter
) -> Iterator[Callable[[str], ModuleType]]:
    """Import an example anew, with clients of its own."""
    imported: list[ModuleType] = []

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        imported.append(module)
        spec.loader.exec_module(module)
        return module

    yield load
    for module in imported:
        for name in ("client", "blocking_client"):
            if type(getattr(module, name, None)).__name__ == "OpenAI":
                getattr(module, name).close()
