"""
Calls that outlive the SDK's method: streams and raw responses, until they end.

Those that are open are known, so that the exit of the process ends them.
Those that were dropped are put on a queue, and a thread ends them.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from typing import Protocol

from cmdrdata_exporter import faults, processes


class OpenCall(Protocol):
    """What is known of a call here."""

    def end(self, error: BaseException | None = None, *, cut: bool = False) -> None:
        """End the call, unless it has ended."""
        ...


_open: dict[int, weakref.ref[OpenCall]] = {}
_Dropped = tuple["OpenCall", BaseException | None]
_dropped: queue.SimpleQueue[_Dropped] | None = None
_ending: threading.Lock | None = None
"""Held while the reaper ends a call."""
_reaper_of: int | None = None
"""The process whose reaper runs: a forked child has none of its parent's threads."""


@faults.guarded
def start_reaper() -> None:
    """
    See to it that calls which are dropped are ended.

    Queue, lock and thread are made together and late: gevent, which replaces all of them, may do so after this module
    was imported, and a real queue in a green thread would halt every other one.
    """
    global _dropped, _ending, _reaper_of
    if _reaper_of != os.getpid():
        dropped_calls: queue.SimpleQueue[_Dropped] = (
            queue.SimpleQueue() if _dropped is None else _dropped
        )
        ending = threading.Lock()
        processes.start_thread(_reap, dropped_calls, ending, name="cmdrdata-reaper")
        _dropped, _ending, _reaper_of = dropped_calls, ending, os.getpid()


@faults.guarded
def keep(call: OpenCall) -> None:
    """Know `call` until it ends or is dropped."""
    _open[id(call)] = weakref.ref(call)
    start_reaper()


def forget(call: OpenCall) -> None:
    """Know `call` no longer: it ends."""
    _open.pop(id(call), None)


def still_open() -> list[OpenCall]:
    """Return the calls that are open now."""
    calls = (reference() for reference in list(_open.values()))
    return [call for call in calls if call is not None]


def dropped(call: OpenCall, error: BaseException | None = None) -> None:
    """
    Have `call` ended, to which nothing refers any more.

    For finalizers, which run inside any allocation, perhaps under a lock that the end of a call needs. This only puts
    the call on a queue that is made for that.
    """
    global _dropped
    if _dropped is None:
        _dropped = queue.SimpleQueue()
    _dropped.put((call, error))


def end_dropped() -> None:
    """End the calls that were dropped so far, in this thread."""
    while _dropped is not None:
        try:
            call, error = _dropped.get_nowait()
        except queue.Empty:
            return
        call.end(error, cut=True)


def end_all() -> None:
    """End every call that is still open: the process exits."""
    end_dropped()
    for call in still_open():
        call.end(cut=True)
    # What the reaper has taken shall be billed before the delivery closes.
    if _ending is not None and _ending.acquire(timeout=processes.OPEN_CALL_TIMEOUT):
        _ending.release()


def _reap(dropped_calls: queue.SimpleQueue[_Dropped], ending: threading.Lock) -> None:
    while True:
        call, error = dropped_calls.get()
        with ending:
            call.end(error, cut=True)
        del call, error  # Or the last one would live until the next is dropped.


class _ForkAware(processes.ForkAware):
    def after_fork_child(self) -> None:
        """Leave the parent's calls to the parent, and its queue, whose lock another thread may have held."""
        global _dropped, _ending
        _open.clear()
        _dropped = _ending = None


_fork_aware = _ForkAware()
processes.notify_of_forks(_fork_aware)
