"""
Make a spool as a process leaves it that is killed, with events in every state, and put it into an archive.

Run it with the release whose spools later ones must drain, whose package is first on the path:

    PYTHONPATH=<checkout of that release> python make.py version-3.tar.gz

It uses the modules of that release where they are and as they are called. What made an earlier archive is in the
history of this file, and needs the release of that time.
"""

from __future__ import annotations

import calendar
import importlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any


def _module(name: str) -> Any:
    """Return a module of the delivery of that release."""
    return importlib.import_module(f"cmdrdata_exporter.delivery{name}")


delivery, jobs = _module(""), _module(".open_jobs")
directories, journals = _module(".spool.directory"), _module(".spool.journal")
ledgers, records = _module(".spool.ledger"), _module(".spool.records")
Outcome, Verdict = delivery.Outcome, delivery.Verdict

ENDPOINT, ACCOUNT = "http://127.0.0.1:1/events", "recorded"
NOW = 1_795_286_000.0
"""2026-11-21T18:33:20Z, when all of it happened."""
DAY = 86400.0

DELIVERED = Outcome(Verdict.DELIVERED, "HTTP 201")
REFUSED = Outcome(Verdict.REFUSED, "HTTP 422: no such model")
UNAVAILABLE = Outcome(Verdict.RETRY, "HTTP 503")
AMBIGUOUS = Outcome(Verdict.RETRY, "ReadTimeoutError", ambiguous=True)


def event_id(number: int) -> str:
    """Return the id of an event: it begins with its number."""
    return f"{number:04d}{number:028x}"


def record(number: int, customer: str | None = "acme", **changes: Any) -> bytes:
    """Return the record of an event; one without a customer is held."""
    day = changes.get("day", "2026-11-20")
    event = {
        "customer_id": customer,
        "input_tokens": 1000,
        "provider": "openai",
        "metadata": {
            "request_model": "gpt-5-mini-latest",
            "service_tier": "flex",
            "server_address": "api.openai.com",
            "plan": "pro",
        },
        "timestamp": calendar.timegm(time.strptime(f"{day} 10:20", "%Y-%m-%d %H:%M")),
        "request": {"id": event_id(number)},
    }
    body = json.dumps(event)
    known: dict[str, Any] = {
        "model": "gpt-5-mini",
        "endpoint": "chat.completions",
        "status": "reported",
        "units": {"input_tokens": 1000, "output_tokens": 20},
        "day": day,
        "hold": customer is None,
        "customer_at": body.index("null") if customer is None else None,
    }
    header = delivery.Header(customer, **known | changes)
    return records.encode_event(event_id(number), header, body.encode())


def command(action: str, *numbers: int, customer: str | None = None, number: int = 0) -> bytes:
    """Return the record of a command about events."""
    keys = tuple(records.key_of(event_id(each)) for each in numbers)
    return records.encode_command(records.Command(action, keys, customer, number))


def job(number: int) -> bytes:
    """Return the record of a job of the provider that was started."""
    started = jobs.OpenJob(
        key=bytes([number] * 16),
        host="api.openai.com",
        port=443,
        endpoint="batches",
        job_id=f"batch_{number}",
        path=f"/batches/batch_{number}",
        since=NOW + number,
        until=NOW + number,
        model=None,
        payer={"cmdrdata.customer.id": "acme"},
        facts={},
    )
    return records.encode_command(records.Command("job", (started.key,), job=started))


def job_ended(number: int) -> bytes:
    """Return the record of the end of a job."""
    return records.encode_command(
        records.Command("job_ended", (bytes([number] * 16),), at=NOW + 60)
    )


class Ledger:
    """A ledger, changed one step at a time by its own code."""

    def __init__(self, directory: Any, **options: Any) -> None:
        self.ledger = ledgers.Ledger(directory, total_by=("plan",), **options)

    def take_in(self, journal: str, offset: int, *taken: bytes, now: float = NOW) -> None:
        """Import records."""
        with self.ledger.transaction():
            self.ledger.import_records(journal, offset, taken, [], now)

    def send(self, outcome: Any, *taken: bytes, now: float = NOW) -> None:
        """Import events and have the same come of each."""
        self.take_in("0-0-imported.journal", 99, *taken, now=now)
        with self.ledger.transaction():
            handed = self.ledger.claim(100, now)
            assert len(handed) == len(taken)
            self.ledger.record_outcomes([(event, outcome) for event in handed], now)


def fill(ledger: Ledger) -> None:
    """Put events in every state into a ledger, each of a number of its own."""
    ledger.send(DELIVERED, record(1), record(2, remember=-1), record(3, remember=400 * 86400))
    # Of long ago, with a total of its month.
    ledger.send(DELIVERED, record(4, day="2026-07-04"))
    with ledger.ledger.transaction():
        ledger.ledger.totals.tidy("", "2026-08")
    # It came once more.
    ledger.take_in("0-0-imported.journal", 99, record(2, remember=-1))
    ledger.send(REFUSED, record(10), record(11), record(12))
    ledger.take_in("0-0-imported.journal", 99, command("drop", 12))
    # Nobody could deliver it for thirty days.
    ledger.take_in("0-0-imported.journal", 99, record(13), now=NOW - 31 * DAY)
    with ledger.ledger.transaction():
        ledger.ledger.note({"present": NOW - 60, "breaks": []})
        assert ledger.ledger.retention.expire(NOW) == 1
    ledger.take_in("0-0-imported.journal", 99, record(20, None), record(21, None), record(22, None))
    ledger.take_in("0-0-imported.journal", 99, command("assign", 22, customer="globex"))
    with ledger.ledger.transaction():
        (assigned,) = ledger.ledger.claim(100, NOW)
        ledger.ledger.record_outcomes([(assigned, DELIVERED)], NOW)
    # Accepted unseen perhaps, where those wait for a person.
    ledger.ledger._hold_ambiguous = True
    ledger.send(AMBIGUOUS, record(23))
    ledger.ledger._hold_ambiguous = False
    ledger.send(UNAVAILABLE, record(30))
    ledger.send(AMBIGUOUS, record(31))
    # What is in flight: two of these.
    ledger.take_in("0-0-imported.journal", 99, record(40), record(41))
    with ledger.ledger.transaction():
        assert len(ledger.ledger.claim(2, NOW)) == 2
    # And what was never tried.
    ledger.take_in("0-0-imported.journal", 99, record(50), record(51))
    ledger.take_in("0-0-imported.journal", 99, command("unspooled", number=3))
    # Jobs of the provider, of which one has ended.
    ledger.take_in("0-0-imported.journal", 99, job(1), job(2), job_ended(1))
    # A row that the disk has altered.
    ledger.take_in("0-0-imported.journal", 99, record(60))
    ledger.ledger._db.execute(
        "UPDATE events SET crc = crc + 1 WHERE key = ?", (records.key_of(event_id(60)),)
    )
    with ledger.ledger.transaction():
        ledger.ledger.forget_journals(["0-0-imported.journal"])
        ledger.ledger.note(
            {
                "pid": 4711,
                "at": NOW,
                "paused": False,
                "probing": False,
                "reason": None,
                "next_attempt": NOW,
                "total_by": ["plan"],
            }
        )


def append(directory: Any, *appended: bytes, sealed: bool) -> Path:
    """Have a process of its own write a journal, and end as a process does or be killed; return the file."""
    before = set(directory.journals())
    child = os.fork()
    if child == 0:
        journal = journals.Journal(directory)
        for each in appended:
            journal.append(each)
        if sealed:
            journal.seal()
        os._exit(0)
    os.waitpid(child, 0)
    (path,) = set(directory.journals()) - before
    return path


def make(spool: Path) -> None:
    """Make the directories of a destination and of `local`, as they are left by processes that were killed."""
    directory = directories.Directory.prepare(spool, ENDPOINT, ACCOUNT)
    ledger = Ledger(directory)
    fill(ledger)
    # Journals: one that ended, one of a process that was killed, one that is damaged, one imported to its middle.
    append(directory, record(100), record(101, None), job(3), sealed=True)
    # It has an event that was delivered, and one that is pending.
    append(directory, record(2, remember=-1), record(50), record(102), sealed=False)
    append(
        directory,
        command("assign", 20, customer="initech"),
        command("replay", 10),
        record(103),
        sealed=True,
    )
    damaged = append(directory, record(104), record(105), record(106), sealed=True)
    content = bytearray(damaged.read_bytes())
    content[content.index(event_id(105).encode()) + 8] ^= 1
    damaged.write_bytes(content)
    half = append(directory, record(107), record(108), sealed=False)
    frame = len(journals.frame(record(107)))
    ledger.take_in(half.name, half.stat().st_size - frame, record(107))
    # Killed in the middle of a record.
    torn = append(directory, record(109), record(110), sealed=False)
    torn.write_bytes(torn.read_bytes()[:-30])

    local = directories.Directory.prepare(spool, None, ACCOUNT)
    staying = Ledger(local, local=True)
    staying.take_in("0-0-imported.journal", 99, record(200), record(201, None))
    append(local, record(202), sealed=True)


def main(archive: str) -> None:
    """Make the archive."""
    with tempfile.TemporaryDirectory() as home:
        spool = Path(home) / "spool"
        make(spool)
        # Copied while it is open: the last commits are in its log, as after a kill.
        killed = Path(home) / "killed" / "spool"
        shutil.copytree(spool, killed, ignore=shutil.ignore_patterns("*-shm"))
        with tarfile.open(archive, "w:gz") as file:
            for path in sorted(killed.rglob("*")):
                file.add(path, path.relative_to(killed), recursive=False)


if __name__ == "__main__":
    main(sys.argv[1])
