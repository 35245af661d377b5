"""What recording one event takes the application's thread, beside a bare append and another exporter's queue."""

from __future__ import annotations

import gc
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import ours
import spool
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import CmdrDataSpanExporter

APPEND = "a bare append"
QUEUE = "BatchSpanProcessor.on_end"
RECORD = "DurableDelivery.record"
EXPORT = "CmdrDataSpanExporter.export"
CONTENDERS = (APPEND, QUEUE, RECORD, EXPORT)

_ATTRIBUTES = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.request.temperature": 0.2,
    "gen_ai.request.max_tokens": 256,
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.usage.input_tokens": 19,
    "gen_ai.usage.output_tokens": 10,
    "server.address": "api.openai.com",
    "cmdrdata.customer.id": "customer-0001",
}


class Dropping(SpanExporter):
    """Takes every span and does nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - the base's
        """See `SpanExporter.export`."""
        return SpanExportResult.SUCCESS


class Recording:
    """
    One contender; worker of a `Process`.

    Args:
        contender: one of `CONTENDERS`.
        path: a spool, whose journals nobody imports: as where another process drains.
        fsync: whether what is recorded shall survive a crash of the host at once.
    """

    def __init__(self, contender: str, path: str, fsync: bool) -> None:
        # A queue that is full says so, time and again.
        logging.disable()
        self._spool = Path(path)
        make = {
            APPEND: self._append,
            QUEUE: self._queue,
            RECORD: self._record,
            EXPORT: self._export,
        }
        self._fsync = fsync
        self._one = make[contender]()
        self._spans: list[ReadableSpan] = []
        self._needs_spans = contender in (QUEUE, EXPORT)

    def in_a_row(self, number: int) -> list[int]:
        """Return the nanoseconds of each of so many events, one after the other."""
        return self._timed(range(number), self._prepared(number), pause=0.0)

    def at_a_rate(self, threads: int, rate: int, seconds: float) -> list[int]:
        """Return the nanoseconds of each event, where so many threads record so many a second each."""
        number = int(rate * seconds)
        prepared = self._prepared(number * threads)
        taken: list[int] = []

        def record(first: int) -> None:
            mine = range(first, number * threads, threads)
            taken.extend(self._timed(mine, prepared, pause=1 / rate))

        running = [threading.Thread(target=record, args=(n,)) for n in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return taken

    def beside_a_busy_thread(self, number: int) -> list[int]:
        """Return the nanoseconds of each of so many events, while another thread computes without a pause."""
        over = threading.Event()

        def compute() -> None:
            while not over.is_set():
                sum(range(1000))

        busy = threading.Thread(target=compute)
        prepared = self._prepared(number)
        busy.start()
        try:
            return self._timed(range(number), prepared, pause=0.001)
        finally:
            over.set()
            busy.join()

    def _timed(
        self, numbers: Sequence[int], spans: Sequence[ReadableSpan], pause: float
    ) -> list[int]:
        taken: list[int] = []
        clock, one = time.perf_counter_ns, self._one
        for number in numbers:
            if pause:
                time.sleep(pause)
            span = spans[number] if spans else None
            began = clock()
            one(number, span)
            taken.append(clock() - began)
        return taken

    def _prepared(self, number: int) -> list[ReadableSpan]:
        """Return so many spans, of which no two are the same call."""
        if not self._needs_spans:
            return []
        kept = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(kept))
        tracer = provider.get_tracer("benchmark")
        for n in range(number):
            attributes = {**_ATTRIBUTES, "gen_ai.response.id": f"chatcmpl-{n}"}
            tracer.start_span("chat gpt-4o-mini", attributes=attributes).end()
        # What is there now stays: the garbage collector would look at every span, at odd times.
        gc.collect()
        gc.freeze()
        return list(kept.get_finished_spans())

    # The contenders

    def _append(self) -> Callable[[int, ReadableSpan | None], object]:
        event_id, body = spool.event(1)
        # As long as the record of it.
        data = json.dumps([event_id, asdict(spool.HEADER)]).encode() + body
        self._spool.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self._spool / "bare", flags, 0o600)

        def append(*_: object) -> None:
            os.write(descriptor, data)
            if self._fsync:
                os.fdatasync(descriptor)

        return append

    def _queue(self) -> Callable[[int, ReadableSpan | None], object]:
        processor = BatchSpanProcessor(Dropping())

        def end(_: int, span: ReadableSpan | None) -> None:
            assert span is not None
            processor.on_end(span)

        return end

    def _exporter(self) -> CmdrDataSpanExporter:
        return ours.exporter(self._spool, ours.ELSEWHERE, drains=False, fsync=self._fsync)

    def _record(self) -> Callable[[int, ReadableSpan | None], object]:
        delivery = ours.delivery(self._exporter())
        events = [spool.event(n) for n in range(1000)]

        def record(number: int, _: ReadableSpan | None) -> None:
            event_id, body = events[number % 1000]
            delivery.record(event_id, spool.HEADER, body)

        return record

    def _export(self) -> Callable[[int, ReadableSpan | None], object]:
        exporter = self._exporter()

        def export(_: int, span: ReadableSpan | None) -> None:
            assert span is not None
            exporter.export((span,))

        return export
