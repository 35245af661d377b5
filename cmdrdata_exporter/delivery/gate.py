"""
When anything may be sent at all, by what the backend's last answers were.

| the gate is | after | until |
|---|---|---|
| open | the start and a rest, for a few attempts at a time; a success | |
| shut for a while | an answer with `Retry-After` | that time, whatever else succeeds |
| probing | failures in a row, of different events | a success: one attempt at a time, at growing intervals |
| paused | an answer that says key or endpoint are wrong | a success: one attempt every one to five minutes |

After the first success, and after one that ends probing, a pause or a rest, the number of attempts at a time doubles
with each further one.

Some events fail whenever they come, and nobody else's shall wait for them. A failure says something about the backend
only if nothing has passed that began later. It is the event's own if it failed before, another one passed after that,
and it fails again. So an answer that may mean the event or the account (`Verdict.FORBIDDEN`) is told apart as well.
A failure to connect is never the event's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.backoff import (
    LONGEST_PAUSE,
    PROBE_AFTER,
    PROBE_INTERVAL,
    backoff,
)

FIRST = 2
"""Attempts at a time before the first success: a backend that is down gets no more, one that is there soon has all."""
REST = 5.0
"""Seconds without a success after which nobody knows whether the backend is still there."""
CERTAIN = 32
"""So many failures in a row are no chance, where half of the events fail whenever they come."""
DOUBTFUL = 1.0
"""Seconds in which fewer of them are."""
REMEMBERED = 4096
"""How many events that have failed are known, so that little memory is needed."""


class Entry(NamedTuple):
    """An attempt that the gate let in."""

    turn: int
    """Which one it is, from 1."""
    closings: int
    """How often failures had shut the gate."""
    passed: int
    """The last turn that had come to a success."""


class Gate:
    """
    Asked by every sender before an attempt, and told what came of it. Safe to use from several threads.

    Args:
        limit: how many attempts may be under way at once.
        first: how many until the first success and after a rest; then it doubles with each one. Default: as many.
        probe_interval: seconds until the first probe of a pause; each further one comes later, up to five minutes.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        limit: int,
        *,
        first: int | None = None,
        probe_interval: float = PROBE_INTERVAL,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._limit = limit
        self._probe_interval = probe_interval
        self._clock = clock
        self._lock = threading.Lock()
        self._allowed = self._first = min(first or limit, limit)
        self._passed_at = self._clock()
        """The time of the last success."""
        self._under_way = 0
        self._shut_until = 0.0
        self._turn = 0
        self._closings = 0
        self._passed = 0
        self._failed: dict[bytes, int] = {}
        """Events that have failed and not passed since, each with the last turn at that time; the oldest first."""
        self._failures = 0
        self._different: set[bytes] = set()
        """What has failed since the last success: how many attempts, of which events."""
        self._failing_since = 0.0
        self._certain = False
        """Whether so much has failed that it is no chance."""
        self._probes = self._doubts = self._pauses = 0
        """How often it was shut since then: the backend is in trouble, may refuse everything, does so."""
        self.reason: str | None = None
        """What the last failure was, until a success."""

    @property
    def paused(self) -> bool:
        """Whether key or endpoint must be mended."""
        return self._doubts + self._pauses > 0

    @property
    def in_trouble(self) -> bool:
        """Whether nothing passes: it probes, is paused, or a few events fail again and again and there is no other."""
        return self.paused or self._probes > 0 or self._certain

    @property
    def failures(self) -> int:
        """How many attempts have failed in a row."""
        return self._failures

    def delay(self) -> float:
        """Return the seconds until an attempt may begin."""
        return max(0.0, self._shut_until - self._clock())

    def room(self, prepared: int) -> int:
        """Return how many attempts are worth preparing now, beside those that are prepared or under way."""
        if self.delay() > 0:
            return 0
        with self._lock:
            self._rest()
        # With the gate wide open each attempt has a successor waiting, so that no sender is idle.
        wanted = self._allowed if self._allowed < self._limit else 2 * self._limit
        return max(0, wanted - prepared)

    def enter(self) -> Entry | None:
        """Return what `leave` must be given after the attempt that may begin now; None: it may not."""
        with self._lock:
            self._rest()
            allowed = self._allowed
            if self._different:
                # While attempts fail fewer begin, so that a backend that goes down gets few of them.
                allowed = max(1, allowed - len(self._different) * self._limit * 2 // CERTAIN)
            if self._under_way >= allowed or self._clock() < self._shut_until:
                return None
            self._under_way += 1
            self._turn += 1
            return Entry(self._turn, self._closings, self._passed)

    def _rest(self) -> None:
        if not self._under_way and self._clock() - self._passed_at >= REST:
            self._allowed = min(self._allowed, self._first)

    def leave(self, entry: Entry, key: bytes, outcome: Outcome) -> Outcome:
        """
        End an attempt.

        Args:
            entry: what `enter` returned.
            key: of the event.
            outcome: what came of it.

        Returns:
            what came of it by all that is known: never `Verdict.FORBIDDEN`.
        """
        with self._lock:
            self._under_way -= 1
            if outcome.retry_after:
                self._shut(outcome.retry_after)
            # Attempts that were under way together when the first of them shut the gate are no answers to a probe.
            late = entry.closings < self._closings
            if outcome.verdict is Verdict.MISCONFIGURED:
                self._pause(outcome, late, doubt=False)
            elif outcome.verdict in (Verdict.RETRY, Verdict.FORBIDDEN):
                outcome = self._fail(entry, key, outcome, late)
            else:
                self._failed.pop(key, None)
                self._succeed(entry, outcome)
        return outcome

    def _pause(self, outcome: Outcome, late: bool, *, doubt: bool) -> None:
        self.reason = outcome.explanation
        self._allowed = 1
        if self.paused and late:
            return
        if doubt:
            # It may be the events still: others are tried soon.
            self._shut(min(backoff(self._doubts), self._probe_interval))
            self._doubts += 1
        else:
            longest = max(LONGEST_PAUSE, self._probe_interval)
            self._shut(min(self._probe_interval * 2 ** min(self._pauses, 16), longest))
            self._pauses += 1
        self._closings += 1

    def _fail(self, entry: Entry, key: bytes, outcome: Outcome, late: bool) -> Outcome:
        before = self._failed.setdefault(key, self._turn)
        if len(self._failed) > REMEMBERED:
            del self._failed[next(iter(self._failed))]
        forbidden = outcome.verdict is Verdict.FORBIDDEN
        its_own = before < entry.passed and not outcome.unreachable
        if forbidden:
            if its_own and not self._failures:
                del self._failed[key]
                return replace(outcome, verdict=Verdict.REFUSED)
            # Until that is known it is tried again, later than others.
            outcome = replace(outcome, verdict=Verdict.RETRY)
        # What began later and passed says that the backend was there.
        if its_own or entry.turn < self._passed:
            return outcome
        self.reason = outcome.explanation
        now = self._clock()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        self._different.add(key)
        few = now - self._failing_since < DOUBTFUL and not outcome.unreachable
        self._certain = self._certain or self._failures >= (CERTAIN if few else PROBE_AFTER)
        if forbidden and (self._certain or self.paused):
            self._pause(outcome, late, doubt=self._doubts < PROBE_AFTER)
        elif self.in_trouble and (self.paused or len(self._different) >= PROBE_AFTER):
            self._probe(late)
        return outcome

    def _probe(self, late: bool) -> None:
        self._allowed = 1
        if self._probes and late:
            return
        self._shut(backoff(self._probes))
        self._probes += 1
        self._closings += 1

    def _succeed(self, entry: Entry, outcome: Outcome) -> None:
        self.reason = None
        self._failures = self._probes = self._doubts = self._pauses = 0
        self._certain = False
        self._passed_at = self._clock()
        self._different.clear()
        self._allowed = min(2 * self._allowed, self._limit)
        # A refusal may be the firewall's: it lets nobody through.
        if outcome.verdict is not Verdict.REFUSED:
            self._passed = max(self._passed, entry.turn)

    def _shut(self, seconds: float) -> None:
        self._shut_until = max(self._shut_until, self._clock() + seconds)
