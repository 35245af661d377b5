"""What every test stands on: a provider on loopback, an exporter whose events are kept, a clean environment."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import CmdrDataSpanExporter, call_sites, customer, faults, runtime
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, jobs, shared
from opentelemetry_instrumentation_cmdrdata.openai import seam
from tests.metering import Meter, RecordedEvents
from tests.provider import Provider

PROXIES = ("http_proxy", "https_proxy", "no_proxy")


def nothing(*_: object, **__: object) -> None:
    """Do nothing, whatever is asked."""


@pytest.fixture(scope="session", autouse=True)
def no_certificates() -> Iterator[None]:
    """No test speaks TLS, and reading all certificates for each client would be most of what the suite does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_verify_locations", nothing)
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """A shell has its jobs in the background ignore Ctrl-C, and so would all programs that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No variable of the caller, no exporter of another test, and none of our faults left unseen."""
    for name in list(os.environ):
        if name.startswith(("CMDRDATA_", "OTEL_", "OPENAI_", "AZURE_")) or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("CMDRDATA_SPOOL_DIR", str(tmp_path_factory.mktemp("spool")))
    monkeypatch.setattr(runtime, "process", process := runtime.Runtime())
    monkeypatch.setattr(jobs, "known", jobs.Jobs())
    monkeypatch.setattr(shared, "parts", shared.Parts())
    monkeypatch.setattr(customer, "_baggage_key", None)
    monkeypatch.setattr(call_sites, "of_all", None)
    faults.counts.clear()
    yield
    if seam._tracked_clients:
        # For good, else, once there has been one.
        seam._tracked_clients = False
        seam.unpatch()
    for delivery in process.deliveries:
        delivery.close(0)
    assert dict(faults.counts) == {}, (
        "a fault of ours was only logged; a test that provokes one clears the counts"
    )


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A stand-in for OpenAI on loopback."""
    with Provider() as running:
        yield running


@pytest.fixture
def events() -> RecordedEvents:
    """A delivery that keeps what it is given."""
    return RecordedEvents()


@pytest.fixture
def meter(events: RecordedEvents) -> Iterator[Meter]:
    """The instrumentor at work: its public spans and its events."""
    spans = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = CmdrDataInstrumentor()
    instrumentor.instrument(
        tracer_provider=tracer_provider, exporter=CmdrDataSpanExporter(delivery=events)
    )
    yield Meter(spans, events)
    instrumentor.uninstrument()
