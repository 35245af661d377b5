"""The jobs of the provider whose end was not seen: kept in a ledger, and read from it and from the journals."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator

from cmdrdata_exporter.delivery.open_jobs import KEPT, OpenJob, from_json, to_json
from cmdrdata_exporter.delivery.spool.records import (
    Command,
    UnknownRecordError,
    decode,
    is_event,
)

COUNTER = "jobs_given_up"
"""Counts the jobs whose end was not seen for so long that they are forgotten."""


def apply(db: sqlite3.Connection, command: Command) -> None:
    """Keep a job, or forget it. In a transaction."""
    if command.job is not None:
        job = command.job
        text = json.dumps(to_json(job))
        db.execute(
            "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?)", (job.key, text, float(job.since))
        )
    elif command.action == "job_ended":
        db.executemany("DELETE FROM jobs WHERE key = ?", [(key,) for key in command.keys])


def give_up(db: sqlite3.Connection, counts: Counter[str], now: float) -> None:
    """Forget jobs as old that the provider has forgotten them, too. In a transaction."""
    counts[COUNTER] += db.execute("DELETE FROM jobs WHERE since < ?", (now - KEPT,)).rowcount


def merged(rows: Iterable[tuple[bytes, str]], records: Iterable[bytes]) -> list[OpenJob]:
    """
    Return the jobs that are open, the oldest first.

    Args:
        rows: keys and jobs of the ledger. One that is damaged is left out.
        records: what is in journals only, in the order in which it was written.
    """
    jobs = {job.key: job for job in _of_rows(rows)}
    for record in records:
        if is_event(record):
            continue
        try:
            command = decode(record)
        except UnknownRecordError:
            continue
        if not isinstance(command, Command):
            continue
        if command.job is not None:
            jobs[command.job.key] = command.job
        elif command.action == "job_ended":
            for key in command.keys:
                jobs.pop(key, None)
    return sorted(jobs.values(), key=lambda job: job.since)


def _of_rows(rows: Iterable[tuple[bytes, str]]) -> Iterator[OpenJob]:
    for key, text in rows:
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
            yield from_json(key, json.loads(text))
