"""The instrumentor: on and off without a trace, harmless whatever fails, and independent of every telemetry setting."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import openai
import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult

import opentelemetry_instrumentation_cmdrdata
from cmdrdata_exporter import CmdrDataSpanExporter, ConfigurationError, customer_context, faults
from opentelemetry_instrumentation_cmdrdata import (
    CmdrDataInstrumentor,
    call,
    charges,
    ending,
    open_calls,
    random_ids,
    recorder,
    spans,
)
from opentelemetry_instrumentation_cmdrdata.openai import (
    answers,
    keywords,
    observation,
    parameters,
    seam,
    usage,
)
from opentelemetry_instrumentation_cmdrdata.openai.providers import provider_of
from tests import replies
from tests.charges import MESSAGES
from tests.metering import Meter, RecordedEvents, attributes
from tests.provider import Provider, Reply
from tests.sdk import FORMS, VERSION, async_client, client, make

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


def the_classes() -> list[dict[str, Any]]:
    """Return what the patched classes hold themselves."""
    return [dict(vars(owner)) for owner in (openai.OpenAI, openai.AsyncOpenAI, openai.AzureOpenAI)]


def span_id(span: ReadableSpan) -> int:
    """Return the id of a span that has ended."""
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def chat(sdk: openai.OpenAI) -> Any:
    """Make a call."""
    completions: Any = sdk.chat.completions
    return completions.create(**ARGUMENTS)


def test_instrument_uninstrument_instrument(provider: Provider, events: RecordedEvents) -> None:
    """The SDK's classes are as before after every round; a client made before is observed while it is on, once."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    before = the_classes()
    instrumentor = CmdrDataInstrumentor()
    exporter = CmdrDataSpanExporter(delivery=events)
    with client(provider) as early:
        for made in (1, 2):
            instrumentor.instrument(exporter=exporter)
            chat(early)
            instrumentor.uninstrument()
            chat(early)
            assert len(events.bodies) == made
            assert the_classes() == before


def test_instrument_twice(
    provider: Provider, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    """A second `instrument` changes nothing and says so."""
    patched = the_classes()
    with caplog.at_level(logging.WARNING):
        CmdrDataInstrumentor().instrument()
    assert "already instrumented" in caplog.text
    assert the_classes() == patched
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as sdk:
        chat(sdk)
    assert (len(meter.spans()), len(meter.events())) == (1, 1)


def test_patched_functions_look_the_same(meter: Meter) -> None:
    """Name, signature and kind of a patched function are those of the original."""
    patched_methods = [
        (owner, name)
        for owner in (openai.OpenAI, openai.AsyncOpenAI)
        for name in seam.METHODS
        if hasattr(owner, name)
    ]
    assert len(patched_methods) >= 4
    for owner, name in patched_methods:
        patched, original = vars(owner)[name], inspect.unwrap(vars(owner)[name])
        assert patched is not original
        assert patched.__name__ == original.__name__ == name
        assert inspect.signature(patched) == inspect.signature(original)
        assert inspect.iscoroutinefunction(patched) == inspect.iscoroutinefunction(original)


@pytest.mark.parametrize("world", ["sync", "async"])
def test_calls_that_are_not_metered(world: str, provider: Provider, meter: Meter) -> None:
    """A path that is no row of the table passes through without a span or an event."""
    provider.answer("/v1/models", Reply(json={"object": "list", "data": []}))
    if world == "sync":
        with client(provider) as sdk:
            assert list(sdk.models.list()) == []
    else:
        import asyncio

        async def run() -> None:
            async with async_client(provider) as sdk:
                assert [model async for model in sdk.models.list()] == []

        asyncio.run(run())
    assert (meter.spans(), meter.events()) == ([], [])


# What may fail on our way: where it is looked up, and what it is called there.
WAYS: list[tuple[object, str]] = [
    (observation, "observed_stream_cls"),
    (observation, "attach"),
    (observation, "watch"),
    (observation, "provider_of"),
    (observation, "find"),
    (observation, "_body_of"),
    (call, "request_attributes"),
    (call, "os"),
    (recorder, "is_instrumentation_enabled"),
    (call, "EndedCall"),
    (charges, "usage_event"),
    (charges, "usage_status"),
    (spans, "start_attributes"),
    (spans, "answer_attributes"),
    (random_ids.RandomIds, "take"),
    (ending, "Status"),
    (ending.failures, "scrubbed"),
    (ending.failures, "status_code"),
    (open_calls, "weakref"),
    (open_calls, "keep"),
    (call.Call, "event"),
    (ending.failures, "qualified_name"),
    (keywords, "current"),
    (call.time, "perf_counter_ns"),
    (usage, "fields"),
    (answers, "count"),
    (answers, "fields"),
    (answers, "items"),
    (answers, "read_usage"),
    (parameters, "PARAMETERS"),
    (trace, "set_span_in_context"),
    (trace, "get_current_span"),
    (trace.NonRecordingSpan, "get_span_context"),
    (CmdrDataSpanExporter, "charge"),
    (opentelemetry_instrumentation_cmdrdata, "current_exporter"),
    (RecordedEvents, "record"),
]


def failing(*_: object, **__: object) -> Any:
    """Fail as nobody expects."""
    raise RuntimeError("a fault of ours")


class Broken:
    """Fails at whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("a fault of ours")

    def __call__(self, *_: object, **__: object) -> Any:
        """Fail."""
        raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(
    ("owner", "name"),
    WAYS,
    ids=[f"{getattr(owner, '__name__', owner)}.{name}" for owner, name in WAYS],
)
def test_whatever_fails_on_our_way(
    owner: object, name: str, provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each function on the way of a call may raise, and the application gets what it would have got without us."""
    CmdrDataInstrumentor().uninstrument()

    def outcomes() -> list[Any]:
        found: list[Any] = []
        for form in FORMS:
            reply = (
                Reply(events=replies.chat_chunks()) if form.streaming else Reply(json=replies.CHAT)
            )
            for world in ("sync", "async"):
                provider.answer(CHAT, reply)
                found.append(
                    make(world, provider, "chat.completions.create", form, dict(ARGUMENTS))
                )
                provider.answer(CHAT, Reply(status=400, json=replies.REFUSAL))
                with pytest.raises(openai.BadRequestError) as raised:
                    make(world, provider, "chat.completions.create", form, dict(ARGUMENTS))
                found.append(str(raised.value))
        return found

    bare = outcomes()
    CmdrDataSpanExporter(delivery=meter.recorded)  # Built last, so it meters.
    CmdrDataInstrumentor().instrument(tracer_provider=TracerProvider())
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, Broken() if name in ("os", "weakref") else failing)
        assert outcomes() == bare
    assert faults.counts, "what was made to fail was not on the way"
    faults.counts.clear()


def test_a_span_processor_that_fails(provider: Provider, events: RecordedEvents) -> None:
    """A tracer of the application that raises costs its span, not the answer and not the event."""

    class Failing(TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            return Broken()

    CmdrDataInstrumentor().instrument(
        tracer_provider=Failing(), exporter=CmdrDataSpanExporter(delivery=events)
    )
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as sdk:
        assert chat(sdk).choices[0].message.content == "hello"
    CmdrDataInstrumentor().uninstrument()
    assert len(events.bodies) == 1
    faults.counts.clear()


def test_a_fault_is_logged_once(
    provider: Provider,
    meter: Meter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of ours is counted each time and logged once per kind."""
    monkeypatch.setattr(RecordedEvents, "record", failing)
    provider.answer(CHAT, Reply(json=replies.CHAT))
    logged = caplog.at_level(logging.WARNING, "cmdrdata")
    with client(provider) as sdk, logged, customer_context("acme"):
        chat(sdk)
        chat(sdk)
    kind = "the record of a charge"
    assert dict(faults.counts) == {kind: 2}
    assert [record.getMessage() for record in caplog.records] == [
        f"CmdrData failed in {kind}; the application goes on (further ones of this kind are only counted)"
    ]
    faults.counts.clear()


class Half(Sampler):
    """Records without sampling."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        """Record only."""
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        """Say what this is."""
        return "half"


def no_provider() -> None:
    """No OpenTelemetry SDK at all."""


def sampled_out() -> TracerProvider:
    """Make a provider that samples nothing."""
    return TracerProvider(sampler=ALWAYS_OFF)


def recorded_only() -> TracerProvider:
    """Make a provider that records without sampling."""
    return TracerProvider(sampler=Half())


def limited() -> TracerProvider:
    """Make a provider that keeps one attribute of three characters."""
    return TracerProvider(span_limits=SpanLimits(max_span_attributes=1, max_attribute_length=3))


@pytest.mark.parametrize("make_provider", [no_provider, sampled_out, recorded_only, limited])
@pytest.mark.parametrize("suppressed", [False, True])
def test_no_telemetry_setting_changes_the_bill(
    make_provider: Callable[[], TracerProvider | None],
    suppressed: bool,
    provider: Provider,
    events: RecordedEvents,
) -> None:
    """Samplers, limits, suppression and the lack of an SDK change spans, never events."""
    CmdrDataInstrumentor().instrument(
        tracer_provider=make_provider(), exporter=CmdrDataSpanExporter(delivery=events)
    )
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as sdk, customer_context("a-customer"):
        if suppressed:
            with suppress_instrumentation():
                chat(sdk)
        else:
            chat(sdk)
    CmdrDataInstrumentor().uninstrument()
    (event,) = events.wire
    assert (event["customer_id"], event["model"], event["total_tokens"]) == (
        "a-customer",
        "gpt-4o-mini-2024-07-18",
        29,
    )
    assert int(event["metadata"]["trace_id"], 16)
    assert int(event["metadata"]["span_id"], 16)


def test_the_ids_of_span_and_event(provider: Provider, meter: Meter) -> None:
    """The event has the ids of its span, which is a child of the span around it; event ids are random of their own."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    parent = trace.NonRecordingSpan(
        trace.SpanContext(0xABCDEF, 0x123456, is_remote=True, trace_flags=trace.TraceFlags(1))
    )
    token = otel_context.attach(trace.set_span_in_context(parent))
    with client(provider) as sdk:
        chat(sdk)
        chat(sdk)
    otel_context.detach(token)
    spans = meter.spans()
    assert [span.parent and span.parent.span_id for span in spans] == [0x123456] * 2
    wire = meter.recorded.wire
    assert [(event["metadata"]["trace_id"], event["metadata"]["span_id"]) for event in wire] == [
        (f"{0xABCDEF:032x}", f"{span_id(span):016x}") for span in spans
    ]
    assert len({event["request"]["id"] for event in wire}) == 2


def test_ids_without_an_sdk(provider: Provider, events: RecordedEvents) -> None:
    """Without an SDK the event continues the trace of its parent with a span id of its own."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    CmdrDataInstrumentor().instrument(
        tracer_provider=trace.NoOpTracerProvider(), exporter=CmdrDataSpanExporter(delivery=events)
    )
    parent = trace.NonRecordingSpan(trace.SpanContext(0xABCDEF, 0x123456, is_remote=True))
    token = otel_context.attach(trace.set_span_in_context(parent))
    with client(provider) as sdk:
        chat(sdk)
    otel_context.detach(token)
    with client(provider) as sdk:
        chat(sdk)
    CmdrDataInstrumentor().uninstrument()
    ids = [(event["metadata"]["trace_id"], event["metadata"]["span_id"]) for event in events.wire]
    assert ids[0][0] == f"{0xABCDEF:032x}"
    assert ids[0][1] != f"{0x123456:016x}"
    assert ids[1][0] not in (ids[0][0], "0" * 32)


def test_sampling_sees_what_it_needs(provider: Provider, events: RecordedEvents) -> None:
    """What the conventions mark as relevant for sampling is there when the span starts."""
    seen: dict[str, Any] = {}

    class Watching(Half):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            """Keep the attributes it is shown."""
            found: dict[str, Any] = kwargs.get("attributes") or (args[4] if len(args) > 4 else {})
            seen.update(found)
            return super().should_sample()

    CmdrDataInstrumentor().instrument(
        tracer_provider=TracerProvider(sampler=Watching()),
        exporter=CmdrDataSpanExporter(delivery=events),
    )
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as sdk:
        chat(sdk)
    CmdrDataInstrumentor().uninstrument()
    assert seen == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "server.address": "127.0.0.1",
        "server.port": provider.port,
        "openai.api.type": "chat_completions",
    }


def test_the_request_runs_inside_the_span(provider: Provider, events: RecordedEvents) -> None:
    """Spans of HTTP instrumentations are children of ours; nothing of the context is left behind."""
    exported = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exported))
    CmdrDataInstrumentor().instrument(
        tracer_provider=tracer_provider, exporter=CmdrDataSpanExporter(delivery=events)
    )
    provider.answer(CHAT, Reply(json=replies.CHAT))
    before = otel_context.get_current()

    class Observed(openai.OpenAI):
        def _prepare_request(self, request: Any) -> None:
            tracer_provider.get_tracer("http").start_span("POST").end()

    with Observed(base_url=provider.url, api_key="sk-test") as sdk:
        chat(sdk)
    CmdrDataInstrumentor().uninstrument()
    http, span = exported.get_finished_spans()
    assert http.parent is not None
    assert http.parent.span_id == span_id(span)
    assert otel_context.get_current() == before
    assert call.running.get() is None


@pytest.mark.parametrize("world", ["sync", "async"])
def test_the_customer_is_settled_when_the_call_starts(
    world: str, provider: Provider, meter: Meter
) -> None:
    """A stream belongs to the customer of the moment it was asked for, wherever it is read."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    if world == "sync":
        with client(provider) as sdk:
            with customer_context("acme", plan="pro"):
                stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
            with customer_context("somebody else"):
                list(stream)
    else:
        import asyncio

        async def run() -> None:
            async with async_client(provider) as sdk:
                with customer_context("acme", plan="pro"):
                    stream = await sdk.chat.completions.create(stream=True, **ARGUMENTS)
                with customer_context("somebody else"):
                    _ = [chunk async for chunk in stream]

        asyncio.run(run())
    (event,) = meter.events()
    assert (event["customer_id"], event["metadata"]["plan"]) == ("acme", "pro")
    (span,) = meter.spans()
    assert {k: v for k, v in attributes(span).items() if k.startswith("cmdrdata.")} == {
        "cmdrdata.customer.id": "acme",
        "cmdrdata.metadata.plan": "pro",
    }
    assert meter.recorded.headers[0].customer == "acme"


def test_an_unusable_customer(provider: Provider, events: RecordedEvents) -> None:
    """An id that cannot be billed never fails the call; its event belongs to nobody, not to the default customer."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    exporter = CmdrDataSpanExporter(customer_id="default", delivery=events)
    CmdrDataInstrumentor().instrument(exporter=exporter)
    try:
        with client(provider) as sdk:
            chat(sdk)
            with customer_context("a\r\nb", plan="pro"):
                chat(sdk)
    finally:
        CmdrDataInstrumentor().uninstrument()
    assert [event["customer_id"] for event in events.wire] == ["default", None]
    assert [header.customer for header in events.headers] == ["default", None]
    assert events.wire[1]["metadata"]["plan"] == "pro"
    assert dict(faults.counts) == {"customer id holds control characters": 1}
    faults.counts.clear()


@pytest.mark.parametrize("world", ["sync", "async"])
def test_azure(world: str, provider: Provider, meter: Meter) -> None:
    """A call through an Azure client says so; the deployment is the request's model, the served model is billed."""
    provider.answer("/openai/deployments/my-deployment/chat/completions", Reply(json=replies.CHAT))
    options: dict[str, Any] = {
        "azure_endpoint": f"http://127.0.0.1:{provider.port}",
        "api_key": "azure",
        "api_version": "2024-10-21",
    }
    if world == "sync":
        with openai.AzureOpenAI(**options) as sdk:
            sdk.chat.completions.create(model="my-deployment", messages=[])
    else:
        import asyncio

        async def run() -> None:
            async with openai.AsyncAzureOpenAI(**options) as sdk:
                await sdk.chat.completions.create(model="my-deployment", messages=[])

        asyncio.run(run())
    (span,) = meter.spans()
    assert span.name == "chat my-deployment"
    assert attributes(span)["gen_ai.provider.name"] == "azure.ai.openai"
    (event,) = meter.events()
    assert (event["provider"], event["model"], event["metadata"]["request_model"]) == (
        "azure.ai.openai",
        "gpt-4o-mini-2024-07-18",
        "my-deployment",
    )


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("api.openai.com", "openai"),
        ("eu.api.openai.com", "openai"),
        ("mine.openai.azure.com", "azure.ai.openai"),
        ("mine.services.ai.azure.com", "azure.ai.openai"),
        ("mine.cognitiveservices.azure.com", "azure.ai.openai"),
        ("mine.openai.azure.us", "azure.ai.openai"),
        ("mine.services.ai.azure.us", "azure.ai.openai"),
        ("mine.cognitiveservices.azure.cn", "azure.ai.openai"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock"),
        ("bedrock-mantle.eu-west-1.api.aws", "aws.bedrock"),
        ("s3.amazonaws.com", "openai"),
        ("us-central1-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("generativelanguage.googleapis.com", "gcp.gemini"),
        ("api.groq.com", "groq"),
        ("api.deepseek.com", "deepseek"),
        ("api.mistral.ai", "mistral_ai"),
        ("api.x.ai", "x_ai"),
        ("api.perplexity.ai", "perplexity"),
        ("openrouter.ai", "openai"),
        ("localhost", "openai"),
        ("api.groq.com.evil.example", "openai"),
    ],
)
def test_providers(host: str, expected: str) -> None:
    """The provider is told by the host, whole names only."""
    assert provider_of(host) == expected


# Since which version a success tells how often the SDK tried, and a failure does.
TELLS_RETRIES = VERSION >= (1, 50)


def at_once(*_: object, **__: object) -> float:
    """Wait next to nothing before the next attempt."""
    return 0.001


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_retries(
    world: str, form: Any, provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that the SDK retried is one call, which tells how often it was tried again."""
    for owner in (openai._base_client.SyncAPIClient, openai._base_client.AsyncAPIClient):
        name = "_calculate_retry_timeout"
        monkeypatch.setattr(owner, name, at_once)
    overloaded = Reply(status=503, json={"error": {"message": "overloaded"}})
    good = Reply(events=replies.chat_chunks()) if form.streaming else Reply(json=replies.CHAT)
    provider.answer(CHAT, overloaded, good)
    make(world, provider, "chat.completions.create", form, ARGUMENTS, max_retries=2)
    provider.answer(CHAT, overloaded)
    with pytest.raises(openai.InternalServerError):
        make(world, provider, "chat.completions.create", form, ARGUMENTS, max_retries=2)
    assert len(provider.requests) == 5
    assert [event["request"]["retry_count"] for event in meter.events()] == (
        [1, 2] if TELLS_RETRIES else [0, 0]
    )
    assert [event["error"]["type"] for event in meter.events()] == [None, "server_error"]


def test_a_request_without_an_answer(provider: Provider, meter: Meter) -> None:
    """A request that never got an answer may have been charged: its usage is missing, not zero."""
    provider.answer(CHAT, Reply(silent=True))
    with client(provider, timeout=0.5) as sdk, pytest.raises(openai.APITimeoutError):
        chat(sdk)
    (event,) = meter.events()
    assert (event["error"]["type"], event["error"]["code"]) == ("timeout", None)
    assert event["metadata"]["usage_status"] == "missing"


def test_wrong_settings_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that cannot be used is refused when instrumenting, not at the first call, and nothing is patched."""
    before = the_classes()
    monkeypatch.setenv("CMDRDATA_API_KEY", "short")
    with pytest.raises(ConfigurationError, match="CMDRDATA_API_KEY has 5 characters"):
        CmdrDataInstrumentor().instrument()
    assert the_classes() == before
    assert not CmdrDataInstrumentor().is_instrumented_by_opentelemetry


def test_without_openai(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without the SDK there is nothing to do, and the log says how to get it."""
    monkeypatch.setattr(opentelemetry_instrumentation_cmdrdata, "_openai_version", lambda: None)
    CmdrDataInstrumentor().instrument()
    assert not CmdrDataInstrumentor().is_instrumented_by_opentelemetry
    assert [record.getMessage() for record in caplog.records] == [
        "openai is not installed in this environment, so there is nothing to instrument; install it with: "
        "pip install 'openai>=1.0.0'"
    ]


@pytest.mark.parametrize(
    ("version", "warned"),
    [
        ("1.0.0", False),
        ("2.54.0", False),
        ("3.99.1", False),
        ("4.0.0", True),
        ("0.28.1", True),
        ("odd", True),
    ],
)
def test_untested_versions(
    version: str, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A version older than tested or newer than known works, with one warning."""
    monkeypatch.setattr(opentelemetry_instrumentation_cmdrdata, "_openai_version", lambda: version)
    CmdrDataInstrumentor().instrument(skip_dep_check=True)
    CmdrDataInstrumentor().uninstrument()
    warnings = [
        record.getMessage()
        for record in caplog.records
        if "is not among the versions" in record.getMessage()
    ]
    assert len(warnings) == warned


def test_dependencies() -> None:
    """OpenTelemetry's tools learn what is instrumented."""
    assert tuple(CmdrDataInstrumentor().instrumentation_dependencies()) == ("openai >= 1.0.0",)
