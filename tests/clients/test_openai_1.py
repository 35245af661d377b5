"""Programs on openai 1.x: its own command line, which later versions do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.clients.billed import CHAT_STREAM_WITHOUT_USAGE, Billed, billed

if TYPE_CHECKING:
    from tests.clients.billed import Run
    from tests.standins import CmdrDataStandIn

CHAT = ("api", "chat.completions.create", "-m", "gpt-4.1-mini", "-g", "user", "hello")


class TestOpenAICommand:
    """The `openai` command."""

    def test_chat(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A command is billed before it exits, however short its life."""
        assert "hello\n" == run("openai", *CHAT)

        assert [Billed(endpoint="chat.completions")] == billed(backend)

    def test_chat_streamed(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A stream without usage is still one event, which says that usage is missing."""
        assert "hello\n" == run("openai", *CHAT, "--stream")

        assert [CHAT_STREAM_WITHOUT_USAGE] == billed(backend)
