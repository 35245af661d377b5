"""Who pays: the context, and the processor that stamps it on spans."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import uuid
from typing import Any

import pytest
from opentelemetry.baggage import get_all
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import (
    CmdrDataSpanProcessor,
    clear_customer_context,
    customer_context,
    faults,
    get_customer_context,
    set_customer_context,
)
from cmdrdata_exporter.customer import current, usable


def test_contexts_nest() -> None:
    """The innermost context counts, and the outer one is back after it, also after an exception."""
    seen: list[str | None] = [get_customer_context()]

    def fail_inside() -> None:
        seen.append(get_customer_context())
        customer = current()
        assert customer is not None
        assert dict(customer.metadata) == {}
        raise RuntimeError

    with customer_context("outer", plan="pro"):
        seen.append(get_customer_context())
        with pytest.raises(RuntimeError), customer_context("inner"):
            fail_inside()
        seen.append(get_customer_context())
    seen.append(get_customer_context())
    assert seen == [None, "outer", "inner", "outer", None]


def test_decorated_functions() -> None:
    """A decorated function or coroutine function runs in the context, each call in its own."""

    @customer_context("acme")
    def depth(levels: int) -> list[str | None]:
        return [get_customer_context(), *(depth(levels - 1) if levels else [])]

    @customer_context("acme")
    async def waits() -> str | None:
        await asyncio.sleep(0)
        return get_customer_context()

    assert depth(1) == ["acme", "acme"]
    assert asyncio.run(waits()) == "acme"
    assert get_customer_context() is None


def test_set_and_clear() -> None:
    """What is set stays until it is changed or cleared."""

    def run() -> list[str | None]:
        seen: list[str | None] = []
        set_customer_context("one", plan="free")
        seen.append(get_customer_context())
        set_customer_context("two")
        seen.append(get_customer_context())
        clear_customer_context()
        return [*seen, get_customer_context()]

    assert contextvars.copy_context().run(run) == ["one", "two", None]


def test_tasks_and_threads() -> None:
    """A context goes into the tasks started in it and stays out of other threads."""

    async def run() -> tuple[str | None, ...]:
        async def ask() -> str | None:
            await asyncio.sleep(0)
            return get_customer_context()

        async def ask_as(customer: str) -> str | None:
            with customer_context(customer):
                return await asyncio.create_task(ask())

        return tuple(await asyncio.gather(ask_as("a"), ask_as("b"), ask()))

    with customer_context("outer"):
        assert asyncio.run(run()) == ("a", "b", "outer")
        found: list[str | None] = []
        thread = threading.Thread(target=lambda: found.append(get_customer_context()))
        thread.start()
        thread.join()
        assert found == [None]


def test_not_in_baggage() -> None:
    """A customer is never in Baggage, which would leave with every request."""
    with customer_context("acme"):
        assert dict(get_all()) == {}


def test_the_processor_stamps_any_span() -> None:
    """A span of anyone that starts in the context carries the customer, or why it has none; others have no mark."""
    exported = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(CmdrDataSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exported))
    tracer = provider.get_tracer("anyone")
    odd: Any = {"a": 1}
    with (
        customer_context("acme", plan="pro", seats=3, odd=odd),
        tracer.start_as_current_span("in"),
    ):
        tracer.start_span("child").end()
    tracer.start_span("out").end()
    with customer_context("\n"):
        tracer.start_span("unusable").end()
    stamp = {
        "cmdrdata.customer.id": "acme",
        "cmdrdata.metadata.plan": "pro",
        "cmdrdata.metadata.seats": 3,
        "cmdrdata.metadata.odd": "{'a': 1}",
    }
    assert {span.name: dict(span.attributes or {}) for span in exported.get_finished_spans()} == {
        "child": stamp,
        "in": stamp,
        "out": {},
        "unusable": {"cmdrdata.customer.refused": "holds control characters"},
    }
    faults.counts.clear()


@pytest.mark.parametrize(
    ("customer_id", "reason", "said"),
    [
        (7, "not a string", "not a string but int"),
        (None, "not a string", "not a string but NoneType"),
        (uuid.UUID(int=1), "not a string", "not a string but UUID"),
        ("", "empty", "empty"),
        ("x" * 257, "longer than 256 characters", "longer than 256 characters"),
        ("a\nb", "holds control characters", "holds control characters"),
        (
            "\ud800",
            "holds surrogates, which are no characters",
            "holds surrogates, which are no characters",
        ),
    ],
)
def test_unusable_ids_belong_to_nobody(
    customer_id: Any, reason: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who names a customer that cannot be billed bills nobody: the reason is in its place, and in the log once."""
    with customer_context(customer_id, plan="pro"):
        assert get_customer_context() is None
        customer = current()
        assert customer is not None
        assert not customer.is_usable
        for _ in range(2):
            assert customer.attributes() == {
                "cmdrdata.customer.refused": reason,
                "cmdrdata.metadata.plan": "pro",
            }
    assert [record.getMessage() for record in caplog.records] == [
        f"an unusable customer id was set ({said}); the events of its calls are unattributed. Expected is a string of "
        "1 to 256 characters, str() of a number for instance (further ones of this kind are only counted)"
    ]
    assert faults.counts == {f"customer id {reason}": 2}
    faults.counts.clear()


class Unprintable:
    """What has no string."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], (1, 2)),
        (("a", "b"), ("a", "b")),
        ([], ()),
        ([1, "a", None], "[1, 'a', None]"),
        ([[1], [2]], "[[1], [2]]"),
        (None, "None"),
        (Unprintable(), "<Unprintable>"),
    ],
)
def test_metadata_is_what_spans_can_have(value: Any, expected: object) -> None:
    """Metadata that no span can have goes as text."""
    with customer_context("acme", plan=value):
        customer = current()
    assert customer is not None
    assert customer.attributes() == {
        "cmdrdata.customer.id": "acme",
        "cmdrdata.metadata.plan": expected,
    }
    assert set(faults.counts) <= {"metadata of another type"}
    faults.counts.clear()


@pytest.mark.parametrize(
    ("customer_id", "expected"),
    [
        ("acme", True),
        ("someone@example.com", True),
        ("org:1 / ü 漢\u00a0", True),
        ("x" * 256, True),
        ("x" * 257, False),
        ("", False),
        ("a\r\nb", False),
        ("a\x7f", False),
        ("\ud800", False),
        (7, False),
        (None, False),
    ],
)
def test_usable_ids(customer_id: object, expected: bool) -> None:
    """Any string up to 256 characters is a customer, as it is; only control characters are refused."""
    assert usable(customer_id) is expected
