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

from cmdrdata_exporter import faults


class OpenCall(Protocol):
    """What is known of a call here."""

    def end(self, error: BaseException | None = None, *, cut: bool = False) -> None:
        """End the call, unless it has ended."""
        ...


_open: dict[int, weakref.ref[OpenCall]] = {}
_dropped: queue.SimpleQueue[OpenCall] = queue.SimpleQueue()
_reaper_of: int | None = None
"""The process whose reaper runs: a forked child has none of its parent's threads."""


@faults.guarded
def keep(call: OpenCall) -> None:
    """Know `call` until it ends or is dropped."""
    global _reaper_of
    _open[id(call)] = weakref.ref(call)
    if _reaper_of != os.getpid():
        _reaper_of = os.getpid()
        threading.Thread(target=_reap, name="cmdrdata-reaper", daemon=True).start()


def forget(call: OpenCall) -> None:
    """Know `call` no longer: it ends."""
    _open.pop(id(call), None)


def dropped(call: OpenCall) -> None:
    """
    Have `call` ended, to which nothing refers any more.

    For finalizers, which run inside any allocation, perhaps under a lock that the end of a call needs. This only puts
    the call on a queue that is made for that.
    """
    _dropped.put(call)


def end_dropped() -> None:
    """End the calls that were dropped so far, in this thread."""
    while True:
        try:
            call = _dropped.get_nowait()
        except queue.Empty:
            return
        call.end(cut=True)


def end_all() -> None:
    """End every call that is still open: the process exits."""
    end_dropped()
    for reference in list(_open.values()):
        call = reference()
        if call is not None:
            call.end(cut=True)


def _reap() -> None:
    while True:
        call = _dropped.get()
        call.end(cut=True)
        del call  # Or the last one would live until the next is dropped.


def _after_fork_in_child() -> None:
    """Leave the parent's calls to the parent, and its queue, whose lock another thread may have held."""
    global _dropped
    _open.clear()
    _dropped = queue.SimpleQueue()


os.register_at_fork(after_in_child=_after_fork_in_child)
