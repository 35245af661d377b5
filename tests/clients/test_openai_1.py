"""Programs on openai 1.x: its own command line, which later versions do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.clients.billed import Billed, billed

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
        """A stream whose program does not ask for usage is asked by us, and billed with it."""
        assert "hello\n" == run("openai", *CHAT, "--stream")

        assert [Billed(endpoint="chat.completions", streaming=True)] == billed(backend)
