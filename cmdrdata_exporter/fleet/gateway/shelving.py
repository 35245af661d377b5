"""One thread that puts the spans of many requests on the shelf, as many in a transaction as have come meanwhile."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence

import psycopg

from cmdrdata_exporter import faults, processes
from cmdrdata_exporter.fleet.gateway.shelf import Shelf
from cmdrdata_exporter.fleet.gateway.spans import SpanRow

TOGETHER = 5000
"""How many spans are stored at once, about."""
PATIENCE = 20.0
"""Seconds that a request waits for the database."""
LOOK = 1.0
"""Seconds between two looks whether the database is back: while this says that it is away, no request may come."""


class AwayError(Exception):
    """The ledger's database cannot be written now, or not in time."""


class _Waiting:
    """The spans of a request."""

    def __init__(self, rows: Sequence[SpanRow]) -> None:
        self.rows = rows
        self.done = threading.Event()
        self.failed = False


class Shelving:
    """
    Stores spans for the threads that answer requests.

    Args:
        shelf: where to.
        patience: how many seconds a request waits for the database.
    """

    def __init__(self, shelf: Shelf, patience: float = PATIENCE) -> None:
        self._shelf = shelf
        self._patience = patience
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self.works = True
        """Whether what was stored last could be, in time."""

    def start(self) -> None:
        """Start the thread."""
        processes.start_thread(self._run, name="cmdrdata-gateway-shelving")

    def store(self, rows: Sequence[SpanRow]) -> None:
        """
        Return once spans are on the disk of the database.

        Raises:
            AwayError: it is not known that they are.
        """
        if not rows:
            return
        waiting = _Waiting(rows)
        self._queue.put(waiting)
        if not waiting.done.wait(self._patience):
            # It comes again: while the database hangs its spans shall not wait here as well, time after time.
            waiting.rows = ()
            if self.works:
                faults.say(
                    logging.WARNING,
                    "spans are not stored within %g seconds and are refused for now",
                    self._patience,
                )
            self.works = False
            raise AwayError
        if waiting.failed:
            raise AwayError

    def stop(self, seconds: float) -> bool:
        """Store what is waited for, and end; say whether it ended in time."""
        self._queue.put(None)
        return self._ended.wait(seconds)

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            together, goes_on = self._next()
            rows = [row for waiting in together for row in waiting.rows]
            failed = False
            try:
                if rows or not self.works:
                    self._shelf.store(rows)
            except Exception as error:  # noqa: BLE001 - the thread must live
                failed = True
                if not isinstance(error, psycopg.Error):
                    faults.report("shelving", "spans cannot be stored", exc_info=True)
                elif self.works:
                    faults.say(
                        logging.WARNING,
                        "spans cannot be stored and are refused for now: %s",
                        plain_error(error),
                    )
            if not failed and not self.works:
                faults.say(logging.WARNING, "spans can be stored again")
            self.works = not failed
            for waiting in together:
                waiting.failed = failed
                waiting.done.set()
        self._shelf.close()
        self._ended.set()

    def _next(self) -> tuple[list[_Waiting], bool]:
        """Return what is to be stored together, and whether there may be more."""
        found: list[_Waiting] = []
        number = 0
        try:
            while number < TOGETHER:
                waiting = self._queue.get(not found, None if self.works else LOOK)
                if waiting is None:
                    return found, False
                found.append(waiting)
                number += len(waiting.rows)
        except queue.Empty:
            pass
        return found, True


def plain_error(error: BaseException) -> str:
    """Return what a database says, in one line and without what it was told."""
    diagnosis = getattr(error, "diag", None)
    words = getattr(diagnosis, "message_primary", None) or str(error).partition("\n")[0]
    return f"{type(error).__name__}: {words[:200]}"
