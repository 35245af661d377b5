"""Threads and pools with the threading instrumentation, which carries the OpenTelemetry context alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from cmdrdata_exporter import carry_customer, customer_context, set_customer_context
from tests.frameworks.conftest import MeetingProvider
from tests.frameworks.payers import REQUESTS, billed, paid
from tests.metering import Meter


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    """The threading instrumentation at work."""
    ThreadingInstrumentor().instrument()
    yield
    ThreadingInstrumentor().uninstrument()


@pytest.fixture
def ask(provider: MeetingProvider, meter: Meter) -> Iterator[Callable[[str], None]]:
    """Make a call with a model."""
    with openai.OpenAI() as client:

        def ask(model: str) -> None:
            client.chat.completions.create(model=model, messages=[])

        yield ask


def test_threads_and_timers(ask: Callable[[str], None], meter: Meter) -> None:
    """A thread and a timer that are started in a context make their calls for its customer."""
    threads: list[threading.Thread] = []
    for number, (model, payer) in enumerate(REQUESTS):
        with customer_context(payer):
            threads.append(
                threading.Thread(target=ask, args=(model,))
                if number % 2
                else threading.Timer(0, ask, (model,))
            )
            threads[-1].start()
    for thread in threads:
        thread.join()

    assert paid(*REQUESTS) == billed(meter)


def test_a_pool_of_one_thread(ask: Callable[[str], None], meter: Meter) -> None:
    """Each job of a thread is made for the customer of its own submission, whatever a job before it forgot to clear."""

    def careless(model: str) -> None:
        set_customer_context("careless")
        ask(model)

    with ThreadPoolExecutor(1) as pool:
        for model, payer in REQUESTS:
            with customer_context(payer):
                pool.submit(ask, model)
                pool.submit(careless, f"{model}-careless")
        pool.submit(lambda: None).result()

    assert paid(*REQUESTS, *((f"{model}-careless", "careless") for model, _ in REQUESTS)) == billed(
        meter
    )


def test_where_others_detached(ask: Callable[[str], None], meter: Meter) -> None:
    """Where the OpenTelemetry context has lost the customer, `carry_customer` carries it."""
    span = TracerProvider().get_tracer("framework").start_span("request")
    token = otel_context.attach(trace.set_span_in_context(span))
    context = customer_context("acme")
    context.__enter__()
    otel_context.detach(token)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(carry_customer(ask), "gpt-1").result()
        pool.submit(ask, "gpt-2").result()
    context.__exit__()

    assert [*paid(("gpt-1", "acme")), ("gpt-2", None, 29, "reported")] == billed(meter)
