"""Our side: what ledgers have of usage at the provider's hosts, and what may explain that it is less."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cmdrdata_exporter.cli.destination import Place
from cmdrdata_exporter.cli.reconcile.lines import Group
from cmdrdata_exporter.cli.reconcile.surfaces import REQUESTS
from cmdrdata_exporter.delivery.groups import DROPPED
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.usage import EVENTS, OUTSIDE, Question, in_order

HOST = "api.openai.com"
BATCHES = "batches"
JOBS = frozenset(
    (BATCHES, "beta.threads.runs", "fine_tuning.jobs", "videos", "evals.runs", "agents.sessions")
)
"""Endpoints whose events are of the day on which the end of the job was seen."""
_COLUMNS = {
    "day": "day",
    "model": "model",
    "tier": "service_tier",
    "project": "project",
    "key": "key",
}
"""The ledger's name of each dimension."""


NOT_THERE = (*OUTSIDE, DROPPED)
"""The states of events that the backend does not have, or not yet."""
LONGEST_JOB = 2
"""Days from the start of a job to what the provider counts of it last: a batch takes up to a day."""


class OurLine(NamedTuple):
    """Usage of one unit by one group."""

    group: Group
    endpoint: str
    status: str
    host: str
    unit: str
    amount: float


class Ours(NamedTuple):
    """What the ledgers have."""

    lines: list[OurLine]
    jobs: list[OpenJob]
    """Jobs whose end was not seen."""
    knows_jobs: bool
    """Whether these are all."""
    first: str | None
    """The first day, or month, of which a ledger has usage at all; None where there is none."""
    not_imported: int
    outside: dict[str, int]
    """Events by their state that the backend does not have, of all times: those of a time take long to count."""
    losses: dict[str, int]
    """Events that never came into the ledgers, of all times."""


def is_of_openai(host: str, others: Iterable[str] = ()) -> bool:
    """
    Say whether OpenAI charges for what is used at a host.

    Args:
        host: the server's name.
        others: hosts that are said to be a way to it.
    """
    return host == HOST or host.endswith(f".{HOST}") or host in others


def is_counted(job: OpenJob, first: str, last: str) -> bool:
    """Say whether the provider may count a job that was not seen to end between two days, or months."""
    started = dt.datetime.fromtimestamp(job.since, dt.timezone.utc).date()
    until = str(started + dt.timedelta(days=LONGEST_JOB))
    return str(started)[: len(last)] <= last and first <= until[: len(first)]


def read(
    destinations: Sequence[Place], by: Sequence[str], *, since: str | None, until: str | None
) -> Ours:
    """
    Read the ledgers of destinations.

    Raises:
        UnreadableError: one cannot be read, or a part of a month is asked for of which only the sum is known.
    """
    columns = [*(_COLUMNS[name] for name in by), "endpoint", "status", "host"]
    order = in_order(columns)
    lines: list[OurLine] = []
    jobs: list[OpenJob] = []
    firsts: list[str] = []
    waiting, outside, losses = 0, dict[str, int](), dict[str, int]()
    for destination in destinations:
        with destination.ledger() as ledger:
            for total in ledger.usage.totals(columns, Question(since, until)):
                found = dict(zip(order, total.group, strict=True))
                lines.append(
                    OurLine(
                        _group(by, found),
                        found["endpoint"],
                        found["status"],
                        found["host"],
                        total.unit,
                        total.amount,
                    )
                )
            jobs += ledger.open_jobs()
            days = [t.group[0] for t in ledger.usage.totals(["day"]) if t.unit == EVENTS]
            firsts += days[:1]
            waiting += ledger.not_imported()
            counts = ledger.counts()
            for state in NOT_THERE:
                outside[state] = outside.get(state, 0) + counts.get(state, 0)
            for name in ("unspooled", "damaged", "lost", "jobs_given_up"):
                losses[name] = losses.get(name, 0) + counts.get(name, 0)
    return Ours(
        lines,
        jobs,
        all(destination.knows_jobs for destination in destinations),
        min(firsts, default=None),
        waiting,
        {state: number for state, number in outside.items() if number},
        {name: number for name, number in losses.items() if number},
    )


def _group(by: Sequence[str], found: dict[str, str]) -> Group:
    group = [found[_COLUMNS[name]] for name in by]
    if "tier" in by and found["endpoint"] == BATCHES:
        # Theirs has a mark of its own for batches.
        group[list(by).index("tier")] = "batch"
    return tuple(group)


def units(line: OurLine) -> dict[str, float]:
    """Return a line's amount in the units that are compared."""
    if line.unit == EVENTS:
        # What was refused or never sent is no request there; the requests of a batch are counted by a unit.
        counts = line.status != "not_applicable" and line.endpoint != BATCHES
        return {REQUESTS: line.amount} if counts else {}
    if line.unit == "batch_requests":
        return {REQUESTS: line.amount}
    return {line.unit: line.amount}
