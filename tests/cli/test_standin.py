"""The demo's stand-ins, through the SDK and over HTTP, as the demo's application meets them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from openai import NotFoundError, OpenAI

from cmdrdata_exporter.cli.demo.standin import CmdrDataStandIn, OpenAIStandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.chat import ChatCompletionUserMessageParam

MESSAGE: ChatCompletionUserMessageParam = {"role": "user", "content": "one two three"}
WORDS = "You said 'one two three' and I have nothing to add."


@pytest.fixture
def client() -> Iterator[OpenAI]:
    """Connect the SDK to a stand-in."""
    with (
        OpenAIStandIn() as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="sk-made-up", max_retries=0) as client,
    ):
        yield client


def post(url: str, key: str) -> int:
    """Post an event and return the status."""
    request = urllib.request.Request(  # noqa: S310 - the stand-in is on loopback
        url,
        data=json.dumps({"customer_id": "acme"}).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310 - the stand-in is on loopback
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_chat_reports_usage_with_its_parts(client: OpenAI) -> None:
    """A chat has what billing cares for: a dated model, totals, cached and reasoning tokens."""
    answer = client.chat.completions.create(model="gpt-5-mini", messages=[MESSAGE])
    assert "gpt-5-mini-2025-08-07" == answer.model
    assert WORDS == answer.choices[0].message.content
    assert {
        "prompt_tokens": 1027,
        "completion_tokens": 75,
        "total_tokens": 1102,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 64,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    } == (answer.usage and answer.usage.model_dump(exclude_unset=True))


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "not-asked"])
def test_stream_reports_usage_only_if_asked(client: OpenAI, asked: bool) -> None:
    """As at OpenAI: with include_usage a last chunk without choices has it, else none has."""
    chunks = list(
        client.chat.completions.create(
            model="gpt-5-mini",
            messages=[MESSAGE],
            stream=True,
            stream_options={"include_usage": asked},
        )
    )
    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert WORDS == "".join(said).strip()
    assert [1102] * asked == [chunk.usage.total_tokens for chunk in chunks if chunk.usage]
    assert asked == (chunks[-1].choices == [])


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_come_in_the_encoding_asked_for(client: OpenAI, encoding: str) -> None:
    """The SDK asks for base64 when its user names no encoding, and both give the same numbers."""
    model, texts = "text-embedding-3-small", ["a red bike", "a blue bike"]
    if encoding == "float":
        reply = client.embeddings.create(model=model, input=texts, encoding_format="float")
    else:
        reply = client.embeddings.create(model=model, input=texts)
    assert [[0.25, -0.5, 1.0]] * 2 == [item.embedding for item in reply.data]
    assert {"prompt_tokens": 6, "total_tokens": 6} == reply.usage.model_dump()


def test_unknown_model_is_refused_as_by_openai(client: OpenAI) -> None:
    """The SDK recognises the refusal: its exception, its code."""
    with pytest.raises(NotFoundError, match="gpt-unknown") as refusal:
        client.chat.completions.create(model="gpt-unknown", messages=[MESSAGE])
    assert "model_not_found" == refusal.value.code


def test_unknown_path_is_refused(client: OpenAI) -> None:
    """What the stand-in does not know it refuses, rather than answering something."""
    with pytest.raises(NotFoundError, match="Invalid URL"):
        client.completions.create(model="gpt-5-mini", prompt="hello")


def test_backend_keeps_events_sent_with_its_key() -> None:
    """An event counts as arrived only if it came to the right place with the right key."""
    with CmdrDataStandIn("tk-right") as backend:
        url = f"{backend.url}/api/events"
        statuses = [post(url, "tk-right"), post(url, "tk-wrong"), post(f"{url}/x", "tk-right")]
        assert [201, 401, 404] == statuses
        assert [{"customer_id": "acme"}] == backend.events
