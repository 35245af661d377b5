"""What keeps events from going on, told once in the log when it begins and once when it is over."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery import Verdict
from cmdrdata_exporter.delivery.backoff import LONGEST_BACKOFF
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.senders import Done
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory

NEARLY = 0.8
"""The part of what a directory may have, from which on it is said to be nearly full."""

REFUSALS_INTERVAL = 60.0
"""Seconds between two messages about refused events, at least."""


Line = tuple[int, str, tuple[object, ...]]
"""What is to be logged: level, message and its arguments."""


class Trouble:
    """
    Of one directory, as the process sees it that drains.

    Args:
        directory: which.
        clock: returns monotonic seconds.
    """

    def __init__(
        self, directory: Directory, *, clock: Callable[[], float] = clocks.monotonic
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._refused = 0
        self._last_refusal = ""
        self._next_refusal = 0.0
        self._met: str | None = None
        self._backend = BackendTrouble()
        self._stalled = False
        self._log_is_full = False
        self.nearly_full = False
        """Whether the directory has four fifths of what it may have."""

    def met(self, error: Exception) -> None:
        """Tell of what went wrong, if that was not told yet."""
        what = _describe(error)
        if what != self._met:
            self._met = what
            faults.say(
                logging.ERROR,
                "usage events in %s wait: %s. None is lost; it is tried again",
                self._directory.path,
                what,
            )

    def over(self) -> None:
        """Tell that what went wrong works again."""
        if self._met is not None:
            self._met = None
            faults.say(logging.WARNING, "usage events in %s go on", self._directory.path)

    def measured(self, size: int, largest: int) -> bool:
        """Take note of the directory's size; return whether it is full."""
        nearly = size >= NEARLY * largest
        if nearly and not self.nearly_full:
            faults.say(
                logging.WARNING,
                "%s has %d MB of usage events, of %d MB that it may have; beyond that new events go to the log",
                self._directory.path,
                size >> 20,
                largest >> 20,
            )
        self.nearly_full = nearly
        return size >= largest

    def removed(self, path: Path, lost: str) -> None:
        """Tell that someone removed or replaced a file of the directory, and what was lost with it."""
        faults.say(
            logging.ERROR,
            "%s was removed or replaced under this process. It begins anew; lost is: %s",
            path,
            lost,
        )

    def closed(self) -> None:
        """Tell that someone closed what this process has open."""
        faults.say(
            logging.ERROR,
            "this program has closed descriptors that it has not opened, among them those of the usage events in %s. "
            "None is lost, and they are opened anew. Keep such code from closing all descriptors, or let it run "
            "before metering begins",
            self._directory.path,
        )

    def stalled(self) -> None:
        """Tell, once, that events wait or waited in memory."""
        if not self._stalled:
            self._stalled = True
            faults.say(
                logging.WARNING,
                "the disk of %s did not answer: usage events waited in memory for it, and would have been lost with "
                "this process. They are counted as handed over",
                self._directory.path,
            )

    def read_for_long(self, size: int | None) -> None:
        """Tell that somebody who reads the ledger keeps its log from being emptied; None: it is small enough."""
        if size is not None and not self._log_is_full:
            faults.say(
                logging.ERROR,
                "%s is read by a program that does not end: the log of its changes has %d MB. "
                "Usage events wait in journals until it ends",
                self._directory.path / LEDGER,
                size >> 20,
            )
        self._log_is_full = size is not None

    def salvaged(self, path: Path, lost: int) -> None:
        """Tell that the ledger was damaged."""
        faults.say(
            logging.ERROR,
            "the ledger of usage events was damaged: what could be read of it is in a new one, %d events could not; "
            "the damaged one is kept as %s",
            lost,
            path,
        )

    def settled(self, outcomes: Sequence[Done]) -> None:
        """Take note of what came of attempts; of refused events `refused` tells."""
        for event, outcome in outcomes:
            if outcome is not None and outcome.verdict is Verdict.REFUSED:
                self._refused += 1
                self._last_refusal = f"{event.id} with {outcome.explanation}"

    def refused(self) -> None:
        """Tell of events that were refused for good: of the first at once, then once a minute."""
        now = self._clock()
        if self._refused and now >= self._next_refusal:
            self._next_refusal = now + REFUSALS_INTERVAL
            number, self._refused = self._refused, 0
            faults.say(
                logging.ERROR,
                "CmdrData refused %d usage event(s) for good, the last one %s. They are kept as dead letters: "
                "see `cmdrdata dead-letters list`",
                number,
                self._last_refusal,
            )

    def answered(self, gate: Gate) -> bool:
        """Tell of a backend that does not take events, and of one that does again; return whether that is new."""
        news = self._backend.news(gate)
        if news is not None:
            level, message, arguments = news
            faults.say(level, message, *arguments)
        return news is not None

    def expired(self, number: int) -> None:
        """Tell of events that were given up."""
        if number:
            faults.say(
                logging.ERROR,
                "%d usage event(s) could not be delivered for 30 days. They are kept as dead letters: "
                "see `cmdrdata dead-letters list`",
                number,
            )

    def facts(self, gate: Gate, clock: float) -> dict[str, object]:
        """Return what commands should know of the process that drains."""
        return {
            "pid": os.getpid(),
            "at": clock,
            "paused": gate.paused,
            "probing": gate.in_trouble,
            "reason": gate.reason,
            "next_attempt": clock + gate.delay(),
        }


def counted(waiting: Mapping[str, int]) -> str:
    """Return in words how many events were in a ledger, by their state."""
    names = {"pending": "to be sent", "in_flight": "being sent", "held": "held", "dead": "dead"}
    found = [f"{waiting[state]} {name}" for state, name in names.items() if waiting.get(state)]
    return f"usage events ({', '.join(found)})" if found else "no usage event"


class BackendTrouble:
    """Of one backend, as its gate sees it."""

    def __init__(self) -> None:
        self._state: str | None = None
        """What the log says that it is in; None: it takes events."""

    def news(self, gate: Gate) -> Line | None:
        """Return what is to be told of a backend that does not take events, or that does again, and was not yet."""
        state = "paused" if gate.paused else "probing" if gate.in_trouble else None
        if state == self._state:
            return None
        self._state = state
        if state == "paused":
            message = (
                "CmdrData does not accept events (%s); check key and endpoint. "
                "Every event is kept, the next attempt is in %d s"
            )
            return logging.ERROR, message, (gate.reason, math.ceil(gate.delay()))
        if state == "probing":
            message = (
                "CmdrData cannot be reached or does not answer as it should (%s, %d failures in a row). "
                "Events wait, and all are kept; attempts go on, at most %.0f s apart"
            )
            return logging.WARNING, message, (gate.reason, gate.failures, LONGEST_BACKOFF)
        return logging.WARNING, "CmdrData accepts events again", ()


def _describe(error: Exception) -> str:
    import sqlite3  # only now: what keeps events in memory does without it

    if isinstance(error, sqlite3.Error):
        return f"SQLite says {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
