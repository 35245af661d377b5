"""What the log says of a delivery: what keeps events from going on, once when it begins and once when it is over."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery import KEPT_DAYS, Verdict
from cmdrdata_exporter.delivery.backoff import LONGEST_BACKOFF
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.groups import MOST_VALUES, OTHER
from cmdrdata_exporter.delivery.senders import Done
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.wording import plural

NEARLY = 0.8
"""The part of what a directory may have, from which on it is said to be nearly full."""

REFUSALS_INTERVAL = 60.0
"""Seconds between two messages about refused events, at least."""

BACKEND_TROUBLES = {
    "paused": "the backend refuses the key or endpoint",
    "probing": "the backend cannot be reached or fails",
}
"""What keeps a backend from taking events, by the gate's state: in the log, and what `cmdrdata status` says."""

_AS_DEAD_LETTERS = "kept as dead letters: see `cmdrdata dead-letters list`"
_IN_MEMORY = "kept in memory and go to this log when the process ends"


class StatusLog:
    """
    Of one destination, as this process sees it. It logs, so it is used without a lock: a handler may wait.

    Args:
        directory: where events are, None: in memory.
        clock: returns monotonic seconds.
    """

    def __init__(
        self, directory: Directory | None, *, clock: Callable[[], float] = clocks.monotonic
    ) -> None:
        self._place = Path() if directory is None else directory.path
        self._dead_letters = _IN_MEMORY if directory is None else _AS_DEAD_LETTERS
        self._clock = clock
        self._refused = 0
        self._last_refusal = ""
        self._next_refusal = 0.0
        self._last_error: str | None = None
        self._backend: str | None = None
        """The state of the gate that the log tells; None: it is open."""
        self._index_reason: str | None = None
        """Why the index was begun anew last."""
        self._has_stalled = False
        self._has_long_reader = False
        self._full_labels: set[str] = set()
        self.nearly_full = False
        """Whether the directory has four fifths of what it may have."""

    def error(self, error: Exception) -> None:
        """Log what went wrong, unless it is the same as the last time."""
        what = _describe(error)
        if what != self._last_error:
            self._last_error = what
            faults.say(
                logging.ERROR,
                "usage events in %s wait: %s. None is lost; it is tried again",
                self._place,
                what,
            )

    def recovered(self) -> None:
        """Log that what went wrong works again."""
        if self._last_error is not None:
            self._last_error = None
            faults.say(logging.WARNING, "usage events in %s go on", self._place)

    def size(self, size: int, largest: int) -> bool:
        """Log that the directory is nearly full; return whether it is full."""
        nearly = size >= NEARLY * largest
        if nearly and not self.nearly_full:
            faults.say(
                logging.WARNING,
                "%s has %d MB of usage events, of %d MB that it may have; beyond that new events go to the log",
                self._place,
                size >> 20,
                largest >> 20,
            )
        self.nearly_full = nearly
        return size >= largest

    def directory_removed(self, path: Path, lost: str) -> None:
        """Log that someone removed or replaced a file of the directory, and what was lost with it."""
        faults.say(
            logging.ERROR,
            "%s was removed or replaced under this process. It begins anew; lost is: %s",
            path,
            lost,
        )

    def descriptors_closed(self) -> None:
        """Log that someone closed what this process has open."""
        faults.say(
            logging.ERROR,
            "this program has closed descriptors that it has not opened, among them those of the usage events in %s. "
            "None is lost, and they are opened anew. Keep such code from closing all descriptors, or let it run "
            "before metering begins",
            self._place,
        )

    def disk_stalled(self) -> None:
        """Log, once, that events wait or waited in memory."""
        if not self._has_stalled:
            self._has_stalled = True
            faults.say(
                logging.WARNING,
                "the disk of %s did not answer: usage events waited in memory for it, and would have been lost with "
                "this process. They are counted as handed over",
                self._place,
            )

    def long_reader(self, size: int | None) -> None:
        """Log that somebody who reads the ledger keeps its log from being emptied; None: it is small enough."""
        if size is not None and not self._has_long_reader:
            faults.say(
                logging.ERROR,
                "%s is read by a program that does not end: the log of its changes has %d MB. "
                "Usage events wait in journals until it ends",
                self._place / LEDGER,
                size >> 20,
            )
        self._has_long_reader = size is not None

    def ledger_salvaged(self, path: Path, lost: int) -> None:
        """Log that the ledger was damaged."""
        faults.say(
            logging.ERROR,
            "the ledger of usage events was damaged: what could be read of it is in a new one, %s could not; "
            "the damaged one is kept as %s",
            plural(lost, "event"),
            path,
        )

    def index_begun_anew(self, reason: str) -> None:
        """Log why the index is begun anew, unless it is the same as the last time."""
        if reason != self._index_reason:
            self._index_reason = reason
            faults.say(
                logging.WARNING,
                "the index of events in %s is begun anew: %s. No usage event is lost or waits for it; delivered ones "
                "of before are not found by `cmdrdata events` any more",
                self._place,
                reason,
            )

    def count_refusals(self, outcomes: Sequence[Done]) -> None:
        """Count the events that were refused for good, for `log_refusals`."""
        for event, outcome in outcomes:
            if outcome is not None and outcome.verdict is Verdict.REFUSED:
                self._refused += 1
                self._last_refusal = f"{event.id} with {outcome.explanation}"

    def log_refusals(self) -> None:
        """Log the events that were refused for good: the first at once, then those of each minute together."""
        now = self._clock()
        if self._refused and now >= self._next_refusal:
            self._next_refusal = now + REFUSALS_INTERVAL
            number, self._refused = self._refused, 0
            faults.say(
                logging.ERROR,
                "the backend refused %s for good, the last one %s. Refused events are %s",
                plural(number, "usage event"),
                self._last_refusal,
                self._dead_letters,
            )

    def backend_state(self, gate: Gate) -> bool:
        """Log that the backend takes no events, or takes them again; return whether that is new."""
        state = "paused" if gate.paused else "probing" if gate.in_trouble else None
        if state == self._backend:
            return False
        self._backend = state
        if state == "paused":
            faults.say(
                logging.ERROR,
                "delivery is paused: %s (%s). Check both; all events are kept, the next attempt is in %d s",
                BACKEND_TROUBLES[state],
                gate.reason,
                math.ceil(gate.delay()),
            )
        elif state == "probing":
            faults.say(
                logging.WARNING,
                "usage events wait: %s (%s, %s in a row). All events are kept; attempts go on, at most %.0f s apart",
                BACKEND_TROUBLES[state],
                gate.reason,
                plural(gate.failures, "failure"),
                LONGEST_BACKOFF,
            )
        else:
            faults.say(logging.WARNING, "the backend accepts usage events again")
        return True

    def expired(self, number: int) -> None:
        """Log events that were given up."""
        if number:
            faults.say(
                logging.ERROR,
                "%s could not be delivered for %d days. Expired events are %s",
                plural(number, "usage event"),
                KEPT_DAYS,
                self._dead_letters,
            )

    def full_labels(self, names: Iterable[str]) -> None:
        """Log which metadata keys have had more values than usage is summed by, each once."""
        new = set(names) - self._full_labels
        self._full_labels |= new
        if new:
            faults.say(
                logging.WARNING,
                "usage is summed by %s values of a metadata key at most: further ones of %s count as %s. "
                "Leave keys with so many values out of CMDRDATA_TOTAL_BY",
                f"{MOST_VALUES:,}",
                ", ".join(sorted(new)),
                OTHER,
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
            "index": self._index_reason,
        }


def counted(waiting: Mapping[str, int]) -> str:
    """Return in words how many events were in a ledger, by their state."""
    names = {"pending": "to be sent", "in_flight": "being sent", "held": "held", "dead": "dead"}
    found = [f"{waiting[state]} {name}" for state, name in names.items() if waiting.get(state)]
    return f"usage events ({', '.join(found)})" if found else "no usage event"


def _describe(error: Exception) -> str:
    import sqlite3  # only now: what keeps events in memory does without it

    if isinstance(error, sqlite3.Error):
        return f"SQLite says {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
