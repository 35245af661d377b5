"""
What the processes of the fault tests do: each function is a program that the zygote can be asked for.

A process tells what it did through its pipe, one line at a time and unbuffered: `id` with the id of an event, once
`export` has returned and not before; or a note.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from cmdrdata_exporter import CmdrDataSpanExporter, event_from_span

pipe = -1
"""Where this process tells what it did."""

CHAT: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4.1-mini",
    "gen_ai.usage.input_tokens": 3,
    "gen_ai.usage.output_tokens": 4,
}


def note(*words: object) -> None:
    """Tell something."""
    os.write(pipe, " ".join(map(str, words)).encode() + b"\n")


def span() -> ReadableSpan:
    """Return the finished span of a call of its own."""
    now = time.time_ns()
    trace_id, span_id = (int.from_bytes(os.urandom(size), "big") for size in (16, 8))
    return ReadableSpan(
        name="chat",
        context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1)),
        resource=Resource({}),
        attributes=CHAT,
        kind=SpanKind.CLIENT,
        start_time=now - 1_000_000,
        end_time=now,
        instrumentation_scope=InstrumentationScope("somebody's instrumentation"),
    )


def export(exporter: CmdrDataSpanExporter) -> None:
    """Export the span of a call, and tell its event's id."""
    exported = span()
    exporter.export([exported])
    event = event_from_span(exported)
    assert event is not None
    note("id", event.id)


def numbers(count: int | None) -> Iterator[int]:
    """Count up to `count`, or for ever."""
    return itertools.count() if count is None else iter(range(count))


def in_child(function: Callable[[], object]) -> int:
    """Fork a child that calls `function` and ends at once, by `os._exit`; return its id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return pid


def join(*pids: int) -> None:
    """Wait for children, which must have succeeded."""
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, f"child {pid} failed"


def produce(
    count: int | None = None, *, threads: int = 1, pause: float = 0.0, end: str = "return"
) -> None:
    """
    Export the spans of `count` calls in each thread, or until something ends this process.

    Args:
        count: how many calls; None: as many as there is time for.
        threads: how many threads make them; with more than one, none of them is the main one.
        pause: seconds between two calls of a thread.
        end: how to end: `return`, `_exit` or `wait` for a signal.
    """
    exporter = CmdrDataSpanExporter()

    def call() -> None:
        for _ in numbers(count):
            export(exporter)
            if pause:
                time.sleep(pause)

    if threads == 1:
        call()
    else:
        running = [threading.Thread(target=call) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    if end == "_exit":
        os._exit(0)
    if end == "wait":
        note("waits")
        signal.pause()
