"""What the application does with tracing decides nothing about what is billed; and what is on the disk is nobody's."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Generator
from typing import Any

import openai
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    DEFAULT_ON,
    Decision,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests import replies, sdk
from tests.faults.hosts import KEY, Host
from tests.faults.oracle import Reply as Answer
from tests.files import contents
from tests.provider import Provider, Reply

CHAT = "/v1/chat/completions"
PROMPT = "the prompt that nobody else may read"
ANSWER = "the answer that nobody else may read"


class RecordOnly(Sampler):
    """Records every span and exports none."""

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        """Record it."""
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        """Return its name."""
        return "RecordOnly"


def unsampled_parent() -> contextlib.AbstractContextManager[Any]:
    """Return the context of a request that its caller did not sample."""
    context = trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0))
    return trace.use_span(trace.NonRecordingSpan(context))


WAYS: dict[
    str,
    tuple[Callable[[], trace.TracerProvider], Callable[[], contextlib.AbstractContextManager[Any]]],
] = {
    "all sampled": (TracerProvider, contextlib.nullcontext),
    "one in ten sampled": (
        lambda: TracerProvider(sampler=TraceIdRatioBased(0.1)),
        contextlib.nullcontext,
    ),
    "none sampled": (lambda: TracerProvider(sampler=ALWAYS_OFF), contextlib.nullcontext),
    "unsampled parent": (lambda: TracerProvider(sampler=DEFAULT_ON), unsampled_parent),
    "recorded only": (lambda: TracerProvider(sampler=RecordOnly()), contextlib.nullcontext),
    "no provider": (trace.ProxyTracerProvider, contextlib.nullcontext),
    "no tracing": (trace.NoOpTracerProvider, contextlib.nullcontext),
    "suppressed": (TracerProvider, suppress_instrumentation),
}


@contextlib.contextmanager
def metered(host: Host, tracer_provider: trace.TracerProvider) -> Generator[None]:
    """Meter the calls of this process into the host's spool directory."""
    exporter = CmdrDataSpanExporter(
        KEY, host.oracle.url, account="default", customer_id="acme", spool_dir=host.spool
    )
    instrumentor = CmdrDataInstrumentor()
    instrumentor.instrument(tracer_provider=tracer_provider, exporter=exporter)
    try:
        yield
    finally:
        instrumentor.uninstrument()
        assert exporter.force_flush(10_000)
        exporter.shutdown()


@pytest.mark.parametrize("way", WAYS)
def test_tracing(host: Host, provider: Provider, way: str) -> None:
    """Whatever is sampled, suppressed or switched off, every call is billed."""
    make, surroundings = WAYS[way]
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with metered(host, make()), sdk.client(provider) as client, surroundings():
        for _ in range(20):
            client.chat.completions.create(model="gpt-4o-mini", messages=[])
    assert (20, 0) == (len(host.oracle.keys), host.oracle.duplicates)


def test_tracing_switched_off(
    host: Host, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment switches the OpenTelemetry SDK off, every call is billed."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    test_tracing(host, provider, "all sampled")


def test_no_spans_of_our_own(host: Host, provider: Provider) -> None:
    """Our own requests make no spans, and carry nothing of the caller's trace."""
    spans = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with metered(host, tracer_provider), sdk.client(provider) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=[])
    assert ["chat gpt-4o-mini"] == [span.name for span in spans.get_finished_spans()]
    (request,) = host.oracle.requests
    assert [] == [name for name in request.headers if name in ("traceparent", "baggage")]


def test_secrets(host: Host, provider: Provider) -> None:
    """Neither a key nor content is in the spool directory, whatever went wrong; nobody else may look into it."""
    chat = {**replies.CHAT, "choices": [{**replies.CHAT["choices"][0]}]}
    chat["choices"][0]["message"] = {"role": "assistant", "content": ANSWER}
    # The message of an error is part of the event, as the provider puts it, but for keys.
    error = {"error": {"message": f"Incorrect key: {KEY}", "type": "invalid_request_error"}}
    provider.answer(
        CHAT,
        Reply(json=chat),
        Reply(json=error, status=400),
        Reply(json=error, status=500),
        Reply(events=[*replies.chat_chunks()][:2], cut_after=1),
    )
    # Everything stays: refused, or to be tried again.
    host.oracle.answer = lambda request: Answer(
        400 if request.attempt else 503, body=f"{KEY} is not what it was".encode()
    )
    exporter = CmdrDataSpanExporter(
        KEY, host.oracle.url, account="default", customer_id="acme", spool_dir=host.spool
    )
    instrumentor = CmdrDataInstrumentor()
    instrumentor.instrument(tracer_provider=TracerProvider(), exporter=exporter)
    messages: Any = [{"role": "user", "content": PROMPT}]
    try:
        with sdk.client(provider) as client:
            for stream in (False, False, False, True):
                with contextlib.suppress(openai.OpenAIError, Exception):
                    made: Any = client.chat.completions.create(
                        model="gpt-4o-mini", messages=messages, stream=stream, user=PROMPT
                    )
                    list(made if stream else [])
    finally:
        instrumentor.uninstrument()
    host.oracle.wait_for_requests(2)
    for phase in ("recorded", "ended"):
        if phase == "ended":
            exporter.shutdown()
        content = contents(host.spool)
        assert 3 <= len(content)
        for secret in (KEY, PROMPT, ANSWER):
            assert [] == [path for path, found in content.items() if secret.encode() in found]
        paths = [host.spool, *host.spool.rglob("*")]
        assert [0o700 if path.is_dir() else 0o600 for path in paths] == [
            stat.S_IMODE(path.lstat().st_mode) for path in paths
        ]
