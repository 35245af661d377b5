"""The ledger: every event is in one state, and every transition between two leaves the accounts exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cmdrdata_exporter.delivery import FOR_EVER, Handed, Outcome
from cmdrdata_exporter.delivery.backoff import LONGEST_BACKOFF
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import Command, encode_command, key_of
from cmdrdata_exporter.delivery.spool.retention import AWAY, KEEP, _ago
from tests.delivery.samples import (
    BROKEN,
    DAY,
    DELIVERED,
    DUPLICATE,
    NOW,
    REFUSED,
    UNAUTHORIZED,
    UNAVAILABLE,
    counts,
    event_id,
    held,
    record,
)

DAYS = 86400.0


class Account:
    """A ledger, what a test does with it, and the check that the accounts are exact after each step."""

    def __init__(self, directory: Directory, **options: Any) -> None:
        self.directory = directory
        self.ledger = Ledger(directory, **options)
        self._journals = 0

    def take_in(self, *records: bytes, now: float = NOW) -> None:
        """Import records, as those of a journal of their own."""
        self._journals += 1
        with self.ledger.transaction():
            self.ledger.import_records(f"{self._journals}.journal", 99, records, [], now)
        self.counts()

    def hand_out(
        self, limit: int = 100, now: float = NOW, again: int | None = None
    ) -> list[Handed]:
        """Hand out what is due."""
        with self.ledger.transaction():
            handed = self.ledger.claim(limit, now, again)
        self.counts()
        return handed

    def settle(self, *outcomes: tuple[Handed, Outcome | None], now: float = NOW) -> None:
        """Settle what was handed out."""
        with self.ledger.transaction():
            self.ledger.record_outcomes(outcomes, now)
        self.counts()

    def send(self, outcome: Outcome | None, now: float = NOW) -> int:
        """Hand out all that is due and have the same come of each; return how many there were."""
        handed = self.hand_out(now=now)
        self.settle(*((event, outcome) for event in handed), now=now)
        return len(handed)

    def command(
        self, action: str, *numbers: int, customer: str | None = None, now: float = NOW
    ) -> None:
        """Have a command obeyed."""
        keys = tuple(key_of(event_id(number)) for number in numbers)
        self.take_in(encode_command(Command(action, keys, customer)), now=now)

    def expire(self, now: float) -> int:
        """Give up what is too old; return how many events that were."""
        with self.ledger.transaction():
            number = self.ledger.retention.expire(now)
        self.counts()
        return number

    def recover(self, now: float = NOW) -> None:
        """Take back what was in flight."""
        with self.ledger.transaction():
            self.ledger.recover(now)
        self.counts()

    def counts(self) -> dict[str, int]:
        """Return what is not zero, having checked the sum."""
        return counts(self.directory)

    def damage(self, statement: str, *values: object) -> None:
        """Change rows behind the ledger's back."""
        self.ledger._db.execute(statement, values)

    def reasons(self, state: str) -> list[str | None]:
        """Return why events are in a state."""
        with LedgerReader(self.directory) as reader:
            return [kept.reason for kept in reader.kept(state)]

    def bodies(self, state: str) -> list[bytes]:
        """Return the bodies of the events in a state."""
        with LedgerReader(self.directory) as reader:
            return [kept.event.body for kept in reader.kept(state) if kept.event]

    def totals(self, *by: str) -> dict[tuple[str, ...], float]:
        """Return what was used."""
        with LedgerReader(self.directory) as reader:
            return {(*total.group, total.unit): total.amount for total in reader.usage.totals(by)}


@pytest.fixture
def account(directory: Directory) -> Iterator[Account]:
    """The ledger of a destination with a backend."""
    account = Account(directory)
    yield account
    account.ledger.close()


@pytest.fixture
def local(directory: Directory) -> Iterator[Account]:
    """The ledger of the destination `local`."""
    account = Account(directory, local=True)
    yield account
    account.ledger.close()


@pytest.fixture
def holding(directory: Directory) -> Iterator[Account]:
    """The ledger of a destination where ambiguous events are held."""
    account = Account(directory, hold_ambiguous=True)
    yield account
    account.ledger.close()


# Into the ledger


def test_a_command_between_events(account: Account) -> None:
    """A command in the middle of an import is about the events before it, and those behind it are imported as well."""
    name = encode_command(Command("assign", (key_of(event_id(1)), key_of(event_id(3))), "acme"))
    account.take_in(held(1), record(2), record(2), name, held(3), held(1))
    assert account.counts() == {
        "recorded": 3,
        "pending": 2,
        "held": 1,
        "repeated": 2,
        "assigned": 1,
    }
    assert [event.seq for event in account.hand_out()] == [1, 2]


def test_what_comes_straight_into_flight(account: Account) -> None:
    """As many of an import as there is room for are in flight at once, repeated and held ones aside."""
    account.take_in(record(1))
    with account.ledger.transaction():
        records = [record(1), held(2), *map(record, (3, 4, 4, 5, 6))]
        claimed = account.ledger.import_records("j", 99, records, [], NOW, room=4)
    assert [event.id for event in claimed] == [event_id(3), event_id(4)]
    assert [event.id for event in account.hand_out()] == [event_id(n) for n in (1, 5, 6)]


def test_import(account: Account) -> None:
    """An event is pending, or held where it waits for its customer; the offset is kept in the same transaction."""
    account.take_in(record(1), held(2), record(3, None))
    assert account.counts() == {"recorded": 3, "pending": 2, "held": 1}
    assert account.reasons("held") == ["no customer"]
    assert account.ledger.offsets() == {"1.journal": 99}
    with account.ledger.transaction():
        account.ledger.forget_journals(["1.journal", "2.journal"])
    assert account.ledger.offsets() == {}


def test_import_where_events_stay(local: Account) -> None:
    """Where the destination is this host, an event is where it belongs at once, unless it waits for its customer."""
    local.take_in(record(1), held(2))
    assert local.counts() == {"recorded": 2, "local": 1, "held": 1}
    assert local.hand_out() == []


def test_a_repeated_event(account: Account) -> None:
    """An event that is here in any state changes nothing but a count."""
    account.take_in(record(1), record(1), held(2))
    account.take_in(record(1), held(2))
    assert account.counts() == {"recorded": 2, "pending": 1, "held": 1, "repeated": 3}
    assert account.totals() == {("events",): 2, ("input_tokens",): 2}


@pytest.mark.parametrize(
    ("remember", "known", "forgotten"),
    [(0, [], 0.0), (86400, [0.0, 86400.0], 86401.0), (400 * 86400, [400 * DAYS], 401 * DAYS)],
)
def test_how_long_an_id_is_known(
    account: Account, remember: int, known: list[float], forgotten: float
) -> None:
    """After its delivery an id is known for as long as its event says, and then no longer."""
    account.take_in(record(1, remember=remember))
    account.send(DELIVERED)
    for seconds in known:
        account.take_in(record(1, remember=remember), now=NOW + seconds)
    assert account.counts().get("repeated", 0) == len(known)
    account.take_in(record(1, remember=remember), now=NOW + forgotten)
    assert account.counts()["recorded"] == 2


def test_an_id_that_is_known_for_ever(account: Account) -> None:
    """What a person had sent once more is the same event for ever; other tombstones are removed in their time."""
    account.take_in(record(1, remember=FOR_EVER), record(2, remember=10), record(3))
    account.send(DELIVERED)
    with account.ledger.transaction():
        for bucket in range(256):
            account.ledger.retention.prune_tombstones(bucket, NOW + 10)
    found = account.ledger._db.execute("SELECT key, until FROM tombstones").fetchall()
    assert found == [(key_of(event_id(1)), FOR_EVER)]
    account.take_in(record(1), now=NOW + 10_000 * DAYS)
    assert account.counts() == {"recorded": 3, "delivered": 3, "repeated": 1}


@pytest.mark.parametrize("first", ["00", "7f", "fe", "ff"])
def test_every_tombstone_is_in_one_bucket(account: Account, first: str) -> None:
    """Whatever a key begins with, it is removed with its bucket and no other."""
    account.damage("INSERT INTO tombstones VALUES (?, 5)", bytes.fromhex(first + "ff" * 15))
    for bucket in (int(first, 16) - 1, int(first, 16)):
        assert account.ledger._db.execute("SELECT count(*) FROM tombstones").fetchone() == (1,)
        if bucket >= 0:
            with account.ledger.transaction():
                account.ledger.retention.prune_tombstones(bucket, NOW)
    assert account.ledger._db.execute("SELECT count(*) FROM tombstones").fetchone() == (0,)


def test_what_cannot_be_read(account: Account) -> None:
    """Damage, and records of a later version, are set aside whole and counted; what is around them is imported."""
    later = b'{"kind":"refund"}\n{}'
    with account.ledger.transaction():
        account.ledger.import_records(
            "1.journal", 99, [record(1), later, record(2)], [(7, b"\xff")], NOW
        )
    assert account.counts() == {"recorded": 2, "pending": 2, "damaged": 2}
    found = account.ledger._db.execute("SELECT * FROM damaged ORDER BY position").fetchall()
    assert found == [("1.journal", 7, b"\xff"), ("1.journal", 99, later)]


def test_a_transaction_that_fails(account: Account) -> None:
    """Of a transaction that fails nothing stays, in no table and no count of the next one."""

    def fail() -> None:
        with account.ledger.transaction():
            account.ledger.import_records("1.journal", 99, [record(1)], [(0, b"x")], NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert account.counts() == {}
    account.take_in(record(2))
    assert account.counts() == {"recorded": 1, "pending": 1}
    assert account.totals() == {("events",): 1, ("input_tokens",): 1}


# Delivery


def test_handing_out(account: Account) -> None:
    """Events are handed out in the order in which they are due, so many at most, each once."""
    account.take_in(record(1), now=NOW + 2)
    account.take_in(record(2), record(3), now=NOW + 1)
    account.take_in(record(4), now=NOW + 9)
    assert account.ledger.next_due() == NOW + 1
    first = account.hand_out(2, NOW + 5)
    assert [(handed.id, handed.body, handed.attempts, handed.remember) for handed in first] == [
        (event_id(2), b'{"customer_id":"acme","n":2}', 0, 0),
        (event_id(3), b'{"customer_id":"acme","n":3}', 0, 0),
    ]
    assert [handed.id for handed in account.hand_out(2, NOW + 5)] == [event_id(1)]
    assert account.hand_out(2, NOW + 5) == []
    assert account.counts() == {"recorded": 4, "in_flight": 3, "pending": 1}
    assert account.ledger.next_due() == NOW + 9


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (DELIVERED, {"delivered": 1}),
        (DUPLICATE, {"delivered": 1}),
        (REFUSED, {"dead": 1}),
        (UNAVAILABLE, {"pending": 1}),
        (UNAUTHORIZED, {"pending": 1}),
        (BROKEN, {"pending": 1, "ambiguous": 1}),
        (None, {"pending": 1}),
    ],
    ids=repr,
)
def test_what_comes_of_an_attempt(
    account: Account, outcome: Outcome | None, expected: dict[str, int]
) -> None:
    """An event goes where the backend's verdict says."""
    account.take_in(record(1))
    assert not account.ledger.is_empty()
    account.send(outcome)
    assert account.counts() == {"recorded": 1, **expected}
    assert account.ledger.is_empty() is ("pending" not in expected)
    if "dead" in expected:
        assert account.reasons("dead") == ["HTTP 400: no such model"]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (DELIVERED, {"delivered": 1}),
        (UNAVAILABLE, {"pending": 1}),
        (UNAUTHORIZED, {"pending": 1}),
        (BROKEN, {"held": 1, "ambiguous": 1}),
    ],
    ids=repr,
)
def test_where_ambiguous_events_are_held(
    holding: Account, outcome: Outcome, expected: dict[str, int]
) -> None:
    """What may have been accepted unseen, and nothing else, waits for a person."""
    holding.take_in(record(1))
    holding.send(outcome)
    assert holding.counts() == {"recorded": 1, **expected}


def test_retries(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is due again after a time that doubles up to a minute; what was not sent at all is due at once."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.backoff.uniform", lambda low, high: high)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    account.take_in(record(1))
    now = NOW
    for number, delay in enumerate([0.5, 1, 2, 4, 8, 16, 32, *[60] * 13]):
        (handed,) = account.hand_out(now=now)
        assert (handed.attempts, handed.body) == (number, b'{"customer_id":"acme","n":1}')
        account.settle((handed, UNAVAILABLE), now=now)
        now += delay
        assert account.ledger.next_due() == now
    account.send(UNAUTHORIZED, now)
    assert account.ledger.next_due() == now
    account.send(None, now)
    assert account.ledger.next_due() == now
    assert account.hand_out(now=now)[0].attempts == 21


def test_an_outcome_without_its_row(account: Account) -> None:
    """An outcome finds its event by its key; where there is no such row any more nothing is counted."""
    account.take_in(record(1), record(2))
    one, two = account.hand_out()
    account.settle((one, DELIVERED))
    account.settle((one, DELIVERED), (one, BROKEN), (one, None))
    assert account.counts() == {"recorded": 2, "delivered": 1, "in_flight": 1}
    account.settle((two._replace(seq=one.seq), DELIVERED))
    assert account.counts() == {"recorded": 2, "delivered": 2}


@pytest.mark.parametrize("fixture", ["account", "holding"])
def test_after_the_death_of_a_process(fixture: str, request: pytest.FixtureRequest) -> None:
    """What was in flight may have been accepted: it is sent again, or held, and counted."""
    account: Account = request.getfixturevalue(fixture)
    account.take_in(record(1), record(2))
    account.hand_out(1)
    account.recover(NOW + 5)
    if fixture == "holding":
        assert account.counts() == {"recorded": 2, "pending": 1, "held": 1, "ambiguous": 1}
        assert account.reasons("held") == ["ambiguous"]
    else:
        assert account.counts() == {"recorded": 2, "pending": 2, "ambiguous": 1}
        assert sorted(handed.attempts for handed in account.hand_out(now=NOW + 5)) == [0, 1]


# Time


def test_a_clock_that_was_set_back(account: Account) -> None:
    """What is due further ahead than any retry is due now, when the clock was seen to go back."""
    account.take_in(record(1), now=NOW + 5 * DAYS)
    account.take_in(record(2), now=NOW + LONGEST_BACKOFF)
    assert account.hand_out() == []
    with account.ledger.transaction():
        account.ledger.retention.make_due(NOW, NOW + LONGEST_BACKOFF)
    assert [handed.id for handed in account.hand_out()] == [event_id(1)]


def test_when_a_process_begins(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that waits is due at once: whatever kept another process from delivering it may be over."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.backoff.uniform", lambda low, high: high)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    account.take_in(record(1), record(2), record(3))
    account.take_in(record(4), now=NOW + 5 * DAYS)
    for _ in range(9):
        account.send(UNAVAILABLE, NOW + 60)
        account.recover(NOW + 60)
    assert len(account.hand_out(3, NOW + 60)) == 3
    account.recover(NOW + 60)
    found = {handed.id: handed.attempts for handed in account.hand_out(now=NOW + 60)}
    assert found.keys() == {event_id(number) for number in (1, 2, 3, 4)}


def test_what_was_never_tried_takes_turns(account: Account) -> None:
    """What was tried in vain has half of the room and no more than it may have; what is new waits for none of it."""
    account.take_in(*map(record, range(100)))
    account.send(UNAUTHORIZED, NOW + 1)
    account.take_in(*map(record, range(100, 200)), now=NOW + 2)

    def attempts(limit: int, again: int | None = None) -> list[int]:
        handed = account.hand_out(limit, NOW + 3, again)
        account.settle(*((event, None) for event in handed), now=NOW + 1)
        return sorted(event.attempts for event in handed)

    assert attempts(1) == [0]
    assert attempts(10) == [0] * 5 + [1] * 5
    assert attempts(64, again=8) == [0] * 56 + [1] * 8
    assert attempts(64, again=0) == [0] * 64
    assert attempts(150) == [0] * 100 + [1] * 50
    assert attempts(300, again=8) == [0] * 100 + [1] * 8
    assert attempts(300) == [0] * 100 + [1] * 100


def test_what_is_due_longer_goes_first(account: Account) -> None:
    """What was tried in vain a moment ago comes behind what waits since before that."""
    account.take_in(record(1))
    account.send(UNAUTHORIZED, NOW + 5)
    account.take_in(*map(record, range(2, 12)))
    handed = account.hand_out(10, NOW + 9)
    assert [event.id for event in handed] == [event_id(number) for number in range(2, 12)]


def test_those_that_were_tried_least(account: Account) -> None:
    """Of what was tried in vain, what was tried once waits for nothing that fails whenever it comes."""
    account.take_in(*map(record, range(9)))
    for _ in range(5):
        account.send(UNAUTHORIZED, NOW + 1)
    account.take_in(record(9), now=NOW + 1)
    (handed,) = account.hand_out(1, NOW + 1)
    account.settle((handed, UNAUTHORIZED), now=NOW + 2)
    assert [event.id for event in account.hand_out(1, NOW + 3)] == [event_id(9)]


def test_what_was_not_sent_is_where_it_was(account: Account) -> None:
    """An event that the gate turned away keeps its place before those that came later, and why it waits."""
    account.take_in(record(1))
    account.take_in(record(2), now=NOW + 1)
    account.send(None, NOW + 5)
    assert account.ledger.next_due(new=True) == NOW
    assert [event.id for event in account.hand_out(1, NOW + 5)] == [event_id(1)]
    account.recover(NOW + 5)
    account.send(replace(UNAVAILABLE, answer="busy"), NOW + 5)
    account.recover(NOW + 99)
    account.send(None, NOW + 99)
    assert account.reasons("pending") == ["HTTP 503: busy"] * 2
    assert account.ledger.next_due(new=True) is None


def test_what_cannot_be_delivered_for_thirty_days(account: Account) -> None:
    """After 30 days an event that waits is dead, and can be replayed; held, dead and younger ones stay as they are."""
    account.take_in(record(1), held(2), record(3))
    (one, _) = account.hand_out()
    account.settle((one, REFUSED))
    account.recover()
    account.take_in(record(4), now=NOW + 1)
    assert account.expire(NOW + KEEP + 0.5) == 1
    assert account.counts() == {
        "recorded": 4,
        "pending": 1,
        "held": 1,
        "dead": 2,
        "expired": 1,
        "ambiguous": 1,
    }
    assert sorted(map(str, account.reasons("dead"))) == ["HTTP 400: no such model", "expired"]
    account.command("replay", 3, now=NOW + KEEP + 1)
    account.expire(NOW + KEEP + 1)
    assert account.send(DELIVERED, NOW + KEEP + 1) == 2


def test_a_host_that_is_switched_off(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days on which nobody could try to deliver an event are none of its thirty."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.spool.retention.KEEP", 3 * DAYS)
    account.take_in(record(1))
    account.take_in(record(2), now=NOW + DAYS / 2)

    def work(begin: float, end: float) -> list[int]:
        """Be there from one day to another, and return what is given up in that time."""
        looks = [begin + number * AWAY / 2 / DAYS for number in range(int((end - begin) * 48))]
        return [number for day in [*looks, end] if (number := account.expire(NOW + day * DAYS))]

    assert work(0, 1) == []
    # Off for three months, and then for a weekend.
    assert work(100, 101.5) == []
    assert work(103, 103.4) == []
    account.take_in(record(3), now=NOW + 103.4 * DAYS)
    assert work(103.4, 103.6) == [1]
    assert work(103.6, 104.1) == [1]
    assert account.counts() == {"recorded": 3, "pending": 1, "dead": 2, "expired": 2}
    # What commands know.
    with LedgerReader(account.directory) as reader:
        assert reader.facts() == {
            "present": NOW + 104.1 * DAYS,
            "breaks": [
                [NOW + 101.5 * DAYS, NOW + 103 * DAYS],
                [NOW + DAYS, NOW + 100 * DAYS],
            ],
        }


def test_damaged_facts(account: Account) -> None:
    """Where the disk has altered what is known of such days, nothing is given up for it."""
    account.take_in(record(1))
    account.expire(NOW)
    for name in ("present", "breaks"):
        account.ledger._db.execute("UPDATE facts SET value = '{' WHERE name = ?", (name,))
        assert account.expire(NOW + 99 * DAYS) == 0


@pytest.mark.parametrize(
    ("breaks", "expected"),
    [
        ([], 70),
        ([(80, 90)], 60),
        ([(75, 90), (20, 60)], 15),
        ([(65, 100), (30, 60)], 5),
        ([(10, 65)], 70),
        ([(0, 75)], -5),
    ],
)
def test_thirty_days_without_breaks(breaks: list[tuple[int, int]], expected: float) -> None:
    """What is thirty days old is found by going back from now, and over each break as if it were not there."""
    assert _ago(100, 30, breaks) == expected


def test_local_events_grow_old(local: Account) -> None:
    """After 30 days the body of a local event goes; its totals stay, and its id where it may come again."""
    local.take_in(record(1, remember=400 * 86400), record(2), record(3, remember=FOR_EVER))
    local.take_in(record(4), now=NOW + 9 * DAYS)
    local.expire(NOW + 31 * DAYS)
    assert local.counts() == {"recorded": 4, "local": 4}
    assert local.bodies("local") == [b'{"customer_id":"acme","n":4}']
    assert local.totals() == {("events",): 4, ("input_tokens",): 4}
    local.take_in(record(1), record(3), now=NOW + 399 * DAYS)
    assert local.counts() == {"recorded": 4, "local": 4, "repeated": 2}
    local.take_in(record(1), record(3), now=NOW + 401 * DAYS)
    assert local.counts() == {"recorded": 5, "local": 5, "repeated": 3}


def test_local_events_make_room(local: Account) -> None:
    """Where room is needed the oldest bodies go first."""
    for number in (1, 2, 3):
        local.take_in(record(number), now=NOW + number)
    with local.ledger.transaction():
        local.ledger.retention.shrink_local(2)
    assert local.counts() == {"recorded": 3, "local": 3}
    assert local.bodies("local") == [b'{"customer_id":"acme","n":3}']


def test_space_is_given_back(account: Account) -> None:
    """A database does not stay as large as its largest backlog was."""
    account.take_in(*(record(number, model="m" * 3000) for number in range(2000)))
    page_count = "PRAGMA page_count"
    before = account.ledger._db.execute(page_count).fetchone()[0]
    account.ledger._db.execute("DELETE FROM events")
    account.ledger._db.execute("DELETE FROM counters")
    for _ in range(10):
        account.ledger.storage.vacuum()
    assert account.ledger._db.execute(page_count).fetchone()[0] < before / 4


# Commands


def test_assigning(account: Account) -> None:
    """A held event with its customer is sent as if it had had it from the beginning, and is counted as theirs."""
    account.take_in(held(1, units={"input_tokens": 2, "seconds": 0.5}), held(2))
    assert account.totals("customer") == {
        ("", "events"): 2,
        ("", "input_tokens"): 3,
        ("", "seconds"): 0.5,
    }
    account.command("assign", 1, customer="acme", now=NOW + 1)
    assert account.counts() == {"recorded": 2, "pending": 1, "held": 1, "assigned": 1}
    assert account.totals("customer") == {
        ("", "events"): 1,
        ("", "input_tokens"): 1,
        ("acme", "events"): 1,
        ("acme", "input_tokens"): 2,
        ("acme", "seconds"): 0.5,
    }
    (handed,) = account.hand_out(now=NOW + 1)
    assert (handed.id, handed.body) == (event_id(1), b'{"customer_id":"acme","n":1}')
    account.command("assign", 2, customer="acme")
    assert account.totals("customer") == {("acme", "events"): 2, ("acme", "input_tokens"): 3} | {
        ("acme", "seconds"): 0.5
    }


def test_assigning_where_events_stay(local: Account) -> None:
    """On this host an assigned event is where it belongs."""
    local.take_in(held(1))
    local.command("assign", 1, customer="acme")
    assert local.counts() == {"recorded": 1, "local": 1, "assigned": 1}
    assert local.bodies("local") == [b'{"customer_id":"acme","n":1}']


def test_replaying(account: Account) -> None:
    """What was refused is sent again when a person asks for it, under an id that is known for ever from then on."""
    account.take_in(record(1))
    account.send(REFUSED)
    account.command("replay", 1, now=NOW + 40 * DAYS)
    account.expire(NOW + 40 * DAYS)
    assert account.counts() == {"recorded": 1, "pending": 1, "replayed": 1}
    (handed,) = account.hand_out(now=NOW + 40 * DAYS)
    assert (handed.attempts, handed.remember) == (0, FOR_EVER)
    account.settle((handed, DELIVERED))
    account.take_in(record(1), now=NOW + 9999 * DAYS)
    assert account.counts() == {"recorded": 1, "delivered": 1, "replayed": 1, "repeated": 1}


def test_replaying_what_was_ambiguous(holding: Account) -> None:
    """A person decides that a held event was not accepted."""
    holding.take_in(record(1))
    holding.send(BROKEN)
    holding.command("replay", 1)
    assert holding.send(DELIVERED) == 1
    assert holding.counts() == {"recorded": 1, "delivered": 1, "ambiguous": 1, "replayed": 1}


def test_dropping(account: Account) -> None:
    """What a person gives up is counted, and does not come back while its id may come again."""
    account.take_in(record(1, remember=86400), record(2))
    account.send(REFUSED)
    account.command("drop", 1, 2)
    account.take_in(record(1, remember=86400), now=NOW + 100)
    assert account.counts() == {"recorded": 2, "dropped": 2, "repeated": 1}


@pytest.mark.parametrize("action", ["assign", "replay", "drop"])
def test_commands_that_make_no_sense(holding: Account, action: str) -> None:
    """A command leaves alone what it is not for: it may come late, twice, or for another ledger."""
    holding.take_in(record(1), record(2), record(3), held(4), record(5), record(6, None))
    handed = {event.id: event for event in holding.hand_out()}
    holding.settle(
        (handed[event_id(1)], DELIVERED),
        (handed[event_id(2)], REFUSED),
        (handed[event_id(3)], BROKEN),
        (handed[event_id(6)], BROKEN),
    )
    holding.take_in(record(7))
    before = holding.counts()
    sensible = {"assign": {4}, "replay": {2, 3, 6}, "drop": {2}}[action]
    for number in {1, 2, 3, 4, 5, 6, 7, 8} - sensible:
        holding.command(action, number, customer="other")
    assert holding.counts() == before
    if action == "assign":
        holding.command(action, 4)
        holding.command(action, 4, customer="")
        assert holding.counts() == before
    for _ in range(2):
        holding.command(action, *sensible, customer="other")
    counted = {"assign": "assigned", "replay": "replayed", "drop": "dropped"}[action]
    assert holding.counts()[counted] == len(sensible)


def test_what_was_sent_stays_as_it_was_sent(holding: Account) -> None:
    """An event that was sent without a customer is not assigned one afterwards: its bytes would change."""
    holding.take_in(record(1, None))
    holding.send(BROKEN)
    holding.command("assign", 1, customer="acme")
    assert holding.bodies("held") == [b'{"customer_id":null,"n":1}']


def test_assigning_a_body_that_cannot_be(account: Account) -> None:
    """An event whose body has no place for a customer stays held."""
    account.take_in(record(1, "acme", hold=True))
    account.command("assign", 1, customer="other")
    assert account.counts() == {"recorded": 1, "held": 1}


# Totals


def test_totals(account: Account) -> None:
    """Totals are of day, customer, model, endpoint and status; whole numbers stay whole, switches are no amounts."""
    account.take_in(
        record(1, units={"input_tokens": 2, "seconds": 1.25, "batch": True}),
        record(2, units={"input_tokens": 3, "seconds": 0.5, "cached": 0}),
        record(3, None, units={}, model="n", day="2026-11-22", status="missing", endpoint="e"),
    )
    found = account.totals("day", "customer", "model", "endpoint", "status")
    key = (DAY, "acme", "m", "chat.completions", "reported")
    assert found == {
        (*key, "events"): 2,
        (*key, "input_tokens"): 5,
        (*key, "seconds"): 1.75,
        ("2026-11-22", "", "n", "e", "missing", "events"): 1,
    }
    assert isinstance(found[(*key, "input_tokens")], int)


@pytest.mark.parametrize(
    ("amounts", "total"),
    [
        ([2**53, 1], 2**53 + 1),
        ([2**62, 2**62 - 1], 2**63 - 1),
        ([2**62, 2**62], 2.0**63),
        ([2**63 - 1, 1, 1], 2.0**63),
        ([2**64], 2.0**64),
        ([2**64, 0.5], 2.0**64),
        ([10**400, 10**400, 1.5], 2e100),
        ([1.7e308, 1.7e308], 2e100),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_giant_totals(account: Account, amounts: list[float], total: float, apart: bool) -> None:
    """Beyond 63 bits a total is roughly right, in one transaction or several, one row or several; nothing fails."""
    for number, amount in enumerate(amounts):
        day = f"2026-11-{number + 1:02d}" if apart else DAY
        account.take_in(record(number, units={"input_tokens": amount}, day=day))
    found = account.totals()[("input_tokens",)]
    assert found == pytest.approx(total, rel=1e-9)
    if total < 2**53:
        assert found == total


def test_half_characters(account: Account) -> None:
    """Half of a surrogate pair, which SQLite cannot store, becomes a question mark, and holds up nothing."""
    account.take_in(record(1, model="\ud800m", units={"\udfff": 1}), record(2, remember=5))
    assert account.totals("model") == {
        ("?m", "?"): 1,
        ("?m", "events"): 1,
        ("m", "events"): 1,
        ("m", "input_tokens"): 1,
    }
    assert account.send(DELIVERED) == 2


# Damage


def test_a_record_that_was_altered(account: Account) -> None:
    """What was altered on the disk is dead and counted, and never sent; it can be dropped, not replayed."""
    account.take_in(record(1), record(2))
    account.damage("UPDATE events SET record = ? WHERE seq = 1", record(1) + b" ")
    assert [handed.id for handed in account.hand_out()] == [event_id(2)]
    assert account.counts() == {"recorded": 2, "in_flight": 1, "dead": 1, "damaged": 1}
    assert account.reasons("dead") == ["damaged"]
    account.command("replay", 1)
    account.command("drop", 1)
    assert account.counts() == {"recorded": 2, "in_flight": 1, "dropped": 1, "damaged": 1}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("crc", 7),
        ("crc", "x"),
        ("record", "text"),
        ("record", 7),
        ("key", b"another"),
        ("key", "text"),
    ],
)
def test_a_row_that_was_altered(account: Account, column: str, value: object) -> None:
    """A row of which a part does not fit the others is never sent."""
    account.take_in(record(1), record(2))
    account.damage(f"UPDATE events SET {column} = ? WHERE seq = 1", value)
    assert [handed.id for handed in account.hand_out()] == [event_id(2)]
    assert account.counts() == {"recorded": 2, "in_flight": 1, "dead": 1, "damaged": 1}


@pytest.mark.parametrize("outcome", [DELIVERED, REFUSED, UNAVAILABLE, None], ids=repr)
@pytest.mark.parametrize("value", ["x", b"\xff", 1.5, 2**62, -7], ids=repr)
@pytest.mark.parametrize("column", ["attempts", "remember"])
def test_columns_that_only_guide(
    account: Account, column: str, value: object, outcome: Outcome | None
) -> None:
    """A damaged number of attempts or seconds holds up nothing; an id is rather remembered than sent twice."""
    account.take_in(record(1))
    account.damage(f"UPDATE events SET {column} = ?", value)
    account.send(outcome)
    assert account.counts()["recorded"] == 1
    if outcome is DELIVERED and column == "remember":
        account.take_in(record(1), now=NOW + 9999 * DAYS)
        assert account.counts() == {"recorded": 1, "delivered": 1, "repeated": 1}


@pytest.mark.parametrize("value", ["x", b"\xff", 1e300], ids=repr)
def test_a_damaged_time(account: Account, value: object) -> None:
    """An event whose time was damaged is sent, the next time that a process begins."""
    account.take_in(record(1))
    account.damage("UPDATE events SET due = ?", value)
    assert account.ledger.next_due() in (None, 1e300)
    account.recover()
    assert account.send(DELIVERED) == 1


@pytest.mark.parametrize("column", ["due", "remember"])
def test_a_damaged_local_event(local: Account, column: str) -> None:
    """A damaged local event makes room as any other, and is remembered for ever."""
    local.take_in(record(1, remember=5))
    local.damage(f"UPDATE events SET {column} = 'x'")
    with local.ledger.transaction():
        local.ledger.retention.shrink_local(5)
    found = local.ledger._db.execute("SELECT key, until FROM tombstones").fetchall()
    assert found == [(key_of(event_id(1)), FOR_EVER)]


def test_a_damaged_state(account: Account) -> None:
    """An event in a state that there is not is dead to all who look."""
    account.take_in(record(1))
    account.damage("UPDATE events SET state = 77")
    assert account.counts() == {"recorded": 1, "dead": 1}
