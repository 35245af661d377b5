"""Servers that speak OpenAI's protocol and put usage, or errors, into places of their own."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.metering import Meter
from tests.provider import Provider, Reply

CHAT = "/v1/chat/completions"
MESSAGES: Any = [{"role": "user", "content": "hello"}]
USAGE = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def chunk(reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chunk of a stream; what a server adds to it or to its choice."""
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": reason}
    choice |= more.pop("choice", {})
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
    return {**head, "choices": [choice], **more}


STREAMS: dict[str, tuple[list[dict[str, Any]], tuple[int, int, int], dict[str, Any], str]] = {
    # https://console.groq.com/docs/api-reference#chat-create
    "Groq": (
        [
            chunk(x_groq={"id": "req_1"}),
            chunk("stop", x_groq={"id": "req_1", "usage": {**USAGE, "queue_time": 0.02}}),
        ],
        (19, 10, 29),
        {},
        "reported",
    ),
    # https://platform.moonshot.ai/docs/guide/utilize-the-streaming-output-feature-of-kimi-api
    "Moonshot": (
        [chunk(), chunk("stop", choice={"usage": {**USAGE, "cached_tokens": 7}})],
        (19, 10, 29),
        {"cache_read_input_tokens": 7},
        "reported",
    ),
    # https://api-docs.deepseek.com/api/create-chat-completion
    "DeepSeek": (
        [
            chunk(usage=None),
            chunk(
                "stop",
                usage={
                    **USAGE,
                    "prompt_cache_hit_tokens": 7,
                    "prompt_cache_miss_tokens": 12,
                    "completion_tokens_details": {"reasoning_tokens": 4},
                },
            ),
        ],
        (19, 10, 29),
        {"cache_read_input_tokens": 7, "reasoning_output_tokens": 4},
        "reported",
    ),
    # https://docs.together.ai/reference/chat-completions-1
    "Together": (
        [chunk(usage=None), chunk("stop", usage={**USAGE, "cached_tokens": 7})],
        (19, 10, 29),
        {"cache_read_input_tokens": 7},
        "reported",
    ),
    # https://docs.litellm.ai/docs/completion/prompt_caching
    "LiteLLM": (
        [
            chunk("stop"),
            {
                **chunk(),
                "usage": {
                    **USAGE,
                    "cache_creation_input_tokens": 3,
                    "cache_read_input_tokens": 7,
                    "prompt_tokens_details": {"cached_tokens": 7, "cache_creation_tokens": 3},
                },
            },
        ],
        (19, 10, 29),
        {"cache_read_input_tokens": 7, "cache_write_input_tokens": 3},
        "reported",
    ),
    # https://www.alibabacloud.com/help/en/model-studio/context-cache
    "Model Studio": (
        [
            chunk("stop"),
            {
                **chunk(),
                "choices": [],
                "usage": {
                    **USAGE,
                    "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 3},
                },
            },
        ],
        (19, 10, 29),
        {"cache_read_input_tokens": 0, "cache_write_input_tokens": 3},
        "reported",
    ),
    # https://github.com/ggml-org/llama.cpp/blob/b6800/tools/server/README.md#timings-and-context-usage
    "llama.cpp": (
        [
            chunk(),
            chunk("stop", timings={"cache_n": 7, "prompt_n": 12, "predicted_n": 10}),
        ],
        (19, 10, 29),
        {"cache_read_input_tokens": 7},
        "reported",
    ),
    "cumulative figures": (
        [
            chunk(usage={"prompt_tokens": 19, "completion_tokens": 1, "total_tokens": 20}),
            chunk("stop", usage=USAGE),
        ],
        (19, 10, 29),
        {},
        "reported",
    ),
    "zeros at the end": (
        [chunk("stop", usage={**USAGE, "cached_tokens": 7}), {**chunk(), "usage": ZERO}],
        (19, 10, 29),
        {"cache_read_input_tokens": 7},
        "reported",
    ),
    "nothing but zeros": ([chunk("stop", usage=ZERO)], (0, 0, 0), {}, "reported"),
    "an index that is no number": (
        [chunk(choice={"index": "0"}), chunk("stop", choice={"index": [0]}, usage=USAGE)],
        (19, 10, 29),
        {},
        "reported",
    ),
    "nothing": ([chunk(), chunk("stop")], (0, 0, 0), {}, "missing"),
}


@pytest.mark.parametrize("server", STREAMS)
@pytest.mark.parametrize("raw", [False, True], ids=["parsed", "bytes"])
def test_a_stream(server: str, raw: bool, provider: Provider, meter: Meter) -> None:
    """Usage is read wherever a server that is known to mean the same puts it; a zero replaces no figure."""
    events, totals, breakdowns, status = STREAMS[server]
    provider.answer(CHAT, Reply(events=events))
    with OpenAI(api_key="k", base_url=provider.url) as sdk:
        create = sdk.chat.completions
        if raw and hasattr(create, "with_streaming_response"):
            streaming = create.with_streaming_response
            with streaming.create(model="m", messages=MESSAGES, stream=True) as response:
                list(response.iter_lines())
        else:
            list(create.create(model="m", messages=MESSAGES, stream=True))

    (event,) = meter.events()

    assert totals == (event["input_tokens"], event["output_tokens"], event["total_tokens"])
    assert breakdowns == event["metadata"]["usage"]
    assert status == event["metadata"]["usage_status"]


TRANSCRIPTION = {
    # https://docs.mistral.ai/capabilities/audio/
    "model": "voxtral-mini-latest",
    "text": "hello",
    "language": "en",
    "usage": {
        "prompt_audio_seconds": 203,
        "prompt_tokens": 4,
        "completion_tokens": 635,
        "total_tokens": 639,
    },
}


def test_a_transcription_of_mistral(provider: Provider, meter: Meter) -> None:
    """The seconds of Mistral's transcriptions are counted beside their tokens."""
    provider.answer("/v1/audio/transcriptions", Reply(json=TRANSCRIPTION))
    with OpenAI(api_key="k", base_url=provider.url) as sdk:
        sdk.audio.transcriptions.create(model="voxtral-mini-latest", file=("a.wav", b"RIFF"))

    (event,) = meter.events()

    assert (4, 635, 639) == (event["input_tokens"], event["output_tokens"], event["total_tokens"])
    assert {"audio_seconds": 203} == event["metadata"]["usage"]


ERRORS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an error": (
        {"error": {"message": "the upstream is down", "code": 502}},
        "server_error",
        "the upstream is down",
    ),
    "an error's type": (
        {"error": {"message": "too many", "type": "rate_limit_exceeded"}},
        "rate_limit",
        "too many",
    ),
    "a string": ({"error": "out of memory"}, "unknown_error", "out of memory"),
    "an error of a choice": (
        {
            "id": "gen-1",
            "model": "m-1",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "error",
                    "message": {"role": "assistant", "content": ""},
                    "error": {"code": 429, "message": "slow down"},
                }
            ],
        },
        "rate_limit",
        "slow down",
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_that_is_called_a_success(kind: str, provider: Provider, meter: Meter) -> None:
    """An answer that says 200 and is an error makes an event of a failed call, and a failed span."""
    body, error_type, message = ERRORS[kind]
    provider.answer(CHAT, Reply(json=body))
    with OpenAI(api_key="k", base_url=provider.url) as sdk:
        sdk.chat.completions.create(model="m", messages=MESSAGES)

    (event,) = meter.events()
    (span,) = meter.spans()

    assert (True, error_type, message, False) == (
        event["error"]["occurred"],
        event["error"]["type"],
        event["error"]["message"],
        event["request"]["success"],
    )
    assert (span.status.status_code.name, span.status.description) == ("ERROR", message)


def test_no_error(provider: Provider, meter: Meter) -> None:
    """An `error` that is empty is none."""
    nothings: tuple[Any, ...] = (None, "", {}, [], False)
    for nothing in nothings:
        body: Any = {"id": "c", "model": "m-1", "choices": [], "usage": USAGE, "error": nothing}
        provider.answer(CHAT, Reply(json=body))
        with OpenAI(api_key="k", base_url=provider.url) as sdk:
            sdk.chat.completions.create(model="m", messages=MESSAGES)

    assert [True] * 5 == [event["request"]["success"] for event in meter.events()]


def test_an_error_in_a_stream(provider: Provider, meter: Meter) -> None:
    """An error among the chunks fails the call, and what was reported before it is billed."""
    events = [chunk(usage=USAGE), {"error": {"message": "the upstream broke", "code": 502}}]
    provider.answer(CHAT, Reply(events=events))
    with OpenAI(api_key="k", base_url=provider.url) as sdk:
        stream = sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError):
            list(stream)

    (event,) = meter.events()

    assert (19, 10, False) == (
        event["input_tokens"],
        event["output_tokens"],
        event["request"]["success"],
    )
