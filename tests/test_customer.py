"""Who pays: the context, and the processor that stamps it on spans."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import uuid
from collections.abc import Callable, Generator
from contextvars import Token
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.baggage import get_all
from opentelemetry.context import Context
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


@pytest.fixture
def tracer() -> trace.Tracer:
    """Make spans that nobody exports."""
    return TracerProvider().get_tracer("anyone")


def in_thread(context: Context, function: Callable[[], Any]) -> Any:
    """Run a function in a new thread with an OpenTelemetry context, as the threading instrumentation does."""
    found: list[Any] = []

    def run() -> None:
        token = otel_context.attach(context)
        try:
            found.append(function())
        finally:
            otel_context.detach(token)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_others_detach(tracer: trace.Tracer, caplog: pytest.LogCaptureFixture) -> None:
    """A customer outlasts the OpenTelemetry contexts around it; leaving brings back no span and logs nothing."""
    span = tracer.start_span("request")
    around = otel_context.attach(trace.set_span_in_context(span))
    context = customer_context("acme")
    context.__enter__()
    otel_context.detach(around)
    inside = (get_customer_context(), trace.get_current_span())
    context.__exit__(None, None, None)

    assert ("acme", trace.INVALID_SPAN) == inside
    assert (None, Context()) == (current(), otel_context.get_current())
    assert [] == caplog.records


def test_others_attach_what_is_over(tracer: trace.Tracer) -> None:
    """A customer that was left or cleared is not back when others return to an OpenTelemetry context with it."""

    def left() -> Token[Context]:
        with customer_context("acme"):
            return otel_context.attach(trace.set_span_in_context(tracer.start_span("late")))

    def cleared() -> Token[Context]:
        set_customer_context("acme")
        token = otel_context.attach(trace.set_span_in_context(tracer.start_span("late")))
        clear_customer_context()
        return token

    def run(leave: Callable[[], Token[Context]]) -> list[str | None]:
        token = leave()
        seen = [get_customer_context()]
        otel_context.detach(token)
        return [*seen, get_customer_context()]

    for leave in (left, cleared):
        assert [None, None] == contextvars.copy_context().run(run, leave)


def test_set_and_clear_inside_of_spans_that_end(tracer: trace.Tracer) -> None:
    """What is set or cleared holds after the span in which that was done, however often."""

    def run() -> list[str | None]:
        set_customer_context("first")
        with tracer.start_as_current_span("span"):
            set_customer_context("second")
            set_customer_context("third")
        seen = [get_customer_context()]
        with customer_context("outer"):
            with tracer.start_as_current_span("span"):
                clear_customer_context()
                seen.append(get_customer_context())
            seen.append(get_customer_context())
            with tracer.start_as_current_span("span"):
                set_customer_context("inner")
            seen.append(get_customer_context())
        seen.append(get_customer_context())
        clear_customer_context()
        return [*seen, get_customer_context()]

    assert ["third", None, None, "inner", "third", None] == contextvars.copy_context().run(run)


def test_only_the_customer_is_undone(tracer: trace.Tracer) -> None:
    """What others put into the OpenTelemetry context inside of a customer's is theirs to remove."""

    def run() -> tuple[str | None, bool]:
        span = tracer.start_span("open")
        with customer_context("acme"):
            otel_context.attach(trace.set_span_in_context(span))
        return get_customer_context(), trace.get_current_span() is span

    assert (None, True) == contextvars.copy_context().run(run)


def test_the_context_of_opentelemetry_carries_it() -> None:
    """Where only the OpenTelemetry context comes, the customer comes with it, also of a job after other jobs."""
    with customer_context("acme", plan="pro"):
        acme = otel_context.get_current()
    with customer_context("globex"):
        globex = otel_context.get_current()
    empty = Context()

    def worker() -> list[Any]:
        seen: list[Any] = []
        for job, work in (
            (acme, lambda: None),
            (globex, lambda: set_customer_context("forgotten")),
            (acme, lambda: None),
            (acme, lambda: set_customer_context("mine")),
            (acme, clear_customer_context),
            (acme, lambda: None),
            (empty, lambda: None),
        ):
            token = otel_context.attach(job)
            work()
            seen.append(get_customer_context())
            otel_context.detach(token)
        return seen

    assert "acme" == in_thread(acme, get_customer_context)
    # What is cleared is what the job itself had set; the next job says for itself whose it is.
    assert ["acme", "forgotten", "acme", "mine", None, "acme", None] == in_thread(empty, worker)


def test_exit_in_another_context(caplog: pytest.LogCaptureFixture) -> None:
    """A context that ends elsewhere than it began changes nothing there, and ends in a copy of where it began."""
    context = customer_context("acme")

    def begin() -> contextvars.Context:
        context.__enter__()
        return contextvars.copy_context()

    def end() -> list[str | None]:
        seen = [get_customer_context()]
        context.__exit__(None, None, None)
        return [*seen, get_customer_context()]

    def end_inside() -> list[str | None]:
        with customer_context("other"):
            return end()

    copy = contextvars.copy_context().run(begin)
    assert ["other", "other"] == contextvars.copy_context().run(end_inside)
    assert ["acme", None] == copy.run(end)
    assert (None, Context()) == (current(), otel_context.get_current())
    assert [] == caplog.records


def test_generators_that_end_in_any_order() -> None:
    """Generators with customers that are read by turns leave nobody behind, in neither context."""

    def generator(customer: str) -> Generator[str | None, None, None]:
        with customer_context(customer):
            yield get_customer_context()

    first, second = generator("first"), generator("second")
    with customer_context("outer"):
        assert ["first", "second"] == [next(first), next(second)]
        first.close()
        assert "second" == get_customer_context()
        second.close()
        assert "outer" == get_customer_context()
        assert "outer" == in_thread(otel_context.get_current(), get_customer_context)
    assert (None, None) == (current(), in_thread(otel_context.get_current(), current))


def test_one_object_for_many() -> None:
    """One context object serves many tasks at once, and in itself."""
    acme = customer_context("acme")

    async def ask() -> list[str | None]:
        with acme:
            await asyncio.sleep(0)
            with customer_context("other"), acme:
                await asyncio.sleep(0)
                seen = [get_customer_context()]
            await asyncio.sleep(0)
            seen.append(get_customer_context())
        return [*seen, get_customer_context()]

    async def run() -> list[list[str | None]]:
        return list(await asyncio.gather(ask(), ask(), ask()))

    assert [["acme", "acme", None]] * 3 == asyncio.run(run())


def test_tasks_that_outlast_the_context() -> None:
    """A task keeps the customer of its start, whatever becomes of the context that started it."""

    async def task(over: asyncio.Event) -> list[str | None]:
        with customer_context("inner"):
            await over.wait()
        seen = [get_customer_context()]
        clear_customer_context()
        return [*seen, get_customer_context()]

    async def run() -> list[str | None]:
        over = asyncio.Event()
        with customer_context("acme"):
            started = asyncio.create_task(task(over))
            await asyncio.sleep(0)
        over.set()
        return [*await started, get_customer_context()]

    assert ["acme", None, None] == asyncio.run(run())


def test_a_context_that_is_named(tracer: trace.Tracer) -> None:
    """Whoever names an OpenTelemetry context gets the customer in it; one that has none leaves it to the moment."""
    with customer_context("acme"):
        acme = otel_context.get_current()
        with customer_context("inner"):
            found = [current(acme), current(Context()), current()]
    assert ["acme", "inner", "inner"] == [customer and customer.id for customer in found]


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
        "unusable": {
            "cmdrdata.customer.refused": "holds control characters",
            "cmdrdata.customer.refused_value": r"'\n'",
        },
    }
    faults.counts.clear()


@pytest.mark.parametrize(
    ("customer_id", "reason", "said", "written"),
    [
        (7, "not a string", "not a string but int", "7"),
        (True, "not a string", "not a string but bool", "True"),
        pytest.param(10**5000, "not a string", "not a string but int", "<int>", id="many digits"),
        (None, "not a string", "not a string but NoneType", "None"),
        (1.5, "not a string", "not a string but float", "1.5"),
        (
            uuid.UUID(int=1),
            "not a string",
            "not a string but UUID",
            "00000000-0000-0000-0000-000000000001",
        ),
        ({"secret": 1}, "not a string", "not a string but dict", "<dict>"),
        ("", "empty", "empty", "''"),
        ("x" * 257, *["longer than 256 characters"] * 2, f"'{'x' * 256}'…"),
        ("a\nb", *["holds control characters"] * 2, r"'a\nb'"),
        ("\ud800", *["holds surrogates, which are no characters"] * 2, r"'\ud800'"),
    ],
)
def test_unusable_ids_belong_to_nobody(
    customer_id: Any, reason: str, said: str, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Who names a customer that cannot be billed bills nobody.

    The reason is in its place, with what was named as it was written, and in the log once.
    """
    with customer_context(customer_id, plan="pro"):
        assert get_customer_context() is None
        customer = current()
        assert customer is not None
        assert not customer.is_usable
        for _ in range(2):
            assert customer.attributes() == {
                "cmdrdata.customer.refused": reason,
                "cmdrdata.customer.refused_value": written,
                "cmdrdata.metadata.plan": "pro",
            }
    assert [record.getMessage() for record in caplog.records] == [
        f"an unusable customer id was set ({said}); the events of its calls are unattributed. Expected is a string of "
        "1 to 256 characters, str() of a number for instance (further ones of this kind are only counted)"
    ]
    assert faults.counts == {f"customer id {reason}": 2}
    faults.counts.clear()


@pytest.mark.parametrize("customer_id", [" acme", "acme ", "acme\u00a0", " "])
def test_blanks_around_ids(customer_id: str, caplog: pytest.LogCaptureFixture) -> None:
    """An id with blanks at an end is taken as it is, and told in the log once: another customer may be meant."""
    with customer_context(customer_id):
        customer = current()
    assert customer is not None
    for _ in range(2):
        assert {"cmdrdata.customer.id": customer_id} == customer.attributes()
    assert [
        "a customer id with blanks at its begin or end was set; its calls are billed to it as it is, which is another "
        "customer than the one without them. strip() removes them (further ones of this kind are only counted)"
    ] == [record.getMessage() for record in caplog.records]
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
