"""Metadata that a context gives to its calls, whoever pays for them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import (
    CmdrDataSpanProcessor,
    carry_customer,
    clear_metadata_context,
    customer_context,
    faults,
    get_metadata_context,
    metadata_context,
    set_metadata_context,
    update_metadata_context,
)
from opentelemetry_instrumentation_cmdrdata import bind_customer
from tests import replies
from tests.charges import MESSAGES
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import client

QUESTION: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


def test_contexts_nest() -> None:
    """The innermost context counts alone, and the outer one is back after it, also after an exception."""
    seen = [get_metadata_context()]

    def fail_inside() -> None:
        seen.append(get_metadata_context())
        raise RuntimeError

    with metadata_context({"plan": "pro"}):
        with pytest.raises(RuntimeError), metadata_context({"feature": "chat"}):
            fail_inside()
        seen.append(get_metadata_context())
    seen.append(get_metadata_context())
    assert seen == [{}, {"feature": "chat"}, {"plan": "pro"}, {}]


def test_contexts_that_end_in_another_order() -> None:
    """Generators end in any order: each takes its own metadata away."""
    outer, inner = metadata_context({"a": 1}), metadata_context({"b": 2})
    outer.__enter__()
    inner.__enter__()
    outer.__exit__()
    assert get_metadata_context() == {"b": 2}
    inner.__exit__()
    inner.__exit__()
    assert get_metadata_context() == {}


def test_set_update_and_clear() -> None:
    """What is set stays until it is changed or cleared, or the `with` around it ends."""

    def steps() -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        clear_metadata_context()
        set_metadata_context({"plan": "pro"})
        seen.append(get_metadata_context())
        with metadata_context({"feature": "chat"}):
            update_metadata_context({"seats": 5})
            seen.append(get_metadata_context())
            clear_metadata_context()
            seen.append(get_metadata_context())
        update_metadata_context({"plan": "free", "seats": 5})
        seen.append(get_metadata_context())
        clear_metadata_context()
        return [*seen, get_metadata_context()]

    assert contextvars.copy_context().run(steps) == [
        {"plan": "pro"},
        {"feature": "chat", "seats": 5},
        {},
        {"plan": "free", "seats": 5},
        {},
    ]
    assert get_metadata_context() == {}


def test_copies() -> None:
    """Neither what was given nor what is returned is the metadata itself: changing it changes no event."""
    given = {"plan": "pro"}
    with metadata_context(given):
        given["plan"] = "free"
        get_metadata_context()["plan"] = "none"
        assert get_metadata_context() == {"plan": "pro"}


def test_decorated_functions() -> None:
    """A decorated function or coroutine function runs in the context, each call in its own."""

    @metadata_context({"feature": "chat"})
    def depth(levels: int) -> list[dict[str, Any]]:
        return [get_metadata_context(), *(depth(levels - 1) if levels else [])]

    @metadata_context({"feature": "chat"})
    async def waits() -> dict[str, Any]:
        await asyncio.sleep(0)
        return get_metadata_context()

    assert depth(1) == [{"feature": "chat"}] * 2
    assert asyncio.run(waits()) == {"feature": "chat"}
    assert get_metadata_context() == {}


def test_tasks_and_threads() -> None:
    """A task has the metadata of who starts it; a thread of a pool where `carry_customer` brings it."""

    async def two() -> tuple[dict[str, Any], dict[str, Any]]:
        async def named(feature: str) -> dict[str, Any]:
            with metadata_context({"feature": feature}):
                await asyncio.sleep(0)
                return await asyncio.create_task(asyncio.to_thread(get_metadata_context))

        return await asyncio.gather(named("chat"), named("search"))

    assert asyncio.run(two()) == [{"feature": "chat"}, {"feature": "search"}]
    with ThreadPoolExecutor(1) as pool, metadata_context({"feature": "chat"}):
        assert pool.submit(carry_customer(get_metadata_context)).result() == {"feature": "chat"}
        assert pool.submit(get_metadata_context).result() == {}
        assert pool.submit(threading.get_ident).result() != threading.get_ident()


@pytest.mark.parametrize("given", ["text", 7, ["a"]])
def test_what_is_no_metadata(given: Any) -> None:
    """What is no mapping is left out, and logged once; the application goes on."""
    with metadata_context(given):
        assert get_metadata_context() == {}
    assert dict(faults.counts) == {"metadata_context": 1}
    faults.counts.clear()


def test_whoever_pays(provider: Provider, meter: Meter) -> None:
    """The metadata is in the event of each call, whoever is named for it and wherever; the call's own prevails."""
    provider.answer("/v1/chat/completions", Reply(json=replies.CHAT))
    own = {"feature": "search", "plan": "free"}
    with client(provider) as sdk, metadata_context({"feature": "chat", "n": 1}):
        create: Any = sdk.chat.completions.create
        create(**QUESTION)
        create(**QUESTION, customer_id="acme", usage_metadata=own)
        with customer_context("acme", feature="theirs", plan="pro"):
            create(**QUESTION)
            create(**QUESTION, usage_metadata=own)
        bound: Any = bind_customer(sdk, "globex", feature="theirs", plan="pro")
        bound.chat.completions.create(**QUESTION)
    keys = ("feature", "n", "plan")
    told = [
        ["chat", 1, None],
        ["search", 1, "free"],
        ["chat", 1, "pro"],
        ["search", 1, "free"],
        ["chat", 1, "pro"],
    ]
    events, spans = meter.events(), meter.spans()
    assert told == [[event["metadata"].get(key) for key in keys] for event in events]
    assert told == [
        [(span.attributes or {}).get(f"cmdrdata.metadata.{key}") for key in keys] for span in spans
    ]
    payers = [None, "acme", "acme", "acme", "globex"]
    assert payers == [event["customer_id"] for event in events]


def test_the_processor() -> None:
    """Spans of others are stamped with it, with a customer and without."""
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(CmdrDataSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = provider.get_tracer("theirs")
    with metadata_context({"feature": "chat"}):
        tracer.start_span("one").end()
        with customer_context("acme", plan="pro"):
            tracer.start_span("two").end()
    tracer.start_span("three").end()
    feature = {"cmdrdata.metadata.feature": "chat"}
    assert [dict(span.attributes or {}) for span in spans.get_finished_spans()] == [
        feature,
        {"cmdrdata.customer.id": "acme", "cmdrdata.metadata.plan": "pro", **feature},
        {},
    ]
