"""Programs on the newest openai: the `llm` command line, LangChain and openai-agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.billed import Billed, billed

if TYPE_CHECKING:
    from tests.clients.billed import Run
    from tests.standins import CmdrDataStandIn


class TestLlm:
    """The `llm` command line, which streams unless told not to."""

    def test_no_stream(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A command is billed before it exits, however short its life."""
        assert "hello\n" == run("llm", "-m", "gpt-4.1-mini", "--no-stream", "hello")

        assert [Billed(endpoint="chat.completions")] == billed(backend)

    def test_stream(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A stream whose program asks for usage is billed with it."""
        assert "hello\n" == run("llm", "-m", "gpt-4.1-mini", "hello")

        assert [Billed(endpoint="chat.completions", streaming=True)] == billed(backend)


class TestLangChain:
    """ChatOpenAI of langchain-openai."""

    @pytest.mark.parametrize("way", ["invoke", "ainvoke"])
    def test_invoke(self, run: Run, backend: CmdrDataStandIn, way: str) -> None:
        """A call below a framework is billed once, sync and async."""
        assert "hello\n" == run("langchain_chat.py", way)

        assert [Billed(endpoint="chat.completions")] == billed(backend)

    def test_stream(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A stream whose program does not ask for usage is asked by us, and billed with it."""
        assert "hello\n" == run("langchain_chat.py", "stream")

        assert [Billed(endpoint="chat.completions", streaming=True)] == billed(backend)

    def test_stream_with_usage(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A stream whose program asks for usage is billed with it."""
        assert "hello\n" == run("langchain_chat.py", "stream_usage")

        assert [Billed(endpoint="chat.completions", streaming=True)] == billed(backend)


class TestAgents:
    """openai-agents, which calls the Responses API once for each turn."""

    def test_tool(self, run: Run, backend: CmdrDataStandIn) -> None:
        """Each turn of an agent is one charge; the agent and its tool are none."""
        assert "hello\n" == run("agent.py")

        assert [Billed(endpoint="responses"), Billed(endpoint="responses")] == billed(backend)


class TestPastTheSDK:
    """Programs that call models past the openai SDK, and are billed from their spans."""

    @pytest.fixture(autouse=True)
    def exported(self, environment: dict[str, str]) -> None:
        """Spans go to us."""
        environment["OTEL_TRACES_EXPORTER"] = "cmdrdata"

    @pytest.mark.parametrize("way", ["chat", "achat", "stream"])
    def test_portkey(self, run: Run, backend: CmdrDataStandIn, way: str) -> None:
        """Chats of the SDK that Portkey brings are billed from the spans of its instrumentation."""
        assert "hello\n" == run("portkey_chat.py", way)

        assert [Billed(endpoint="chat.completions", streaming=way == "stream")] == billed(backend)

    def test_guardrails(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A task of NeMo Guardrails is billed where it called a model; its span names the model that was asked for."""
        assert "hello\n" == run("guardrails_chat.py")

        assert [Billed(endpoint="chat.completions", model="gpt-4.1-mini")] == billed(backend)
