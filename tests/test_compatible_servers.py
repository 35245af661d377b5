"""Usage and errors where servers put them that speak OpenAI's protocol, in the shapes in which they are known to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from tests.charges import MESSAGES
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import FORMS, Form, make

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "m", "messages": MESSAGES}
ANSWERS = [form for form in FORMS if not form.streaming]
STREAMS = [form for form in FORMS if form.streaming]

every_world = pytest.mark.parametrize("world", ["sync", "async"])


@dataclass(frozen=True)
class Server:
    """What a server answers, and what must come of it."""

    name: str
    tokens: tuple[int, int, int]
    usage: dict[str, int] = field(default_factory=dict[str, int])
    status: str = "reported"
    answer: dict[str, Any] | None = None
    chunks: list[dict[str, Any]] | None = None


HEAD: dict[str, Any] = {"id": "chatcmpl-1", "created": 1_700_000_021, "model": "m-1"}
ANSWER: dict[str, Any] = {
    **HEAD,
    "object": "chat.completion",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
    ],
}


def chunk(reason: str | None, choice: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return a chunk of a stream with something more in its choice or beside it."""
    delta = {} if reason else {"role": "assistant", "content": "hello"}
    return {
        **HEAD,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason, **(choice or {})}],
        **more,
    }


USAGE = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

SERVERS = [
    # https://github.com/groq/groq-python/blob/2f14acf633619dde877fda2cbaf7c5873d6a692c/src/groq/types/chat/chat_completion_chunk.py
    Server(
        name="Groq",
        chunks=[
            chunk(None, x_groq={"id": "req_1"}),
            chunk(None),
            chunk(
                "stop",
                x_groq={
                    "id": "req_1",
                    "usage": {
                        "queue_time": 0.05,
                        "prompt_tokens": 18,
                        "prompt_time": 0.001,
                        "completion_tokens": 556,
                        "completion_time": 0.46,
                        "total_tokens": 574,
                        "total_time": 0.461,
                    },
                },
            ),
        ],
        tokens=(18, 556, 574),
    ),
    # https://github.com/AstrBotDevs/AstrBot/issues/6614
    Server(
        name="Moonshot, streamed",
        chunks=[
            chunk(None),
            chunk(
                "stop",
                choice={
                    "usage": {
                        "prompt_tokens": 1336,
                        "completion_tokens": 31,
                        "total_tokens": 1367,
                        "cached_tokens": 1280,
                        "prompt_tokens_details": {"cached_tokens": 1280},
                    }
                },
            ),
        ],
        tokens=(1336, 31, 1367),
        usage={"cache_read_input_tokens": 1280},
    ),
    # https://github.com/aallan/vera-bench/pull/97, https://platform.kimi.ai/docs/api/chat
    Server(
        name="Moonshot",
        answer={
            **ANSWER,
            "usage": {
                "prompt_tokens": 19,
                "completion_tokens": 21,
                "total_tokens": 40,
                "cached_tokens": 10,
            },
        },
        tokens=(19, 21, 40),
        usage={"cache_read_input_tokens": 10},
    ),
    # https://api-docs.deepseek.com/api/create-chat-completion
    Server(
        name="DeepSeek",
        answer={
            **ANSWER,
            "usage": {
                "prompt_tokens": 320,
                "completion_tokens": 180,
                "total_tokens": 500,
                "prompt_cache_hit_tokens": 256,
                "prompt_cache_miss_tokens": 64,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
        },
        tokens=(320, 180, 500),
        usage={"cache_read_input_tokens": 256, "reasoning_output_tokens": 100},
    ),
    # https://github.com/BerriAI/litellm/blob/001c64f24845167b8fcd01f3e48152923627d4c7/litellm/types/utils.py
    Server(
        name="LiteLLM",
        answer={
            **ANSWER,
            "usage": {
                "prompt_tokens": 2006,
                "completion_tokens": 30,
                "total_tokens": 2036,
                "prompt_tokens_details": {
                    "audio_tokens": None,
                    "cached_tokens": 200,
                    "cache_creation_tokens": 1800,
                },
                "cache_creation_input_tokens": 1800,
                "cache_read_input_tokens": 200,
            },
        },
        tokens=(2006, 30, 2036),
        usage={"cache_read_input_tokens": 200, "cache_write_input_tokens": 1800},
    ),
    # https://github.com/sgl-project/sglang/blob/004c82e07d876f6e4a0ad6e15325706b0f478f1a/python/sglang/srt/entrypoints/openai/protocol.py
    Server(
        name="SGLang",
        answer={
            **ANSWER,
            "usage": {
                "prompt_tokens": 12,
                "total_tokens": 52,
                "completion_tokens": 40,
                "prompt_tokens_details": None,
                "reasoning_tokens": 33,
            },
        },
        tokens=(12, 40, 52),
        usage={"reasoning_output_tokens": 33},
    ),
    # https://github.com/openai/openai-python/issues/2544: these reasoning tokens are no part of the output.
    Server(
        name="Vertex AI",
        answer={
            **ANSWER,
            "usage": {
                "completion_tokens": 57,
                "prompt_tokens": 2181,
                "total_tokens": 2518,
                "completion_tokens_details": None,
                "prompt_tokens_details": None,
                "reasoning_tokens": 280,
            },
        },
        tokens=(2181, 57, 2518),
    ),
    # https://docs.together.ai/reference/chat-completions-1
    Server(
        name="Together",
        chunks=[chunk(None, usage=None), chunk("stop", usage={**USAGE, "cached_tokens": 7})],
        tokens=(19, 10, 29),
        usage={"cache_read_input_tokens": 7},
    ),
    # https://www.alibabacloud.com/help/en/model-studio/context-cache
    Server(
        name="Model Studio",
        chunks=[
            chunk("stop"),
            {
                **HEAD,
                "choices": [],
                "usage": {
                    **USAGE,
                    "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 3},
                },
            },
        ],
        tokens=(19, 10, 29),
        usage={"cache_read_input_tokens": 0, "cache_write_input_tokens": 3},
    ),
    # https://github.com/ggml-org/llama.cpp/blob/b6800/tools/server/README.md#timings-and-context-usage
    Server(
        name="llama.cpp",
        chunks=[
            chunk(None),
            chunk("stop", timings={"cache_n": 7, "prompt_n": 12, "predicted_n": 10}),
        ],
        tokens=(19, 10, 29),
        usage={"cache_read_input_tokens": 7},
    ),
    Server(
        name="cumulative figures",
        chunks=[
            chunk(None, usage={"prompt_tokens": 19, "completion_tokens": 1, "total_tokens": 20}),
            chunk("stop", usage=USAGE),
        ],
        tokens=(19, 10, 29),
    ),
    Server(
        name="zeros at the end",
        chunks=[chunk("stop", usage={**USAGE, "cached_tokens": 7}), chunk(None, usage=ZERO)],
        tokens=(19, 10, 29),
        usage={"cache_read_input_tokens": 7},
    ),
    Server(name="nothing but zeros", chunks=[chunk("stop", usage=ZERO)], tokens=(0, 0, 0)),
    Server(
        name="an index that is no number",
        chunks=[chunk(None, {"index": "0"}), chunk("stop", {"index": [0]}, usage=USAGE)],
        tokens=(19, 10, 29),
    ),
    Server(name="nothing", chunks=[chunk(None), chunk("stop")], tokens=(0, 0, 0), status="missing"),
]


def event(
    tokens: tuple[int, int, int],
    usage: dict[str, int],
    *,
    streaming: bool,
    status: str = "reported",
) -> dict[str, Any]:
    """Return a whole event."""
    return {
        "customer_id": None,
        "model": "m-1",
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "total_tokens": tokens[2],
        "provider": "openai",
        "metadata": {
            "response_id": "chatcmpl-1",
            "created": 1_700_000_021,
            "finish_reason": "stop",
            "service_tier": None,
            "usage_status": status,
            "endpoint": "chat.completions",
            "request_model": "m",
            "server_address": "127.0.0.1",
            "usage": usage,
        },
        "version": "0.1.0",
        "error": {"occurred": False, "type": None, "code": None, "message": None},
        "request": {"streaming": streaming, "retry_count": 0, "success": True},
        **({"first_token": True} if streaming else {}),
    }


@every_world
@pytest.mark.parametrize(
    ("server", "form"),
    [
        pytest.param(server, form, id=f"{server.name}-{form.name}")
        for server in SERVERS
        for form in (ANSWERS if server.answer else STREAMS)
    ],
)
def test_usage(server: Server, form: Form, world: str, provider: Provider, meter: Meter) -> None:
    """
    What surely means the same as OpenAI's usage is billed as that, in whichever form the answer is read.

    The last figures count, and a zero replaces none.
    """
    provider.answer(CHAT, Reply(json=server.answer, events=server.chunks))
    make(world, provider, "chat.completions.create", form, ARGUMENTS)
    assert [
        event(server.tokens, server.usage, streaming=form.streaming, status=server.status)
    ] == meter.events()


@every_world
def test_the_usage_of_several_choices(world: str, provider: Provider, meter: Meter) -> None:
    """Whether the usage of one choice of several is that of the call is not known, so it is none."""
    used = {"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}
    chunks = [
        chunk(None),
        chunk(None, {"index": 1}),
        chunk("stop", {"index": 0, **used}),
        chunk("stop", {"index": 1, **used}),
    ]
    provider.answer(CHAT, Reply(events=chunks))
    (form,) = (form for form in STREAMS if form.name == "stream")
    make(world, provider, "chat.completions.create", form, {**ARGUMENTS, "n": 2})
    assert ["missing"] == [e["metadata"]["usage_status"] for e in meter.events()]


def test_a_transcription_of_mistral(provider: Provider, meter: Meter) -> None:
    """The seconds of Mistral's transcriptions are counted beside their tokens."""
    # https://docs.mistral.ai/capabilities/audio/
    answer = {
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
    provider.answer("/v1/audio/transcriptions", Reply(json=answer))
    (form,) = (form for form in ANSWERS if form.name == "plain")
    arguments = {"model": "voxtral-mini-latest", "file": ("a.wav", b"RIFF")}
    make("sync", provider, "audio.transcriptions.create", form, arguments)

    (found,) = meter.events()

    assert (4, 635, 639) == (found["input_tokens"], found["output_tokens"], found["total_tokens"])
    assert {"audio_seconds": 203} == found["metadata"]["usage"]


# --- Errors -----------------------------------------------------------------------------------

# OpenRouter, https://openrouter.ai/docs/api-reference/errors
REFUSED: dict[str, Any] = {"error": {"code": 502, "message": "Provider returned error"}}


ERRORS: dict[str, tuple[dict[str, Any], str | None, str, str]] = {
    "an error": (REFUSED, "502", "server_error", "Provider returned error"),
    "an error's type": (
        {"error": {"message": "too many", "type": "rate_limit_exceeded"}},
        "rate_limit_exceeded",
        "rate_limit",
        "too many",
    ),
    "a string": ({"error": "out of memory"}, "_OTHER", "unknown_error", "out of memory"),
    "an error of a choice": (
        {
            **ANSWER,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "error",
                    "message": {"role": "assistant", "content": ""},
                    "error": {"code": 429, "message": "slow down"},
                }
            ],
        },
        "429",
        "rate_limit",
        "slow down",
    ),
    "an error beside a choice": (
        {"choices": [{"index": 0, "finish_reason": "error", "message": {}}], **REFUSED},
        "502",
        "server_error",
        "Provider returned error",
    ),
}
"""Answers with status 200; code, type and message of the error in them."""


def failure(
    code: str | None, kind: str, message: str, *, streaming: bool, begun: bool
) -> dict[str, Any]:
    """Return the whole event of a call that was answered with an error."""
    expected = event((0, 0, 0), {}, streaming=streaming)
    expected["error"] = {"occurred": True, "type": kind, "code": code, "message": message}
    expected["request"]["success"] = False
    expected["metadata"].update(usage_status="missing", finish_reason=None)
    if not begun:
        expected["model"] = "m"
        expected["metadata"].update(response_id=None, created=None)
    return expected


@every_world
@pytest.mark.parametrize("form", ANSWERS, ids=lambda form: form.name)
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_that_is_called_a_success(
    kind: str, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """An answer with an error is no success, whatever its HTTP status says; one that is nothing else is a refusal."""
    answer, code, error_type, message = ERRORS[kind]
    provider.answer(CHAT, Reply(json=answer))
    make(world, provider, "chat.completions.create", form, ARGUMENTS)

    expected = failure(code, error_type, message, streaming=False, begun="id" in answer)
    if "choices" not in answer:
        expected["metadata"]["usage_status"] = "not_applicable"
    (span,) = meter.spans()

    assert [expected] == meter.events()
    assert ("ERROR", message) == (span.status.status_code.name, span.status.description)


def test_no_error(provider: Provider, meter: Meter) -> None:
    """An `error` that is empty is none."""
    nothings: tuple[Any, ...] = (None, "", {}, [], False)
    (form,) = (form for form in ANSWERS if form.name == "plain")
    for nothing in nothings:
        provider.answer(CHAT, Reply(json={**ANSWER, "usage": USAGE, "error": nothing}))
        make("sync", provider, "chat.completions.create", form, ARGUMENTS)

    assert [event((19, 10, 29), {}, streaming=False)] * 5 == meter.events()


@every_world
@pytest.mark.parametrize("form", STREAMS, ids=lambda form: form.name)
def test_an_error_in_a_stream(form: Form, world: str, provider: Provider, meter: Meter) -> None:
    """A stream with an error in it is no success, whether the SDK raises it or the application reads the bytes."""
    provider.answer(CHAT, Reply(events=[chunk(None), {**HEAD, "choices": [], **REFUSED}]))
    message = "Provider returned error"
    if form.parsed:
        with pytest.raises(openai.APIError) as raised:
            make(world, provider, "chat.completions.create", form, ARGUMENTS)
        # The oldest SDK has words of its own.
        message = raised.value.message
    else:
        make(world, provider, "chat.completions.create", form, ARGUMENTS)

    (found,) = meter.events()

    assert (True, message, False) == (
        found["error"]["occurred"],
        found["error"]["message"],
        found["request"]["success"],
    )
    assert ("partial" if form.parsed else "missing") == found["metadata"]["usage_status"]
    assert ["ERROR"] == [span.status.status_code.name for span in meter.spans()]


def test_an_error_after_usage(provider: Provider, meter: Meter) -> None:
    """What was reported before an error is billed."""
    provider.answer(CHAT, Reply(events=[chunk(None, usage=USAGE), REFUSED]))
    (form,) = (form for form in STREAMS if form.name == "stream")
    with pytest.raises(openai.APIError):
        make("sync", provider, "chat.completions.create", form, ARGUMENTS)

    (found,) = meter.events()

    assert (19, 10, False) == (
        found["input_tokens"],
        found["output_tokens"],
        found["request"]["success"],
    )


@every_world
@pytest.mark.parametrize("form", STREAMS, ids=lambda form: form.name)
def test_an_error_of_groq(form: Form, world: str, provider: Provider, meter: Meter) -> None:
    """Groq says in its own field why a stream was stopped early; the SDK knows nothing of it."""
    stopped = chunk("stop", x_groq={"id": "req_1", "error": "over_capacity"})
    provider.answer(CHAT, Reply(events=[chunk(None), stopped]))
    make(world, provider, "chat.completions.create", form, ARGUMENTS)
    expected = failure("_OTHER", "unknown_error", "over_capacity", streaming=True, begun=True)
    expected["metadata"]["finish_reason"] = "stop"
    assert [expected] == meter.events()


@pytest.mark.parametrize(
    ("method", "path", "arguments"),
    [
        ("completions.create", "/v1/completions", {"model": "m", "prompt": "x"}),
        ("embeddings.create", "/v1/embeddings", {"model": "m", "input": "x"}),
        ("images.generate", "/v1/images/generations", {"prompt": "x"}),
        ("moderations.create", "/v1/moderations", {"input": "x"}),
        (
            "audio.transcriptions.create",
            "/v1/audio/transcriptions",
            {"model": "m", "file": ("a.wav", b"RIFF", "audio/wav")},
        ),
    ],
)
def test_an_error_of_other_endpoints(
    method: str, path: str, arguments: dict[str, Any], provider: Provider, meter: Meter
) -> None:
    """Each endpoint tells an error from a success."""
    provider.answer(path, Reply(json=REFUSED))
    (form,) = (form for form in ANSWERS if form.name == "raw-unparsed")
    make("sync", provider, method, form, arguments)
    assert [("502", False, "not_applicable")] == [
        (e["error"]["code"], e["request"]["success"], e["metadata"]["usage_status"])
        for e in meter.events()
    ]
