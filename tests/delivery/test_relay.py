"""The relay: what a step commits together, in which order, and when there is no step to be made."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator

import pytest

from cmdrdata_exporter.delivery import Handed, Outcome
from cmdrdata_exporter.delivery.options import SENDERS, Options
from cmdrdata_exporter.delivery.relay import (
    AGAIN,
    IMPORT_INTERVAL,
    SHORTEST_INTERVAL,
    Relay,
)
from cmdrdata_exporter.delivery.senders import Senders
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.status_log import StatusLog
from tests.delivery.samples import (
    DELIVERED,
    NOW,
    UNAVAILABLE,
    Clock,
    counts,
    event_id,
    held,
    record,
)


class Leader:
    """A relay with an open ledger, whose senders get nothing: the test says what comes of each event."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.clock = Clock(NOW)
        self.journal = Journal(directory)
        self.ledger = Ledger(directory)
        options = Options(post=lambda event_id, body, timeout: DELIVERED, clock=self.clock)
        self.relay = Relay(directory, options, StatusLog(directory))
        self.room = 2 * SENDERS
        self.relay.gate.room = lambda prepared: self.room

    def append(self, *records: bytes) -> None:
        """Record events, which are to be imported at once."""
        for each in records:
            self.journal.append(each)
        self.relay.journals_pending = True

    def step(self) -> list[Handed]:
        """Make a step a second after the last one; return what is in flight since then."""
        self.clock.now += 1
        claimed = self.relay.step(self.ledger)
        counts(self.directory)
        return claimed

    def numbers(self) -> list[int]:
        """Make a step; return the numbers of the events that are in flight since then."""
        return [int(event.id, 16) for event in self.step()]

    def receive(self, event: Handed, outcome: Outcome | None) -> None:
        """Have something come of an event."""
        self.relay.outcomes.append((event, outcome))


@pytest.fixture
def leader(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leader]:
    """A process that leads, and has made its first step."""
    monkeypatch.setattr(Senders, "alone", False)
    leader = Leader(directory)
    leader.step()
    yield leader
    leader.journal.seal()
    leader.ledger.close()


def test_new_events_are_in_flight_at_once(leader: Leader) -> None:
    """Events that can be sent at once are inserted as in flight: no row is read or changed for that."""
    statements: list[str] = []
    leader.append(record(1), held(2), record(3), record(1))
    leader.ledger._db.set_trace_callback(statements.append)
    claimed = leader.step()
    leader.ledger._db.set_trace_callback(None)
    assert [(event.id, event.attempts, event.remember) for event in claimed] == [
        (event_id(1), 0, 0),
        (event_id(3), 0, 0),
    ]
    assert b'{"customer_id":"acme","n":3}' == claimed[1].body
    assert not [text for text in statements if text.startswith("UPDATE")]
    assert counts(leader.directory) == {
        "recorded": 3,
        "in_flight": 2,
        "held": 1,
        "repeated": 1,
    }
    for event in claimed:
        leader.receive(event, DELIVERED)
    leader.step()
    assert counts(leader.directory) == {
        "recorded": 3,
        "delivered": 2,
        "held": 1,
        "repeated": 1,
    }


def test_no_more_than_there_is_room_for(leader: Leader) -> None:
    """What there is no room for is pending, and comes next, in the order in which it was recorded."""
    leader.room = 2
    leader.append(*map(record, range(5)))
    assert [leader.numbers() for _ in range(3)] == [[0, 1], [2, 3], [4]]


def test_what_has_waited_comes_first(leader: Leader) -> None:
    """New events do not overtake those that are due."""
    leader.room = 0
    leader.append(record(1), record(2))
    assert leader.numbers() == []
    leader.append(record(3), record(4))
    leader.room = 3
    assert leader.numbers() == [1, 2, 3]
    assert leader.numbers() == [4]


def test_a_duplicate_of_what_is_being_committed(leader: Leader) -> None:
    """An event that comes again while its delivery is committed is a duplicate, and is not sent again."""
    leader.append(record(1))
    (event,) = leader.step()
    leader.receive(event, DELIVERED)
    leader.append(record(1))
    assert leader.numbers() == []
    assert counts(leader.directory) == {"recorded": 1, "delivered": 1, "repeated": 1}


def test_outcomes_of_an_earlier_term(leader: Leader) -> None:
    """What was sent before this process lost the lock and got it again is not sent once more."""
    leader.append(record(1))
    (event,) = leader.step()
    leader.ledger.close()
    leader.ledger = Ledger(leader.directory)
    with leader.ledger.transaction():
        leader.ledger.recover(leader.clock.now)
    leader.receive(event, DELIVERED)
    assert leader.numbers() == []
    assert counts(leader.directory) == {"recorded": 1, "delivered": 1, "ambiguous": 1}


def test_nothing_to_do(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step with nothing to import, to commit or to claim begins no transaction; a retry that is due does."""
    begun: list[float] = []
    real = Ledger.transaction

    @contextlib.contextmanager
    def transaction(ledger: Ledger) -> Generator[None]:
        begun.append(leader.clock.now - NOW)
        with real(ledger):
            yield

    leader.append(record(1))
    (event,) = leader.step()
    leader.receive(event, UNAVAILABLE)
    monkeypatch.setattr("cmdrdata_exporter.delivery.backoff.uniform", lambda low, high: 2.5)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(Ledger, "transaction", transaction)
    found = [leader.numbers() for _ in range(4)]
    assert (found, begun) == ([[], [], [], [1]], [3, 6])


def test_how_often_journals_are_looked_at(leader: Leader) -> None:
    """So often that what comes meanwhile has room to be sent at once, if anything has; seldom while little comes."""
    relay, numbers = leader.relay, itertools.count()

    def interval(number: int) -> float:
        leader.append(*(record(next(numbers)) for _ in range(number)))
        leader.step()
        return relay._interval

    assert [interval(1), interval(48)] == [IMPORT_INTERVAL, IMPORT_INTERVAL]
    assert interval(96) == pytest.approx(IMPORT_INTERVAL / 2)
    assert interval(96) == pytest.approx(IMPORT_INTERVAL / 4)
    # Of a rate that stays the same the interval does.
    assert interval(48) == pytest.approx(IMPORT_INTERVAL / 4)
    assert interval(0) == IMPORT_INTERVAL
    assert interval(1000) == SHORTEST_INTERVAL
    leader.room = 0
    assert interval(100) == IMPORT_INTERVAL


def test_outcomes_share_the_commit_of_the_next_import(leader: Leader) -> None:
    """While little happens outcomes wait for the next import, unless an event is due or somebody waits for them."""
    relay = leader.relay
    leader.append(record(1), record(2))
    one, two = leader.step()
    relay.journals_pending = False
    leader.receive(one, DELIVERED)
    assert 0 < relay.wait(ending=False) <= IMPORT_INTERVAL
    assert 0 == relay.wait(ending=True)
    # Woken, as by who flushes, it looks at the journals, and then commits what comes.
    relay.wake()
    assert 0 == relay.wait(ending=False)
    leader.step()
    leader.receive(two, DELIVERED)
    assert 0 == relay.wait(ending=False)
    # And does not wait.
    relay.collect(5)


def test_outcomes_that_events_wait_for(leader: Leader) -> None:
    """Where events are due and have no room, each outcome makes some."""
    relay = leader.relay
    leader.room = 1
    leader.append(record(1), record(2))
    (one,) = leader.step()
    relay.journals_pending = False
    leader.room = 0
    assert 0 < relay.wait(ending=False) <= IMPORT_INTERVAL
    relay.inbox.put((one, DELIVERED))
    relay.collect(5)
    assert relay.outcomes == [(one, DELIVERED)]
    leader.room = 1
    assert 0 == relay.wait(ending=False)


def test_outcomes_that_retries_wait_for(leader: Leader) -> None:
    """Of events that were tried in vain a few are in flight at a time: each outcome makes room for others."""
    relay = leader.relay
    assert relay.senders is not None
    leader.append(*map(record, range(AGAIN + 2)))
    for event in leader.step():
        leader.receive(event, UNAVAILABLE)
    leader.step()
    leader.clock.now += 60
    again = leader.step()
    assert len(again) == AGAIN
    relay.journals_pending = False
    relay.senders.busy = relay.senders.busy_again = AGAIN
    for event in again:
        relay.inbox.put((event, DELIVERED))
    relay.collect(5)
    assert relay.senders.busy_again == 0
    assert 0 == relay.wait(ending=False)
    assert len(leader.step()) == 2
    assert 0 < relay.wait(ending=False) <= IMPORT_INTERVAL
