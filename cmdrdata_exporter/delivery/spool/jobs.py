"""The jobs of the provider whose end was not seen: kept in a ledger, and read from it and from the journals."""

from __future__ import annotations

import contextlib
import json
import math
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

ENDED_KEPT = 86400.0
"""Seconds for which it is known that a job has ended: a journal with its start may be imported later."""

_TOLD = (
    "INSERT INTO jobs VALUES (?, ?, ?)"
    " ON CONFLICT DO UPDATE SET job = excluded.job, told = excluded.told WHERE excluded.told {} told"
)


def apply(db: sqlite3.Connection, command: Command) -> None:
    """Keep a job, or forget it, unless something later is known of it. In a transaction."""
    if command.job is not None:
        job = command.job
        db.execute(_TOLD.format(">"), (job.key, json.dumps(to_json(job)), float(job.until)))
    else:
        rows = [(key, "", float(command.at)) for key in command.keys]
        db.executemany(_TOLD.format(">="), rows)


def give_up(db: sqlite3.Connection, counts: Counter[str], now: float) -> None:
    """Forget jobs as old that the provider has forgotten them, too. In a transaction."""
    db.execute("DELETE FROM jobs WHERE job = '' AND told < ?", (now - ENDED_KEPT,))
    counts[COUNTER] += db.execute("DELETE FROM jobs WHERE told < ?", (now - KEPT,)).rowcount


def merged(rows: Iterable[tuple[bytes, str, float]], records: Iterable[bytes]) -> list[OpenJob]:
    """
    Return the jobs that are open, the oldest first.

    Args:
        rows: of the ledger's table. One that is damaged is left out.
        records: what is in journals only, in any order.
    """
    known: dict[bytes, tuple[float, OpenJob | None]] = {}
    for key, told, job in (*_of_rows(rows), *_of_records(records)):
        before = known.get(key, (-math.inf, None))[0]
        if told > before or (told == before and job is None):
            known[key] = told, job
    return sorted((job for _, job in known.values() if job), key=lambda job: job.since)


_Told = tuple[bytes, float, OpenJob | None]


def _of_rows(rows: Iterable[tuple[bytes, str, float]]) -> Iterator[_Told]:
    for key, text, told in rows:
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
            yield key, float(told), from_json(key, json.loads(text)) if text else None


def _of_records(records: Iterable[bytes]) -> Iterator[_Told]:
    for record in records:
        if is_event(record):
            continue
        with contextlib.suppress(UnknownRecordError):
            command = decode(record)
            if not isinstance(command, Command):
                continue
            if command.job is not None:
                yield command.job.key, command.job.until, command.job
            elif command.action == "job_ended":
                yield from ((key, command.at, None) for key in command.keys)
