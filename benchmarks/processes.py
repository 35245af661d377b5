"""Processes that measure: each has one thing to measure, and answers what it is asked."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class Process:
    """
    A process with a worker of its own.

    Args:
        worker: makes it, in that process.
        arguments: what it is made of.
    """

    def __init__(self, worker: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._requests, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, worker, arguments))
        self._process.daemon = True
        self._process.start()
        # Or the end of a process that fails would not be seen.
        theirs.close()

    def ask(self, measurement: str, *arguments: object) -> Any:
        """Have one measurement made: call that method of the worker."""
        self._requests.send((measurement, arguments))
        return self._requests.recv()

    def end(self) -> None:
        """End the process, and wait until it has ended."""
        self._requests.send(None)
        self._process.join(30)

    def kill(self) -> None:
        """End the process in the middle of what it does."""
        self._process.kill()
        self._process.join(30)


def _serve(
    requests: Connection, make: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    # What is said when metering starts would stand between the tables. A failure is printed afterwards.
    with contextlib.redirect_stderr(io.StringIO()):
        worker = make(*arguments)
        while request := requests.recv():
            measurement, values = request
            requests.send(getattr(worker, measurement)(*values))
