"""
What is compared: each contender, with what installs it into the process that measures it.

All get the same `TracerProvider`, which drops the spans, and none records content.
Ours record into a spool directory of their own, below `CMDRDATA_SPOOL_DIR`, as an application does. Which process
drains it, and what its backend does, is part of the contender.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ours
from openai import AsyncOpenAI, OpenAI
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import NoOpTracerProvider

from cmdrdata_exporter import set_customer_context


class _Spans(SpanProcessor):
    """Counts the spans that end, and drops them."""

    count = 0

    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002 - the base's
        self.count += 1


@dataclass
class Installed:
    """A contender at work."""

    recorded: Callable[[], int]
    """How many calls were recorded so far."""
    client: Callable[..., Any] = OpenAI
    async_client: Callable[..., Any] = AsyncOpenAI
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of a call beside the SDK's own."""
    settle: Callable[[], object] = lambda: None
    """Waits for what a contender does in a thread of its own, which is its cost too."""
    rest: Callable[[], object] = lambda: None
    """Waits until nothing is left to deliver."""


def _bare() -> Installed:
    return Installed(lambda: 0)


def _provider() -> tuple[TracerProvider, _Spans]:
    provider, spans = TracerProvider(), _Spans()
    provider.add_span_processor(spans)
    return provider, spans


def _floor() -> Installed:
    """Make a span with twelve attributes around each request, and nothing else."""
    provider, spans = _provider()
    tracer = provider.get_tracer("floor")
    attributes = {f"gen_ai.attribute.{number}": f"value {number}" for number in range(12)}

    class Spanned(OpenAI):
        def request(self, *args: Any, **kwargs: Any) -> Any:
            with tracer.start_as_current_span("chat gpt-4o-mini", attributes=attributes):
                request: Callable[..., Any] = super().request
                return request(*args, **kwargs)

    class AsyncSpanned(AsyncOpenAI):
        async def request(self, *args: Any, **kwargs: Any) -> Any:
            with tracer.start_as_current_span("chat gpt-4o-mini", attributes=attributes):
                request: Callable[..., Any] = super().request
                return await request(*args, **kwargs)

    return Installed(lambda: spans.count, Spanned, AsyncSpanned)


def _ours(*, metered: bool = True, traced: bool = True, drains: str | None = None) -> Installed:
    """
    Install this package.

    Args:
        metered: whether calls make events.
        traced: whether calls make spans.
        drains: `healthy` or `dead`, the backend that this process posts to; None: this process never drains.
    """
    os.environ["CMDRDATA_ENABLED"] = str(metered).lower()
    instrumentation = importlib.import_module("opentelemetry_instrumentation_cmdrdata")
    provider, spans = _provider()
    set_customer_context("acme")
    endpoints = {
        "healthy": os.environ["BENCHMARK_BACKEND"],
        "dead": ours.DEAD,
        None: ours.ELSEWHERE,
    }
    exporter = ours.exporter(
        os.environ["CMDRDATA_SPOOL_DIR"],
        endpoints[drains],
        account=f"benchmark-{os.getpid()}",
        drains=drains is not None,
    )
    instrumentation.CmdrDataInstrumentor().instrument(
        tracer_provider=provider if traced else NoOpTracerProvider(), exporter=exporter
    )
    return Installed(
        lambda: ours.recorded(exporter) if metered else spans.count,
        rest=exporter.force_flush if drains == "healthy" else lambda: None,
    )


def _with_json() -> Installed:
    """Install ours without spans, as where orjson is not installed."""
    ours.without_orjson()
    return _ours(traced=False)


def _with_content() -> Installed:
    """Install ours with content on the spans."""
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"
    return _ours()


def _with_metrics() -> Installed:
    """Install ours with a MeterProvider, which aggregates in memory and is never read meanwhile."""
    from opentelemetry.metrics import set_meter_provider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    return _ours()


def _theirs(module: str) -> Installed:
    """Install another instrumentation, which keeps content to itself as ours does."""
    os.environ["TRACELOOP_TRACE_CONTENT"] = "false"
    os.environ["OPENINFERENCE_HIDE_INPUTS"] = os.environ["OPENINFERENCE_HIDE_OUTPUTS"] = "true"
    provider, spans = _provider()
    importlib.import_module(module).OpenAIInstrumentor().instrument(tracer_provider=provider)
    return Installed(lambda: spans.count)


def _predecessor() -> Installed:
    """Install the clients of cmdrdata-openai, whose posts are answered from memory too."""
    httpx = importlib.import_module("httpx")
    package = importlib.import_module("cmdrdata_openai")
    tracker: Any = importlib.import_module("cmdrdata_openai.tracker")
    posts: list[None] = []

    def post(_: Any) -> Any:
        posts.append(None)
        return httpx.Response(200)

    memory = httpx.MockTransport(post)
    tracker.httpx = type(
        "httpx",
        (),
        {
            "Client": functools.partial(httpx.Client, transport=memory),
            "AsyncClient": functools.partial(httpx.AsyncClient, transport=memory),
        },
    )
    key = {"tracker_key": "tk-0123456789abcdefghij"}
    trackers: list[Any] = []

    def client(**arguments: Any) -> Any:
        made = package.TrackedOpenAI(**key, **arguments)
        trackers.append(made.get_tracker())
        return made

    def settle() -> None:
        for each in trackers:
            each._executor.submit(int).result()  # noqa: SLF001 - it has no other way to wait

    return Installed(
        lambda: len(posts),
        client,
        functools.partial(package.AsyncTrackedOpenAI, **key),
        # Its `set_customer_context` has no effect.
        {"customer_id": "acme"},
        settle,
    )


BARE, FLOOR = "openai alone", "one span"
OURS, OFFICIAL = "CmdrData: span and event", "official 1.3b0"
UNTRACED = "CmdrData: event only"
HEALTHY, DOWN = "CmdrData: and delivers", "CmdrData: backend is down"

CONTENDERS: dict[str, Callable[[], Installed]] = {
    BARE: _bare,
    FLOOR: _floor,
    "CmdrData: span only": functools.partial(_ours, metered=False),
    UNTRACED: functools.partial(_ours, traced=False),
    OURS: _ours,
    "CmdrData: without orjson": _with_json,
    "CmdrData: and content": _with_content,
    "CmdrData: and metrics": _with_metrics,
    OFFICIAL: functools.partial(_theirs, "opentelemetry.instrumentation.genai.openai"),
    "OpenInference": functools.partial(_theirs, "openinference.instrumentation.openai"),
    "OpenLLMetry": functools.partial(_theirs, "opentelemetry.instrumentation.openai"),
    "cmdrdata-openai": _predecessor,
}
"""What is compared call by call: nobody drains meanwhile, so that each turn is the call's own cost."""

DELIVERING: dict[str, Callable[[], Installed]] = {
    HEALTHY: functools.partial(_ours, drains="healthy"),
    DOWN: functools.partial(_ours, drains="dead"),
}
"""Ours, with the drainer at work in a thread of the same process."""
