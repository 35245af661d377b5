"""The metrics of calls, as a reader of the application's MeterProvider gets them: whole points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from cmdrdata_exporter import CmdrDataSpanExporter, customer_context, faults
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, metrics
from tests import replies
from tests.measured import (
    BOUNDARIES,
    TAKES_BOUNDARIES,
    Measured,
    Point,
    instrumented,
    of_chat,
    of_server,
)
from tests.metering import RecordedEvents
from tests.provider import Provider, Reply
from tests.sdk import FORMS, Form, client, make

DURATION = "gen_ai.client.operation.duration"
TOKENS = "gen_ai.client.token.usage"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
FURTHER_CHUNK = "gen_ai.client.operation.time_per_output_chunk"

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
COMPLETIONS = "/v1/chat/completions"
PLAIN, RAW, STREAM = (
    next(form for form in FORMS if form.name == name) for name in ("plain", "raw", "stream")
)


@pytest.fixture
def measured() -> Iterator[Measured]:
    """Calls are measured; no span is made, since no TracerProvider is set."""
    with instrumented() as measured:
        yield measured


def tokens(attributes: dict[str, Any], **numbers: int) -> list[Point]:
    """Return the points of one call's tokens."""
    return [
        ({**attributes, "gen_ai.token.type": token_type}, 1, number)
        for token_type, number in numbers.items()
    ]


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("form", [PLAIN, RAW], ids=lambda form: form.name)
def test_a_chat(world: str, form: Form, provider: Provider, measured: Measured) -> None:
    """A chat is one duration, and its tokens of each type."""
    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    make(world, provider, "chat.completions.create", form, CHAT)
    attributes = of_chat(provider)
    assert measured.points() == {
        DURATION: [(attributes, 1, 0)],
        TOKENS: tokens(attributes, input=19, output=10),
    }


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_stream(world: str, provider: Provider, measured: Measured) -> None:
    """A stream also is the time to its first chunk, and that from each of the five chunks to the next."""
    provider.answer(COMPLETIONS, Reply(events=replies.chat_chunks()))
    asking = {**CHAT, "extra_body": {"stream_options": {"include_usage": True}}}
    make(world, provider, "chat.completions.create", STREAM, asking)
    attributes = of_chat(provider)
    assert measured.points() == {
        DURATION: [(attributes, 1, 0)],
        TOKENS: tokens(attributes, input=19, output=10),
        FIRST_CHUNK: [(attributes, 1, 0)],
        FURTHER_CHUNK: [(attributes, 4, 0)],
    }


def test_chunks_that_are_alike(provider: Provider, measured: Measured) -> None:
    """Chunks that only bring a further piece of text are measured like the others."""
    head, piece, *_, last = replies.chat_chunks(usage=None)
    provider.answer(COMPLETIONS, Reply(events=[head, *[piece] * 200, last]))
    make("sync", provider, "chat.completions.create", STREAM, CHAT)
    points = measured.points()
    assert points[FURTHER_CHUNK] == [(of_chat(provider), 201, 0)]
    assert TOKENS not in points


def test_embeddings(provider: Provider, measured: Measured) -> None:
    """Embeddings have input only."""
    provider.answer("/v1/embeddings", Reply(json=replies.EMBEDDINGS))
    arguments = {"model": "text-embedding-3-small", "input": "hello"}
    make("sync", provider, "embeddings.create", PLAIN, arguments)
    attributes = {
        **of_server(provider, "embeddings"),
        "gen_ai.request.model": "text-embedding-3-small",
        "gen_ai.response.model": "text-embedding-3-small-v2",
    }
    assert measured.points() == {
        DURATION: [(attributes, 1, 0)],
        TOKENS: tokens(attributes, input=9),
    }


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


def test_an_attempt_that_is_repeated(provider: Provider, measured: Measured) -> None:
    """The SDK's repetitions are parts of one call."""
    failing = Reply(json={}, status=500, headers={"retry-after-ms": "1"})
    provider.answer(COMPLETIONS, failing, Reply(json=replies.CHAT))
    make("sync", provider, "chat.completions.create", PLAIN, CHAT, max_retries=1)
    attributes = of_chat(provider)
    assert measured.points() == {
        DURATION: [(attributes, 1, 0)],
        TOKENS: tokens(attributes, input=19, output=10),
    }


if hasattr(openai.OpenAI, "responses"):

    def test_a_response_that_is_polled(provider: Provider, measured: Measured) -> None:
        """Its start is one call. Each poll is an operation of its own, and its tokens are none of the poll's."""
        queued = {**replies.RESPONSE, "background": True, "status": "queued", "usage": None}
        done = Reply(json={**replies.RESPONSE, "background": True})
        provider.answer("/v1/responses", Reply(json=queued))
        path = f"/v1/responses/{replies.RESPONSE['id']}"
        provider.answer(path, Reply(json=queued), done, done)
        with client(provider) as sdk:
            sdk.responses.create(model="gpt-5-mini", input="hello", background=True)
            for _ in range(3):
                sdk.responses.retrieve(replies.RESPONSE["id"])
        points = measured.points()
        of_answer = {
            "gen_ai.response.model": replies.RESPONSE["model"],
            "openai.response.service_tier": replies.RESPONSE["service_tier"],
        }
        started = {**of_server(provider, "chat"), "gen_ai.request.model": "gpt-5-mini", **of_answer}
        polled = {
            **of_server(provider, "fetch_response"),
            "gen_ai.response.model": replies.RESPONSE["model"],
        }
        assert points == {DURATION: [(started, 1, 0), (polled, 3, 0)]}
        assert len(measured.events.bodies) == 1


if hasattr(openai.OpenAI, "responses"):

    def test_a_response(provider: Provider, measured: Measured) -> None:
        """A response is a chat."""
        provider.answer("/v1/responses", Reply(json=replies.RESPONSE))
        make("sync", provider, "responses.create", PLAIN, {"model": "gpt-5-mini", "input": "hello"})
        attributes = {
            **of_server(provider, "chat"),
            "gen_ai.request.model": "gpt-5-mini",
            "gen_ai.response.model": replies.RESPONSE["model"],
            "openai.response.service_tier": replies.RESPONSE["service_tier"],
        }
        usage = replies.RESPONSE["usage"]
        assert measured.points() == {
            DURATION: [(attributes, 1, 0)],
            TOKENS: tokens(attributes, input=usage["input_tokens"], output=usage["output_tokens"]),
        }


if hasattr(openai.OpenAI, "batches"):

    def test_a_batch_that_is_polled(provider: Provider, measured: Measured) -> None:
        """The conventions have no operation for polls of other jobs, so they are not measured."""
        batch: dict[str, Any] = {"id": "batch_1", "object": "batch", "status": "completed"}
        usage = {"input_tokens": 400, "output_tokens": 80, "total_tokens": 480}
        provider.answer("/v1/batches/batch_1", Reply(json={**batch, "usage": usage}))
        with client(provider) as sdk:
            for _ in range(3):
                sdk.batches.retrieve("batch_1")
        assert measured.points() == {}
        assert len(measured.events.bodies) == 1


def test_usage_that_is_missing(provider: Provider, measured: Measured) -> None:
    """Where the answer tells no usage, no tokens are measured, not even zero."""
    reply = {key: value for key, value in replies.CHAT.items() if key != "usage"}
    provider.answer(COMPLETIONS, Reply(json=reply))
    make("sync", provider, "chat.completions.create", PLAIN, CHAT)
    assert measured.points() == {DURATION: [(of_chat(provider), 1, 0)]}


def test_a_sampler_that_drops_the_span(provider: Provider) -> None:
    """What is not sampled is measured all the same."""
    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    with instrumented(tracer_provider=TracerProvider(sampler=ALWAYS_OFF)) as measured:
        make("sync", provider, "chat.completions.create", PLAIN, CHAT)
        attributes = of_chat(provider)
        assert measured.points() == {
            DURATION: [(attributes, 1, 0)],
            TOKENS: tokens(attributes, input=19, output=10),
        }


@pytest.mark.parametrize("form", [PLAIN, STREAM], ids=lambda form: form.name)
def test_calls_that_are_suppressed(form: Form, provider: Provider, measured: Measured) -> None:
    """What is to make no span is not measured, and is billed all the same."""
    streamed = Reply(events=replies.chat_chunks())
    provider.answer(COMPLETIONS, streamed if form.streaming else Reply(json=replies.CHAT))
    with suppress_instrumentation():
        make("sync", provider, "chat.completions.create", form, CHAT)
    assert measured.points() == {}
    assert len(measured.events.bodies) == 1


def test_units_and_boundaries(provider: Provider, measured: Measured) -> None:
    """Each metric has the unit of the conventions, and where OpenTelemetry can be told, their boundaries."""
    provider.answer(COMPLETIONS, Reply(events=replies.chat_chunks()))
    asking = {**CHAT, "extra_body": {"stream_options": {"include_usage": True}}}
    make("sync", provider, "chat.completions.create", STREAM, asking)
    found = measured.metrics()
    units = {DURATION: "s", TOKENS: "{token}", FIRST_CHUNK: "s", FURTHER_CHUNK: "s"}
    assert units == {name: unit for name, (unit, _) in found.items()}
    if TAKES_BOUNDARIES:
        for unit, points in found.values():
            assert {tuple(point.explicit_bounds) for point in points} == {BOUNDARIES[unit]}


def never(*_: object) -> Any:
    """Fail: nobody is to call this."""
    raise AssertionError


@pytest.mark.parametrize(
    "options", [{}, {"meter_provider": NoOpMeterProvider()}], ids=["none", "no-op"]
)
@pytest.mark.parametrize("form", [PLAIN, STREAM], ids=lambda form: form.name)
def test_no_provider(
    options: dict[str, Any], form: Form, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a MeterProvider nothing is made for the metrics: no instrument, and no attributes."""
    monkeypatch.setattr(metrics, "attributes_of", never)
    monkeypatch.setattr(metrics, "Instruments", never)
    streamed = Reply(events=replies.chat_chunks())
    provider.answer(COMPLETIONS, streamed if form.streaming else Reply(json=replies.CHAT))
    with instrumented(**{"meter_provider": None, **options}) as measured:
        make("sync", provider, "chat.completions.create", form, CHAT)
        assert measured.points() == {}
        assert len(measured.events.bodies) == 1


def test_a_provider_that_is_set_later(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application may set the global MeterProvider after `instrument`: the calls from then on are measured."""
    provider.answer(COMPLETIONS, Reply(events=replies.chat_chunks(usage=None)))
    with instrumented(meter_provider=None) as measured:
        make("sync", provider, "chat.completions.create", STREAM, CHAT)
        set_now = measured.provider
        monkeypatch.setattr(metrics.metrics, "get_meter_provider", lambda: set_now)
        make("sync", provider, "chat.completions.create", STREAM, CHAT)
        attributes = of_chat(provider)
        assert measured.points() == {
            DURATION: [(attributes, 1, 0)],
            FIRST_CHUNK: [(attributes, 1, 0)],
            FURTHER_CHUNK: [(attributes, 3, 0)],
        }


def test_another_provider(provider: Provider) -> None:
    """Who instruments again measures with the provider named last; also with the first one again."""
    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    first, second = Measured(), Measured()
    providers = {"first": first.provider, "second": second.provider}
    instrumentor = CmdrDataInstrumentor()
    for name in ("first", "second", "first"):
        exporter = CmdrDataSpanExporter(delivery=RecordedEvents())
        instrumentor.instrument(meter_provider=providers[name], exporter=exporter)
        make("sync", provider, "chat.completions.create", PLAIN, CHAT)
        instrumentor.uninstrument()
    make("sync", provider, "chat.completions.create", PLAIN, CHAT)
    assert first.points()[DURATION] == [(of_chat(provider), 2, 0)]
    assert second.points()[DURATION] == [(of_chat(provider), 1, 0)]


def test_both_get_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics of the delivery go where those of the calls go."""
    reported: list[object] = []

    def report_to(_: CmdrDataSpanExporter, meter_provider: object) -> None:
        reported.append(meter_provider)

    monkeypatch.setattr(CmdrDataSpanExporter, "report_to", report_to)
    with instrumented(meter_provider=(given := MeterProvider())) as measured:
        assert reported == [given]
        assert measured.points() == {}


@pytest.mark.parametrize(
    ("setting", "customers"),
    [("true", ["acme", "default"]), ("1", ["acme", "default"]), ("false", []), ("", [])],
)
def test_the_customer(
    setting: str, customers: list[str], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The customer is on the metric of the tokens if asked for, and never on another one."""
    monkeypatch.setenv("CMDRDATA_METRICS_CUSTOMER", setting)
    monkeypatch.setenv("CMDRDATA_CUSTOMER_ID", "default")
    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    with instrumented() as measured:
        with customer_context("acme"):
            make("sync", provider, "chat.completions.create", PLAIN, CHAT)
        make("sync", provider, "chat.completions.create", PLAIN, CHAT)
        attributes = of_chat(provider)
        points = measured.points()
        assert points[DURATION] == [(attributes, 2, 0)]
        of_tokens = (
            [({**attributes, "gen_ai.token.type": kind}, 2, 2 * number) for kind, number in KINDS]
            if not customers
            else [
                point
                for customer in customers
                for point in tokens({**attributes, "cmdrdata.customer.id": customer}, **dict(KINDS))
            ]
        )
        assert points[TOKENS] == of_tokens


KINDS = (("input", 19), ("output", 10))


def test_a_call_without_a_customer(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that names nobody has no such attribute."""
    monkeypatch.setenv("CMDRDATA_METRICS_CUSTOMER", "true")
    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    with instrumented() as measured:
        make("sync", provider, "chat.completions.create", PLAIN, CHAT)
        assert measured.points()[TOKENS] == tokens(of_chat(provider), **dict(KINDS))


def test_a_provider_that_fails(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in the application's metrics reaches neither the call nor its bill."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    with instrumented() as measured:
        monkeypatch.setattr(SdkHistogram, "record", fail)
        make("sync", provider, "chat.completions.create", PLAIN, CHAT)
        assert len(measured.events.bodies) == 1
    assert dict(faults.counts) == {
        "opentelemetry_instrumentation_cmdrdata.metrics.ClientMetrics.record": 1
    }
    faults.counts.clear()


def test_an_interruption(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal handler raises while a call is measured comes out once; nothing is measured twice."""
    record = SdkHistogram.record

    def interrupted(histogram: SdkHistogram, *arguments: Any) -> None:
        record(histogram, *arguments)
        raise KeyboardInterrupt

    provider.answer(COMPLETIONS, Reply(json=replies.CHAT))
    monkeypatch.setattr(SdkHistogram, "record", interrupted)
    with instrumented() as measured:
        with pytest.raises(KeyboardInterrupt):
            make("sync", provider, "chat.completions.create", PLAIN, CHAT)
        assert measured.points() == {DURATION: [(of_chat(provider), 1, 0)]}
        assert len(measured.events.bodies) == 1
