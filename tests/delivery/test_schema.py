"""The tables of a ledger: made and migrated in one transaction, and never touched where a later version made them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery.spool import schema
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.schema import (
    MIGRATIONS,
    Migration,
    UnknownVersionError,
    connect,
    is_broken,
)
from tests.delivery.samples import NOW, counts, record, told

ADDED = Migration("colour", "Events have a colour.", ("ALTER TABLE events ADD colour TEXT",))
FAILING = Migration("nonsense", "It cannot be applied.", ("CREATE TABLE other (x)", "nonsense"))


@pytest.fixture
def filled(directory: Directory) -> Directory:
    """A directory whose ledger of the newest version has an event."""
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records("1.journal", 99, [record(1)], [], NOW)
    ledger.close()
    return directory


def state(directory: Directory) -> tuple[int, set[str]]:
    """Return the version of a ledger, and the names of its tables and of the columns of events."""
    with sqlite3.connect(directory.path / "ledger.db", isolation_level=None) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        names |= {row[1] for row in db.execute("PRAGMA table_info(events)")}
    db.close()
    return version, names


def test_a_migration(filled: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a ledger of an earlier version applies what is missing; its events stay as they were."""
    before = state(filled)
    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, ADDED))
    Ledger(filled).close()
    assert state(filled) == (len(MIGRATIONS) + 1, before[1] | {"colour"})
    assert counts(filled) == {"recorded": 1, "pending": 1}
    # And not a second time.
    Ledger(filled).close()


def test_a_migration_that_fails(filled: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several migrations none is applied where one fails; the next process tries again."""
    before = state(filled)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, ADDED, FAILING))
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            Ledger(filled)
    assert state(filled) == before
    Ledger(filled).close()


def test_tables_that_cannot_be_made(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in the middle of making the tables leaves none, and succeeds the next time."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, FAILING))
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            Ledger(directory)
    assert state(directory) == (0, set())
    Ledger(directory).close()


def test_a_later_version(filled: Directory) -> None:
    """A ledger that a later version wrote is not touched."""
    later = len(MIGRATIONS) + 1
    with sqlite3.connect(filled.path / "ledger.db", isolation_level=None) as db:
        db.execute(f"PRAGMA user_version = {later}")
    db.close()
    with pytest.raises(UnknownVersionError) as raised:
        Ledger(filled)
    assert (
        str(raised.value)
        == f"its ledger is of version {later}, and this release knows version {later - 1}"
    )


def test_every_migration_is_described() -> None:
    """Each migration has a name of its own, a sentence that says why, and a spool of the version before it."""
    assert len(MIGRATIONS) == len({migration.name for migration in MIGRATIONS})
    assert all(migration.description.endswith(".") for migration in MIGRATIONS)
    spools = Path(__file__).parents[1] / "recorded" / "spools"
    # The newest version has one too: the next migration is tested with it.
    assert {path.name for path in spools.glob("*.tar.gz")} == {
        f"version-{number}.tar.gz" for number in range(1, len(MIGRATIONS) + 1)
    }


def test_how_it_is_kept(filled: Directory) -> None:
    """The database is durable at each commit, ours alone, and gives space back."""
    ledger = Ledger(filled)
    for pragma, expected in (
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("auto_vacuum", 2),
        ("cell_size_check", 1),
        ("user_version", len(MIGRATIONS)),
    ):
        assert ledger._db.execute(f"PRAGMA {pragma}").fetchone() == (expected,)
    with ledger.transaction():
        ledger.import_records("2.journal", 99, [record(2)], [], NOW)
    modes = {path.name: path.stat().st_mode & 0o777 for path in filled.path.glob("ledger.db*")}
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o600)
    ledger.close()


@pytest.mark.parametrize(
    ("message", "broken"),
    [
        ("database disk image is malformed", True),
        ("file is not a database", True),
        ("no such table: events", True),
        ("unsupported file format", True),
        ("database or disk is full", False),
        ("database is locked", False),
        ("disk I/O error", False),
        ("attempt to write a readonly database", False),
    ],
)
def test_which_errors_are_damage(message: str, broken: bool) -> None:
    """Only a database that is damaged itself is put aside."""
    assert is_broken(sqlite3.OperationalError(message)) is broken


def test_months_that_version_2_has_summed(directory: Directory) -> None:
    """What comes late to a month that is one sum since version 2 joins it; the days after it stay days."""
    with contextlib.closing(connect(directory, version=2)) as db:
        for day in ("2026-09", "2026-10", "2026-11-20"):
            db.execute(
                "INSERT INTO totals VALUES (?, '', 'm', 'chat.completions', 'reported', 'events', 1)",
                (day,),
            )
    ledger = Ledger(directory)
    with ledger.transaction():
        late = [told(1, None, day="2026-10-31"), told(2, None, day="2026-11-20")]
        ledger.import_records("1.journal", 9, late, [], NOW)
    ledger.close()
    with LedgerReader(directory) as reader:
        assert {"2026-09": 1, "2026-10": 2, "2026-11-20": 1, "2026-11-20T10": 1} == {
            total.group[0]: total.amount
            for total in reader.usage.totals(("hour",))
            if total.unit == "events"
        }
