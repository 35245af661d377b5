"""What the disk has changed is never sent: it is set aside and counted, and the rest goes on."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path

import pytest

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.journal import frame
from cmdrdata_exporter.delivery.ledger import Ledger
from cmdrdata_exporter.delivery.reading import LedgerReader
from cmdrdata_exporter.delivery.records import encode_event
from tests.faults.hosts import Host

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


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))]
)
def test_garbage_in_the_ledger(host: Host, seed: int) -> None:
    """Of 5,000 events 99 % survive garbage in 20 places of the ledger; what is altered is never sent."""
    events = [record(number, 500) for number in range(5000)]
    ledger = Ledger(host.directory)
    with ledger.transaction():
        ledger.take_in("1-1-1.journal", 0, [content for _, _, content in events], [], time.time())
    ledger.close()
    path = host.directory.path / LEDGER
    chance = random.Random(seed)
    with path.open("r+b") as file:
        for _ in range(20):
            file.seek(chance.randrange(path.stat().st_size // 512) * 512)
            file.write(chance.randbytes(512))
    seconds = host.drain()
    assert set(host.oracle.accepted) <= {
        (event_id, hashlib.sha256(body).hexdigest()) for event_id, body, _ in events
    }
    host.settle()
    counts = host.counts
    print(
        f"seed {seed}: {counts['delivered']} of 5000 delivered in {seconds:.1f} s, {counts['dead']} set aside, "
        f"{counts.get('lost', 0)} unreadable"
    )
    assert 4950 <= counts["delivered"]
    assert 5000 == counts["delivered"] + counts["dead"] + counts.get("lost", 0)
    faults.counts.clear()
