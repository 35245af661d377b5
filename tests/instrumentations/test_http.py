"""Whatever instruments HTTP clients, our own requests make no spans, carry no trace, and every call is billed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests import replies, sdk
from tests.faults.hosts import KEY
from tests.faults.oracle import Oracle
from tests.provider import Provider, Reply

INSTRUMENTORS = {
    "httpx": "HTTPXClientInstrumentor",
    "requests": "RequestsInstrumentor",
    "urllib": "URLLibInstrumentor",
    "urllib3": "URLLib3Instrumentor",
    "threading": "ThreadingInstrumentor",
}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """The spans of all HTTP clients."""
    exported = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exported))
    instrumentors = [
        getattr(import_module(f"opentelemetry.instrumentation.{name}"), instrumentor)()
        for name, instrumentor in INSTRUMENTORS.items()
    ]
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=tracer_provider)
    yield exported
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


def test_instrumented_http(spans: InMemorySpanExporter, provider: Provider, tmp_path: Path) -> None:
    """Calls are billed, and of the requests that deliver them no span is made."""
    provider.answer("/v1/chat/completions", Reply(json=replies.CHAT))
    with Oracle(tmp_path / "accepted") as oracle:
        exporter = CmdrDataSpanExporter(
            KEY, oracle.url, customer_id="acme", spool_dir=tmp_path / "spool"
        )
        instrumentor = CmdrDataInstrumentor()
        instrumentor.instrument(exporter=exporter)
        try:
            with sdk.client(provider) as client:
                for _ in range(5):
                    client.chat.completions.create(model="gpt-4o-mini", messages=[])
            assert exporter.force_flush(10_000)
        finally:
            instrumentor.uninstrument()
            exporter.shutdown()
        assert 5 == len(oracle.keys)
        assert [] == [
            name for each in oracle.requests for name in each.headers if name == "traceparent"
        ]
        assert set() == {oracle.port} & {
            port(span.attributes) for span in spans.get_finished_spans()
        }
        # They are at work: the same request made by the application has its span.
        requests.post(oracle.url, data=b"{}", timeout=10)
        assert oracle.port in {port(span.attributes) for span in spans.get_finished_spans()}


def port(attributes: Any) -> int | None:
    """Return the port that a span of an HTTP client names, in whichever convention."""
    return urlsplit(str(attributes.get("http.url") or attributes.get("url.full"))).port
