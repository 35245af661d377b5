"""
How processes and our threads begin and end, where that concerns what lives in them.

A forked child has its parent's objects, but none of its threads, and locks that one of those may have held.
The end of a process is told by `atexit`, except in a child of `multiprocessing`, which ends in `os._exit` after
finalizers of its own.
"""

from __future__ import annotations

import _thread
import atexit
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from cmdrdata_exporter import faults


def start_thread(
    function: Callable[..., None],
    *arguments: object,
    name: str | None = None,
    started: list[int] | None = None,
) -> None:
    """
    Run `function` in a thread that ends with the process and takes no signal: those are the application's.

    Not in a `threading.Thread`: that takes locks which a signal handler may have interrupted, and instrumentations
    have it hand on the context of whoever starts it.

    A signal handler may raise in the middle. `started` is not empty then if the thread runs, and only then.

    Raises:
        RuntimeError: no thread can be started (any more).
    """
    if _is_uwsgi_master():
        raise RuntimeError(
            "a thread would keep the workers of uWSGI, forked in the middle of it, from starting"
        )

    def run() -> None:
        if (trace := threading.gettrace()) is not None:
            # Debuggers, and what measures coverage, follow this thread as they follow those of `threading`.
            sys.settrace(trace)
        if name is not None:
            threading.current_thread().name = name
        function(*arguments)

    started = [] if started is None else started
    # In one step of the interpreter, so that no signal handler comes between the two.
    start = map(_thread.start_new_thread, (run,), ((),))
    if _set_mask is None:  # Windows
        started.extend(start)
        return
    mask = _set_mask(signal.SIG_BLOCK, ())
    try:
        # A thread begins with the mask of the one that starts it: it could take a signal before it blocks any.
        _set_mask(signal.SIG_BLOCK, signal.valid_signals())
        started.extend(start)
    finally:
        _set_mask(signal.SIG_SETMASK, mask)


class Running(Protocol):
    """What has a thread of its own from time to time, one at most."""

    running: bool


def start_running(it: Running, function: Callable[..., None], *arguments: object) -> None:
    """Run `function` in the thread of `it`, which notes its end itself; an interpreter that ends starts no thread."""
    started: list[int] = []
    it.running = True
    try:
        start_thread(function, *arguments, started=started)
    except BaseException as error:
        # A second thread would do again what the first one does.
        if not started:
            it.running = False
        # What a signal handler raised, Ctrl-C for one, goes on; the next one starts the thread.
        if faults.is_interruption(error) or not isinstance(error, RuntimeError):
            raise


def has_started(function: Callable[..., None], *arguments: object) -> bool:
    """Run `function` as `start_thread` does, and return whether it runs: an interpreter that ends starts no thread."""
    started: list[int] = []
    try:
        start_thread(function, *arguments, started=started)
    except RuntimeError as error:
        if faults.is_interruption(error):
            raise
    return bool(started)


def _is_uwsgi_master() -> bool:
    """Return whether this is the process of uWSGI that loads the application and forks its workers."""
    masterpid = getattr(sys.modules.get("uwsgi"), "masterpid", None)
    return masterpid is not None and bool(masterpid() == os.getpid())


# C's own: `signal.pthread_sigmask` is Python, at whose beginning a signal handler may raise: they would stay blocked.
_set_mask: Any = getattr(sys.modules["_signal"], "pthread_sigmask", None)


class ForkAware:
    """What has something to do when its process is forked. The methods are called in the thread that forks."""

    def before_fork(self) -> None:
        """Come to rest."""

    def after_fork_parent(self) -> None:
        """Go on."""

    def after_fork_child(self) -> None:
        """Forget the parent's state, and replace locks that a thread of the parent may have held."""


_fork_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_at_exit: dict[Callable[[], None], int] = {}


def notify_of_forks(it: ForkAware) -> None:
    """Call the methods of `it` at each fork, for as long as it lives."""
    _fork_aware.add(it)


# Seconds that the end of the process waits, in this order.
OPEN_CALL_TIMEOUT = 2.0
"""For the end of a call that is under way in another thread."""
SHUTDOWN_TIMEOUT = 5.0
"""For deliveries, in all."""
LAST_COMMIT_TIMEOUT = 0.4
"""Beyond that, so that outcomes are committed."""


def at_exit(function: Callable[[], None], priority: int) -> None:
    """
    Have `function` called when this process, or a child that inherits it, ends; twice is once.

    Args:
        function: what is to be done; where two finalizers exist it may be called again.
        priority: among the finalizers of a child of `multiprocessing`, the highest comes first.
    """
    _at_exit[function] = priority
    atexit.unregister(function)
    atexit.register(function)
    if multiprocessing.parent_process() is not None:
        multiprocessing.util.Finalize(None, function, exitpriority=priority)


def _finalize_in_child(_: object) -> None:
    for function, priority in _at_exit.items():
        multiprocessing.util.Finalize(None, function, exitpriority=priority)


def _tell(what: Callable[[ForkAware], None]) -> None:
    for it in list(_fork_aware):
        what(it)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing is forked
    os.register_at_fork(
        before=lambda: _tell(lambda it: it.before_fork()),
        after_in_parent=lambda: _tell(lambda it: it.after_fork_parent()),
        after_in_child=lambda: _tell(lambda it: it.after_fork_child()),
    )
# A child forgets the finalizers of its parent, then calls this, then runs.
# https://github.com/python/cpython/blob/v3.12.1/Lib/multiprocessing/process.py#L296-L347
multiprocessing.util.register_after_fork(at_exit, _finalize_in_child)
