"""The metrics of calls by the conventions' latest names: whole points, where `OTEL_SEMCONV_STABILITY_OPT_IN` asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from cmdrdata_exporter import customer_context
from opentelemetry_instrumentation_cmdrdata import measures, metrics
from tests import replies
from tests.charges import CASES, Case
from tests.measured import (
    BOUNDARIES,
    TAKES_BOUNDARIES,
    Measured,
    Point,
    instrumented,
    of_chat,
    of_server,
)
from tests.provider import Provider, Reply
from tests.sdk import FORMS, Form, client, make

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
ASKS = "gen_ai_latest_experimental"

OPERATION = "gen_ai.client.operation.duration"
DURATION = "gen_ai.client.inference.duration"
FIRST_CHUNK = "gen_ai.client.inference.time_to_first_chunk"
FURTHER_CHUNK = "gen_ai.client.inference.time_per_output_chunk"
USAGE = "gen_ai.client.inference.usage."
PER_OPERATION = "gen_ai.client.inference.operation."

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
COMPLETIONS = "/v1/chat/completions"
PLAIN, STREAM = (next(form for form in FORMS if form.name == name) for name in ("plain", "stream"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Measured]:
    """Calls are measured by the latest names."""
    monkeypatch.setenv(OPT_IN, ASKS)
    with instrumented() as measured:
        yield measured


def counted(attributes: dict[str, Any], **modalities: int) -> list[Point]:
    """Return the points of a counter."""
    return [
        ({**attributes, "gen_ai.token.modality": modality}, None, number)
        for modality, number in modalities.items()
    ]


def of_tokens(attributes: dict[str, Any]) -> dict[str, list[Point]]:
    """Return the points of the tokens of a chat, which is answered with `replies.CHAT`."""
    return {
        f"{USAGE}input_tokens": counted(attributes, unknown=19),
        f"{USAGE}output_tokens": counted(attributes, unknown=10),
        f"{USAGE}cache_read.input_tokens": counted(attributes, unknown=7),
        f"{USAGE}cache_write.input_tokens": counted(attributes, unknown=3),
        f"{USAGE}reasoning.output_tokens": counted(attributes, unknown=4),
        f"{PER_OPERATION}input_tokens": [(attributes, 1, 19)],
        f"{PER_OPERATION}output_tokens": [(attributes, 1, 10)],
    }


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_chat(world: str, provider: Provider, measured: Measured) -> None:
    """A chat is one duration, its tokens by their modality, the subsets of them, and their distribution."""
    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    make(world, provider, "chat.completions.create", PLAIN, CHAT)
    attributes = of_chat(provider)
    assert measured.points() == {DURATION: [(attributes, 1, 0)], **of_tokens(attributes)}


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_stream(world: str, provider: Provider, measured: Measured) -> None:
    """A stream also is the time to its first chunk, and that from each of the five chunks to the next."""
    provider.answer(COMPLETIONS, Reply(events=replies.chat_chunks()))
    asking = {**CHAT, "extra_body": {"stream_options": {"include_usage": True}}}
    make(world, provider, "chat.completions.create", STREAM, asking)
    attributes = of_chat(provider)
    assert measured.points() == {
        DURATION: [(attributes, 1, 0)],
        FIRST_CHUNK: [(attributes, 1, 0)],
        FURTHER_CHUNK: [(attributes, 4, 0)],
        **of_tokens(attributes),
    }


@pytest.mark.parametrize(
    ("prompt", "modalities"),
    [
        ({"text_tokens": 100, "image_tokens": 200}, {"text": 100, "image": 200}),
        ({"audio_tokens": 40}, {"audio": 40, "unknown": 260}),
        ({"text_tokens": 60, "audio_tokens": 0}, {"text": 60, "unknown": 240}),
        ({"text_tokens": 300, "image_tokens": 1}, {"unknown": 300}),
        ({}, {"unknown": 300}),
    ],
    ids=["all", "one", "zero", "more-than-all", "none"],
)
def test_modalities(
    prompt: dict[str, int], modalities: dict[str, int], provider: Provider, measured: Measured
) -> None:
    """The modalities add up to the total: what the provider assigns to none is unknown."""
    usage = {"prompt_tokens": 300, "completion_tokens": 0, "prompt_tokens_details": prompt}
    provider.answer(COMPLETIONS, Reply(json={**replies.CHAT, "usage": usage}))
    make("sync", provider, "chat.completions.create", PLAIN, CHAT)
    attributes = of_chat(provider)
    assert measured.points() == {
        DURATION: [(attributes, 1, 0)],
        f"{USAGE}input_tokens": counted(attributes, **modalities),
        f"{USAGE}output_tokens": counted(attributes, unknown=0),
        f"{PER_OPERATION}input_tokens": [(attributes, 1, 300)],
        f"{PER_OPERATION}output_tokens": [(attributes, 1, 0)],
    }


def test_usage_that_is_missing(provider: Provider, measured: Measured) -> None:
    """Where the answer tells no usage, no tokens are counted, not even zero."""
    reply = {key: value for key, value in replies.CHAT.items() if key != "usage"}
    provider.answer(COMPLETIONS, Reply(json=reply))
    make("sync", provider, "chat.completions.create", PLAIN, CHAT)
    assert measured.points() == {DURATION: [(of_chat(provider), 1, 0)]}


def test_embeddings(provider: Provider, measured: Measured) -> None:
    """Embeddings are no inference: an operation, without tokens."""
    provider.answer("/v1/embeddings", Reply(json=replies.EMBEDDINGS))
    arguments = {"model": "text-embedding-3-small", "input": "hello"}
    make("sync", provider, "embeddings.create", PLAIN, arguments)
    attributes = {
        **of_server(provider, "embeddings"),
        "gen_ai.request.model": "text-embedding-3-small",
        "gen_ai.response.model": "text-embedding-3-small-v2",
    }
    assert measured.points() == {OPERATION: [(attributes, 1, 0)]}


def test_an_error(provider: Provider, measured: Measured) -> None:
    """A call that fails is one duration that says how, and no tokens."""
    provider.answer(COMPLETIONS, Reply(json={"error": {"message": "none"}}, status=404))
    with pytest.raises(openai.NotFoundError):
        make("sync", provider, "chat.completions.create", PLAIN, CHAT)
    attributes = {
        **of_server(provider, "chat"),
        "gen_ai.request.model": "gpt-4o-mini",
        "error.type": "openai.NotFoundError",
    }
    assert measured.points() == {DURATION: [(attributes, 1, 0)]}


if hasattr(openai.OpenAI, "responses"):

    def test_a_response_that_is_fetched(provider: Provider, measured: Measured) -> None:
        """Asking for a response again is an operation, without tokens; a stream of it has no chunks of inference."""
        path = f"/v1/responses/{replies.RESPONSE['id']}"
        events = [
            {"type": "response.created", "response": replies.RESPONSE},
            {"type": "response.completed", "response": replies.RESPONSE},
        ]
        provider.answer(path, Reply(json=replies.RESPONSE), Reply(events=events))
        with client(provider) as sdk:
            sdk.responses.retrieve(replies.RESPONSE["id"])
            list(sdk.responses.retrieve(replies.RESPONSE["id"], extra_query={"stream": True}))
        attributes = {
            **of_server(provider, "fetch_response"),
            "gen_ai.response.model": replies.RESPONSE["model"],
        }
        assert measured.points() == {OPERATION: [(attributes, 2, 0)]}


if hasattr(openai.OpenAI, "batches"):

    def test_the_start_of_a_job(provider: Provider, measured: Measured) -> None:
        """What starts a job is an operation, and no inference."""
        provider.answer("/v1/batches", Reply(json={"id": "batch_1", "status": "validating"}))
        with client(provider) as sdk:
            sdk.batches.create(
                completion_window="24h", endpoint="/v1/embeddings", input_file_id="file-1"
            )
        attributes = of_server(provider, "batches")
        assert measured.points() == {OPERATION: [(attributes, 1, 0)]}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("case", "form"),
    [
        pytest.param(case, form, id=f"{case.name}-{form.name}")
        for case in CASES
        for form in case.forms[:1]
    ],
)
def test_the_sum_of_the_counters(
    case: Case, form: Form, provider: Provider, measured: Measured
) -> None:
    """The counters add up to the tokens that are billed, whatever the call; embeddings alone have none."""
    provider.answer(case.path, case.reply(form))
    make("sync", provider, case.method, form, case.arguments)
    points = measured.points()
    [event] = measured.events.wire
    for kind in ("input_tokens", "output_tokens"):
        billed = 0 if case.operation == "embeddings" else event[kind]
        assert billed == sum(number for _, _, number in points.get(f"{USAGE}{kind}", []))
    assert [1] == [count for _, count, _ in [*points.get(DURATION, []), *points.get(OPERATION, [])]]


def test_the_customer(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The customer is on every metric of tokens if asked for, and never on another one."""
    monkeypatch.setenv(OPT_IN, ASKS)
    monkeypatch.setenv("CMDRDATA_METRICS_CUSTOMER", "true")
    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    with instrumented() as measured, customer_context("acme"):
        make("sync", provider, "chat.completions.create", PLAIN, CHAT)
        attributes = of_chat(provider)
        assert measured.points() == {
            DURATION: [(attributes, 1, 0)],
            **of_tokens({**attributes, "cmdrdata.customer.id": "acme"}),
        }


@pytest.mark.parametrize(
    ("asked", "is_latest"),
    [
        (ASKS, True),
        (f"http, {ASKS} ,database", True),
        ("", False),
        ("http/dup,database", False),
        # The conventions have no such value.
        (f"{ASKS}/dup", False),
        ("gen_ai", False),
    ],
)
def test_who_asks(
    asked: str, is_latest: bool, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value of OpenTelemetry's own list asks for the latest names, in place of the others, never beside them."""
    monkeypatch.setenv(OPT_IN, asked)
    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    with instrumented() as measured:
        make("sync", provider, "chat.completions.create", PLAIN, CHAT)
        assert ({DURATION} if is_latest else {OPERATION}) == {
            name for name in measured.points() if name.endswith("duration")
        }


def test_units_and_boundaries(provider: Provider, measured: Measured) -> None:
    """Each metric has the unit of the conventions, and where OpenTelemetry can be told, their boundaries."""
    provider.answer(COMPLETIONS, Reply(events=replies.chat_chunks()))
    asking = {**CHAT, "extra_body": {"stream_options": {"include_usage": True}}}
    make("sync", provider, "chat.completions.create", STREAM, asking)
    found = measured.metrics()
    assert {name: "{token}" if "tokens" in name else "s" for name in found} == {
        name: unit for name, (unit, _) in found.items()
    }
    if TAKES_BOUNDARIES:
        for name, (unit, points) in found.items():
            if not name.startswith(USAGE):
                assert {tuple(point.explicit_bounds) for point in points} == {BOUNDARIES[unit]}


@pytest.mark.parametrize("form", [PLAIN, STREAM], ids=lambda form: form.name)
def test_no_provider(form: Form, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a MeterProvider nothing is made for the metrics, whichever are asked for."""

    def never(*_: object) -> Any:
        raise AssertionError

    monkeypatch.setenv(OPT_IN, ASKS)
    monkeypatch.setattr(metrics, "attributes_of", never)
    monkeypatch.setattr(metrics, "Instruments", never)
    monkeypatch.setattr(measures, "is_inference", never)
    streamed = Reply(events=replies.chat_chunks())
    provider.answer(COMPLETIONS, streamed if form.streaming else Reply(json=replies.CHAT))
    with instrumented(meter_provider=None) as measured:
        make("sync", provider, "chat.completions.create", form, CHAT)
        assert measured.points() == {}
        assert len(measured.events.bodies) == 1
