"""A damaged ledger: what can be read of it goes on, what was altered is never sent, what is lost is counted."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.delivery.spool import leaves
from cmdrdata_exporter.delivery.spool import salvage as module
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.salvage import finish, is_sound, salvage
from cmdrdata_exporter.delivery.usage import Question
from tests.delivery.samples import (
    DAY,
    DELIVERED,
    NOW,
    REFUSED,
    counts,
    event_id,
    held,
    open_files,
    record,
    told,
)


def fill(directory: Directory, number: int) -> None:
    """Make a ledger with events in each state, and close it."""
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records(
            "1.journal", 99, [record(n, remember=5) for n in range(number)], [], NOW
        )
        ledger.import_records("2.journal", 98, [held(number), b"nonsense"], [(3, b"?")], NOW)
        ledger.forget_journals(["1.journal"])
    with ledger.transaction():
        one, two, _ = ledger.claim(3, NOW)
        ledger.record_outcomes([(one, DELIVERED), (two, REFUSED)], NOW)
    ledger.close()


def change(directory: Directory, *statements: str) -> None:
    """Change the database behind the ledger's back."""
    db = sqlite3.connect(directory.path / "ledger.db", isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


def test_what_is_sound(directory: Directory) -> None:
    """No ledger, an empty file and a good ledger may be used; anything else that is small enough to look at may not."""
    path = directory.path / "ledger.db"
    assert is_sound(directory)
    path.touch()
    assert is_sound(directory)
    fill(directory, 5)
    assert is_sound(directory)
    path.write_bytes(b"no database at all" * 100)
    assert not is_sound(directory)


def test_days_that_are_known_as_one(directory: Directory) -> None:
    """What comes late to a day that is one sum joins that sum, also where the ledger was salvaged since."""
    ledger = Ledger(directory, total_by=["plan"])
    with ledger.transaction():
        ledger.import_records("1.journal", 9, [told(1), told(2, hour="11")], [], NOW)
        ledger.retention.expire(NOW)
    with ledger.transaction():
        assert ledger.totals.tidy("", "", "2026-11-22")[0] == DAY
    ledger.close()
    salvage(directory, NOW)
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records("2.journal", 9, [told(3, plan="pro")], [], NOW)
    ledger.close()
    with LedgerReader(directory) as reader:
        assert reader.facts()["present"] == NOW
        hours = {total.group[0] for total in reader.usage.totals(("hour", "plan"))}
        assert (hours, list(reader.usage.totals(("hour",), Question(billed=True)))) == ({DAY}, [])


def test_a_large_ledger_is_not_looked_at(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check of a large database would hold up the start; it is found to be damaged when it is used."""
    (directory.path / "ledger.db").write_bytes(b"no database at all" * 100)
    monkeypatch.setattr(module, "LARGEST_CHECKED", 1000)
    assert is_sound(directory)


def test_what_only_cannot_be_looked_at(directory: Directory) -> None:
    """A database that cannot be opened now is not damaged."""
    fill(directory, 5)
    path = directory.path / "ledger.db"
    path.rename(directory.path / "elsewhere")
    path.mkdir()
    (path / "x").touch()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        is_sound(directory)


def test_salvaging_what_is_not_damaged(directory: Directory) -> None:
    """Of a readable ledger nothing is lost: every row of every table is in the new one, and the old one is kept."""
    fill(directory, 8)
    db = sqlite3.connect(directory.path / "ledger.db")
    tables = ("events", "groups", "totals", "counters", "journals", "tombstones", "damaged")
    before = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    db.close()
    path, lost = salvage(directory, NOW + 7.9)
    assert path.name.startswith(f"ledger.db.broken-{int(NOW) + 7}-")
    assert lost == 0
    assert sorted(file.name for file in directory.path.iterdir()) == [
        "destination.json",
        "ledger.db",
        path.name,
    ]
    db = sqlite3.connect(directory.path / "ledger.db")
    after = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    db.close()
    before["counters"].append(("lost", 0))
    before["counters"].append(("salvaged", 1))
    before["counters"].sort()
    assert after == before
    salvage(directory, NOW + 8)
    assert counts(directory) == {
        "recorded": 9,
        "delivered": 1,
        "dead": 1,
        "in_flight": 1,
        "pending": 5,
        "held": 1,
        "damaged": 2,
        "salvaged": 2,
    }


def test_events_that_are_in_the_log_of_the_database_only(directory: Directory) -> None:
    """What was committed and not yet moved into the database file itself is salvaged as well."""
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records("1.journal", 99, [record(1)], [], NOW)
    assert (directory.path / "ledger.db-wal").stat().st_size > 0
    content = {path.name: path.read_bytes() for path in directory.path.glob("ledger.db*")}
    ledger.close()
    # As after the death of the process.
    for name, data in content.items():
        (directory.path / name).write_bytes(data)
    _, lost = salvage(directory, NOW)
    assert lost == 0
    assert counts(directory) == {"recorded": 1, "pending": 1, "salvaged": 1}


def test_without_any_database(directory: Directory) -> None:
    """A file that is no database at all is put aside, and a new ledger begins."""
    (directory.path / "ledger.db").write_bytes(b"no database at all" * 100)
    path, lost = salvage(directory, NOW)
    assert path.read_bytes() == b"no database at all" * 100
    assert lost == 0
    assert counts(directory) == {"salvaged": 1}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET record = x'00' WHERE seq = 4",
        "UPDATE events SET crc = 1 WHERE seq = 4",
        "UPDATE events SET key = zeroblob(16) WHERE seq = 4",
        "UPDATE events SET key = 'text' WHERE seq = 4",
        "UPDATE events SET state = 9 WHERE seq = 4",
        "UPDATE events SET state = 'x' WHERE seq = 4",
        "UPDATE events SET due = 'x' WHERE seq = 4",
        "UPDATE events SET recorded = x'ff' WHERE seq = 4",
        "UPDATE events SET attempts = 'many' WHERE seq = 4",
        "UPDATE events SET remember = 1.5 WHERE seq = 4",
        "UPDATE events SET reason = x'ff' WHERE seq = 4",
    ],
)
def test_a_row_that_was_altered(directory: Directory, statement: str) -> None:
    """A row of which any part was altered is dead, and all others are what they were."""
    fill(directory, 8)
    before = counts(directory)
    change(directory, statement)
    _, lost = salvage(directory, NOW)
    assert lost == 0
    assert counts(directory) == before | {"pending": 4, "dead": 2, "salvaged": 1}
    with LedgerReader(directory) as reader:
        assert [kept.reason for kept in reader.kept("dead")] == [
            "HTTP 400: no such model",
            "damaged",
        ]


def test_numbers_that_are_none(directory: Directory) -> None:
    """What is reckoned with and is no number stays behind; the others hold, and the sum is made to."""
    fill(directory, 8)
    change(
        directory,
        "UPDATE counters SET value = 'x' WHERE name = 'repeated' OR name = 'delivered'",
        "UPDATE totals SET amount = x'00' WHERE unit = 'input_tokens'",
        "UPDATE journals SET offset = 'x'",
    )
    _, lost = salvage(directory, NOW)
    assert lost == 1
    found = counts(directory)
    assert (found["recorded"], found["lost"]) == (8, 1)
    with LedgerReader(directory) as reader:
        assert {total.unit for total in reader.usage.totals([])} == {"events"}
        assert reader.offsets() == {}


def told_of(directory: Directory, *customers: str) -> None:
    """Make a ledger with two events of each customer, of groups that differ in more."""
    ledger = Ledger(directory, total_by=("plan",))
    with ledger.transaction():
        ledger.import_records(
            "1.journal",
            99,
            [
                told(10 * number + n, customer, tokens=5 + number, plan=f"p{number}")
                for number, customer in enumerate(customers)
                for n in range(2)
            ],
            [],
            NOW,
        )
    ledger.close()


def used(directory: Directory, *by: str) -> dict[tuple[str, ...], float]:
    """Return how many input tokens were used."""
    with LedgerReader(directory) as reader:
        return {
            total.group: total.amount
            for total in reader.usage.totals(by)
            if total.unit == "input_tokens"
        }


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE groups SET customer = 'globex' WHERE customer = 'acme'",
        "UPDATE groups SET labels = x'ff' WHERE customer = 'acme'",
        "UPDATE groups SET number = 7 WHERE customer = 'acme'",
        "DELETE FROM groups WHERE customer = 'acme'",
    ],
)
def test_a_group_that_was_altered(directory: Directory, damage: str) -> None:
    """Usage of a group whose row was altered is nobody's, and no one else's, until the group has another event."""
    told_of(directory, "acme", "initech")
    change(directory, damage)
    assert 0 == salvage(directory, NOW)[1]
    assert {("", ""): 10, ("initech", "p1"): 12} == used(directory, "customer", "plan")
    ledger = Ledger(directory, total_by=("plan",))
    with ledger.transaction():
        ledger.import_records("1.journal", 99, [told(90, "acme", tokens=100, plan="p0")], [], NOW)
    ledger.close()
    assert {("acme", "p0"): 110, ("initech", "p1"): 12} == used(directory, "customer", "plan")
    with LedgerReader(directory) as reader:
        assert (5, {"input_tokens": 122}) == reader.usage.outside()["pending"]
        assert [] == list(reader.usage.totals(("customer",), Question(billed=True)))


def test_where_an_event_was_counted(directory: Directory) -> None:
    """Where an event was counted goes on with it, also where it is read from the leaves of a tree without its root."""
    told_of(directory, "acme", "initech")
    query = "SELECT seq, time, group_number FROM events ORDER BY seq"
    db = sqlite3.connect(directory.path / "ledger.db")
    before = db.execute(query).fetchall()
    db.close()
    assert all(time == f"{DAY}T10" for _, time, _ in before)
    for what in (None, "events"):
        if what is not None:
            ledger = Ledger(directory)
            with ledger.transaction():
                more = [record(n, model="m" * 300) for n in range(1000, 1500)]
                ledger.import_records("2.journal", 99, more, [], NOW)
            ledger.close()
            damage(directory, root(directory, what))
        salvage(directory, NOW)
        db = sqlite3.connect(directory.path / "ledger.db")
        assert before == db.execute(query).fetchall()[:4]
        db.close()
    change(
        directory,
        "UPDATE events SET time = x'ff' WHERE seq = 1",
        "UPDATE totals SET group_number = 'x' WHERE time = ''",
    )
    salvage(directory, NOW)
    with LedgerReader(directory) as reader:
        pending = reader.usage.outside()["pending"]
    assert (504, {"input_tokens": 2 * 5 + 2 * 6 + 500}) == pending


def test_rows_that_are_lost(directory: Directory) -> None:
    """What is in no row any more is counted as lost, once."""
    fill(directory, 8)
    change(directory, "DELETE FROM events WHERE seq IN (5, 6)")
    assert salvage(directory, NOW)[1] == 2
    assert salvage(directory, NOW + 1)[1] == 0
    found = counts(directory)
    assert (found["recorded"], found["pending"], found["lost"]) == (7, 3, 2)


def garbage(path: Path, seed: int) -> None:
    """Write 512 bytes of garbage over twenty places of a file, but not its first page."""
    dice = random.Random(seed)
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        for _ in range(20):
            file.seek(dice.randrange(4096, size - 512))
            file.write(dice.randbytes(512))


@pytest.mark.parametrize("seed", range(5))
def test_garbage(directory: Directory, seed: int) -> None:
    """Of 5,000 events in a database with garbage in twenty places nearly all go on, and none is altered."""
    records = {event_id(number): record(number, model="m" * 500) for number in range(5000)}
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records("1.journal", 99, records.values(), [], NOW)
    ledger.close()
    garbage(directory.path / "ledger.db", seed)
    assert not is_sound(directory)
    _, lost = salvage(directory, NOW)
    assert is_sound(directory)
    found = counts(directory)
    assert found["recorded"] + lost == 5000 or lost == 0
    assert found["pending"] >= 4900
    ledger = Ledger(directory)
    with ledger.transaction():
        handed = ledger.claim(5000, NOW)
    ledger.close()
    assert len(handed) >= 4900
    assert [event for event in handed if not records[event.id].endswith(b"\n" + event.body)] == []


@pytest.mark.parametrize("where", ["_balance", "replace"])
def test_a_new_ledger_that_cannot_be_written(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Where the new one cannot be written, the old one stays where it is, for the next attempt; nothing stays open."""
    fill(directory, 8)
    before, files = counts(directory), open_files(directory)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(module if where == "_balance" else Path, where, full)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            salvage(directory, NOW)
    assert open_files(directory) == files
    assert counts(directory) == before
    _, lost = salvage(directory, NOW)
    assert lost == 0
    # What only had to take its place did so first.
    assert counts(directory) == before | {"salvaged": 2 if where == "replace" else 1}


@pytest.mark.parametrize("where", ["link", "replace"])
def test_the_last_steps(directory: Directory, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Where it ends on the way, while others read, nothing of the log of the database is lost."""
    fill(directory, 8)
    with LedgerReader(directory) as reader:
        # As long as it reads, what is written is in the log.
        reader.last()
        ledger = Ledger(directory)
        with ledger.transaction():
            ledger.import_records("3.journal", 97, [record(100), record(101)], [], NOW)
        ledger.close()
        before = counts(directory)

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        with monkeypatch.context() as patch:
            patch.setattr(os if where == "link" else Path, where, refuse)
            with pytest.raises(OSError, match="not permitted"):
                salvage(directory, NOW)
    finish(directory)
    Ledger(directory).close()
    assert counts(directory) == before | ({} if where == "link" else {"salvaged": 1})


def test_an_old_ledger_that_cannot_be_opened_now(directory: Directory) -> None:
    """What only cannot be read for the moment is not given up as unreadable."""
    fill(directory, 8)
    before = counts(directory)
    writer = sqlite3.connect(directory.path / "ledger.db", isolation_level=None)
    writer.execute("PRAGMA locking_mode = EXCLUSIVE")
    writer.execute("PRAGMA journal_mode = DELETE")
    writer.execute("BEGIN EXCLUSIVE")
    real: Any = sqlite3.connect

    def impatient(path: Path, **options: Any) -> sqlite3.Connection:
        return real(path, **options | {"timeout": 0})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", impatient)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            salvage(directory, NOW)
    writer.close()
    assert counts(directory) == before


def damage(directory: Directory, page: int, number: int = 1) -> None:
    """Write garbage over pages of a database, whose log is in it."""
    with (directory.path / "ledger.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(random.Random(page).randbytes(number * 4096))


def root(directory: Directory, name: str) -> int:
    """Return the page at which a table or an index begins."""
    db = sqlite3.connect(directory.path / "ledger.db")
    query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
    (page,) = db.execute(query, (name,)).fetchone()
    db.close()
    return int(page)


def grown(directory: Directory) -> dict[str, int]:
    """Make a ledger of many pages, some given up already and some events larger than one; return its counts."""
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records(
            "0.journal", 7, [record(n, model="m" * 300) for n in range(1000)], [], NOW
        )
    with ledger.transaction():
        ledger.record_outcomes([(event, DELIVERED) for event in ledger.claim(600, NOW)], NOW)
    with ledger.transaction():
        larger = [record(n, model="m" * n) for n in range(3000, 30_000, 900)]
        ledger.import_records("1.journal", 7, larger, [], NOW)
    ledger.close()
    return counts(directory)


@pytest.mark.parametrize(
    "what", ["beginning", "header", "events", "by_state", "sqlite_autoindex_events_1"]
)
def test_a_tree_without_its_root(directory: Directory, what: str) -> None:
    """Whatever tree has lost its first page, no event is lost that is in another page, and none comes back."""
    before = grown(directory)
    assert before == {"recorded": 1030, "delivered": 600, "pending": 430}
    if what == "header":
        with (directory.path / "ledger.db").open("r+b") as file:
            file.write(bytes(100))
    else:
        damage(directory, 1 if what == "beginning" else root(directory, what))
    _, lost = salvage(directory, NOW)
    after = counts(directory)
    assert (0, 600, 430) == (lost, after["delivered"], after["pending"] + after.get("dead", 0))
    assert 0 == after.get("dead", 0)
    ledger = Ledger(directory)
    with ledger.transaction():
        handed = ledger.claim(1000, NOW)
    ledger.close()
    assert 430 == len({event.id for event in handed})
    assert is_sound(directory)


def test_leaves_that_are_in_the_log_only(directory: Directory) -> None:
    """What the log of the database has of a page counts, up to the last transaction in it; what is older does not."""
    grown(directory)
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.record_outcomes([(event, DELIVERED) for event in ledger.claim(100, NOW)], NOW)
        ledger.import_records("2.journal", 7, [record(40_000)], [], NOW)
    with LedgerReader(directory) as reader:
        pending = {kept.key for kept in reader.kept("pending")}
    path = directory.path / "ledger.db"
    log = Path(f"{path}-wal")
    found = list(leaves.rows(path))
    assert (331, pending) == (len(found), {row[1] for row in found})
    # Of a transaction that was not committed whole, nothing counts.
    torn = log.read_bytes()
    ledger.close()
    older = {row[1] for row in leaves.rows(path)}
    assert pending == older
    log.write_bytes(torn[: 32 + 4096 + 24])
    assert older == {row[1] for row in leaves.rows(path)}
    log.write_bytes(torn[:60])
    assert older == {row[1] for row in leaves.rows(path)}


def test_leaves_that_were_given_up(directory: Directory) -> None:
    """What is in pages that the database has given up was delivered since, and does not come back."""
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records(
            "0.journal", 7, [record(n, model="m" * 300) for n in range(1000)], [], NOW
        )
    # What is deleted is so in the log first; a page that is given up then is not written any more.
    ledger.close()
    ledger = Ledger(directory)
    # As most builds of SQLite have it; Debian's fills such pages with zeros.
    ledger._db.execute("PRAGMA secure_delete = OFF").fetchone()
    for _ in range(9):
        with ledger.transaction():
            ledger.record_outcomes([(event, DELIVERED) for event in ledger.claim(100, NOW)], NOW)
    with LedgerReader(directory) as reader:
        pending = {kept.key for kept in reader.kept("pending")}
    ledger.close()
    assert (100, pending) == (
        len(pending),
        {row[1] for row in leaves.rows(directory.path / "ledger.db")},
    )


def test_garbage_in_leaves(directory: Directory) -> None:
    """Whatever garbage is in a page, no row is read that is not whole, and reading ends."""
    grown(directory)
    path = directory.path / "ledger.db"
    whole = {row[1]: row for row in leaves.rows(path)}
    content = path.read_bytes()
    for seed in range(20):
        chance = random.Random(seed)
        changed = bytearray(content)
        for _ in range(300):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed)
        for row in leaves.rows(path):
            assert row[9] == whole.get(row[1], row)[9]
