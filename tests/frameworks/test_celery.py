"""The recipe for Celery: through a broker to a worker's threads, and eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from celery import _state
from celery.contrib.testing.worker import start_worker
from celery.signals import before_task_publish, task_postrun, task_prerun
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from cmdrdata_exporter import customer, customer_context
from tests.frameworks.conftest import MeetingProvider
from tests.frameworks.payers import REQUESTS, billed, paid
from tests.metering import Meter


@pytest.fixture(params=["alone", "before", "after"])
def tasks(
    example: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Any]:
    """
    The example's application, its tasks and results kept in memory.

    Alone, and with the instrumentation of Celery, whose functions are called before those of the recipe or after them.
    """
    signals = (before_task_publish, task_prerun, task_postrun)
    before = [list(signal.receivers or ()) for signal in signals]
    # Each app has its own tasks, and every task of every other app of the process.
    monkeypatch.setattr(_state, "_on_app_finalizers", set())
    instrumentor = CeleryInstrumentor()
    if request.param == "before":
        instrumentor.instrument(tracer_provider=TracerProvider())
    module = example("celery_app")
    if request.param == "after":
        instrumentor.instrument(tracer_provider=TracerProvider())
    module.app.conf.update(
        broker_url="memory://", result_backend="cache+memory://", worker_hijack_root_logger=False
    )
    yield module
    assert {} == module._running
    if request.param != "alone":
        instrumentor.uninstrument()
    for signal, receivers in zip(signals, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


def worker(tasks: Any, **options: Any) -> Any:
    """Start a worker in threads of this process."""
    return start_worker(tasks.app, perform_ping_check=False, **options)


def test_tasks_at_the_same_time(tasks: Any, provider: MeetingProvider, meter: Meter) -> None:
    """Tasks that a worker runs at the same time are billed each to the customer it was sent for."""
    provider.expect(len(REQUESTS))
    with worker(tasks, pool="threads", concurrency=len(REQUESTS)):
        results: list[Any] = []
        for model, payer in REQUESTS:
            with customer_context(payer):
                results.append(tasks.ask.delay("hello", model))
        assert ["hello"] * 4 == [result.get(timeout=20) for result in results]

    assert paid(*REQUESTS) == billed(meter)


def test_one_thread(tasks: Any, provider: MeetingProvider, meter: Meter) -> None:
    """A worker's thread keeps nothing of a task, also of one that failed: the next one may be nobody's."""
    with worker(tasks, pool="solo"):
        with customer_context("acme"):
            assert "hello" == tasks.ask.delay("hello", "gpt-1").get(timeout=20)
            with pytest.raises(TypeError):
                tasks.ask.apply_async(("hello", "gpt-2", "too many")).get(timeout=20)
        assert "hello" == tasks.ask.delay("hello", "gpt-3").get(timeout=20)

    assert [*paid(("gpt-1", "acme")), ("gpt-3", None, 29, "reported")] == billed(meter)


def test_task_of_a_task(tasks: Any, provider: MeetingProvider, meter: Meter, events: Any) -> None:
    """What a task sends belongs to the customer of that task."""
    with worker(tasks, pool="solo"):
        with customer_context("acme"):
            tasks.ask_later.delay("hello", "gpt-1").get(timeout=20)
        events.wait_for(1)

    assert paid(("gpt-1", "acme")) == billed(meter)


def test_eagerly(tasks: Any, provider: MeetingProvider, meter: Meter) -> None:
    """A task that runs at once, in its sender's context, belongs to the customer there, who stays."""
    tasks.app.conf.task_always_eager = True
    with customer_context("acme"):
        assert "hello" == tasks.ask.delay("hello", "gpt-1").get()
        before = customer.current()
        tasks.ask_later.delay("hello", "gpt-2").get()
        assert before is customer.current()
    assert customer.current() is None

    assert paid(("gpt-1", "acme"), ("gpt-2", "acme")) == billed(meter)
