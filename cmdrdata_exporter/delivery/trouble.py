"""What keeps events from going on, told once in the log when it begins and once when it is over."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery.directory import Directory
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.http import Verdict
from cmdrdata_exporter.delivery.senders import Done

NEARLY = 0.8
"""The part of what a directory may have, from which on it is said to be nearly full."""

REFUSALS_INTERVAL = 60.0
"""Seconds between two messages about refused events, at least."""


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
        self._told_of_gate = False
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

    def removed(self) -> None:
        """Tell that someone removed or replaced the directory."""
        faults.say(
            logging.ERROR,
            "%s was removed or replaced; what this process still knows of the usage events in it is written anew",
            self._directory.path,
        )

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
                self._last_refusal = f"{event.id} with {outcome.reason}"

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
        if gate.paused and not self._told_of_gate:
            faults.say(
                logging.ERROR,
                "CmdrData does not accept events (%s); check key and endpoint. "
                "Every event is kept, the next attempt is in %.0f s",
                gate.reason,
                gate.delay(),
            )
        elif gate.in_trouble and not self._told_of_gate:
            faults.say(
                logging.WARNING,
                "CmdrData cannot be reached or does not answer as it should (%s, %d failures in a row). "
                "Events wait, and all are kept; attempts go on, at most a minute apart",
                gate.reason,
                gate.failures,
            )
        elif self._told_of_gate and not gate.in_trouble:
            faults.say(logging.WARNING, "CmdrData accepts events again")
        changed, self._told_of_gate = self._told_of_gate != gate.in_trouble, gate.in_trouble
        return changed

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


def _describe(error: Exception) -> str:
    if isinstance(error, sqlite3.Error):
        return f"SQLite says {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
