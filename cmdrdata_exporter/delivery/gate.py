"""
When anything may be sent at all, by what the backend's last answers were.

| the gate is | after | until |
|---|---|---|
| open | the start; a success | |
| shut for a while | an answer with `Retry-After` | that time, whatever else succeeds |
| probing | five failures in a row | a success: one attempt at a time, at growing intervals |
| paused | an answer that says key or endpoint are wrong | a success: one attempt every one to five minutes |

After a success that ends probing or a pause, the number of attempts at a time doubles with each further one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.delivery.http import Outcome, Verdict

PROBE_AFTER = 5
"""Failures in a row after which one event at a time is tried."""
LONGEST_PAUSE = 300.0
"""Seconds between two probes while the backend does not accept the key."""


class Gate:
    """
    Asked by every sender before an attempt, and told what came of it. Safe to use from several threads.

    Args:
        limit: how many attempts may be under way at once.
        probe_interval: seconds until the first probe of a pause; each further one comes later, up to five minutes.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        limit: int,
        *,
        probe_interval: float = 60.0,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._limit = limit
        self._probe_interval = probe_interval
        self._clock = clock
        self._lock = threading.Lock()
        self._allowed = limit
        self._under_way = 0
        self._shut_until = 0.0
        self._closings = 0
        """How often failures have shut it."""
        self._failures = 0
        self._pauses = 0
        self.reason: str | None = None
        """What the last failure was, until a success."""

    @property
    def paused(self) -> bool:
        """Whether key or endpoint must be mended."""
        return self._pauses > 0

    @property
    def in_trouble(self) -> bool:
        """Whether it probes or is paused."""
        return self._pauses > 0 or self._failures >= PROBE_AFTER

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
        # With the gate wide open each attempt has a successor waiting, so that no sender is idle.
        wanted = self._allowed if self._allowed < self._limit else 2 * self._limit
        return max(0, wanted - prepared)

    def enter(self) -> int | None:
        """Return what `leave` must be given after the attempt that may begin now; None: it may not."""
        with self._lock:
            if self._under_way >= self._allowed or self._clock() < self._shut_until:
                return None
            self._under_way += 1
            return self._closings

    def leave(self, entered: int, outcome: Outcome) -> None:
        """End an attempt with what came of it."""
        with self._lock:
            self._under_way -= 1
            if outcome.retry_after:
                self._shut(outcome.retry_after)
            # Attempts that were under way together when the first of them shut the gate are no answers to a probe.
            late = entered < self._closings
            if outcome.verdict is Verdict.MISCONFIGURED:
                self._pause(outcome, late)
            elif outcome.verdict is Verdict.RETRY:
                self._fail(outcome, late)
            else:
                self._succeed()

    def _pause(self, outcome: Outcome, late: bool) -> None:
        self.reason = outcome.reason
        self._allowed = 1
        if self._pauses and late:
            return
        longest = max(LONGEST_PAUSE, self._probe_interval)
        self._shut(min(self._probe_interval * 2 ** min(self._pauses, 16), longest))
        self._pauses += 1
        self._closings += 1

    def _fail(self, outcome: Outcome, late: bool) -> None:
        self.reason = outcome.reason
        if self._failures >= PROBE_AFTER and late:
            return
        self._failures += 1
        beyond = self._failures - PROBE_AFTER
        if beyond >= 0:
            self._allowed = 1
            self._shut(backoff(beyond))
            self._closings += 1

    def _succeed(self) -> None:
        self.reason = None
        self._failures = self._pauses = 0
        self._allowed = min(2 * self._allowed, self._limit)

    def _shut(self, seconds: float) -> None:
        self._shut_until = max(self._shut_until, self._clock() + seconds)
