"""How processes and threads begin and end: forks are told, and threads of ours leave signals alone."""

from __future__ import annotations

import _thread
import functools
import inspect
import os
import queue
import signal
import sys
import types
from types import FrameType
from typing import Any

import pytest

from cmdrdata_exporter import faults, processes


def test_a_thread_blocks_all_signals() -> None:
    """No thread of ours takes a signal, and who starts one has its own mask again."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    masks: queue.SimpleQueue[set[Any]] = queue.SimpleQueue()
    processes.start_thread(lambda: masks.put(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    everything = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    assert everything == masks.get(timeout=10)
    assert before == signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started the mask is as it was, too."""

    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", none)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(RuntimeError, match="can't start"):
        processes.start_thread(lambda: None)
    assert before == signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_master_of_uwsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread runs where uWSGI forks its workers, which would inherit what it has; in a worker it does."""
    uwsgi = types.ModuleType("uwsgi")
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    started: list[int] = []
    monkeypatch.setattr(uwsgi, "masterpid", os.getpid, raising=False)
    with pytest.raises(RuntimeError, match="uWSGI"):
        processes.start_thread(lambda: None, started=started)
    assert started == []
    # A worker's, and without a master.
    for pid in (os.getppid(), 0):
        monkeypatch.setattr(uwsgi, "masterpid", lambda pid=pid: pid)
        processes.start_thread(lambda: None, started=started)
    assert len(started) == 2


def test_the_end_of_a_process() -> None:
    """The exit waits for deliveries as long as is promised, with the last commit."""
    assert processes.SHUTDOWN_TIMEOUT == 5
    assert processes.SHUTDOWN_TIMEOUT + processes.LAST_COMMIT_TIMEOUT <= 5.5


class Told(processes.ForkAware):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def before_fork(self) -> None:
        """Write it down."""
        self.calls.append("before")

    def after_fork_parent(self) -> None:
        """Write it down."""
        self.calls.append("parent")

    def after_fork_child(self) -> None:
        """Write it down."""
        self.calls.append("child")


def test_forks() -> None:
    """What is fork-aware is told once before a fork, and once after it on each side; a method may be left out."""
    told = Told()
    processes.notify_of_forks(told)
    processes.notify_of_forks(told)
    idle = processes.ForkAware()
    processes.notify_of_forks(idle)
    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent only
        os._exit(0 if told.calls == ["before", "child"] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert told.calls == ["before", "parent"]


class Limit(Exception):  # noqa: N818 - named as those of task queues
    """What a signal handler raises."""


def _function(number: int, frame: FrameType | None) -> None:
    raise Limit


def _any(*arguments: Any) -> None:
    raise Limit


def _calling(number: int, frame: FrameType | None) -> None:
    _any()


def _bound(_: str, number: int, frame: FrameType | None) -> None:
    raise Limit


class _Handler:
    def method(self, number: int, frame: FrameType | None) -> None:
        raise Limit

    def __call__(self, number: int, frame: FrameType | None) -> None:
        raise Limit


@pytest.mark.parametrize(
    "handler",
    [
        _function,
        _any,
        functools.partial(_bound, "worker"),
        _Handler().method,
        _Handler(),
        _calling,
    ],
    ids=["function", "any arguments", "partial", "method", "object", "that calls another"],
)
def test_what_a_signal_handler_raises(handler: Any) -> None:
    """The guard lets it through, however the handler is made, and counts no fault of ours."""

    @faults.guarded
    def interrupted() -> None:
        signal.raise_signal(signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with pytest.raises(Limit):
            interrupted()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert {} == dict(faults.counts)


def test_what_is_raised_by_code_that_we_call() -> None:
    """The guard keeps back what the application's own code raises, also of a class of its own and given a frame."""

    def examine(frame: FrameType | None) -> None:
        raise Limit

    @faults.guarded
    def faulty() -> None:
        examine(inspect.currentframe())

    faulty()
    assert 1 == sum(faults.counts.values())
    faults.counts.clear()
