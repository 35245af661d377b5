"""Whatever a server sends: nothing raises, nothing is altered, and each call is one event."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmdrdata_exporter import event_from_span, faults
from cmdrdata_exporter.events import encode
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS, Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.parameters import (
    request_attributes,
    request_details,
)
from opentelemetry_instrumentation_cmdrdata.openai.usage import Reading
from tests import replies
from tests.charges import MESSAGES
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import VERSION, client
from tests.test_events import span

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["7", "7.5", "-1", "completed", "succeeded", "stop", "nan", "thread.run"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)

FIELDS = sorted(
    {
        *(
            "id",
            "model",
            "created",
            "created_at",
            "service_tier",
            "usage",
            "choices",
            "index",
            "status",
        ),
        *("finish_reason", "output", "type", "data", "seconds", "duration", "text", "svg_usage"),
        *("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens"),
        *("prompt_tokens_details", "input_tokens_details", "input_token_details", "cached_tokens"),
        *("response", "background", "tool_usage", "web_search", "num_requests", "error", "code"),
        *("per_model_usage", "model_name", "metadata", "token_usage", "trained_tokens", "results"),
        *("request_counts", "completed", "object", "event", "conversation", "incomplete_details"),
    }
)
"""Fields that are read; what is in them is anything."""

SHAPED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6)
        | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3).map(
            lambda fields: SimpleNamespace(**fields)
        )
    ),
    max_leaves=25,
)


def changed(reply: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a proper reply with anything in the place of some of its fields."""
    return st.dictionaries(st.sampled_from(sorted(reply)), JSON, max_size=4).map(
        lambda changes: {**reply, **changes}
    )


def is_attribute(value: object) -> bool:
    """Say whether a value can be a span attribute."""
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, str) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63
    return isinstance(value, (bool, str)) or (isinstance(value, float) and math.isfinite(value))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda row: f"{row.method}-{row.path}")
@settings(max_examples=60, deadline=None)
@given(bodies=st.lists(SHAPED, min_size=1, max_size=3))
def test_any_answer(endpoint: Endpoint, bodies: list[object]) -> None:
    """No answer and no chunk makes a reader raise, and what it reads can be sent."""
    reading = Reading()
    for body in bodies:
        endpoint.read(reading, body)
        if endpoint.read_chunk is not None:
            endpoint.read_chunk(reading, body)
    read = [reading.attributes, *reading.charges.values()]
    assert all(is_attribute(value) for attributes in read for value in attributes.values())
    assert all(reason is None or type(reason) is str for reason in reading.finish_reasons.values())


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda row: f"{row.method}-{row.path}")
@settings(max_examples=30, deadline=None)
@given(
    parameters=st.dictionaries(
        st.sampled_from(
            ["model", "temperature", "n", "stop", "input", "voice", "prompt", "text", "size"]
        ),
        SHAPED,
    )
)
def test_any_request(endpoint: Endpoint, parameters: dict[str, Any]) -> None:
    """No parameter of a request makes its attributes raise."""
    read = {**request_attributes(endpoint, parameters), **request_details(endpoint, parameters)}
    assert all(is_attribute(value) for value in read.values())


ATTRIBUTES = sorted(
    {
        *("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type"),
        *("gen_ai.response.id", "gen_ai.response.finish_reasons", "gen_ai.usage.input_tokens"),
        *("gen_ai.usage.output_tokens", "gen_ai.response.time_to_first_chunk", "server.address"),
        *(
            "openinference.span.kind",
            "llm.request.type",
            "llm.token_count.prompt",
            "openai.api.type",
        ),
        *(
            "cmdrdata.endpoint",
            "cmdrdata.event.id",
            "cmdrdata.usage_status",
            "cmdrdata.customer.id",
        ),
        *("cmdrdata.request.retry_count", "cmdrdata.error.code", "cmdrdata.usage.images"),
        *("cmdrdata.metadata.plan", "cmdrdata.metadata.model", "cmdrdata.detail.size"),
    }
)


@settings(max_examples=300, deadline=None)
@given(
    attributes=st.dictionaries(
        st.sampled_from(ATTRIBUTES), SCALARS | st.binary(max_size=3) | st.lists(SCALARS, max_size=2)
    )
)
def test_any_span(attributes: dict[str, Any]) -> None:
    """No attribute of a span makes its event raise; an event is JSON that any parser takes, with whole numbers."""
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1, **attributes}
    event = event_from_span(span(attributes), customer_id="acme")
    if event is None:
        return

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    wire = json.loads(encode(event).decode("utf-8"), parse_constant=refuse)
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        assert type(wire[name]) is int
        assert wire[name] >= 0
    request = wire["request"]
    assert type(request["id"]) is str
    assert request["id"].isascii()
    assert type(request["retry_count"]) is int
    assert wire["customer_id"] is None or type(wire["customer_id"]) is str


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or what it raises, so that two of them can be compared."""
    with warnings.catch_warnings():
        # pydantic's, about values of other types than declared.
        warnings.simplefilter("ignore")
        try:
            return repr(call())
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises
            return type(error), str(error)


def both(meter: Meter, call: Callable[[], Any]) -> Iterator[Any]:
    """Make a call with us and without us."""
    before = len(meter.recorded.bodies)
    yield outcome(call)
    assert len(meter.recorded.bodies) == before + 1, "each call is one event"
    assert dict(faults.counts) == {}
    with pytest.MonkeyPatch.context() as patch:
        for owner in (openai.OpenAI, openai.AsyncOpenAI):
            for name in ("request", "_process_response"):
                if name in vars(owner):
                    patch.delattr(owner, name)
        yield outcome(call)


HTTP = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@HTTP
@given(body=JSON | changed(replies.CHAT))
def test_any_chat(body: Any, provider: Provider, meter: Meter) -> None:
    """The application gets what it would get without us, whatever the server answers."""
    provider.answer("/v1/chat/completions", Reply(content=json.dumps(body).encode()))
    with client(provider) as sync:
        create = sync.chat.completions.create
        observed, bare = both(meter, lambda: create(model="m", messages=MESSAGES))  # pyright: ignore[reportArgumentType, reportUnknownLambdaType, reportCallIssue]
    assert observed == bare


@HTTP
@given(chunks=st.lists(JSON | changed(replies.chat_chunks()[1]), max_size=4))
def test_any_chat_stream(chunks: list[Any], provider: Provider, meter: Meter) -> None:
    """The application reads the chunks that it would read without us, whatever is in them."""
    events = [json.dumps(chunk) for chunk in chunks]
    provider.answer("/v1/chat/completions", Reply(events=events))
    with client(provider) as sync:
        create: Any = sync.chat.completions.create
        observed, bare = both(
            meter, lambda: list(create(model="m", messages=MESSAGES, stream=True))
        )
    assert observed == bare


if VERSION >= (1, 66):

    @HTTP
    @given(events=st.lists(changed(replies.response_events()[-1]), max_size=3))
    def test_any_response_stream(
        events: list[dict[str, Any]], provider: Provider, meter: Meter
    ) -> None:
        """The events of a response arrive as they would without us."""
        provider.answer("/v1/responses", Reply(events=[json.dumps(event) for event in events]))
        with client(provider) as sync:
            create: Any = sync.responses.create
            observed, bare = both(meter, lambda: list(create(model="m", input="x", stream=True)))
        assert observed == bare


def test_a_stream_of_ten_thousand_chunks(provider: Provider, meter: Meter) -> None:
    """A long stream is read to its end, is one event, and nothing of it is kept."""
    first, piece, *_, last = replies.chat_chunks()
    provider.answer(
        "/v1/chat/completions", Reply(events=[first, *([json.dumps(piece)] * 10_000), last])
    )
    with client(provider) as sync:
        create: Any = sync.chat.completions.create
        assert sum(1 for _ in create(model="m", messages=MESSAGES, stream=True)) == 10_002
    (event,) = meter.events()
    assert (event["metadata"]["usage_status"], event["total_tokens"]) == ("reported", 29)


def test_ids_that_are_null_or_repeated(provider: Provider, meter: Meter) -> None:
    """A response id proves nothing: two calls with one id, or none, are two charges."""
    for response_id in ("chatcmpl-1", "chatcmpl-1", None, None):
        provider.answer("/v1/chat/completions", Reply(json={**replies.CHAT, "id": response_id}))
        with client(provider) as sync:
            create: Any = sync.chat.completions.create
            create(model="m", messages=MESSAGES)
    assert [event["metadata"]["response_id"] for event in meter.events()] == [
        "chatcmpl-1",
        "chatcmpl-1",
        None,
        None,
    ]
