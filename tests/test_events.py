"""From spans to events: whole documents from literals, and the spans that other instrumentations really made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from cmdrdata_exporter import event_from_span, quick_json
from cmdrdata_exporter.attributes import OUR_SCOPE
from cmdrdata_exporter.events import encode, error_type
from cmdrdata_exporter.foreign import is_without_usage

RECORDED = Path(__file__).parent / "recorded"
SECOND = 1_000_000_000


def span(
    attributes: dict[str, Any],
    *,
    scope: str = "somebody's instrumentation",
    status: Status | None = None,
    context: tuple[int, int] = (0xABC, 0xDEF),
    parent: int | None = None,
    times: tuple[int, int] = (1_700_000_000 * SECOND, 1_700_000_001 * SECOND + 250_000_000),
) -> ReadableSpan:
    """Return a finished span."""
    return ReadableSpan(
        name="chat m",
        context=SpanContext(*context, is_remote=False, trace_flags=TraceFlags(1)),
        parent=None if parent is None else SpanContext(context[0], parent, is_remote=False),
        resource=Resource({}),
        attributes=attributes,
        kind=SpanKind.CLIENT,
        status=status or Status(),
        start_time=times[0],
        end_time=times[1],
        instrumentation_scope=InstrumentationScope(scope),
    )


def recorded(name: str) -> list[ReadableSpan]:
    """Return the spans that an instrumentation made, see `recorded/record.py`."""
    documents: list[dict[str, Any]] = json.loads((RECORDED / f"{name}.json").read_text())
    return [
        span(
            {
                key: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
                for key, value in document["attributes"].items()
            },
            scope=document["scope"]["name"],
            status=Status(
                StatusCode[document["status"]["code"]], document["status"]["description"]
            ),
            context=(int(document["trace_id"], 16), int(document["span_id"], 16)),
            parent=int(document["parent_span_id"] or "0", 16) or None,
            times=(document["start_time"], document["end_time"]),
        )
        for document in documents
    ]


def test_a_whole_event() -> None:
    """Every attribute has its one place in the event."""
    event = event_from_span(
        span(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.response.model": "gpt-4o-2024",
                "gen_ai.response.id": "chatcmpl-1",
                "gen_ai.response.finish_reasons": ("stop", "length"),
                "gen_ai.request.stream": True,
                "gen_ai.response.time_to_first_chunk": 0.1234,
                "gen_ai.usage.input_tokens": 100,
                "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.cache_read.input_tokens": 40,
                "gen_ai.usage.image.input_tokens": 60,
                "openai.response.service_tier": "flex",
                "server.address": "api.openai.com",
                "cmdrdata.customer.id": "org:1/ü@example.com",
                "cmdrdata.metadata.plan": "pro",
                "cmdrdata.metadata.tags": ("a", "b"),
                "cmdrdata.metadata.created": "yesterday",
                "cmdrdata.usage.images": 2,
                "cmdrdata.detail.created": 1_700_000_000,
                "cmdrdata.request.retry_count": 1,
                "cmdrdata.event.id": "0123456789abcdef0123456789abcdef",
            }
        )
    )
    assert event is not None
    assert event.renamed == ("created",)
    assert json.loads(encode(event)) == {
        "customer_id": "org:1/ü@example.com",
        "model": "gpt-4o-2024",
        "input_tokens": 100,
        "output_tokens": 20,
        "total_tokens": 120,
        "provider": "openai",
        "metadata": {
            "plan": "pro",
            "tags": ["a", "b"],
            "user_created": "yesterday",
            "response_id": "chatcmpl-1",
            "created": 1_700_000_000,
            "finish_reason": "stop",
            "usage_status": "reported",
            "endpoint": "chat.completions",
            "request_model": "gpt-4o",
            "service_tier": "flex",
            "server_address": "api.openai.com",
            "trace_id": "00000000000000000000000000000abc",
            "span_id": "0000000000000def",
            "usage": {"cache_read_input_tokens": 40, "image_input_tokens": 60, "images": 2},
        },
        "timestamp": 1_700_000_001,
        "version": "0.1.0",
        "latency": {
            "request_start_time": 1_700_000_000,
            "request_end_time": 1_700_000_001,
            "duration_ms": 1250,
            "time_to_first_token_ms": 123,
        },
        "error": {"occurred": False, "type": None, "code": None, "message": None},
        "request": {
            "id": "0123456789abcdef0123456789abcdef",
            "streaming": True,
            "retry_count": 1,
            "success": True,
        },
    }


VALUES = [
    0.00001,
    1e16,
    [1e-7],
    '\x00\x1f\x7f\u2028\U0001f600/"\\',
    "half \ud800",
    2**64,
    True,
    None,
    ["a", None],
]


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_the_same_bytes_with_and_without_orjson(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, of which one has orjson, give the same event the same bytes."""
    event = event_from_span(span({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1}))
    assert event is not None
    for metadata, usage in (({"x": value}, {}), ({}, {"seconds": 0.00001})):
        changed = event._replace(metadata={**event.metadata, **metadata}, usage=usage)
        with_orjson = encode(changed)
        with monkeypatch.context() as patch:
            patch.setattr("cmdrdata_exporter.quick_json.orjson", None)
            assert encode(changed) == with_orjson
    assert quick_json.orjson is not None, "orjson is there where the tests run"


def test_an_event_keeps_its_bytes() -> None:
    """The same event is the same bytes whenever it is encoded, so that a retry can be recognised."""
    (event,) = filter(None, map(event_from_span, recorded("genai_openai")[:1]))
    assert encode(event) == encode(event)


CHAT = ("chat.completions", "openai", "gpt-4.1-mini-2025-04-14", 11, 7, 18)
EMBEDDING = ("embeddings", "openai", "text-embedding-3-small", 9, 0, 9)
RESPONSES = ("responses", "openai", "o4-mini-2025-04-16", 11, 7, 18)
CACHE = {"cache_read_input_tokens": 5}
DETAILS = {**CACHE, "cache_write_input_tokens": 2, "reasoning_output_tokens": 3}
AUDIO = {**DETAILS, "audio_input_tokens": 1, "audio_output_tokens": 1}
READ_AND_WRITE = {**CACHE, "cache_write_input_tokens": 2}
READ_AND_REASONING = {**CACHE, "reasoning_output_tokens": 3}
NO_CACHE = {"cache_read_input_tokens": 0}
ANTHROPIC = ("chat.completions", "anthropic", "claude-sonnet-4-6", 18)

BILLED: dict[str, list[tuple[tuple[Any, ...], dict[str, int]]]] = {
    "genai_openai": [
        (CHAT, AUDIO),
        (CHAT, AUDIO),
        (CHAT, AUDIO),
        (EMBEDDING, {}),
        (RESPONSES, DETAILS),
        (RESPONSES, DETAILS),
        (RESPONSES, DETAILS),
        (("responses", "openai", "incomplete", 11, 7, 18), DETAILS),
        (("responses", "openai", "failed", 11, 7, 18), DETAILS),
    ],
    "openai_v2": [(CHAT, {}), (CHAT, {}), (CHAT, {})],
    "openinference_openai": [
        (CHAT, AUDIO),
        (CHAT, AUDIO),
        (CHAT, AUDIO),
        (EMBEDDING, {}),
        # Its spans do not tell the Responses API from chat.
        (("chat.completions", *RESPONSES[1:]), DETAILS),
        (("chat.completions", *RESPONSES[1:]), DETAILS),
        (("chat.completions", *RESPONSES[1:]), DETAILS),
        (("chat.completions", "openai", "incomplete", 11, 7, 18), DETAILS),
        (("chat.completions", "openai", "failed", 11, 7, 18), DETAILS),
    ],
    "openllmetry_openai": [
        (CHAT, READ_AND_REASONING),
        (CHAT, CACHE),
        (CHAT, READ_AND_REASONING),
        (EMBEDDING, NO_CACHE),
        (RESPONSES, READ_AND_REASONING),
        (RESPONSES, READ_AND_REASONING),
        (RESPONSES, READ_AND_REASONING),
    ],
    "openllmetry_openai_0_40": [(CHAT, CACHE), (CHAT, CACHE), (EMBEDDING, NO_CACHE)],
    "openinference_anthropic": [((*ANTHROPIC, 7, 25), READ_AND_WRITE)] * 3,
    "openllmetry_anthropic": [
        ((*ANTHROPIC, 7, 25), READ_AND_WRITE),
        ((*ANTHROPIC, 8, 26), READ_AND_WRITE),
        ((*ANTHROPIC, 8, 26), READ_AND_WRITE),
    ],
    # Chains, agents, workflows, tools and prompts among them are none.
    "openinference_langchain": [
        (CHAT, {k: v for k, v in AUDIO.items() if k != "cache_write_input_tokens"})
    ]
    * 3,
    "openllmetry_langchain": [(CHAT, READ_AND_WRITE)] * 3,
}


@pytest.mark.parametrize("name", BILLED)
def test_spans_of_other_instrumentations(name: str) -> None:
    """
    A foreign span that reports usage is billed with its numbers; one that reports none, or is no model call, is not.

    The spans were recorded with a provider that charges 11 and 7 tokens for a chat and 9 for an embedding.
    """
    events = [event for event in map(event_from_span, recorded(name)) if event is not None]
    assert [
        (
            (
                event.endpoint,
                event.provider,
                event.model,
                event.input_tokens,
                event.output_tokens,
                event.total_tokens,
            ),
            event.usage,
        )
        for event in events
    ] == BILLED[name]
    assert len({event.id for event in events}) == len(events)


def test_a_foreign_span_seen_again() -> None:
    """The event of a foreign span has the same id wherever the span is seen, and another one for another span."""
    first, again, other = (
        event_from_span(
            span({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1}, context=context)
        )
        for context in ((1, 2), (1, 2), (1, 3))
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.id == again.id != other.id


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"http.request.method": "POST", "url.full": "https://api.openai.com/v1/chat/completions"},
        {"gen_ai.operation.name": "chat"},
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 5},
        {"gen_ai.operation.name": "execute_tool", "gen_ai.usage.input_tokens": 5},
        {"gen_ai.operation.name": "fetch_response", "gen_ai.usage.input_tokens": 5},
        {"openinference.span.kind": "AGENT", "llm.token_count.prompt": 5},
        {
            "openinference.span.kind": "CHAIN",
            "gen_ai.operation.name": "chat",
            "llm.token_count.prompt": 5,
        },
        {"llm.request.type": "rerank", "gen_ai.usage.input_tokens": 5},
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": True},
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": float("nan")},
        {"gen_ai.operation.name": "chat", "gen_ai.usage.output_tokens": -1},
        {"gen_ai.operation.name": "chat", "gen_ai.usage.output_tokens": "many"},
    ],
)
def test_spans_that_are_no_charge(attributes: dict[str, Any]) -> None:
    """Nothing is billed that is not a model call with usage; unknown is not zero."""
    assert event_from_span(span(attributes)) is None


def test_a_span_of_ones_own_making() -> None:
    """Any span with our attributes is billed accordingly."""
    event = event_from_span(
        span(
            {
                "cmdrdata.endpoint": "render",
                "cmdrdata.usage.images": 3,
                "cmdrdata.customer.id": "acme",
            }
        )
    )
    assert event is not None
    assert (event.endpoint, event.usage, event.customer_id, event.model) == (
        "render",
        {"images": 3},
        "acme",
        "unknown",
    )


def test_a_span_without_a_customer() -> None:
    """The fallback names who pays where the span does not."""
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1}
    assert [
        event and event.customer_id
        for event in (
            event_from_span(span(attributes)),
            event_from_span(span(attributes), customer_id="fallback"),
            event_from_span(
                span({**attributes, "cmdrdata.customer.id": "acme"}), customer_id="fallback"
            ),
        )
    ] == [None, "fallback", "acme"]


@pytest.mark.parametrize(
    ("customer", "refused"),
    [
        ("acme", {}),
        (1001, {"customer_refused": "not a string", "customer_refused_value": "1001"}),
        ("", {"customer_refused": "empty", "customer_refused_value": "''"}),
    ],
)
def test_customers_that_others_set(customer: Any, refused: dict[str, str]) -> None:
    """A customer that others set on a span and that cannot be billed is kept in the event, with the reason."""
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1}
    event = event_from_span(
        span({**attributes, "cmdrdata.customer.id": customer}), customer_id="fallback"
    )
    assert event is not None
    assert (None if refused else customer, refused) == (
        event.customer_id,
        {name: value for name, value in event.metadata.items() if name.startswith("customer")},
    )


def test_metadata_that_json_does_not_have() -> None:
    """A value that JSON cannot hold is sent as its string; an event is never lost for it."""
    event = event_from_span(
        span(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.usage.input_tokens": 1,
                "cmdrdata.metadata.ratio": float("inf"),
                "cmdrdata.metadata.blob": b"x",
                "cmdrdata.metadata.many": (1.5, float("nan")),
            }
        )
    )
    assert event is not None
    metadata = json.loads(encode(event))["metadata"]
    assert (metadata["ratio"], metadata["blob"], metadata["many"]) == ("inf", "b'x'", [1.5, "nan"])


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("openai.RateLimitError", "429", "rate_limit"),
        ("openai.AuthenticationError", "401", "authentication"),
        ("openai.PermissionDeniedError", "403", "authorization"),
        ("openai.InternalServerError", "503", "server_error"),
        ("openai.BadRequestError", "400", "invalid_request"),
        ("openai.APIStatusError", "418", "invalid_request"),
        ("openai.APIStatusError", "408", "timeout"),
        ("openai.APITimeoutError", None, "timeout"),
        ("openai.APIConnectionError", None, "connection_error"),
        ("httpx.ReadError", None, "connection_error"),
        ("asyncio.exceptions.CancelledError", None, "cancelled"),
        ("KeyboardInterrupt", None, "cancelled"),
        ("RateLimitError", None, "rate_limit"),
        ("429", None, "rate_limit"),
        ("500", None, "server_error"),
        ("openai.APIError", "server_error", "server_error"),
        ("ValueError", None, "unknown_error"),
        ("_OTHER", None, "unknown_error"),
        ("200", None, "unknown_error"),
        (None, None, "unknown_error"),
    ],
)
def test_error_types(name: str | None, code: str | None, expected: str) -> None:
    """Every failure has its type, from the status where there was one, else from the provider's or exception's name."""
    assert error_type(name, code) == expected


def test_an_error_span_of_our_own() -> None:
    """A failed call without usage is an event only where our own instrumentation observed it."""
    failed = {
        "gen_ai.operation.name": "chat",
        "error.type": "openai.RateLimitError",
        "cmdrdata.error.code": "429",
    }
    status = Status(StatusCode.ERROR, "slow down")
    assert event_from_span(span(failed, status=status)) is None
    event = event_from_span(
        span(failed, status=status, scope="opentelemetry_instrumentation_cmdrdata")
    )
    assert event is not None
    assert (
        event.success,
        event.error_type,
        event.error_code,
        event.error_message,
        event.usage_status,
    ) == (
        False,
        "rate_limit",
        "429",
        "slow down",
        "missing",
    )


def usage(**attributes: object) -> dict[str, object]:
    """Return the attributes of a span that tells what it used."""
    return {"gen_ai.usage.input_tokens": 3, **attributes}


@pytest.mark.parametrize(
    ("operation", "endpoint"),
    [
        ("acompletion", "chat.completions"),
        ("atext_completion", "completions"),
        ("embedding", "embeddings"),
        ("aembedding", "embeddings"),
        ("responses", "responses"),
        ("aresponses", "responses"),
        ("anthropic_messages", "chat.completions"),
        ("image_generation", "images.generate"),
        ("aimage_edit", "images.edit"),
        ("rerank", None),
        ("invoke_agent", None),
    ],
)
def test_operations_of_litellm(operation: str, endpoint: str | None) -> None:
    """LiteLLM names the function that was called; what is no model call with tokens is no charge."""
    event = event_from_span(span(usage(**{"gen_ai.operation.name": operation}), scope="litellm"))
    assert endpoint == (event and event.endpoint)


def test_an_answer_from_a_cache() -> None:
    """LiteLLM reports what it answers from its own cache with the usage that was charged once."""
    attributes = usage(**{"gen_ai.operation.name": "chat", "litellm.cache_hit": False})
    assert event_from_span(span(attributes)) is not None
    assert event_from_span(span({**attributes, "litellm.cache_hit": True})) is None


@pytest.mark.parametrize(
    ("scope", "provider", "billed"),
    [
        ("nemo_guardrails", {"gen_ai.provider.name": "openai"}, True),
        ("nemo_guardrails", {}, False),
        ("another", {"gen_ai.provider.name": "openai"}, False),
    ],
)
def test_tasks_of_guardrails(scope: str, provider: dict[str, object], billed: bool) -> None:
    """NeMo Guardrails names its operations as its tasks, of which those of a model have a provider."""
    attributes = usage(**{"gen_ai.operation.name": "self_check_input"}, **provider)
    event = event_from_span(span(attributes, scope=scope))
    assert ("chat.completions" if billed else None) == (event and event.endpoint)


@pytest.mark.parametrize(("value", "streaming"), [(True, True), ("True", True), ("False", False)])
def test_whether_it_was_a_stream(value: object, streaming: bool) -> None:
    """LiteLLM writes the word for it."""
    attributes = usage(**{"gen_ai.operation.name": "chat", "llm.is_streaming": value})
    event = event_from_span(span(attributes))
    assert event is not None
    assert streaming is event.streaming


def test_integers_of_any_length() -> None:
    """An integer of somebody's span that JSON could carry, but nobody read, never keeps an event from being written."""
    huge = 10**5000
    event = event_from_span(
        span(
            {
                "gen_ai.operation.name": "chat",
                "cmdrdata.metadata.number": huge,
                "cmdrdata.metadata.list": (1, huge),
                "cmdrdata.usage.searches": huge,
                "cmdrdata.usage.images": 3,
            }
        )
    )
    assert event is not None
    sent = json.loads(encode(event))
    assert hex(huge) == sent["metadata"]["number"]
    assert [1, hex(huge)] == sent["metadata"]["list"]
    assert 3 == sent["metadata"]["usage"]["images"]
    assert "searches" not in sent["metadata"]["usage"]


@pytest.mark.parametrize(
    ("expected", "attributes", "others"),
    [
        pytest.param(True, {"gen_ai.operation.name": "chat"}, {}, id="call"),
        pytest.param(
            False,
            {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1},
            {},
            id="call with usage",
        ),
        pytest.param(
            False,
            {"gen_ai.operation.name": "chat"},
            {"status": Status(StatusCode.ERROR)},
            id="call that failed",
        ),
        pytest.param(False, {"gen_ai.operation.name": "execute_tool"}, {}, id="tool"),
        pytest.param(False, {"http.request.method": "GET"}, {}, id="something else"),
        pytest.param(
            False, {"gen_ai.operation.name": "chat"}, {"scope": OUR_SCOPE}, id="call of ours"
        ),
    ],
)
def test_calls_without_usage(
    expected: bool, attributes: dict[str, Any], others: dict[str, Any]
) -> None:
    """A span is without usage where it is of a call that went well, and nothing can be billed of it."""
    assert expected == is_without_usage(span(attributes, **others))
