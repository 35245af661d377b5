"""What may be known of a ledger without changing it: whole and exact, whatever is missing or damaged."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.spool import ledger_view
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.frames import frame
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.kept import Kept
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import Command, encode_command, key_of
from cmdrdata_exporter.delivery.usage import Question, Total, UnreadableError
from tests.delivery.samples import (
    NOW,
    REFUSED,
    counts,
    event_id,
    header,
    held,
    record,
)


def fill(directory: Directory, *records: bytes, now: float = NOW) -> None:
    """Import records."""
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records("0.journal", 7, records, [], now)
    ledger.close()


def assert_nothing(reader: LedgerReader) -> None:
    """Check that a ledger is empty."""
    assert reader.offsets() == {}
    assert reader.last() == 0
    assert reader.is_delivered(0)
    assert reader.oldest_pending() is None
    assert reader.facts() == {}
    assert list(reader.kept("held")) == []
    assert list(reader.usage.totals(["day"])) == []
    assert reader.reasons("dead") == {}
    assert not reader.knows(bytes(16), NOW)


def tidied(ledger: Ledger) -> list[str]:
    """Compact the totals of all months before October; return which days and months there were."""
    found = [""]
    with ledger.transaction():
        while day := ledger.totals.tidy(found[-1], "2026-10")[0]:
            found.append(day)
    return found[1:]


def test_months(directory: Directory) -> None:
    """Days that became a month are exact in whole months, and refused, not guessed, in a part of one."""
    days = ("2026-08-30", "2026-08-31", "2026-09-01", "2026-09-30", "2026-10-01")
    fill(directory, *(record(number, day=day) for number, day in enumerate(days)))
    with LedgerReader(directory) as reader:
        by_month = list(reader.usage.totals(["month", "customer"]))
        assert [Total(("2026-09",), "events", 2), Total(("2026-09",), "input_tokens", 2)] == [
            *reader.usage.totals(["month"], Question(since="2026-09-01", until="2026-09-30"))
        ]
    ledger = Ledger(directory)
    assert ["2026-08-30", "2026-08-31", "2026-09-01", "2026-09-30", "2026-10-01"] == tidied(ledger)
    # What comes later joins its month.
    with ledger.transaction():
        ledger.import_records("1.journal", 7, [record(9, day="2026-09-02", units={})], [], NOW)
    assert ["2026-08", "2026-09", "2026-10-01"] == tidied(ledger)
    ledger.close()
    with LedgerReader(directory) as reader:
        assert [("2026-08", 2), ("2026-09", 3), ("2026-10-01", 1)] == [
            (total.group[0], total.amount)
            for total in reader.usage.totals(["day"])
            if total.unit == "events"
        ]
        found = {
            (*total.group, total.unit): total.amount
            for total in reader.usage.totals(["month", "customer"])
        }
        assert {(*total.group, total.unit): total.amount for total in by_month} | {
            ("2026-09", "acme", "events"): 3
        } == found
        for since, until, events in (
            ("2026-08-01", None, 6),
            ("2026-09-01", None, 4),
            ("2026-09-01", "2026-09-30", 3),
            (None, "2026-08-31", 2),
            ("2026-10-01", "2026-10-01", 1),
            ("2026-07-15", "2026-07-20", 0),
        ):
            totals = {
                total.unit: total.amount
                for total in reader.usage.totals([], Question(since=since, until=until))
            }
            assert events == totals.get("events", 0)
        for since, until in (
            ("2026-08-31", None),
            ("2026-09-02", "2026-09-30"),
            (None, "2026-09-29"),
        ):
            with pytest.raises(
                UnreadableError, match=r"known for the whole month only.* is in the middle"
            ):
                list(reader.usage.totals([], Question(since=since, until=until)))


@pytest.mark.parametrize("limit", [-1, 0, 1, 2, 3, 4, 7, 8])
def test_events_are_read_in_parts(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """All events are read once and in their order, and between two of them the log of the database can be emptied."""
    monkeypatch.setattr(ledger_view, "PART", 2)
    fill(directory, *(record(number) for number in range(3)))
    fill(directory, *(record(number) for number in range(3, 7)), now=NOW - 1)
    ledger = Ledger(directory)
    found: list[str] = []
    with LedgerReader(directory) as reader:
        for kept in reader.kept("pending", limit):
            assert kept.event is not None
            found.append(kept.event.id)
            with ledger.transaction():
                ledger.note({"read": len(found)})
            assert ledger.storage.empty_log()
    ledger.close()
    ordered = [event_id(number) for number in (3, 4, 5, 6, 0, 1, 2)]
    assert found == (ordered if limit < 0 else ordered[:limit])


def test_a_log_that_cannot_be_emptied(directory: Directory) -> None:
    """While somebody stays in a transaction the log is not emptied, nor waited for; afterwards it is."""
    fill(directory, record(1))
    ledger = Ledger(directory)
    with LedgerReader(directory) as reader:
        reader.last()
        with ledger.transaction():
            ledger.note({"read": 1})
        assert not ledger.storage.empty_log()
    assert ledger.storage.empty_log()
    assert directory.log_size() == 0
    ledger.close()


def test_no_ledger(directory: Directory) -> None:
    """A ledger that is not there yet is empty, and stays away."""
    with LedgerReader(directory) as reader:
        assert_nothing(reader)
        assert set(reader.counts().values()) == {0}
    assert not (directory.path / "ledger.db").exists()


def test_a_ledger_that_is_just_being_made(directory: Directory) -> None:
    """A ledger without tables yet is empty."""
    (directory.path / "ledger.db").touch()
    with LedgerReader(directory) as reader:
        assert_nothing(reader)


def test_a_ledger_that_is_none(directory: Directory) -> None:
    """What cannot be read is told as such, whatever is asked."""
    (directory.path / "ledger.db").write_bytes(b"no database at all" * 100)
    with LedgerReader(directory) as reader:
        with pytest.raises(UnreadableError, match="file is not a database"):
            reader.counts()
        with pytest.raises(UnreadableError, match="file is not a database"):
            list(reader.kept("dead"))


def test_a_ledger_that_cannot_be_opened(directory: Directory) -> None:
    """Nor what cannot be opened."""
    (directory.path / "ledger.db").mkdir()
    with pytest.raises(UnreadableError), LedgerReader(directory) as reader:
        reader.counts()


def test_a_connection_that_fails(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite fails at once the message says which ledger it is."""
    fill(directory)

    def fail(*_: object, **__: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("out of memory")

    monkeypatch.setattr(sqlite3, "connect", fail)
    with pytest.raises(UnreadableError) as raised:
        LedgerReader(directory)
    assert str(raised.value) == f"{directory.path}/ledger.db cannot be read: out of memory"


def test_nothing_is_changed(directory: Directory) -> None:
    """A reader cannot write."""
    fill(directory, record(1))
    with (
        LedgerReader(directory) as reader,
        pytest.raises(UnreadableError, match="attempt to write a readonly database"),
    ):
        list(reader.query("DELETE FROM events"))


def test_what_was_not_imported_yet(directory: Directory) -> None:
    """Events in journals are recorded and pending already; commands, damage and torn records are no events."""
    fill(directory, record(1))
    journal = Journal(directory)
    journal.append(record(2))
    journal.append(encode_command(Command("drop", ())))
    journal.append(held(3))
    journal.append(b"of a later version")
    with LedgerReader(directory) as reader:
        assert reader.not_imported() == 2
    assert counts(directory) == {"recorded": 3, "pending": 3}
    (directory.path / "0.journal").write_bytes(
        b"1234567" + frame(record(4)) + frame(record(5))[:-1]
    )
    (directory.path / "1.journal").write_bytes(b"")
    assert counts(directory) == {"recorded": 4, "pending": 4}
    journal.seal()


def test_a_journal_that_goes_meanwhile(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that was imported and removed between two looks is no obstacle."""
    monkeypatch.setattr(directory, "journals", lambda: [directory.path / "gone.journal"])
    assert counts(directory) == {}


def test_one_instant(directory: Directory) -> None:
    """All answers are of the instant of the first one, whatever is committed meanwhile."""
    fill(directory, record(1))
    with LedgerReader(directory) as reader:
        assert reader.last() == 1
        fill(directory, record(2))
        assert reader.last() == 1
        assert reader.counts()["recorded"] == 1
    assert counts(directory) == {"recorded": 2, "pending": 2}


def test_whether_all_is_delivered(directory: Directory) -> None:
    """What is to be sent up to a number is not delivered; what came later, is held or dead does not count."""
    fill(directory, record(1), held(2), record(3))
    ledger = Ledger(directory)
    with ledger.transaction():
        (one,) = ledger.claim(1, NOW)
    with LedgerReader(directory) as reader:
        assert reader.last() == 3
        assert [reader.is_delivered(number) for number in (0, 1, 2, 3)] == [True, *[False] * 3]
    with ledger.transaction():
        ledger.record_outcomes([(one, REFUSED)], NOW)
    with LedgerReader(directory) as reader:
        assert [reader.is_delivered(number) for number in (1, 2, 3)] == [True, True, False]
        assert reader.oldest_pending() == NOW
        assert reader.reasons("dead") == {"HTTP 400": 1}
        assert reader.reasons("pending") == {"": 1}
    ledger.close()


def test_what_is_kept(directory: Directory) -> None:
    """Events are listed by state, the oldest first, with all that is known; a damaged one without its event."""
    fill(directory, held(2), record(1))
    fill(directory, held(3), held(4), now=NOW - 5)
    ledger = Ledger(directory)
    with ledger.transaction():
        (one,) = ledger.claim(1, NOW)
        ledger.record_outcomes([(one, REFUSED)], NOW + 1)
    ledger._db.execute("UPDATE events SET record = x'00' WHERE key = ?", (key_of(event_id(4)),))
    ledger.close()
    with LedgerReader(directory) as reader:
        assert [kept.key for kept in reader.kept("held")] == [
            key_of(event_id(number)) for number in (3, 4, 2)
        ]
        first, second = reader.kept("held", 2)
        assert first == Kept(
            key_of(event_id(3)),
            "held",
            NOW - 5,
            NOW - 5,
            0,
            "no customer",
            Event(event_id(3), header(None, hold=True), b'{"customer_id":null,"n":3}'),
        )
        assert second.event is None
        assert [kept.reason for kept in reader.kept("dead")] == ["HTTP 400: no such model"]


def test_which_ids_are_known(directory: Directory) -> None:
    """An event that is here, or remembered still, would not be taken a second time."""
    fill(directory, record(1))
    ledger = Ledger(directory)
    ledger._db.execute("INSERT INTO tombstones VALUES (?, ?)", (key_of("2"), int(NOW)))
    ledger._db.execute("INSERT INTO tombstones VALUES (?, ?)", (key_of("3"), -1))
    ledger.close()
    with LedgerReader(directory) as reader:
        known = {name: reader.knows(key_of(name), NOW) for name in (event_id(1), "2", "3", "4")}
        assert known == {event_id(1): True, "2": True, "3": True, "4": False}
        assert not reader.knows(key_of("2"), NOW + 1)


def test_totals(directory: Directory) -> None:
    """Totals are grouped in a fixed order by what is asked for, and limited to days and a customer."""
    fill(
        directory,
        record(1, day="2026-11-20"),
        record(2, day="2026-11-21", model="n"),
        record(3, "other", day="2026-11-22", units={"input_tokens": 5}),
        record(4, None, day="2026-11-22", units={}),
    )
    with LedgerReader(directory) as reader:
        assert list(reader.usage.totals([])) == [
            Total((), "events", 4),
            Total((), "input_tokens", 7),
        ]
        assert list(reader.usage.totals(["model", "customer"], Question(until="2026-11-21"))) == [
            Total(("acme", "m"), "events", 1),
            Total(("acme", "m"), "input_tokens", 1),
            Total(("acme", "n"), "events", 1),
            Total(("acme", "n"), "input_tokens", 1),
        ]
        assert list(
            reader.usage.totals(["day"], Question(since="2026-11-21", customer="acme"))
        ) == [
            Total(("2026-11-21",), "events", 1),
            Total(("2026-11-21",), "input_tokens", 1),
        ]
        assert list(reader.usage.totals(["customer"], Question(customer=""))) == [
            Total(("",), "events", 1)
        ]
        assert (
            list(reader.usage.totals(["day"], Question(since="2026-11-21", until="2026-11-20")))
            == []
        )


def test_facts(directory: Directory) -> None:
    """What the process that drains has noted is there as it was noted; what was damaged is left out."""
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.note({"pid": 1, "reason": None})
        ledger.note({"pid": 7, "paused": True, "text": "\ud800"})
    ledger._db.execute("INSERT INTO facts VALUES ('a', 'no JSON'), ('b', NULL)")
    ledger.close()
    with LedgerReader(directory) as reader:
        assert reader.facts() == {"pid": 7, "reason": None, "paused": True, "text": "\ud800"}


def test_a_directory_whose_name_is_no_uri(tmp_path: Path) -> None:
    """A path may hold what has a meaning in a URI."""
    directory = Directory.prepare(tmp_path / "a?b#c%20d e\u00e9", None, "default")
    fill(directory, record(1))
    assert counts(directory) == {"recorded": 1, "pending": 1}


def test_a_ledger_that_gets_its_tables_meanwhile(directory: Directory) -> None:
    """What is being made when it is read is empty in all that is asked."""
    with sqlite3.connect(directory.path / LEDGER) as made:
        made.execute("PRAGMA user_version = 0")
    made.close()
    with LedgerReader(directory) as reader:
        assert reader.last() == 0
        Ledger(directory).close()
        assert reader.offsets() == {}
        assert set(reader.counts().values()) == {0}
