"""
Our spans, metrics and log records beside those of the official instrumentation, for the same calls.

They are equal but for ids, times, the scope, and `DIFFERENCES`: another difference fails, and one that is gone, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, cast

import openai
import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests.instrumentations.official_cases import CASES, Case
from tests.metering import RecordedEvents
from tests.provider import Provider
from tests.sdk import make, method_of
from tests.test_docs_tables import quoted, table

CONTENT = "SPAN_AND_EVENT"
"""What both are asked to capture, as OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says it."""

CONTENT_ATTRIBUTES = {
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
}

OFFICIAL: Any = import_module("opentelemetry.instrumentation.genai.openai")


class Difference(NamedTuple):
    """Something that the two say differently."""

    cases: tuple[str, ...]
    signals: tuple[str, ...]
    """Of `span`, `metrics` and `logs`."""
    name: str
    """Of the attribute, or of the metric that only one has."""
    theirs: Any
    """None where it is not there."""
    ours: Any
    reason: str


CHATS = (
    *("chat", "chat raw", "chat with parameters", "tool call"),
    *("stream", "stream without usage", "error", "azure"),
)
STREAMS = ("stream", "stream without usage")
RESPONSES = tuple(name for name in CASES if name.startswith("response"))
ANSWERED = tuple(name for name in RESPONSES if name != "response error")
MESSAGES = [{"role": "assistant", "parts": [{"type": "text", "content": "hello"}]}]
SPAN, TOLD, ALL = ("span",), ("span", "logs"), ("span", "metrics", "logs")
LEFT_OUT = "the conventions recommend it, and the official one leaves it out"

DIFFERENCES = (
    Difference(CHATS, TOLD, "openai.api.type", None, "chat_completions", LEFT_OUT),
    Difference(
        ("chat with parameters", "response with parameters"),
        TOLD,
        "gen_ai.request.reasoning.level",
        None,
        "low",
        LEFT_OUT,
    ),
    Difference(
        ("response with parameters",),
        TOLD,
        "gen_ai.request.previous_response.id",
        None,
        "resp_0",
        LEFT_OUT,
    ),
    Difference(STREAMS, ALL, "openai.response.system_fingerprint", None, "fp_1", LEFT_OUT),
    Difference(
        (*STREAMS, *ANSWERED),
        ("metrics",),
        "openai.response.service_tier",
        None,
        "default",
        LEFT_OUT,
    ),
    Difference(
        ("error", "response error"),
        TOLD,
        "gen_ai.response.finish_reasons",
        None,
        ("error",),
        "the conventions want `error` where a reason was expected and none came",
    ),
    Difference(
        ("azure",),
        ALL,
        "gen_ai.provider.name",
        "openai",
        "azure.ai.openai",
        "the conventions have a provider for Azure, the official one calls it `openai`",
    ),
    Difference(
        ("embeddings with dimensions",),
        SPAN,
        "gen_ai.request.encoding_formats",
        None,
        ("base64",),
        "the SDK asks for base64 where the application names no format; we say what was asked for",
    ),
    Difference(
        ("response failed",),
        ("metrics",),
        "error.type",
        "server_error",
        None,
        "the conventions have it on durations only; the official one puts it on the tokens, too",
    ),
    Difference(
        (*CHATS, *RESPONSES),
        ("logs",),
        "severity",
        None,
        SeverityNumber.DEBUG,
        "the conventions want DEBUG, the official one names none",
    ),
    Difference(
        ("tool call",),
        TOLD,
        "gen_ai.tool.definitions",
        [{"type": "function", "name": "weather", "parameters": {"type": "object"}}],
        [{"type": "function", "name": "weather"}],
        "the conventions recommend neither descriptions nor parameters of tools unless asked for",
    ),
    Difference(
        ("response incomplete",),
        TOLD,
        "gen_ai.output.messages",
        [{**MESSAGES[0], "finish_reason": "stop"}],
        [{**MESSAGES[0], "finish_reason": "length"}],
        "the response was cut, which the official one says beside the messages only",
    ),
    Difference(
        ("fetched response",),
        ("logs",),
        "event",
        None,
        "gen_ai.client.inference.operation.details",
        "the official one makes none of a response that is asked for again",
    ),
)


@dataclass
class Telemetry:
    """What an instrumentation makes of one call."""

    span: dict[str, Any] = field(default_factory=dict[str, Any])
    metrics: dict[Any, dict[str, Any]] = field(default_factory=dict[Any, dict[str, Any]])
    """The attributes of each point by what else it is: its metric, unit, boundaries, values and token type."""
    logs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def of_span(exporter: InMemorySpanExporter) -> dict[str, Any]:
    """Return all that the one span says."""
    [span] = exporter.get_finished_spans()
    said: dict[str, Any] = {
        "name": span.name,
        "kind": span.kind,
        "status": (span.status.status_code, span.status.description),
        "events": [(event.name, dict(event.attributes or {})) for event in span.events],
        **(span.attributes or {}),
    }
    return steady(said)


def steady(said: dict[str, Any]) -> dict[str, Any]:
    """Return what was said without times, and content as what it means: JSON is read, and null is nothing."""
    if "gen_ai.response.time_to_first_chunk" in said:
        assert 0 < said["gen_ai.response.time_to_first_chunk"] < 60
        said["gen_ai.response.time_to_first_chunk"] = "some time"
    for name in CONTENT_ATTRIBUTES & said.keys():
        value = said[name]
        said[name] = meant(json.loads(value) if isinstance(value, str) else value)
    return said


def meant(value: Any) -> Any:
    """Return content without what is null."""
    if isinstance(value, Mapping):
        shown = cast("Mapping[str, Any]", value)
        return {key: meant(one) for key, one in shown.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [meant(one) for one in cast("list[Any]", value)]
    return value


def of_metrics(reader: InMemoryMetricReader) -> dict[Any, dict[str, Any]]:
    """Return the points of the metrics of calls."""
    found: dict[Any, dict[str, Any]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for metric in (one for scope in resource.scope_metrics for one in scope.metrics):
            for point in metric.data.data_points if metric.name.startswith("gen_ai.") else ():
                shown: Any = point
                attributes = dict(shown.attributes)
                token_type = attributes.pop("gen_ai.token.type", None)
                total = shown.sum if metric.unit == "{token}" else "some time"
                bounds = tuple(shown.explicit_bounds)
                key = (metric.name, metric.unit, bounds, shown.count, total, token_type)
                assert key not in found
                found[key] = attributes
    return found


def of_logs(exporter: InMemoryLogRecordExporter) -> list[dict[str, Any]]:
    """Return the log records."""
    records: list[Any] = [log.log_record for log in exporter.get_finished_logs()]
    return [
        steady(
            {
                "event": record.event_name,
                "body": record.body,
                "severity": record.severity_number,
                **record.attributes,
            }
        )
        for record in records
    ]


def telemetry(instrumentor: Any, case: Case, world: str, provider: Provider, **more: Any) -> Any:
    """Make a call, and return what an instrumentation makes of it."""
    spans, reader, logs = (
        InMemorySpanExporter(),
        InMemoryMetricReader(),
        InMemoryLogRecordExporter(),
    )
    tracing, logging = TracerProvider(), LoggerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    logging.add_log_record_processor(SimpleLogRecordProcessor(logs))
    instrumentor.instrument(
        tracer_provider=tracing,
        meter_provider=MeterProvider([reader]),
        logger_provider=logging,
        **more,
    )
    provider.answer(case.path, case.reply)
    try:
        with contextlib.suppress(openai.NotFoundError):
            call(case, world, provider)
    finally:
        instrumentor.uninstrument()
    return Telemetry(of_span(spans), of_metrics(reader), of_logs(logs))


def call(case: Case, world: str, provider: Provider) -> None:
    """Make the call of a case."""
    if not case.azure:
        make(world, provider, case.method, case.form, case.arguments)
        return
    options: dict[str, Any] = {
        "base_url": provider.url,
        "api_key": "sk-test",
        "api_version": "2024-10-21",
        "max_retries": 0,
    }
    if world == "sync":
        with openai.AzureOpenAI(**options) as client:
            case.form.run(*method_of(client, case.method), case.arguments)
        return

    async def run() -> None:
        async with openai.AsyncAzureOpenAI(**options) as client:
            await case.form.arun(*method_of(client, case.method), case.arguments)

    asyncio.run(run())


def unlike(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs, with both values."""
    return {
        name: (theirs.get(name), ours.get(name))
        for name in theirs.keys() | ours.keys()
        if theirs.get(name) != ours.get(name)
    }


def differences(theirs: Telemetry, ours: Telemetry) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Return all that the two say differently."""
    found = {("span", name): both for name, both in unlike(theirs.span, ours.span).items()}
    for key in theirs.metrics.keys() | ours.metrics.keys():
        if key not in theirs.metrics or key not in ours.metrics:
            found["metrics", key[0]] = (key in theirs.metrics or None, key in ours.metrics or None)
            continue
        for name, both in unlike(theirs.metrics[key], ours.metrics[key]).items():
            assert found.setdefault(("metrics", name), both) == both
    if not theirs.logs and ours.logs:
        [record] = ours.logs
        found["logs", "event"] = (None, record["event"])
        return found
    for their, our in zip(theirs.logs, ours.logs, strict=True):
        found |= {("logs", name): both for name, both in unlike(their, our).items()}
    return found


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("name", CASES)
def test_beside_the_official_one(
    name: str, world: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every call we say what the official instrumentation says, but for what is listed, with its reason."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", CONTENT)
    exporter = CmdrDataSpanExporter(delivery=RecordedEvents())
    theirs = telemetry(OFFICIAL.OpenAIInstrumentor(), CASES[name], world, provider)
    ours = telemetry(CmdrDataInstrumentor(), CASES[name], world, provider, exporter=exporter)
    expected = {
        (signal, row.name): (row.theirs, row.ours)
        for row in DIFFERENCES
        for signal in row.signals
        if name in row.cases
    }
    assert expected == differences(theirs, ours)


def test_the_documented_differences() -> None:
    """`docs/metering.md` has a row for each attribute that differs, with the same reason."""
    rows = table("docs/metering.md", "Beside the official instrumentation", "attribute")
    assert {(row.name, ", ".join(row.signals), row.reason) for row in DIFFERENCES} == {
        (quoted(name)[0], signals, reason) for name, signals, reason in rows
    }
