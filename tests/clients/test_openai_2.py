"""Programs on openai 2.x: LiteLLM, which allows no later one, and instructor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.billed import Billed, billed
from tests.standins import EMBEDDINGS_USAGE

if TYPE_CHECKING:
    from tests.clients.billed import Run
    from tests.standins import CmdrDataStandIn


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


class TestInstructor:
    """instructor, which patches the client's method over ours."""

    def test_extraction(self, run: Run, backend: CmdrDataStandIn) -> None:
        """A library that replaces `create` on the client neither hides nor doubles the call."""
        assert "hello 1\n" == run("instructor_extract.py")

        assert [Billed(endpoint="chat.completions")] == billed(backend)
