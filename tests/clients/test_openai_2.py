"""Programs on openai 2.x: LiteLLM, which allows no later one, and instructor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients.billed import Billed, billed
from tests.standins import EMBEDDINGS_USAGE, MODEL_DATES

if TYPE_CHECKING:
    from tests.clients.billed import Run
    from tests.standins import CmdrDataStandIn, OpenAIStandIn

METERING = Path(__file__).parent.parent.parent / "docs" / "metering.md"


class TestLiteLLM:
    """LiteLLM's SDK, which calls the openai SDK's raw responses."""

    @pytest.mark.parametrize("way", ["completion", "acompletion"])
    def test_completion(self, run: Run, backend: CmdrDataStandIn, way: str) -> None:
        """A call through `with_raw_response` is billed once, sync and async."""
        assert "hello\n" == run("litellm_chat.py", way)

        assert [Billed(endpoint="chat.completions")] == billed(backend)

    def test_stream(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A raw response that is parsed into a stream is billed when the stream ends."""
        assert "hello\n" == run("litellm_chat.py", "stream")

        assert [Billed(endpoint="chat.completions", streaming=True)] == billed(backend)

    def test_stream_with_usage(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A stream whose program asks for usage is billed with it."""
        assert "hello\n" == run("litellm_chat.py", "stream_usage")

        assert [Billed(endpoint="chat.completions", streaming=True)] == billed(backend)

    def test_embedding(self, run: Run, backend: CmdrDataStandIn) -> None:
        """Embeddings are billed by their input alone."""
        assert "[[1.0, 2.0]]\n" == run("litellm_chat.py", "embedding")

        assert [
            Billed(
                endpoint="embeddings",
                model="text-embedding-3-small",
                input_tokens=EMBEDDINGS_USAGE["prompt_tokens"],
                output_tokens=0,
                total_tokens=EMBEDDINGS_USAGE["total_tokens"],
            )
        ] == billed(backend)


class TestLiteLLMSpans:
    """LiteLLM with its own spans on, which report what goes past the openai SDK, and what does not."""

    @pytest.fixture(autouse=True)
    def exported(self, environment: dict[str, str]) -> None:
        """Spans go to us, and the program names the customer."""
        environment["OTEL_TRACES_EXPORTER"] = "cmdrdata"
        del environment["CMDRDATA_CUSTOMER_ID"]

    def test_the_example(
        self,
        run: Run,
        backend: CmdrDataStandIn,
        environment: dict[str, str],
        openai_server: OpenAIStandIn,
        tmp_path: Path,
    ) -> None:
        """The program of the documentation is billed as it stands."""
        section = METERING.read_text().partition("### Packages that go past the SDK\n")[2]
        program = tmp_path / "app.py"
        program.write_text(section.partition("```python\n")[2].partition("```")[0])
        environment["DEEPSEEK_API_BASE"] = openai_server.url
        environment["DEEPSEEK_API_KEY"] = "sk-standin"
        # It misses its proxy, which is not needed.
        environment["LITELLM_LOG"] = "ERROR"
        assert "hello\n" == run(str(program))

        assert [
            Billed(endpoint="chat.completions", model="deepseek-chat", provider="deepseek")
        ] == billed(backend)

    @pytest.mark.parametrize("way", ["completion", "acompletion", "stream"])
    def test_through_the_sdk(self, run: Run, backend: CmdrDataStandIn, way: str) -> None:
        """A span that names a provider of its own, of a call that passed the seam, makes no second event."""
        providers = ("openai", "perplexity", "moonshot", "cerebras", "nvidia_nim")
        models = [f"{provider}/gpt-4.1-mini" for provider in providers]
        assert 5 * "hello\n" == run("litellm_spans.py", way, *models)

        assert 5 * [Billed(endpoint="chat.completions", streaming=way == "stream")] == billed(
            backend
        )

    @pytest.mark.parametrize("way", ["completion", "acompletion"])
    def test_past_the_sdk(self, run: Run, backend: CmdrDataStandIn, way: str) -> None:
        """What LiteLLM calls by HTTP of its own is billed from its span, beside calls that pass the seam."""
        providers = ("deepseek", "groq", "mistral", "openai", "openrouter", "together_ai", "xai")
        models = [f"{provider}/gpt-4.1-mini" for provider in providers]
        assert 7 * "hello\n" == run("litellm_spans.py", way, *models)

        assert [
            Billed(endpoint="chat.completions", provider=provider) for provider in providers
        ] == sorted(billed(backend), key=lambda event: event.provider)

    def test_a_stream_past_the_sdk(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A stream's span is made in a thread, into which the threading instrumentation hands the customer."""
        assert "hello\n" == run("litellm_spans.py", "stream", "deepseek/gpt-4.1-mini")

        # Its span names the model as it was asked for.
        assert [
            Billed(
                endpoint="chat.completions",
                model="gpt-4.1-mini",
                provider="deepseek",
                streaming=True,
            )
        ] == billed(backend)

    @pytest.mark.parametrize("way", ["responses", "aresponses"])
    def test_responses(self, run: Run, backend: CmdrDataStandIn, way: str) -> None:
        """The Responses API goes past the SDK, and its span names no provider."""
        assert "hello\n" == run("litellm_spans.py", way, "openai/o4-mini")

        model = MODEL_DATES["o4-mini"]
        assert [Billed(endpoint="responses", model=model, provider="unknown")] == billed(backend)

    def test_embedding(self, run: Run, backend: CmdrDataStandIn) -> None:
        """Embeddings have no id, and LiteLLM makes one up: time and usage relate its span to the call."""
        models = [f"{provider}/text-embedding-3-small" for provider in ("openai", "together_ai")]
        assert 2 * "[1.0, 2.0]\n" == run("litellm_spans.py", "embedding", *models)

        assert 2 * [
            Billed(
                endpoint="embeddings",
                model="text-embedding-3-small",
                input_tokens=EMBEDDINGS_USAGE["prompt_tokens"],
                output_tokens=0,
                total_tokens=EMBEDDINGS_USAGE["total_tokens"],
            )
        ] == billed(backend)


class TestInstructor:
    """instructor, which patches the client's method over ours."""

    def test_extraction(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A library that replaces `create` on the client neither hides nor doubles the call."""
        assert "hello 1\n" == run("instructor_extract.py")

        assert [Billed(endpoint="chat.completions")] == billed(backend)
