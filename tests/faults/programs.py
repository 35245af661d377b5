"""
What the processes of the fault tests do: each function is a program that the zygote can be asked for.

A process tells what it did through its pipe, one line at a time and unbuffered: `id` with the id of an event, once
`export` has returned and not before; or a note.
"""

from __future__ import annotations

import _imp
import atexit
import contextlib
import ctypes
import gc
import itertools
import json
import logging
import multiprocessing
import os
import resource
import signal
import stat
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from cmdrdata_exporter import CmdrDataSpanExporter, event_from_span, runtime
from cmdrdata_exporter.delivery.spool import journal, journal_file
from cmdrdata_exporter.delivery.spool.directory import Directory

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
    note("id", exported_by(exporter, span()))


def exported_by(exporter: CmdrDataSpanExporter, exported: ReadableSpan) -> str:
    """Export a span, and return its event's id."""
    exporter.export([exported])
    event = event_from_span(exported)
    assert event is not None
    return event.id


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


def parent_and_child(pause: float = 0.02) -> None:
    """Export in a process that delivers, and in a child that it forks then, until something ends them."""
    exporter = CmdrDataSpanExporter()

    def call() -> None:
        while True:
            export(exporter)
            time.sleep(pause)

    export(exporter)
    exporter.force_flush(30_000)
    note("child", in_child(call))
    call()


def produce(
    count: int | None = None,
    *,
    threads: int = 1,
    pause: float = 0.0,
    largest: int = journal.MAX_FILE_BYTES,
    end: str = "return",
) -> None:
    """
    Export the spans of `count` calls in each thread, or until something ends this process.

    Args:
        count: how many calls; None: as many as there is time for.
        threads: how many threads make them; with more than one, none of them is the main one.
        pause: seconds between two calls of a thread.
        largest: bytes after which a journal is sealed.
        end: how to end: `return`, `_exit` or `wait` for a signal.
    """
    journal.MAX_FILE_BYTES = largest
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


def descriptors() -> int:
    """Return how many descriptors this process has open, beside connections, which come and go."""
    count = 0
    for path in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):
            count += not stat.S_ISSOCK(os.fstat(int(path.name)).st_mode)
    return count


def in_children(count: int) -> None:
    """Export nothing oneself, and one call in each of `count` children, which end at once."""
    exporter = CmdrDataSpanExporter()
    join(*[in_child(lambda: export(exporter)) for _ in range(count)])


def task_by_task(count: int) -> None:
    """Be a task queue that gives each task a process of its own, forked by one that meters too."""
    exporter = CmdrDataSpanExporter()
    for _ in range(count):
        join(in_child(lambda: export(exporter)))
        export(exporter)


def in_multiprocessing(count: int) -> None:
    """Export one call in each of `count` children of multiprocessing."""
    exporter = CmdrDataSpanExporter()
    children = [
        multiprocessing.get_context("fork").Process(target=export, args=(exporter,))
        for _ in range(count)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0


def in_grandchildren(depth: int) -> None:
    """Export one call in this process, one in a child, one in a child of that, and so on."""
    exporter = CmdrDataSpanExporter()

    def descend(left: int) -> None:
        export(exporter)
        if left:
            join(in_child(lambda: descend(left - 1)))
            export(exporter)

    descend(depth)


def forked_in_c(count: int) -> None:
    """
    Fork as a server in C does that loads the application first, and never tells Python; each child exports one call.

    In this process runs no thread, as in the master of uWSGI.
    """
    sys.modules["uwsgi"] = types.ModuleType("uwsgi")
    exporter = CmdrDataSpanExporter()
    for _ in range(count):
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            export(exporter)
            os._exit(0)
        join(pid)


def forked_in_c_with_threads(count: int) -> None:
    """Fork as a server in C does, while the drainer is at work, and tell Python in the child only."""
    # Such a server runs no Python between the two. Here some is run, and if another thread had asked for the
    # interpreter by then, the child would wait for it to take over, which it has not got.
    sys.setswitchinterval(1000)
    exporter = CmdrDataSpanExporter()
    for _ in range(count):
        export(exporter)
        # Of all that Python does before a fork of its own, the one thing that its child relies on.
        _imp.acquire_lock()
        pid = ctypes.PyDLL(None).fork()
        if pid != 0:
            _imp.release_lock()
        else:
            # Without this a process that had threads cannot run Python any more.
            ctypes.pythonapi.PyOS_AfterFork_Child()
            export(exporter)
            os._exit(0)
        join(pid)


def preload(workers: int, count: int) -> None:
    """Be a web server that loads the application before it forks its workers, and meters before that already."""
    exporter = CmdrDataSpanExporter()
    export(exporter)

    def serve() -> None:
        for _ in range(count):
            export(exporter)
        exporter.shutdown()

    join(*[in_child(serve) for _ in range(workers)])


def fork_under_load(forks: int) -> None:
    """Fork again and again while two threads export and the drainer is at work; each child exports one call."""
    exporter = CmdrDataSpanExporter()
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            export(exporter)
            time.sleep(0.002)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    longest = 0.0
    before = 0
    for number in range(forks):
        if number == 10:
            before = descriptors()
        began = time.monotonic()
        child = in_child(lambda: export(exporter))
        forked = time.monotonic()
        join(child)
        longest = max(longest, time.monotonic() - began)
        note("fork", f"{forked - began:.6f}")
    after = descriptors()
    over.set()
    for thread in threads:
        thread.join()
    note("longest", longest)
    note("descriptors", after - before)


def in_daemon_thread(count: int) -> None:
    """End while daemon threads are still exporting."""
    exporter = CmdrDataSpanExporter()
    under_way = threading.Event()

    def call() -> None:
        for number in itertools.count():
            export(exporter)
            time.sleep(0.002)
            if number == count:
                under_way.set()

    for _ in range(2):
        threading.Thread(target=call, daemon=True).start()
    under_way.wait()


def in_finalizers(count: int) -> None:
    """Export from `__del__`, of objects that die one by one, in cycles, and with the interpreter."""
    exporter = CmdrDataSpanExporter()

    class Call:
        def __del__(self) -> None:
            export(exporter)

    for _ in range(count):
        cycle = Call()
        vars(cycle)["itself"] = cycle
        Call()
        export(exporter)
    gc.collect()
    # Dies when the modules are torn down.
    vars(sys.modules[__name__])["last"] = Call()


def in_signal_handler(count: int) -> None:
    """Export from a signal handler, which interrupts exports."""
    exporter = CmdrDataSpanExporter()
    handled = itertools.count(1)
    over = threading.Event()

    def handle(*_: object) -> None:
        export(exporter)
        if next(handled) == count:
            over.set()
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.001)

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    while not over.is_set():
        export(exporter)
        time.sleep(0.0005)


def late(count: int) -> None:
    """Export when the exporter's own end is over: in functions that were registered before it was there."""

    def end() -> None:
        for _ in range(count):
            export(exporter)

    atexit.unregister(runtime.close)
    atexit.register(end)
    # What was registered last is called first.
    atexit.register(runtime.close)
    exporter = CmdrDataSpanExporter()
    export(exporter)


def produce_noting_syncs(pause: float) -> None:
    """Export until something ends this process, and tell when, and what of the journals is on the disk itself."""

    def noting(descriptor: int) -> None:
        found = os.fstat(descriptor)
        sync(descriptor)
        note("synced", found.st_ino, found.st_size)

    def noting_names(directory: Directory) -> None:
        there = [path.stat().st_ino for path in directory.journals()]
        sync_names(directory)
        note("named", *there)

    sync, sync_names = journal_file._sync, Directory.sync
    module: Any = journal_file
    module._sync = noting
    owner: Any = Directory
    owner.sync = noting_names
    exporter = CmdrDataSpanExporter()
    while True:
        export(exporter)
        note("exported", time.monotonic())
        time.sleep(pause)


def in_two_processors(count: int) -> None:
    """Register the exporter twice, as a program does whose environment names it, too."""
    provider = TracerProvider()
    for _ in range(2):
        provider.add_span_processor(SimpleSpanProcessor(CmdrDataSpanExporter()))
    tracer = provider.get_tracer("somebody's instrumentation")
    for _ in range(count):
        call: Any = tracer.start_span("chat", attributes=CHAT)
        call.end()
        event = event_from_span(call)
        assert event is not None
        note("id", event.id)


def export_at(trace_id: int, ended: int) -> None:
    """Export the span of one certain call, which ended at a Unix time."""
    exporter = CmdrDataSpanExporter()
    exported = span()
    vars(exported).update(
        _context=SpanContext(trace_id, 1, is_remote=False),
        _start_time=(ended - 1) * 1_000_000_000,
        _end_time=ended * 1_000_000_000,
    )
    note("id", exported_by(exporter, exported))


def in_two_accounts(keys: dict[str, str], count: int) -> None:
    """Export to the accounts in turn, each of which has a key of its own."""
    exporters = {
        account: CmdrDataSpanExporter(api_key=key, account=account) for account, key in keys.items()
    }
    for _ in range(count):
        for account, exporter in exporters.items():
            event_id = exported_by(exporter, span())
            note("id", event_id)
            note("account", event_id, account)


def leave(count: int, *, shutdown_timeout: float = 5.0, shutdown: bool = False) -> None:
    """Export the spans of `count` calls and end, with `shutdown()` or without; that may take so many seconds."""
    exporter = CmdrDataSpanExporter(shutdown_timeout=shutdown_timeout)
    for _ in range(count):
        export(exporter)
    # Called after what was registered before: it sees how long that took.
    atexit.register(note, "exits")
    if shutdown:
        began = time.monotonic()
        exporter.shutdown()
        note("took", time.monotonic() - began)


def on_a_full_disk(count: int, largest: int) -> None:
    """
    Export `count` calls while no file may have more than `largest` bytes, and as many when they may again.

    Each is noted as `tried`, and what the log says of one of them as `logged`.
    """

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("{"):
                note("logged", json.loads(record.getMessage())["id"])

    logging.getLogger("cmdrdata").addHandler(Noting())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    exporter = CmdrDataSpanExporter()
    note("tried", exported_by(exporter, span()))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (largest, most):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        for _ in range(count):
            note("tried", exported_by(exporter, span()))
        note("limited" if limit == largest else "free")
        # Until the test goes on.
        signal.sigwait({signal.SIGUSR1})


def produce_in_turns(pause: float) -> None:
    """Export calls until a SIGUSR1, which makes it rest until the next one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    exporter = CmdrDataSpanExporter()
    while True:
        while signal.SIGUSR1 not in signal.sigpending():
            export(exporter)
            time.sleep(pause)
        signal.sigwait({signal.SIGUSR1})
        note("rests")
        signal.sigwait({signal.SIGUSR1})
