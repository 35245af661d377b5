"""Threads of ours leave the application's signals alone."""

from __future__ import annotations

import _thread
import functools
import inspect
import queue
import signal
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
