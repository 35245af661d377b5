"""Events that were recorded before: in journals, in a ledger, or as nothing but their totals."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections import Counter
from pathlib import Path

import ours

from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.groups import Group
from cmdrdata_exporter.delivery.options import Options
from cmdrdata_exporter.delivery.relay import IMPORT_BYTES
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.journal_reader import JournalsReader
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.records import encode_event
from cmdrdata_exporter.delivery.spool.totals import HOURS_FOR

HEADER = Header(
    customer="customer-0001",
    model="gpt-4o-mini-2024-07-18",
    endpoint="chat.completions",
    status="reported",
    units={"input_tokens": 19, "output_tokens": 10, "total_tokens": 29},
    day="2026-11-21",
)
_ID = b"0123456789abcdef0123456789abcdef"
BODY = (
    b'{"customer_id":"customer-0001","model":"gpt-4o-mini-2024-07-18","input_tokens":19,'
    b'"output_tokens":10,"total_tokens":29,"provider":"openai","metadata":{"response_id":'
    b'"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","created":1795285579,"finish_reason":"stop",'
    b'"usage_status":"reported","endpoint":"chat.completions","request_model":"gpt-4o-mini",'
    b'"service_tier":"default","server_address":"api.openai.com","trace_id":'
    b'"3defa82929f15b575c9ff5dc68fa4dab","span_id":"a31148598f3309da","usage":{"input_tokens.cached":7}},'
    b'"timestamp":1795285579,"version":"0.1.0","latency":{"request_start_time":1795285578,'
    b'"request_end_time":1795285579,"duration_ms":812},"error":{"occurred":false,"type":null,'
    b'"code":null,"message":null},"request":{"id":"' + _ID + b'","streaming":false,"retry_count":0,'
    b'"success":true}}'
)
"""The body of an event of usual size."""


def event(number: int) -> tuple[str, bytes]:
    """Return the id and the body of the event with this number."""
    event_id = f"{number:032x}"
    return event_id, BODY.replace(_ID, event_id.encode())


def directory(spool: Path) -> Directory:
    """Make the directory of the destination, whose endpoint is `BENCHMARK_BACKEND`."""
    return Directory.prepare(spool, os.environ["BENCHMARK_BACKEND"], ours.ACCOUNT)


def fill_journals(spool: Path, number: int) -> None:
    """Record so many events and import none."""
    journal = Journal(directory(spool))
    for n in range(number):
        event_id, body = event(n)
        journal.append(encode_event(event_id, HEADER, body))
    journal.seal()


def fill_ledger(spool: Path, number: int) -> float:
    """Import so many events into the ledger, and return how many seconds that took."""
    fill_journals(spool, number)
    where = directory(spool)
    began = time.perf_counter()
    readings = JournalsReader(where, {})
    more = True
    with contextlib.closing(Ledger(where)) as ledger:
        # A transaction at a time, as the drainer does.
        while more:
            chunks, more = readings.read(IMPORT_BYTES)
            with ledger.transaction():
                for reading, found in chunks:
                    name = reading.path.name
                    ledger.import_records(
                        name, found.end, found.records, found.damaged, time.time()
                    )
            for reading, found in chunks:
                reading.committed(found)
            with ledger.transaction():
                ledger.forget_journals(readings.remove_finished())
    return time.perf_counter() - began


_DAYS = 400
"""Over how many days the totals are of events that were recorded before."""
_LAST_DAY = 20_786
"""In days since 1970: a Sunday in November 2026."""
_GROUPS = [
    Group(
        *(f"customer-{customer:04}", model, "chat.completions", "reported"),
        *("openai", "api.openai.com", model, "default", "0"),
    )
    for customer in range(200)
    for model in ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-5", "gpt-5-mini", "gpt-5-nano")
]
_UNITS = ("events", "input_tokens", "input_tokens.cached", "output_tokens", "total_tokens")


def _day(number: int) -> str:
    """Return a day, as it is written."""
    return time.strftime("%Y-%m-%d", time.gmtime(number * 86400))


def last_day() -> str:
    """Return the last day."""
    return _day(_LAST_DAY)


def _times(each: int) -> Counter[str]:
    """Return how many events a group has at each time by which totals are known, of so many a day."""
    found: Counter[str] = Counter()
    kept = Options(post=None).totals_by_day_for
    for number in range(_LAST_DAY - _DAYS + 1, _LAST_DAY + 1):
        day = _day(number)
        if number >= _LAST_DAY - HOURS_FOR:
            for event in range(each):
                found[f"{day}T{event * 24 // each:02}"] += 1
        elif day >= _day(_LAST_DAY - kept)[:7]:
            found[day] += each
        else:
            found[day[:7]] += each
    return found


def fill_totals(spool: Path, events: int) -> int:
    """Write the totals of so many events into a new ledger, and return how many rows they have."""
    where = directory(spool)
    Ledger(where).close()
    times = _times(max(1, events // _DAYS // len(_GROUPS)))
    numbers = sorted(group.number for group in _GROUPS)
    marks = ", ".join("?" * (1 + len(Group._fields)))
    with contextlib.closing(sqlite3.connect(where.path / LEDGER)) as db, db:
        db.executemany(
            f"INSERT INTO groups VALUES ({marks})",  # noqa: S608 - question marks
            [(group.number, *group) for group in _GROUPS],
        )
        db.executemany(
            "INSERT INTO totals VALUES (?, ?, ?, ?)",
            (
                (when, unit, number, times[when])
                for when in sorted(times)
                for unit in _UNITS
                for number in numbers
            ),
        )
    return len(times) * len(_UNITS) * len(_GROUPS)


def settle_on_disk() -> None:
    """Have everything written that waits to be, so that it does not hold up the next measurement."""
    os.sync()
