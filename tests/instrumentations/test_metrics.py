"""Our metrics beside those of the official instrumentation, for the same calls."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests import replies
from tests.metering import RecordedEvents
from tests.provider import Provider, Reply
from tests.sdk import FORMS, client, make

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
ASKING: dict[str, Any] = {**CHAT, "extra_body": {"stream_options": {"include_usage": True}}}
STREAM = next(form for form in FORMS if form.name == "stream")

# What the official one leaves out of a streamed chat and of a response, and the conventions recommend.
ONLY_OURS = {
    "chat": set[str](),
    "stream": {"openai.response.service_tier", "openai.response.system_fingerprint"},
    "embeddings": set[str](),
    "response": {"openai.response.service_tier"},
    "fetched": set[str](),
    "error": set[str](),
}


def call(name: str, provider: Provider) -> None:
    """Make a call."""
    refused = Reply(json={"error": {"message": "none"}}, status=404)
    streamed = Reply(events=replies.chat_chunks())
    answers = {"error": refused, "stream": streamed}
    provider.answer("/v1/chat/completions", answers.get(name, Reply(json=replies.CHAT)))
    provider.answer("/v1/embeddings", Reply(json=replies.EMBEDDINGS))
    provider.answer("/v1/responses", Reply(json=replies.RESPONSE))
    provider.answer("/v1/responses/resp_1", Reply(json=replies.RESPONSE))
    with client(provider) as sdk:
        match name:
            case "stream":
                make("sync", provider, "chat.completions.create", STREAM, ASKING)
            case "embeddings":
                sdk.embeddings.create(model="text-embedding-3-small", input="hello")
            case "response":
                sdk.responses.create(model="gpt-5-mini", input="hello")
            case "fetched":
                sdk.responses.retrieve("resp_1")
            case "error":
                with pytest.raises(openai.NotFoundError):
                    sdk.chat.completions.create(**CHAT)
            case _:
                sdk.chat.completions.create(**CHAT)


Point = tuple[str, str, tuple[float, ...], int, float, tuple[tuple[str, Any], ...]]


def measured(reader: InMemoryMetricReader, left_out: set[str]) -> list[Point]:
    """Return the points, sorted: name, unit, boundaries, number, tokens and attributes."""
    data = reader.get_metrics_data()
    assert data is not None
    found: list[Point] = []
    for metric in (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics):
        if not metric.name.startswith("gen_ai."):
            continue
        for point in metric.data.data_points:
            shown: Any = point
            attributes = {n: v for n, v in shown.attributes.items() if n not in left_out}
            total = shown.sum if metric.unit == "{token}" else 0.0
            boundaries = tuple(shown.explicit_bounds)
            found.append(
                (
                    metric.name,
                    metric.unit or "",
                    boundaries,
                    shown.count,
                    total,
                    tuple(sorted(attributes.items())),
                )
            )
    return sorted(found)


@pytest.mark.parametrize("name", ONLY_OURS)
def test_the_official_metrics(name: str, provider: Provider) -> None:
    """Names, units, boundaries, numbers and attributes are the same, but for what is listed."""
    theirs, ours = InMemoryMetricReader(), InMemoryMetricReader()
    official: Any = import_module("opentelemetry.instrumentation.genai.openai")
    exporter = CmdrDataSpanExporter(delivery=RecordedEvents())
    for which, options in (
        (official.OpenAIInstrumentor(), {"meter_provider": MeterProvider([theirs])}),
        (CmdrDataInstrumentor(), {"meter_provider": MeterProvider([ours]), "exporter": exporter}),
    ):
        which.instrument(**options)
        try:
            call(name, provider)
        finally:
            which.uninstrument()
    assert measured(ours, ONLY_OURS[name]) == measured(theirs, set())
