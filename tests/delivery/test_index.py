"""The index: an event is found by any of its ids, whatever became of it; whatever is wrong with it, no event waits."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from cmdrdata_exporter.delivery import Event, Header, Outcome
from cmdrdata_exporter.delivery.drainer import Drainer, Options
from cmdrdata_exporter.delivery.spool import index as module
from cmdrdata_exporter.delivery.spool import index_rows, totals
from cmdrdata_exporter.delivery.spool.details import Details
from cmdrdata_exporter.delivery.spool.directory import INDEX, LEDGER, Directory
from cmdrdata_exporter.delivery.spool.index import KEEP, Index
from cmdrdata_exporter.delivery.spool.index_rows import Numbered
from cmdrdata_exporter.delivery.spool.index_view import About, IndexReader
from cmdrdata_exporter.delivery.spool.indexed import IndexedEvent, Wanted
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.records import (
    Command,
    encode_command,
    encode_event,
    key_of,
)
from cmdrdata_exporter.delivery.usage import UnreadableError
from tests.delivery.samples import DELIVERED, NOW, REFUSED, Clock, counts, event_id

UNITS = {"input_tokens": 1000, "output_tokens": 20, "audio_seconds": 9.5}


def trace(number: int) -> str:
    """Return the trace that an event is in, with the one beside it."""
    return f"{0xABC0 + number // 2:032x}"


def record(
    number: int,
    customer: str | None = "acme",
    *,
    model: str = "gpt-5-mini",
    endpoint: str = "chat.completions",
    status: str = "reported",
    at: float | None = None,
    name: str | None = None,
) -> bytes:
    """Return the record of an event; its call ended so many seconds after the beginning as its number."""
    header = Header(
        customer=customer,
        model=model,
        endpoint=endpoint,
        status=status,
        units=UNITS,
        day="2027-01-15",
        hold=customer is None,
        customer_at=15 if customer is None else None,
    )
    body = {
        "customer_id": customer,
        "provider": "openai",
        "input_tokens": 1000,
        "timestamp": int(NOW) + number if at is None else int(at),
        "metadata": {
            "trace_id": trace(number),
            "response_id": f"chatcmpl-{number}",
            "request_id": f"req_{number}",
        },
    }
    return encode_event(
        name or event_id(number), header, json.dumps(body, separators=(",", ":")).encode()
    )


def indexed(number: int, state: str = "delivered", **changes: object) -> IndexedEvent:
    """Return what is read of an event."""
    event = IndexedEvent(
        number=number,
        key=key_of(event_id(number)),
        id=event_id(number),
        at=int(NOW) + number,
        customer="acme",
        model="gpt-5-mini",
        endpoint="chat.completions",
        usage_status="reported",
        units=UNITS,
        trace_id=trace(number),
        response_id=f"chatcmpl-{number}",
        request_id=f"req_{number}",
        state=state,
    )
    return event._replace(**changes)


class Host:
    """A ledger with an index, without a process that leads."""

    def __init__(
        self, directory: Directory, most: int | None = 1000, *, local: bool = False
    ) -> None:
        self.directory, self.local = directory, local
        self.told: list[str] = []
        self.open(most)

    def open(self, most: int | None = 1000) -> None:
        """Open both, as a process does that begins to lead."""
        index = Index(self.directory, most, self.told.append)
        self.ledger = Ledger(self.directory, local=self.local, index=index)

    def take(self, *records: bytes, outcomes: int = 0, outcome: Outcome = DELIVERED) -> None:
        """Import records, and send so many of what is pending."""
        with self.ledger.transaction():
            self.ledger.import_records("1.journal", 7, records, [], NOW)
        with self.ledger.transaction():
            claimed = self.ledger.claim(outcomes, NOW)
            assert len(claimed) == outcomes
            self.ledger.record_outcomes([(event, outcome) for event in claimed], NOW)

    def command(self, action: str, *numbers: int, customer: str | None = None) -> None:
        """Have something done with events."""
        keys = tuple(key_of(event_id(number)) for number in numbers)
        self.take(encode_command(Command(action, keys, customer)))

    def tidy(self, now: float = NOW) -> None:
        """Make a round of upkeep."""
        with self.ledger.transaction():
            self.ledger.index.tidy(self.ledger.before, self.ledger.last(), now)

    def find(self, text: str) -> list[IndexedEvent]:
        """Look for an id."""
        with IndexReader(self.directory) as reader:
            return reader.find(text)

    def all(self) -> list[IndexedEvent]:
        """Return all events."""
        with IndexReader(self.directory) as reader:
            return reader.newest(1000)

    def about(self) -> About:
        """Return what is known of the index."""
        with IndexReader(self.directory) as reader:
            return reader.about()

    def rows(self, table: str) -> list[tuple[object, ...]]:
        """Return what is in a table of the index."""
        db = sqlite3.connect(f"file:{self.directory.path / INDEX}?mode=ro", uri=True)
        found = db.execute(f"SELECT * FROM {table}").fetchall()
        db.close()
        return found


@pytest.fixture
def host(directory: Directory) -> Iterator[Host]:
    """A ledger with an index."""
    host = Host(directory)
    yield host
    host.ledger.close()


# What is in it


def test_by_any_id(host: Host) -> None:
    """A delivered event is found by its id, the beginning of it, its response, request and trace; whole."""
    host.take(*(record(number) for number in (1, 2, 3)), outcomes=3)
    assert counts(host.directory) == {"recorded": 3, "delivered": 3}
    for text in (event_id(1), "chatcmpl-1", "req_1", trace(1), f" {event_id(1)}\n"):
        assert [indexed(1)] == host.find(text)
    assert [indexed(2), indexed(3)] == host.find(trace(2))
    assert [indexed(number) for number in (1, 2, 3)] == host.find("000")
    assert (
        []
        == host.find("chatcmpl-9")
        == host.find("0" * 31 + "9")
        == host.find("")
        == host.find("é")
    )


def test_no_look_up_reads_all(host: Host) -> None:
    """An id is found by the indexes of the database, and what comes after a number by its number."""
    host.take(record(1), record(2), outcomes=1)
    asked: list[str] = []
    with IndexReader(host.directory) as reader:
        assert reader._db is not None
        reader._db.set_trace_callback(asked.append)
        for text in (event_id(1), event_id(1)[:9], "chatcmpl-1", trace(1)):
            assert reader.find(text)
        assert reader.newest(9, after=1)
        reader._db.set_trace_callback(None)
        plans = {
            row[3]
            for query in asked
            if "JOIN kinds" in query
            for row in reader._db.execute(f"EXPLAIN QUERY PLAN {query}")
        }
    assert {
        "SEARCH events USING INDEX sqlite_autoindex_events_1 (key=?)",
        "SEARCH events USING INDEX sqlite_autoindex_events_1 (key>? AND key<?)",
        "SEARCH events USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "SEARCH kinds USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH words USING PRIMARY KEY (word=?)",
    } >= {plan for plan in plans if plan.startswith(("SCAN", "SEARCH"))}


def test_other_ids(host: Host) -> None:
    """An id of another form is found whole; its trace may be no W3C one; half of a surrogate pair harms nothing."""
    host.take(
        record(1, name="job: 7"),
        encode_event(
            event_id(2), Header("\ud800", "m\udfff", "e", "s", {"u\ud800": 1}, "d"), b"{}"
        ),
        encode_event("x", Header("acme", "m", "e", "s", {}, "2027-01-15"), b"no JSON"),
        outcomes=3,
    )
    assert [] == host.find("")
    assert ["job: 7"] == [event.id for event in host.find("job: 7")]
    assert [("?", "m?", {"u\ud800": 1})] == [
        (event.customer, event.model, event.units) for event in host.find(event_id(2))
    ]
    # When its call ended it does not say: when it was imported is known.
    assert [(int(NOW), {}, "")] == [
        (event.at, event.units, event.trace_id) for event in host.find("x")
    ]
    assert host.told == []


def test_states(host: Host) -> None:
    """The state is the ledger's, with its reason; what a person gave up is dropped, not delivered."""
    host.take(record(1), outcomes=1, outcome=REFUSED)
    host.take(record(2), outcomes=1, outcome=REFUSED)
    host.take(record(3, None), record(4))
    refused = {"reason": "HTTP 400: no such model", "since": NOW, "attempts": 0}
    kept = {"since": NOW, "attempts": 0}
    held = indexed(3, "held", customer=None, reason="no customer", **kept)
    assert [
        indexed(4, "pending", **kept),
        held,
        indexed(2, "dead", **refused),
        indexed(1, "dead", **refused),
    ] == host.all()
    host.command("drop", 1)
    host.command("assign", 3, customer="globex")
    assert [indexed(1, "dropped")] == host.find(event_id(1))
    assert [indexed(3, "pending", customer="globex", **kept)] == host.find("chatcmpl-3")
    host.take(outcomes=2)
    assert [
        indexed(4),
        indexed(3, customer="globex"),
        indexed(2, "dead", **refused),
        indexed(1, "dropped"),
    ] == host.all()


def test_local(directory: Directory, tmp_path: Path) -> None:
    """An event that stays is local, with its body and without it."""
    local = Directory.prepare(tmp_path / "spool", None, "default")
    host = Host(local, local=True)
    host.take(record(1))
    assert [("local", NOW)] == [(event.state, event.since) for event in host.all()]
    with host.ledger.transaction():
        host.ledger.retention.shrink_local(1)
    assert [indexed(1, "local")] == host.all()
    host.ledger.close()


def test_repeated(host: Host) -> None:
    """An event that comes again is in it once."""
    host.take(record(1), record(1), record(2), record(2))
    assert [2, 1] == [event.at - int(NOW) for event in host.all()]
    host.ledger.close()
    host.open()
    assert host.about() == About(True, None, filling=False, reason=None)


def test_filters(host: Host) -> None:
    """Events are chosen by state, customer, model, endpoint, time and what is known of their usage."""
    host.take(
        record(1),
        record(2, "globex"),
        record(3, None),
        record(4, model="o3"),
        record(5, endpoint="responses"),
        record(6, status="missing"),
        record(7, status="partial"),
        outcomes=2,
    )
    with IndexReader(host.directory) as reader:

        def numbers(limit: int = 100, after: int | None = None, **wanted: Any) -> list[int]:
            found = reader.newest(limit, Wanted(**wanted), after=after)
            return [event.at - int(NOW) for event in found]

        assert numbers() == [7, 6, 5, 4, 3, 2, 1]
        assert numbers(2) == [7, 6]
        assert numbers(state="delivered") == [2, 1]
        assert numbers(state="pending") == [7, 6, 5, 4]
        assert numbers(state="held") == [3]
        assert numbers(state="dropped") == []
        assert numbers(customer="globex") == [2]
        assert numbers(customer="") == [3]
        assert numbers(model="o3") == [4]
        assert numbers(endpoint="responses") == [5]
        assert numbers(since=int(NOW) + 3, until=int(NOW) + 5) == [4, 3]
        assert numbers(no_usage=True) == [7, 6]
        assert numbers(no_usage=True, state="pending", limit=1) == [7]
        assert numbers(after=5) == [7, 6]
        assert numbers(1, after=0) == [7]
        assert numbers(after=0, state="delivered") == [2, 1]
        assert numbers(after=1, state="delivered") == [2]


def test_more_than_a_part(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state of which few are among many is found however far back they are."""
    from cmdrdata_exporter.delivery.spool import index_view, kept

    monkeypatch.setattr(index_view, "PART", 2)
    monkeypatch.setattr(kept, "PART", 2)
    # All at the same second.
    host.take(*(record(number, at=NOW) for number in range(1, 4)), outcomes=3)
    host.take(*(record(number, at=NOW) for number in range(4, 12)))
    with IndexReader(host.directory) as reader:
        assert [3, 2, 1] == [event.number for event in reader.newest(9, Wanted(state="delivered"))]
        everything = list(range(11, 0, -1))
        assert everything == [event.number for event in reader.newest(99)]
        assert everything == [event.number for event in reader.newest(99, after=0)]
        assert list(range(11, 3, -1)) == [
            event.number for event in reader.newest(99, Wanted(state="pending"))
        ]


def test_files(host: Host) -> None:
    """Its files are this user's alone, and take no room from events."""
    host.take(record(1))
    names = [f"{INDEX}{suffix}" for suffix in ("", "-shm", "-wal")]
    assert names == sorted(path.name for path in host.directory.path.glob(f"{INDEX}*"))
    assert {0o600} == {stat.S_IMODE((host.directory.path / name).stat().st_mode) for name in names}
    size = host.directory.size()
    with (host.directory.path / INDEX).open("ab") as file:
        file.truncate(1 << 40)
    assert size == host.directory.size()


# Its bounds


def test_no_more_than_so_many(host: Host) -> None:
    """The first ones go, with all that leads to them, and it is said of which time not all are there."""
    host.ledger.close()
    host.open(3)
    host.take(*(record(number) for number in range(1, 8)), outcomes=7)
    host.take(record(8))
    with IndexReader(host.directory) as reader:
        assert 3 == reader.count()
    assert [8, 7, 6] == [event.number for event in host.all()]
    assert {6, 7, 8} == {number for _, number in host.rows("words")}
    assert host.about() == About(True, NOW + 5, filling=False, reason=None)
    assert [] == host.find("chatcmpl-5")


def test_no_longer_than_thirty_days(host: Host) -> None:
    """What is older goes in the upkeep, a little at a time; what the ledger still has is found there."""
    host.take(record(1), record(2, None), outcomes=1)
    host.take(record(3, at=NOW + 10))
    host.tidy(NOW + 3 + KEEP)
    assert [3] == [row[0] for row in host.rows("events")]
    assert host.about().missing_before == NOW + 2
    assert [] == host.find("chatcmpl-1")
    for text in ("chatcmpl-2", "req_2", event_id(2), event_id(2)[:31]):
        assert ["held"] == [event.state for event in host.find(text) if event.number == 2]
    with IndexReader(host.directory) as reader:
        assert [3, 2] == [event.number for event in reader.newest(9)]
        assert [2] == [event.number for event in reader.newest(9, Wanted(state="held"))]


def test_none(host: Host) -> None:
    """With 0 there is none, and the one that was there goes; what the ledger has is found all the same."""
    host.take(record(1), record(2), outcomes=1)
    host.ledger.close()
    host.open(0)
    host.take(record(3))
    host.tidy()
    assert [] == list(host.directory.path.glob(f"{INDEX}*"))
    assert [3, 2] == [event.number for event in host.all()]
    for text in ("chatcmpl-2", "req_2", trace(3), event_id(2), event_id(2)[:31]):
        assert 2 in [event.number for event in host.find(text)]
    assert [] == host.find("chatcmpl-1")
    assert host.about() == About(False, None, filling=False, reason=None)
    host.ledger.close()
    # Who leads for a moment, for a command, makes none.
    host.open(None)
    assert [] == list(host.directory.path.glob(f"{INDEX}*"))


def test_who_leads_for_a_moment(host: Host) -> None:
    """A command that imports keeps the index up to date, with the bound that it has."""
    host.ledger.close()
    host.open(2)
    host.take(record(1), record(2, None))
    host.ledger.close()
    host.open(None)
    host.take(record(3))
    host.command("assign", 2, customer="globex")
    assert [("acme", 3), ("globex", 2)] == [(event.customer, event.number) for event in host.all()][
        :2
    ]
    assert [2, 3] == [row[0] for row in host.rows("events")]
    assert host.about() == About(True, NOW + 1, filling=False, reason=None)


# With the ledger


def test_filled_from_the_ledger(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier version left is added little by little, and found from the beginning on."""
    monkeypatch.setattr(index_rows, "FILLED", 2)
    host.ledger.close()
    host.open(0)
    host.take(*(record(number) for number in range(1, 7)), outcomes=1)
    host.ledger.close()
    host.open()
    host.take(record(7))
    everything = [7, 6, 5, 4, 3, 2]
    for there in ([7], [5, 6, 7], [3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7]):
        assert there == [row[0] for row in host.rows("events")]
        assert everything == [event.number for event in host.all()]
        for number in (2, 7):
            assert [number] == [event.number for event in host.find(f"chatcmpl-{number}")]
        assert [2, 3] == sorted(event.number or 0 for event in host.find(trace(2)))
        filling = host.about().filling
        host.tidy()
    assert not filling
    assert host.about().missing_before is not None


def test_somebody_led_without_one(host: Host) -> None:
    """What was imported without an index is added from the ledger; since when none is missing is said."""
    host.take(record(1))
    assert host.about().missing_before is None
    host.ledger.close()
    index = (host.directory.path / INDEX).read_bytes()
    host.open(0)
    host.take(record(2), record(3), outcomes=1)
    host.ledger.close()
    (host.directory.path / INDEX).write_bytes(index)
    host.open()
    assert host.about().filling
    assert host.about().missing_before is not None
    host.tidy()
    assert [1, 2, 3] == [row[0] for row in host.rows("events")]


def test_a_ledger_that_does_not_commit(host: Host) -> None:
    """What the ledger did not take comes again, under any number, and is in it once; meanwhile it is pending."""
    host.take(record(1))
    db = host.ledger._db
    host.ledger._db = _Failing(db)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        host.take(record(2), record(3), record(4))
    host.ledger._db = db
    assert ["pending"] * 4 == [event.state for event in host.all()]
    # From other journals first.
    host.take(record(4), record(3))
    host.take(record(2))
    assert [(4, 2), (3, 3), (2, 4), (1, 1)] == [
        (event.at - int(NOW), event.number) for event in host.all()
    ]
    assert [2, 3, 4] == sorted(
        number
        for text in ("chatcmpl-2", "chatcmpl-3", "chatcmpl-4")
        for number in [event.number or 0 for event in host.find(text)]
    )


def test_as_many_others_after_what_was_not_committed(host: Host) -> None:
    """Other events may get the same numbers, and as many: the index has these then, and calls no other delivered."""
    host.take(record(1))
    db = host.ledger._db
    host.ledger._db = _Failing(db)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        host.take(record(2), record(3))
    host.ledger._db = db
    host.take(record(4), record(5))
    host.ledger.close()
    host.open()
    assert [1, 4, 5] == sorted(event.at - int(NOW) for event in host.all())
    assert [] == host.find("chatcmpl-2")


class _Failing:
    """A connection that cannot commit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
        """Execute it, unless it commits."""
        if query == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")
        return self._db.execute(query, *values)

    def executemany(self, query: str, values: Any) -> sqlite3.Cursor:
        """Execute it."""
        return self._db.executemany(query, values)


def test_a_process_that_died_in_between(host: Host) -> None:
    """What is in the index and not in the ledger goes when it is opened again: it comes from its journal."""
    host.take(record(1))
    event = Event(event_id(2), Header("a", "m", "e", "s", {}, "d"), b"")
    host.ledger.index.add(Numbered(2, key_of(event_id(2)), event, None, NOW))
    host.ledger.index.write(2)
    assert ["pending", "pending"] == [event.state for event in host.all()]
    host.ledger.close()
    host.open()
    assert [1] == [event.number for event in host.all()]
    host.take(record(2))
    assert [2, 1] == [event.at - int(NOW) for event in host.all()]


def test_another_ledger(host: Host) -> None:
    """An index says nothing of the events of a ledger that is new."""
    host.take(record(1), record(2), outcomes=2)
    host.ledger.close()
    for path in host.directory.path.glob(f"{LEDGER}*"):
        path.unlink()
    host.open()
    host.take(record(3))
    assert [3] == [event.at - int(NOW) for event in host.all()]


def test_a_ledger_that_gave_far_fewer_numbers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take long to remove event by event is removed as a whole."""
    monkeypatch.setattr(module, "UNCOMMITTED", 1)
    host.take(record(1), record(2), outcomes=2)
    host.ledger.close()
    for path in host.directory.path.glob(f"{LEDGER}*"):
        path.unlink()
    host.open()
    assert host.told == ["its ledger is another one"]
    assert [] == host.all()


def test_what_is_in_journals_only(host: Host) -> None:
    """What was recorded a moment ago is shown, and found by any id."""
    host.take(record(1))
    journal = Journal(host.directory)
    journal.append(record(2))
    new = indexed(2, "pending", attempts=0)._replace(number=None)
    assert [new] == host.all()[:1]
    for text in (event_id(2), event_id(2)[:32], "chatcmpl-2", "req_2", trace(2)):
        assert [new] == host.find(text)
    with IndexReader(host.directory) as reader:
        assert [new] == reader.newest(5, after=1)
        body = reader.body(new)
        assert body is not None
        assert "chatcmpl-2" in body.decode()
        assert reader.body(indexed(9)) is None
    journal.seal()


# What goes wrong


def test_a_file_that_is_no_index(host: Host) -> None:
    """A broken index is begun anew and filled again; readers say so until then, and show what the ledger has."""
    host.take(record(1), record(2), outcomes=1)
    host.ledger.close()
    for path in host.directory.path.glob(f"{INDEX}*"):
        path.unlink()
    (host.directory.path / INDEX).write_bytes(b"no database at all" * 100)
    assert [2] == [event.number for event in host.all()]
    assert host.about().reason == "the index cannot be read: file is not a database"
    host.open()
    assert host.told == ["SQLite says file is not a database"]
    host.take(record(3))
    assert [3, 2] == [event.number for event in host.all()]
    assert [] == list(host.directory.path.glob(f"{INDEX}*"))
    host.ledger.index._again_at = 0.0
    host.tidy()
    assert [2, 3] == [row[0] for row in host.rows("events")]
    assert host.about().reason == "SQLite says file is not a database"
    # Later it is their age for which events are missing.
    host.tidy(NOW + 3 + 10 * KEEP)
    assert host.about() == About(True, NOW + 3, filling=False, reason=None)
    assert counts(host.directory) == {"recorded": 3, "delivered": 1, "pending": 2}


def test_damage_meanwhile(host: Host) -> None:
    """Damage that shows later keeps no event; the index is begun anew a minute later, and not sooner."""
    host.take(record(1))
    host.ledger.index._db.execute("DROP TABLE words")  # pyright: ignore[reportOptionalMemberAccess]
    host.take(record(2))
    host.take(record(3))
    assert host.told == ["SQLite says no such table: words"]
    assert counts(host.directory) == {"recorded": 3, "pending": 3}
    host.tidy()
    assert not (host.directory.path / INDEX).exists()
    assert [3, 2, 1] == [event.number for event in host.all()]
    host.ledger.index._again_at = 0.0
    host.tidy()
    assert [1, 2, 3] == [row[0] for row in host.rows("events")]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE events SET amounts = 'x'",
        "UPDATE events SET amounts = '[1]'",
        "UPDATE kinds SET units = x'00ff'",
        "UPDATE kinds SET units = '7'",
        "UPDATE facts SET value = 'x' WHERE name = 'fill'",
    ],
)
def test_a_damaged_row(host: Host, damage: str) -> None:
    """A row that makes no sense is not guessed at: the ledger is read."""
    host.take(record(1), record(2), outcomes=1)
    host.ledger.index._db.execute(damage)  # pyright: ignore[reportOptionalMemberAccess]
    with IndexReader(host.directory) as reader:
        assert [2] == [event.number for event in reader.newest(9)]
        assert reader.about().reason == "the index cannot be read: a row of it is damaged"


def test_somebody_has_it_locked(host: Host) -> None:
    """Who writes it, which nobody should, keeps no event; its place is taken by a new one."""
    host.take(record(1))
    other = sqlite3.connect(host.directory.path / INDEX, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    host.take(record(2), outcomes=2)
    other.close()
    assert host.told == ["SQLite says database is locked"]
    assert counts(host.directory) == {"recorded": 2, "delivered": 2}


def test_no_room(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that events need there is none; it gives its room back, and is begun when there is room again."""
    host.take(record(1))
    monkeypatch.setattr(module, "LEAST_FREE", 1 << 60)
    host.take(record(2))
    assert [] == list(host.directory.path.glob(f"{INDEX}*"))
    host.ledger.index._again_at = 0.0
    host.tidy()
    assert host.told == [f"less than {1 << 40} MB are free on its disk"] * 2
    monkeypatch.undo()
    host.ledger.index._again_at = 0.0
    host.tidy()
    assert [1, 2] == [row[0] for row in host.rows("events")]


def test_a_file_of_another_kind(host: Host, tmp_path: Path) -> None:
    """A symbolic link is not followed: what it leads to stays, and an index takes its place."""
    host.ledger.close()
    target = tmp_path / "another's"
    target.write_text("another's")
    (host.directory.path / INDEX).unlink()
    (host.directory.path / INDEX).symlink_to(target)
    host.open()
    host.take(record(1))
    assert len(host.told) == 1
    host.ledger.index._again_at = 0.0
    host.tidy()
    assert [1] == [row[0] for row in host.rows("events")]
    assert target.read_text() == "another's"


def test_a_file_of_another_owner(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that this user may not open is replaced: the directory is its own."""
    host.ledger.close()
    real = Directory.open_or_create

    def refuse(directory: Directory, name: str) -> int:
        # As for a user who is not root.
        if name == INDEX and (directory.path / name).exists():
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(directory, name)

    monkeypatch.setattr(Directory, "open_or_create", refuse)
    host.open()
    host.take(record(1))
    assert not (host.directory.path / INDEX).exists()
    host.ledger.index._again_at = 0.0
    host.tidy()
    assert host.told == ["Permission denied"]
    assert [1] == [row[0] for row in host.rows("events")]


def test_a_directory_in_its_place(host: Host) -> None:
    """Where it can neither be opened nor removed, there is none, and events go on."""
    host.ledger.close()
    (host.directory.path / INDEX).unlink()
    (host.directory.path / INDEX).mkdir()
    host.open()
    host.take(record(1), outcomes=1)
    host.ledger.index._again_at = 0.0
    host.tidy()
    assert host.told == ["Is a directory"] * 2
    assert counts(host.directory) == {"recorded": 1, "delivered": 1}
    assert str(host.about().reason).startswith("the index cannot be read: ")


def test_a_later_version(host: Host) -> None:
    """An index of a version that this one does not know is begun anew."""
    host.take(record(1))
    host.ledger.index._db.execute("PRAGMA user_version = 2")  # pyright: ignore[reportOptionalMemberAccess]
    assert host.about().reason == "the index cannot be read: it is of version 2"
    host.ledger.close()
    host.open()
    assert host.told == ["it is of version 2"]


def test_removed_meanwhile(directory: Directory, caplog: pytest.LogCaptureFixture) -> None:
    """An index that somebody removes is begun anew by the process that leads, filled again, and said once."""
    clock = Clock(NOW)
    journal = Journal(directory)
    drainer = Drainer(directory, journal, Options(post=None, clock=clock))
    journal.append(record(1))
    drainer._turn()
    (directory.path / INDEX).unlink()
    journal.append(record(2))
    drainer.relay.journals_pending = True
    drainer.relay.upkeep.restart()
    drainer._turn()
    with IndexReader(directory) as reader:
        assert [2, 1] == [event.number for event in reader.newest(9)]
        assert reader.about().there
    assert ["it was removed or replaced"] == [
        cast("tuple[object, ...]", logged.args)[1]
        for logged in caplog.records
        if "the index of events" in logged.msg
    ]
    journal.seal()
    drainer._end()


def test_a_reader_that_does_not_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that reads it for ever cannot have its log grow for ever."""
    host.take(record(1))
    monkeypatch.setattr(module, "LARGEST_LOG", 8192)
    with IndexReader(host.directory) as reader:
        host.take(record(2))
        host.tidy()
        assert host.told == ["a program reads it and does not end"]
        assert [1] == [event.number for event in reader.newest(9)]
    assert [2, 1] == [event.number for event in host.all()]


def test_ctrl_c_in_the_middle(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted import is none, here and in the ledger, and comes again."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    host.take(record(1))
    monkeypatch.setattr(index_rows.Rows, "prune", interrupt)
    with pytest.raises(KeyboardInterrupt):
        host.take(record(2))
    monkeypatch.undo()
    host.take(record(2))
    assert host.told == []
    assert [2, 1] == [event.number for event in host.all()]
    assert counts(host.directory) == {"recorded": 2, "pending": 2}


def test_forks(directory: Directory) -> None:
    """It is closed while the process forks, as the ledger is."""
    drainer = Drainer(directory, Journal(directory), Options(post=None, clock=Clock(NOW)))
    drainer._turn()

    def is_open() -> bool:
        found = (directory.path / INDEX).stat()
        there: list[tuple[int, int]] = []
        for path in Path("/dev/fd").iterdir():
            with contextlib.suppress(OSError):
                status = os.fstat(int(path.name))
                there.append((status.st_dev, status.st_ino))
        return (found.st_dev, found.st_ino) in there

    assert is_open()
    assert drainer.leadership.park()
    assert not is_open()
    drainer.leadership.unpark()
    drainer._turn()
    drainer._end()
    assert not is_open()


def test_a_body_is_read_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says is known to the totals and to the index."""
    read: list[bytes] = []

    def details(body: bytes, labels: Sequence[str] = ()) -> Details | None:
        read.append(body)
        return original(body, labels)

    original = totals.details
    monkeypatch.setattr(totals, "details", details)
    monkeypatch.setattr(index_rows, "details", details, raising=False)
    host.take(record(1), record(2))
    assert (2, 2) == (len(read), len(set(read)))
    assert [2, 1] == [event.at - int(NOW) for event in host.find(trace(2)) + host.find(trace(1))]


def test_a_ledger_that_cannot_be_read(tmp_path: Path) -> None:
    """Whoever asks is told, and no database stays open of which nobody knows."""
    directory = Directory.prepare(tmp_path / "spool", "https://example.test", "acme")
    Ledger(directory, index=Index(directory, 10)).close()
    (directory.path / LEDGER).write_bytes(b"no database at all" * 300)
    reader = IndexReader(directory)
    with pytest.raises(UnreadableError), reader:
        pass
    for db in (reader._db, reader.ledger._db):
        assert db is not None
        with pytest.raises(sqlite3.ProgrammingError):
            db.execute("SELECT 1")
