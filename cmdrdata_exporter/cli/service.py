"""What commands share that run until a signal: `drain` and `gateway`."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
from types import FrameType

from cmdrdata_exporter.cli.terminal import plain


class _Formatter(logging.Formatter):
    """Escapes text from others, as on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return plain(super().format(record), keep="\n")


def log_to_stderr() -> None:
    """Have what is logged written to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def signals_to_end(*, second_exits: bool = False) -> queue.SimpleQueue[int]:
    """
    Return where SIGTERM and SIGINT are put.

    Args:
        second_exits: whether the second one ends the process at once.
    """
    # A signal handler may interrupt a line that is being logged: it only puts into this queue, which is safe.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    met: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        if met and second_exits:
            os._exit(128 + number)
        met.append(number)
        signals.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return signals
