"""What the disk has changed is never sent: it is set aside and counted, and the rest goes on."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.directory import INDEX, LEDGER, Directory
from cmdrdata_exporter.delivery.spool.frames import frame
from cmdrdata_exporter.delivery.spool.index_view import IndexReader
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import encode_event
from tests.faults.hosts import Host
from tests.faults.test_crashes import at

HEADER = Header("acme", "m", "chat.completions", "reported", {"total_tokens": 7}, "2026-11-21")


def record(number: int, size: int = 20) -> tuple[str, bytes, bytes]:
    """Return the id, the body and the record of an event."""
    event_id = f"{number:032x}"
    body = b'{"number":%d,"text":"%b"}' % (
        number,
        random.Random(number).randbytes(size // 2).hex().encode(),
    )
    return event_id, body, encode_event(event_id, HEADER, body)


FRAMES = [frame(record(number)[2]) for number in range(3)]


def taken_in(path: Path, journal: bytes) -> tuple[list[bytes], int]:
    """Return the bodies that come of a journal whose process died, and how many damaged parts are set aside."""
    directory = Directory.prepare(path, None, "default")
    (directory.path / "1-1-1.journal").write_bytes(journal)
    delivery = DurableDelivery(directory, Options(post=None))
    delivery.start()
    delivery.close(10)
    with LedgerReader(directory) as ledger:
        counts = ledger.counts()
        assert counts["recorded"] == counts["local"]
        bodies = [kept.event.body for kept in ledger.kept("local") if kept.event]
    return sorted(bodies), counts["damaged"]


@pytest.mark.parametrize("cut", range(len(FRAMES[-1]) + 1))
def test_journal_cut(tmp_path: Path, cut: int) -> None:
    """Wherever the last record of a journal ends in the middle, those before it are kept."""
    whole = cut == len(FRAMES[-1])
    bodies = [record(number)[1] for number in range(3 if whole else 2)]
    assert (bodies, int(not whole and cut > 0)) == taken_in(
        tmp_path / "spool", FRAMES[0] + FRAMES[1] + FRAMES[2][:cut]
    )


@pytest.mark.parametrize("position", range(len(FRAMES[1])))
def test_journal_bit(tmp_path: Path, position: int) -> None:
    """Whatever bit of a record changes, that record is set aside and the others are kept."""
    changed = bytearray(FRAMES[1])
    changed[position] ^= 1 << position % 8
    assert ([record(0)[1], record(2)[1]], 1) == taken_in(
        tmp_path / "spool", FRAMES[0] + changed + FRAMES[2]
    )


Written = dict[str, str]
"""The SHA-256 of the body of each event, by its id."""


def damaged_ledger(host: Host, number: int, places: int, seed: int) -> Written:
    """Write a ledger of events that wait, and garbage in some places of it; return what was written before."""
    events = [record(each, 500) for each in range(number)]
    ledger = Ledger(host.directory)
    with ledger.transaction():
        ledger.import_records(
            "1-1-1.journal", 0, [content for _, _, content in events], [], time.time()
        )
    ledger.close()
    path = host.directory.path / LEDGER
    chance = random.Random(seed)
    with path.open("r+b") as file:
        for _ in range(places):
            file.seek(chance.randrange(path.stat().st_size // 512) * 512)
            file.write(chance.randbytes(512))
    return {event_id: hashlib.sha256(body).hexdigest() for event_id, body, _ in events}


def unreadable(host: Host, written: Written) -> int:
    """Settle the account of a damaged ledger; return how many events could not be read."""
    host.settle()
    assert {*written.items()} >= {each for each in host.oracle.accepted if each[0] in written}
    faults.counts.clear()
    lost = host.counts.get("lost", 0)
    exported = len(host.oracle.keys - written.keys())
    assert len(written) == host.counts["delivered"] - exported + host.counts["dead"] + lost
    return lost


@pytest.mark.parametrize(
    ("seed", "least"),
    [
        (1, 4950),
        # Where garbage hits an inner page of the tree, what is below it is lost.
        *(pytest.param(seed, 4800, marks=pytest.mark.long) for seed in range(2, 12)),
    ],
)
def test_garbage_in_the_ledger(host: Host, seed: int, least: int) -> None:
    """Of 5,000 events 99 % are read after garbage in 20 places of the ledger; what is altered is never sent."""
    written = damaged_ledger(host, 5000, 20, seed)
    seconds = host.drain()
    lost = unreadable(host, written)
    counts = host.counts
    print(
        f"seed {seed}: {counts['delivered']} of 5000 delivered in {seconds:.1f} s, {counts['dead']} set aside, "
        f"{lost} unreadable"
    )
    assert least <= counts["delivered"] + counts["dead"]


@pytest.mark.parametrize(
    "point",
    [
        "before:leadership.salvage:1",
        "after:spool.salvage._insert:100",
        "after:spool.salvage._balance:1",
        "before:spool.salvage.os.link:1",
        "after:spool.salvage.os.link:1",
        "after:leadership.salvage:1",
    ],
)
def test_killed_while_salvaging(host: Host, point: str) -> None:
    """A process that dies while it saves what it can of a damaged ledger leaves as much to the next one."""
    written = damaged_ledger(host, 300, 2, seed=1)
    died = host.start("produce", at(point, "kill"), count=20, end="wait")
    assert -signal.SIGKILL == died.wait()
    # What two pages hold.
    assert 10 >= unreadable(host, written)
    assert 1 == host.counts["salvaged"]
    assert set(died.ids) <= host.oracle.keys


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(random.Random(1).randbytes(path.stat().st_size))


INDEX_DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbage": _overwrite,
    "truncated": lambda path: os.truncate(path, 0),
    "removed": Path.unlink,
    "log removed": lambda path: path.with_name(f"{INDEX}-wal").unlink(),
    "shared memory removed": lambda path: path.with_name(f"{INDEX}-shm").unlink(),
    "made a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGE)
def test_the_index_is_damaged_meanwhile(host: Host, damage: str) -> None:
    """Whatever happens to the index of a process that delivers, each event is delivered once, and none waits."""
    process = host.start("produce", count=300, pause=0.005, end="wait")
    host.oracle.wait_for_accepted(20)
    INDEX_DAMAGE[damage](host.directory.path / INDEX)
    host.oracle.wait_for_accepted(300)
    process.send(signal.SIGTERM)
    assert -signal.SIGTERM == process.wait()
    assert 0 == host.oracle.duplicates
    host.settle()
    with IndexReader(host.directory) as reader:
        assert {event.state for event in reader.newest(1000)} <= {"delivered"}
