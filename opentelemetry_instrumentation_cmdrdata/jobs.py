"""
Jobs of the provider that end after the call that started them: background responses, batches, runs, and their like.

A job is billed once, when its end is first seen, whoever asks, and to the customer of the call that started it.
What is remembered here serves the process that started or billed it. Between processes the id of the event serves,
which is made of the host and the job's own id: whoever bills the same job bills the same event.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cmdrdata_exporter import clocks, faults, processes
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes

CAPACITY = 10_000
"""Jobs that are remembered."""
LONGEST_AGE = 7 * 24 * 3600.0
"""Seconds that a job is remembered. Batches take up to a day, fine-tuning may take several."""
LISTED_AGE = 30 * 24 * 3600.0
"""Seconds: of the jobs that nobody here started, a page bills those that are no older. A list goes back years."""
REMEMBERED = 400 * 24 * 3600
"""Seconds in which the event of a job is known by its id, wherever and whenever the job is polled again."""


class Key(NamedTuple):
    """What a job is known by, in every process."""

    host: str
    job_id: str

    def event_id(self, part: str) -> str:
        """Return the id of the event for a part of the job."""
        return hashlib.sha256("\0".join((*self, part)).encode("utf-8", "replace")).hexdigest()[:32]


class StartedJob(NamedTuple):
    """What the call that started a job says of it, and the job's end may not repeat."""

    attribution: Mapping[str, Any]
    """The attributes that say who pays."""
    request_model: str | None
    facts: Attributes


@dataclass(slots=True)
class Job:
    """What the call that started a job said of it."""

    since: float
    started: StartedJob | None = None
    """None where another process started it."""
    billed: set[str] = field(default_factory=set[str])
    """Its parts that were billed."""
    owners: dict[str, object] = field(default_factory=dict[str, object], compare=False)
    """Who claimed each of them."""
    tracked: bool = True
    """Whether it is to be billed at all."""
    has_ended: bool = field(default=False, compare=False)
    """Whether its end was seen here."""


class Jobs(processes.ForkAware):
    """
    The jobs that were started or billed here lately. Safe to use from several threads.

    Args:
        capacity: how many are remembered at most.
        clock: returns monotonic seconds.
    """

    def __init__(
        self, capacity: int = CAPACITY, clock: Callable[[], float] = clocks.monotonic
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.RLock()
        self._jobs: OrderedDict[Key, Job] = OrderedDict()

    def start(self, key: Key, started: StartedJob, *, tracked: bool = True) -> None:
        """Remember a job that a call of this process started, be it one that is not to be billed."""
        with self._lock:
            job, forgotten = self._remember(key)
            job.has_ended = False
            if job.started is None:
                job.started, job.tracked = started, tracked
        _report(forgotten)

    def has_started(self, key: Key) -> bool:
        """Return whether a call of this process started the job of `key`."""
        with self._lock:
            return self.starter(key) is not None

    def starter(self, key: Key) -> StartedJob | None:
        """Return what the call said that started the job of `key`, if that was made here."""
        with self._lock:
            job = self._jobs.get(key)
            return None if job is None else job.started

    def is_tracked(self, key: Key) -> bool:
        """Return whether a job is to be billed, as far as is known here."""
        with self._lock:
            job = self._jobs.get(key)
            return job is None or job.tracked

    def end(self, key: Key) -> bool:
        """Note the end of a job, and return whether it is news here."""
        with self._lock:
            job, forgotten = self._remember(key)
            had_ended, job.has_ended = job.has_ended, True
        _report(forgotten)
        return not had_ended

    def claim(self, key: Key, part: str, by: object = None) -> Job | None:
        """
        Claim a part of a job for billing. Return None if it was billed, or is not to be.

        The same claimant, `by`, may claim it again: after a signal handler has interrupted it.
        """
        by = object() if by is None else by
        with self._lock:
            job, forgotten = self._remember(key)
            due = job.tracked and (part not in job.billed or job.owners.get(part) is by)
            if due:
                job.owners[part] = by
            job.billed.add(part)
        _report(forgotten)
        return job if due else None

    def _remember(self, key: Key) -> tuple[Job, list[Job]]:
        """Return the job of `key`, and those forgotten for it: too old or too many, the oldest first."""
        job = self._jobs.get(key)
        if job is not None:
            return job, []
        now = self._clock()
        job = self._jobs[key] = Job(since=now)
        forgotten: list[Job] = []
        oldest = next(iter(self._jobs.values()))
        while len(self._jobs) > self._capacity or now - oldest.since > LONGEST_AGE:
            forgotten.append(self._jobs.popitem(last=False)[1])
            oldest = next(iter(self._jobs.values()))
        return job, forgotten

    def after_fork_child(self) -> None:
        """Go on in a forked child with what its parent knew; another thread may have held the lock."""
        self._lock = threading.RLock()


def _report(forgotten: list[Job]) -> None:
    for job in forgotten:
        if job.billed <= {"created"}:
            faults.report(
                "jobs out of sight",
                "a job of the provider was not seen to end within %.0f days or %d other jobs; "
                "if it is polled later, it is billed to the customer of that call",
                LONGEST_AGE / 86400,
                CAPACITY,
            )


known = Jobs()
"""The jobs of this process."""

processes.notify_of_forks(known)
