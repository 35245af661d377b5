"""A process that dies, wherever it is just then, loses nothing and bills nothing twice."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery.spool.directory import LEDGER
from cmdrdata_exporter.delivery.spool.index_view import About, IndexReader
from tests.faults.hosts import Host, Zygote

WRITING = [
    "before:spool.directory.Directory.prepare:1",
    "before:spool.directory.Directory._describe:1",
    "after:spool.directory.Directory.create:1",
    "after:spool.directory.Directory._describe:1",
    "before:spool.journal_file.JournalFile.create:1",
    "after:spool.directory.Directory.create:2",
    "after:spool.journal_file.JournalFile.create:1",
    "before:spool.journal_file.os.write:20",
    "after:spool.journal_file.os.write:20",
    "before:spool.journal_file.JournalFile.seal:1",
    "after:spool.journal_file.JournalFile.seal:1",
    "before:spool.journal.Journal.sync:1",
    "after:spool.journal_file._sync:1",
]
"""Where a process dies that records."""

DRAINING = [
    "before:spool.directory.Directory.try_to_lead:1",
    "after:spool.directory.Directory.try_to_lead:1",
    "before:leadership.remove_unnamed:1",
    "before:leadership.is_sound:1",
    "before:spool.ledger.connect:1",
    "before:spool.schema._set_up:1",
    "before:spool.schema.migrate:1",
    "after:spool.schema.migrate:1",
    "after:spool.schema._set_up:1",
    "after:spool.ledger.Ledger.recover:1",
    "before:spool.journal_reader.JournalsReader.read:1",
    "after:spool.journal_reader.JournalsReader.read:1",
    "before:spool.ledger.Ledger.transaction:2",
    "after:spool.ledger.Ledger.import_records:1",
    "after:spool.ledger.Ledger.record_outcomes:2",
    "after:spool.ledger.Ledger.claim:1",
    "before:spool.totals.Totals.write:3",
    "after:spool.totals.Totals.write:3",
    "before:spool.index.Index._adopt:1",
    "after:spool.index_rows.Rows.insert:1",
    "before:spool.index.Index.write:2",
    "after:spool.index.Index.write:2",
    "before:spool.journal_reader.JournalsReader.remove_finished:2",
    "after:relay.Relay.step:1",
    "after:relay.Relay.step:2",
    "before:senders.Senders.give:2",
    "before:relay.Relay.tidy_up:2",
    "before:http.connections.Connection.begin:3",
    "after:http.client.Client.outcome:3",
    "after:gate.Gate.leave:4",
    "before:spool.retention.Retention.expire:1",
    "after:spool.ledger.Ledger.note:1",
    "before:spool.storage.Storage.vacuum:1",
    "before:drainer.Drainer._end:1",
    "before:spool.ledger.Ledger.forget_journals:1",
    "after:spool.ledger.Ledger.forget_journals:1",
    "before:leadership.Leadership.resign:1",
    "after:leadership.Leadership.resign:1",
]
"""Where a process dies that delivers."""

POINTS = [*WRITING, *DRAINING]


FAILING = [
    ("before:spool.directory.Directory.try_to_lead:1", "EMFILE"),
    ("before:leadership.remove_unnamed:1", "EIO"),
    ("before:spool.ledger.connect:1", "sqlite"),
    ("before:spool.ledger.Ledger.recover:1", "sqlite"),
    ("before:spool.journal_reader.JournalsReader.read:1", "EIO"),
    ("after:spool.journal_reader.JournalsReader.read:2", "EIO"),
    ("after:spool.ledger.Ledger.import_records:1", "sqlite"),
    ("after:spool.ledger.Ledger.record_outcomes:2", "sqlite"),
    ("after:spool.ledger.Ledger.claim:1", "sqlite"),
    ("after:spool.totals.Totals.write:3", "sqlite"),
    ("before:spool.index.Index._connect:1", "EIO"),
    ("before:spool.index_rows.Rows.insert:1", "sqlite"),
    ("after:spool.index_rows.Rows.insert:2", "ENOSPC"),
    ("before:spool.index_rows.Rows.prune:1", "sqlite"),
    ("before:spool.journal_reader.JournalsReader.remove_finished:2", "EIO"),
    ("after:spool.journal_reader.JournalsReader.remove_finished:2", "EIO"),
    ("before:spool.storage.Storage.vacuum:1", "sqlite"),
    ("before:spool.journal_file._sync:1", "EIO"),
    ("before:spool.journal.Journal.sync:2", "EIO"),
]
"""What may fail once, so that nothing comes of it."""


def at(point: str, action: str) -> dict[str, str]:
    """Return the environment in which something happens to a process at a point."""
    when, path, number = point.split(":")
    return {"FAILPOINTS": f"{when}:cmdrdata_exporter.delivery.{path}:{number}={action}"}


@pytest.mark.parametrize("end", ["return", "_exit"])
def test_no_fault(host: Host, end: str) -> None:
    """Without a fault every event is delivered exactly once, and nothing is ambiguous."""
    ended = host.start("produce", count=50, threads=4, end=end)
    assert 0 == ended.wait()
    if end == "return":
        # It delivered all of it itself.
        assert set(ended.ids) == host.oracle.keys
        assert 0 == host.count()["ambiguous"]
        assert 0 == host.oracle.duplicates
    host.settle()
    assert 200 == len(host.oracle.keys)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(host: Host, point: str) -> None:
    """Wherever a process is killed, the next one delivers at once all that it had recorded, and bills it once."""
    died = host.start("produce", at(point, "kill"), count=40)
    assert -signal.SIGKILL == died.wait()
    assert 5 > host.drain()
    with IndexReader(host.directory) as reader:
        found = reader.newest(100)
        # All are found by their ids, whatever was not committed just then.
        assert reader.about() == About(True, None, filling=False, reason=None)
    assert {event.state for event in found} <= {"delivered"}
    assert {event.id for event in found} == host.oracle.keys


@pytest.mark.parametrize(("point", "error"), FAILING)
def test_failing_at(host: Host, point: str, error: str) -> None:
    """Whatever fails once, the process itself tries again: it delivers all it recorded, and sends nothing twice."""
    failed = host.start("produce", at(point, error), count=40, end="wait")
    host.oracle.wait_for_accepted(40)
    failed.send(signal.SIGTERM)
    assert -signal.SIGTERM == failed.wait()
    assert 0 == host.oracle.duplicates


@pytest.mark.parametrize("crashes", [30, pytest.param(100, marks=pytest.mark.long)])
def test_killed_after_acceptance(host: Host, crashes: int) -> None:
    """
    An event that was accepted when its process died is sent again under the same key, with the same bytes.

    Each such attempt is counted as ambiguous: it is all that can double.
    """
    for _ in range(crashes):
        died = host.start(
            "produce", at("after:http.client.Client.outcome:1", "kill"), count=1, end="wait"
        )
        assert -signal.SIGKILL == died.wait()
        host.drain()
    host.settle()
    assert (crashes, crashes) == (len(host.oracle.keys), host.oracle.duplicates)
    assert (crashes, crashes) == (host.counts["delivered"], host.counts["ambiguous"])


@pytest.mark.parametrize(
    ("kills", "events"), [(8, 300), pytest.param(200, 5000, marks=pytest.mark.long)]
)
def test_killed_at_random(host: Host, kills: int, events: int) -> None:
    """Killed again and again at any moment, processes lose nothing, and double less than what is in flight at once."""
    chance = random.Random(3)
    for _ in range(kills):
        running = host.start("produce", threads=2)
        running.wait_for(chance.randrange(2 * events))
        running.kill()
    print(f"{kills} kills, {len(host.ids)} events, {host.drain(1800):.0f} s to deliver the rest")
    host.settle()
    print(f"{host.oracle.duplicates} raw duplicates, {host.counts['ambiguous']} ambiguous")
    assert host.oracle.duplicates <= 64 * kills


@pytest.mark.parametrize(
    ("slow", "seconds", "durability"),
    [
        # The write is done, and its thread waits for the interpreter, as where others compute.
        ("after:spool.journal_file.os.write", 0.004, "process"),
        ("before:spool.journal_file._sync", 0.02, "process"),
        ("before:spool.journal_file._sync", 0.02, "fsync"),
    ],
)
def test_killed_while_an_append_takes_long(
    host: Host, slow: str, seconds: float, durability: str
) -> None:
    """However long the append of one thread takes, no event of another one is in memory only."""
    slowly = at(f"{slow}:1+", f"sleep {seconds}")
    for _ in range(3):
        running = host.start(
            "produce", {**slowly, "CMDRDATA_DURABILITY": durability}, threads=3, largest=20_000
        )
        running.wait_for(60)
        running.kill()


@pytest.mark.long
def test_killed_at_two_points(tmp_path: Path, zygote: Zygote) -> None:
    """Wherever the process is killed that comes after one that was killed, nothing is lost and nothing doubled."""
    pairs = list(itertools.product(POINTS, POINTS))
    for number, (first, second) in enumerate(pairs):
        home = tmp_path / str(number)
        home.mkdir()
        met = Host(home, zygote)
        try:
            for point in (first, second):
                met.start("produce", at(point, "kill"), count=40).wait()
            met.settle()
        finally:
            met.close()
    print(f"{len(pairs)} pairs of failpoints")


def test_killed_while_the_ledger_is_made(host: Host, tmp_path: Path) -> None:
    """A ledger that a process was about to make when it died can be read, and is made by the next one."""
    making = tmp_path / LEDGER
    with contextlib.closing(sqlite3.connect(making, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("CREATE TABLE content (bytes)")
        db.execute("DROP TABLE content")
        db.execute("BEGIN")
        db.execute("CREATE TABLE content (bytes)")
        db.executemany("INSERT INTO content VALUES (zeroblob(?))", [(10_000,)] * 20)
        # As they are in the middle of it, with a journal that must be rolled back.
        for name in (LEDGER, f"{LEDGER}-journal"):
            shutil.copy(tmp_path / name, host.directory.path)
    assert 0 == host.count()["recorded"]
    host.start("produce", count=10).wait()
    host.settle()
    assert 10 == host.counts["delivered"]
