"""Each endpoint, in each form, in both worlds, ending well and badly: the whole span and the whole event."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from tests import replies
from tests.metering import Meter, attributes
from tests.provider import Provider, Reply
from tests.sdk import FORMS, VERSION, Form, make


@dataclass(frozen=True)
class Case:
    """An endpoint: how it is called, what it answers, and what must be recorded of it."""

    name: str
    resource: str
    path: str
    arguments: dict[str, Any]
    reply: dict[str, Any]
    model: str
    request: dict[str, Any]
    """Span attributes of the request."""
    response: dict[str, Any]
    """Span attributes of the answer."""
    tokens: tuple[int, int, int]
    usage: dict[str, int]
    metadata: dict[str, Any]
    """Event metadata of the answer."""
    chunks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    error_attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    error_metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    since: tuple[int, int] = (1, 0)


MESSAGES = [{"role": "user", "content": "What is the secret?"}]

CASES = [
    Case(
        name="chat.completions",
        resource="chat.completions",
        path="/v1/chat/completions",
        arguments={
            "model": "gpt-4o-mini",
            "messages": MESSAGES,
            "temperature": 0,
            "top_p": 0.5,
            "max_tokens": 64,
            "frequency_penalty": 0.25,
            "presence_penalty": -0.25,
            "n": 1,
            "stop": "END",
            # What the oldest SDK does not know by name.
            "extra_body": {"seed": 7, "response_format": {"type": "json_object"}},
            "user": "someone",
        },
        reply=replies.CHAT,
        chunks=replies.chat_chunks(),
        model="gpt-4o-mini",
        request={
            "gen_ai.operation.name": "chat",
            "openai.api.type": "chat_completions",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.request.temperature": 0.0,
            "gen_ai.request.top_p": 0.5,
            "gen_ai.request.max_tokens": 64,
            "gen_ai.request.frequency_penalty": 0.25,
            "gen_ai.request.presence_penalty": -0.25,
            "gen_ai.request.seed": 7,
            "gen_ai.request.stop_sequences": ("END",),
            "gen_ai.output.type": "json",
        },
        response={
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.response.finish_reasons": ("stop",),
            "openai.response.service_tier": "default",
            "openai.response.system_fingerprint": "fp_1",
            "gen_ai.usage.input_tokens": 19,
            "gen_ai.usage.output_tokens": 10,
            "gen_ai.usage.cache_read.input_tokens": 7,
            "gen_ai.usage.cache_write.input_tokens": 3,
            "gen_ai.usage.reasoning.output_tokens": 4,
        },
        tokens=(19, 10, 29),
        usage={
            "cache_read_input_tokens": 7,
            "cache_write_input_tokens": 3,
            "reasoning_output_tokens": 4,
            "audio_input_tokens": 0,
            "audio_output_tokens": 0,
            "accepted_prediction_tokens": 2,
            "rejected_prediction_tokens": 1,
        },
        metadata={
            "response_id": "chatcmpl-1",
            "created": 1_700_000_001,
            "finish_reason": "stop",
            "service_tier": "default",
        },
        error_attributes={"gen_ai.response.finish_reasons": ("error",)},
        error_metadata={"response_id": None, "created": None, "finish_reason": None},
    ),
    Case(
        name="responses",
        resource="responses",
        path="/v1/responses",
        arguments={
            "model": "gpt-5-mini",
            "input": "What is the secret?",
            "max_output_tokens": 64,
            "reasoning": {"effort": "low"},
            "text": {"format": {"type": "text"}},
            "previous_response_id": "resp_0",
            "extra_body": {"service_tier": "flex"},
            "metadata": {"theirs": "untouched"},
        },
        reply=replies.RESPONSE,
        chunks=replies.response_events(),
        model="gpt-5-mini",
        request={
            "gen_ai.operation.name": "chat",
            "openai.api.type": "responses",
            "gen_ai.request.model": "gpt-5-mini",
            "gen_ai.request.max_tokens": 64,
            "gen_ai.request.reasoning.level": "low",
            "gen_ai.request.previous_response.id": "resp_0",
            "gen_ai.output.type": "text",
            "openai.request.service_tier": "flex",
        },
        response={
            "gen_ai.response.id": "resp_1",
            "gen_ai.response.model": "gpt-5-mini-2025-08-07",
            "gen_ai.response.finish_reasons": ("stop",),
            "openai.response.service_tier": "default",
            "gen_ai.usage.input_tokens": 23,
            "gen_ai.usage.output_tokens": 12,
            "gen_ai.usage.cache_read.input_tokens": 8,
            "gen_ai.usage.reasoning.output_tokens": 5,
        },
        tokens=(23, 12, 35),
        usage={
            "cache_read_input_tokens": 8,
            "cache_write_input_tokens": 0,
            "reasoning_output_tokens": 5,
        },
        metadata={
            "response_id": "resp_1",
            "created": 1_700_000_002,
            "finish_reason": "stop",
            "service_tier": "default",
        },
        error_attributes={"gen_ai.response.finish_reasons": ("error",)},
        error_metadata={"response_id": None, "created": None, "finish_reason": None},
        since=(1, 66),
    ),
    Case(
        name="embeddings",
        resource="embeddings",
        path="/v1/embeddings",
        arguments={
            "model": "text-embedding-3-small",
            "input": ["a", "b"],
            "encoding_format": "float",
            "extra_body": {"dimensions": 2},
        },
        reply=replies.EMBEDDINGS,
        model="text-embedding-3-small",
        request={
            "gen_ai.operation.name": "embeddings",
            "gen_ai.request.model": "text-embedding-3-small",
            "gen_ai.request.encoding_formats": ("float",),
            "gen_ai.embeddings.dimension.count": 2,
        },
        response={
            "gen_ai.response.model": "text-embedding-3-small-v2",
            "gen_ai.usage.input_tokens": 9,
        },
        tokens=(9, 0, 9),
        usage={},
        metadata={"response_id": None, "created": None, "embedding_count": 2, "service_tier": None},
        error_metadata={"response_id": None, "created": None, "embedding_count": None},
    ),
]

ROWS = [
    pytest.param(case, form, id=f"{case.name}-{form.name}")
    for case in CASES
    for form in FORMS
    if case.since <= VERSION and (case.chunks or not form.streaming)
]


def expected_request(case: Case, form: Form, provider: Provider) -> dict[str, Any]:
    """Return the attributes that a span has from its request."""
    streaming = {"gen_ai.request.stream": True} if form.streaming else {}
    return {
        "gen_ai.provider.name": "openai",
        "server.address": "127.0.0.1",
        "server.port": provider.port,
        **case.request,
        **streaming,
    }


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("case", "form"), ROWS)
def test_a_call_that_succeeds(
    case: Case, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """A call is one span by the conventions and one event with the provider's numbers, whatever its form."""
    reply = (
        Reply(events=case.chunks, headers={"x-request-id": "req_1"})
        if form.streaming
        else Reply(json=case.reply, headers={"x-request-id": "req_1"})
    )
    provider.answer(case.path, reply)

    make(world, provider, case.resource, form, case.arguments)

    (span,) = meter.spans()
    assert (span.name, span.kind) == (
        f"{case.request['gen_ai.operation.name']} {case.model}",
        SpanKind.CLIENT,
    )
    assert (span.status.status_code, span.status.description) == (StatusCode.UNSET, None)
    first_chunk = {"first_chunk": True} if form.streaming else {}
    assert attributes(span) == {
        **expected_request(case, form, provider),
        **case.response,
        **first_chunk,
    }
    (event,) = meter.events()
    input_tokens, output_tokens, total_tokens = case.tokens
    assert event == {
        "customer_id": None,
        "model": case.response["gen_ai.response.model"],
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": total_tokens,
        "provider": "openai",
        "metadata": {
            **case.metadata,
            "usage_status": "reported",
            "endpoint": case.name,
            "request_model": case.model,
            "server_address": "127.0.0.1",
            "request_id": "req_1",
            "usage": case.usage,
        },
        "version": "0.1.0",
        "error": {"occurred": False, "type": None, "code": None, "message": None},
        "request": {"streaming": form.streaming, "retry_count": 0, "success": True},
        **({"first_token": True} if form.streaming else {}),
    }


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("case", "form"), ROWS)
def test_a_call_that_fails(
    case: Case, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """A call that the provider refuses is an error span and an event that says so, without any key."""
    provider.answer(
        case.path, Reply(status=401, json=replies.REFUSAL, headers={"x-request-id": "req_2"})
    )

    with pytest.raises(openai.AuthenticationError) as raised:
        make(world, provider, case.resource, form, case.arguments)

    assert "sk-proj-abcdefgh1234" in str(raised.value), (
        "the application gets the SDK's error as it is"
    )
    message = str(raised.value).replace("sk-proj-abcdefgh1234", "[scrubbed]")
    (span,) = meter.spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, message)
    assert attributes(span) == {
        **expected_request(case, form, provider),
        **case.error_attributes,
        "error.type": "openai.AuthenticationError",
    }
    (event,) = meter.events()
    assert event == {
        "customer_id": None,
        "model": case.model,
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "provider": "openai",
        "metadata": {
            **case.error_metadata,
            "service_tier": None,
            "usage_status": "not_applicable",
            "endpoint": case.name,
            "request_model": case.model,
            "server_address": "127.0.0.1",
            "request_id": "req_2",
            "usage": {},
        },
        "version": "0.1.0",
        "error": {"occurred": True, "type": "authentication", "code": "401", "message": message},
        "request": {"streaming": form.streaming, "retry_count": 0, "success": False},
    }


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("case", "form"), ROWS)
def test_what_the_application_gets(
    case: Case, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """With the instrumentor on, the SDK returns equal objects of the same types, and sends the same request."""
    from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor

    provider.answer(
        case.path, Reply(events=case.chunks) if form.streaming else Reply(json=case.reply)
    )
    observed = make(world, provider, case.resource, form, copy.deepcopy(case.arguments))
    CmdrDataInstrumentor().uninstrument()
    bare = make(world, provider, case.resource, form, copy.deepcopy(case.arguments))
    CmdrDataInstrumentor().instrument()  # For the fixture to undo.

    assert type(observed) is type(bare)
    assert observed == bare
    with_us, without_us = provider.requests
    assert with_us.body == without_us.body
    ignored = ("host", "x-stainless-raw-response", "idempotency-key")
    assert {k: v for k, v in with_us.headers.items() if k not in ignored} == {
        k: v for k, v in without_us.headers.items() if k not in ignored
    }
    assert len(meter.events()) == 1
