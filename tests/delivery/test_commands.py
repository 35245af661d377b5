"""What a command adds to a ledger is taken in, by whoever leads there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery import Outcome
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, UnreadableError
from cmdrdata_exporter.delivery.spool.records import Command, decode, encode_command, key_of
from cmdrdata_exporter.delivery.spool.schema import UnknownVersionError
from tests.ledgers import AMBIGUOUS, DELIVERED, ENDPOINT, IN_FLIGHT, REFUSED, event_id, fill, record


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """The directory of a destination."""
    return Directory.prepare(tmp_path / "spool", ENDPOINT, "default")


def counts(directory: Directory) -> dict[str, int]:
    """Return the counts of a ledger that are not 0."""
    with LedgerReader(directory) as ledger:
        return {name: number for name, number in ledger.counts().items() if number}


def keys(*numbers: int) -> list[bytes]:
    """Return the keys of events."""
    return [key_of(event_id(number)) for number in numbers]


def test_without_a_leader_the_command_imports(directory: Directory) -> None:
    """Everything in the journals is imported, nothing is sent, and what the last leader noted stays."""
    facts = {"pid": 1, "paused": True}
    fill(directory, [record(1), record(2)], [REFUSED, IN_FLIGHT], facts=facts)
    commands.append(directory, [record(3)])
    assert commands.apply(directory, "replay", keys(1), timeout=0)
    assert {"recorded": 3, "pending": 2, "in_flight": 1, "replayed": 1} == counts(directory)
    with LedgerReader(directory) as ledger:
        assert facts == ledger.facts()
    assert [] == directory.journals()
    assert directory.leader() is None


def test_a_leader_applies_it(directory: Directory) -> None:
    """The process that leads imports the command; the one that asks waits until it did."""
    asked = threading.Event()

    def accept(event_id: str, body: bytes, timeout: float) -> Outcome:
        asked.set()
        return DELIVERED

    fill(directory, [record(1), record(2)], [REFUSED])
    leader = DurableDelivery(directory, Options(post=accept))
    leader.start()
    try:
        assert asked.wait(10)
        assert commands.apply(directory, "drop", keys(1), timeout=10)
    finally:
        leader.close(1)
    assert {"recorded": 2, "delivered": 1, "dropped": 1} == counts(directory)


def test_a_leader_that_stands_still(directory: Directory) -> None:
    """In time or not is said; the command stays in a journal, for whoever leads next."""
    fill(directory, [record(1)], [REFUSED])
    lock_file = directory.try_to_lead()
    assert lock_file is not None
    assert not commands.apply(directory, "drop", keys(1), timeout=0)
    assert {"recorded": 1, "dead": 1} == counts(directory)
    os.close(lock_file)
    assert commands.import_journals(directory)
    assert {"recorded": 1, "dropped": 1} == counts(directory)


def test_many_events_in_one_command(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command for more events than a record may name is several records, all of them applied."""
    monkeypatch.setattr(commands, "KEYS", 2)
    fill(directory, [record(number) for number in range(5)], [REFUSED] * 5)
    assert commands.apply(directory, "drop", keys(*range(5)), timeout=0)
    assert {"recorded": 5, "dropped": 5} == counts(directory)


def test_local_events_stay_local(tmp_path: Path) -> None:
    """Imported by a command or by the application: in the directory `local` an event is where it belongs."""
    directory = Directory.prepare(tmp_path / "spool", None, "default")
    assert commands.take_in(directory, [record(1)], timeout=0)
    assert {"recorded": 1, "local": 1} == counts(directory)


def test_a_ledger_of_a_later_version(directory: Directory) -> None:
    """It is not touched, and the command is kept."""
    ledger = Ledger(directory)
    ledger._db.execute("PRAGMA user_version = 99")
    ledger.close()
    with pytest.raises(UnknownVersionError):
        commands.apply(directory, "drop", keys(1), timeout=0)
    assert 1 == len(directory.journals())
    assert directory.leader() is None


def test_a_damaged_ledger(directory: Directory) -> None:
    """It is for the process that drains to mend, and the command is kept."""
    fill(directory, [record(1)])
    path = directory.path / LEDGER
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(UnreadableError, match="cannot be written: file is not a database"):
        commands.apply(directory, "drop", keys(1), timeout=0)
    assert 1 == len(directory.journals())


def test_no_assignment_after_the_first_send(directory: Directory) -> None:
    """What was sent once, held because that was ambiguous, keeps its bytes: it is assigned to nobody."""
    sent = record(1, None).replace(b',"hold":true', b"")
    fill(directory, [sent, record(2, None)], [AMBIGUOUS], hold_ambiguous=True)
    assert commands.apply(directory, "assign", keys(1, 2), customer="acme", timeout=0)
    assert {"recorded": 2, "held": 1, "ambiguous": 1, "pending": 1, "assigned": 1} == counts(
        directory
    )
    with LedgerReader(directory) as ledger:
        [kept] = ledger.kept("held")
    assert decode(sent) == kept.event


def test_what_is_only_counted(directory: Directory) -> None:
    """Events that could not be written are counted in the ledger, and are no part of what was recorded."""
    commands.take_in(directory, [encode_command(Command("unspooled", (), number=3))], timeout=0)
    assert {"unspooled": 3} == counts(directory)


def test_a_reader_sees_one_instant(directory: Directory) -> None:
    """All that one reader says is of the same instant, so that its counts are a sum."""
    fill(directory, [record(1)])
    with LedgerReader(directory) as ledger:
        before = ledger.counts()
        fill(directory, [record(2)], [REFUSED])
        assert before == ledger.counts()
        assert {} == ledger.reasons("dead")
    assert {"recorded": 2, "pending": 1, "dead": 1} == counts(directory)
