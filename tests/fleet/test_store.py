"""The ledger of a fleet counts each event once, whatever comes how often, from whom, at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.spool.records import key_of
from cmdrdata_exporter.delivery.spool.schema import UnknownVersionError
from cmdrdata_exporter.fleet import positions as group_positions
from cmdrdata_exporter.fleet import retention
from cmdrdata_exporter.fleet.arrivals import Arrival, HostReport, Position
from cmdrdata_exporter.fleet.connection import UnusableUrlError, connect, name_of
from cmdrdata_exporter.fleet.positions import Beginning, Bounds
from cmdrdata_exporter.fleet.retention import KEYS_FOR
from cmdrdata_exporter.fleet.sending import LEASE
from cmdrdata_exporter.fleet.states import STATES
from cmdrdata_exporter.fleet.store import FleetLedger
from cmdrdata_exporter.fleet.view import FleetReader
from tests.engines.postgres import Postgres
from tests.fleet.samples import DAY, NOW, arrival

Opening = Callable[..., FleetLedger]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return Unix seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of all ledgers of a test."""
    return Clock()


@pytest.fixture
def opened(database: str, clock: Clock) -> Iterator[Opening]:
    """Open ledgers of one database, which are closed at the end."""
    ledgers: list[FleetLedger] = []

    def open_(**options: Any) -> FleetLedger:
        ledgers.append(FleetLedger(database, clock=clock, **options))
        return ledgers[-1]

    yield open_
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def query(database: str) -> Iterator[Callable[[str], list[Any]]]:
    """Ask the database."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield lambda text: connection.execute(text.encode()).fetchall()


Query = Callable[[str], list[Any]]


def states(query: Query) -> dict[str, int]:
    """Return how many events there are in each state."""
    rows = query("SELECT state, count(*) FROM fleet_events GROUP BY state")
    return {STATES[state]: number for state, number in rows}


def counters(query: Query) -> dict[str, int]:
    """Return what is counted beside the totals."""
    rows = query("SELECT name, sum(value) FROM fleet_counters GROUP BY name")
    return {name: int(number) for name, number in rows}


def totals(query: Query) -> dict[tuple[str, str], Decimal]:
    """Return the sums by customer and unit, in which both tables of totals agree."""
    found, by_hour = (
        {
            (customer, unit): amount
            for customer, unit, amount in query(
                f"SELECT customer, unit, sum(amount) FROM {table} JOIN fleet_groups ON number = group_number"
                " GROUP BY customer, unit HAVING sum(amount) <> 0"
            )
        }
        for table in ("fleet_totals", "fleet_totals_by_hour")
    )
    assert found == by_hour
    return found


def positions(query: Query, topic_id: str = "") -> dict[int, int]:
    """Return how far the group `g` has read the topic `t`."""
    return dict(
        query(
            "SELECT partition, next FROM fleet_positions"
            f" WHERE \"group\" = 'g' AND topic = 't' AND topic_id = '{topic_id}'"
        )
    )


def tidy(ledger: FleetLedger) -> int:
    """Do all that is to be done by now; return in how many parts."""
    parts = 1
    while ledger.tidy():
        parts += 1
    return parts


ONE = {
    "events": 1,
    "input_tokens": 1000,
    "output_tokens": 20,
    "total_tokens": 1020,
    "cached_tokens": 512,
}


def of(customer: str, events: int) -> dict[tuple[str, str], int]:
    """Return the totals of a customer with so many events."""
    return {(customer, unit): amount * events for unit, amount in ONE.items()}


def test_an_event_is_counted_once(opened: Opening, query: Query) -> None:
    """What comes again, in the same batch or a later one, to the same gateway or another, changes only a counter."""
    one, other = opened(), opened()
    assert one.store([arrival(1), arrival(2), arrival(1)]) == 2
    assert other.store([arrival(2, host="web-2"), arrival(3, "beta")]) == 1
    assert totals(query) == {**of("acme", 2), **of("beta", 1)}
    assert counters(query) == {"recorded": 3, "repeated": 2}
    assert states(query) == {"local": 3}


def test_an_id_is_counted_once_though_its_day_changes(opened: Opening, query: Query) -> None:
    """The id of a job that two processes saw end on two days is counted once: tables by day do not tell."""
    ledger = opened()
    assert ledger.store([arrival(1)]) == 1
    assert ledger.store([arrival(1, timestamp=int(NOW) - DAY)]) == 0
    assert totals(query) == of("acme", 1)


def test_two_gateways_that_store_the_same_at_once(opened: Opening, query: Query) -> None:
    """Each event is counted once though two store overlapping batches in other orders at the same time."""
    ledgers = [opened(), opened()]
    orders = [range(200), range(199, -1, -1)]
    new: list[int] = []

    def store(ledger: FleetLedger, order: range) -> None:
        new.extend(
            ledger.store([arrival(n) for n in order[at : at + 20]]) for at in range(0, 200, 20)
        )

    threads = [
        threading.Thread(target=store, args=each) for each in zip(ledgers, orders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(new) == 200
    assert totals(query) == of("acme", 200)
    assert counters(query) == {"recorded": 200, "repeated": 200}


def test_positions_go_with_the_events(opened: Opening, query: Query) -> None:
    """Events and positions are one transaction: where one cannot be stored the other is not either."""
    ledger = opened()
    ledger.store([arrival(1)], [Position("g", "t", 0, 5), Position("g", "t", 1, 7)])
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        ledger.store([arrival(2)], [Position("g", "t", 0, 1 << 70)])
    assert positions(query) == {0: 5, 1: 7}
    assert totals(query) == of("acme", 1)
    assert ledger.store([arrival(2)], [Position("g", "t", 0, 6)]) == 1
    assert positions(query) == {0: 6, 1: 7}


def test_a_position_never_goes_back(opened: Opening, query: Query) -> None:
    """A member that slept while its partitions moved on does not make others read again."""
    ledger = opened()
    ledger.store([], [Position("g", "t", 0, 9)])
    ledger.store([], [Position("g", "t", 0, 5)])
    assert positions(query) == {0: 9}


def test_an_event_without_a_customer_is_held_until_it_gets_one(
    opened: Opening, query: Query
) -> None:
    """`assign` puts the customer into the body and moves what was counted; a second time it does nothing."""
    ledger = opened(forwards=True)
    ledger.store([arrival(1, None), arrival(2)])
    assert states(query) == {"held": 1, "pending": 1}
    assert totals(query) == {**of("", 1), **of("acme", 1)}
    key = key_of(f"{1:032x}")
    assert ledger.apply("assign", [key, key_of("unknown")], "börse") == 1
    assert ledger.apply("assign", [key], "other") == 0
    assert states(query) == {"pending": 2}
    assert totals(query) == {**of("börse", 1), **of("acme", 1)}
    [(body,)] = query("SELECT body FROM fleet_events WHERE customer = 'börse'")
    assert body == arrival(1, "börse").body
    assert counters(query) == {"recorded": 2, "assigned": 1}


def test_what_is_no_event_is_set_aside(opened: Opening, query: Query) -> None:
    """What cannot be counted is kept whole and counted as that, and those that came with it are stored."""
    ledger = opened()
    strange = [b"", b"{", b"[1]", b'{"metadata":{}}', arrival(9, usage={"x": "1"}).body]
    assert (
        ledger.store(
            [Arrival(f"id-{n}", body, "web-1", "event") for n, body in enumerate(strange)]
            + [arrival(1)]
        )
        == 1
    )
    assert ledger.store([Arrival("id-0", b"", "web-1", "event")]) == 0
    assert query("SELECT id, reason, body FROM fleet_set_aside ORDER BY id") == [
        (f"id-{n}", "damaged", body) for n, body in enumerate(strange)
    ]
    assert counters(query) == {"recorded": 1, "damaged": 5}


def test_texts_that_postgresql_does_not_have(opened: Opening, query: Query) -> None:
    """NUL and halves of surrogate pairs in any text keep no event from being counted."""
    odd = "a\0b\ud800"
    ledger = opened(total_by=("plan",))
    sent = arrival(
        1,
        odd,
        host=odd,
        model=odd,
        endpoint=odd,
        usage={odd: 1},
        metadata={"plan": odd, "request_id": odd},
    )
    assert ledger.store([sent._replace(id=odd)]) == 1
    [row] = query("SELECT id, host, customer, model, endpoint, request_id FROM fleet_events")
    assert row == ("a\N{REPLACEMENT CHARACTER}b?",) * 6
    [(body,)] = query("SELECT body FROM fleet_events")
    assert body == sent.body


def test_texts_that_are_too_long_for_an_index(opened: Opening, query: Query) -> None:
    """Nothing that comes can keep what comes after it from being stored, however long its texts are."""
    # Random, so that no compression makes it short.
    long = "".join(f"{number:x}" for number in range(1 << 16))
    ledger = opened()
    sent = arrival(1, host=long, customer=long, model=long, usage={long: 1})
    assert ledger.store([sent, arrival(2)._replace(id=long)]) == 1
    ledger.report(HostReport(long, "0.9.0", NOW, 1 << 70, 0, 0, 0, 0))
    assert query("SELECT length(host), length(customer) FROM fleet_events") == [(200, len(long))]
    assert query("SELECT id, reason FROM fleet_set_aside") == [(long, "damaged")]


def test_amounts_are_exact(opened: Opening, query: Query) -> None:
    """Sums of large integers and of decimal fractions have no rounding, in one transaction nor over several."""
    ledger = opened()
    events = [
        arrival(number, usage={"seconds": 0.1}, input_tokens=(1 << 53) + 1) for number in range(20)
    ]
    ledger.store(events[:10])
    for event in events[10:]:
        ledger.store([event])
    found = totals(query)
    assert found["acme", "seconds"] == Decimal("2.0")
    assert found["acme", "input_tokens"] == 20 * ((1 << 53) + 1)


def test_each_day_has_a_table(opened: Opening, query: Query) -> None:
    """Events are in the table of their day; those of a clock that is far ahead share one."""
    ledger = opened()
    ledger.store(
        [
            arrival(1),
            arrival(2, timestamp=int(NOW) - DAY),
            arrival(3, timestamp=int(NOW) + 400 * DAY),
        ]
    )
    assert query("SELECT tableoid::regclass::text FROM fleet_events ORDER BY at") == [
        ("fleet_events_20261120",),
        ("fleet_events_20261121",),
        ("fleet_events_other",),
    ]


def test_a_reader_that_never_ends_keeps_nothing_from_being_stored(
    opened: Opening, query: Query, database: str
) -> None:
    """While someone reads, a day whose table cannot be made is in the common one, and counted as ever."""
    ledger = opened()
    ledger.store([arrival(1)])
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM fleet_events")
        assert ledger.store([arrival(2, timestamp=int(NOW) - DAY)]) == 1
    assert ledger.store([arrival(3, timestamp=int(NOW) - DAY)]) == 1
    assert opened().store([arrival(4, timestamp=int(NOW) - DAY)]) == 1
    assert query(
        "SELECT tableoid::regclass::text, count(*) FROM fleet_events GROUP BY 1 ORDER BY 1"
    ) == [
        ("fleet_events_20261121", 1),
        ("fleet_events_other", 3),
    ]
    assert totals(query) == of("acme", 4)


def test_time_lets_settled_events_go_and_no_others(
    opened: Opening, query: Query, clock: Clock
) -> None:
    """After 30 days settled events go with the table of their day; totals, held events and ids stay."""
    ledger = opened()
    ledger.store(
        [
            arrival(1),
            arrival(2, timestamp=int(NOW) - DAY),
            arrival(3, None, timestamp=int(NOW) - DAY),
        ]
    )
    clock.now += 31 * DAY
    tidy(ledger)
    assert states(query) == {"held": 1}
    assert counters(query) == {"recorded": 3, "forgotten": 2}
    assert query("SELECT to_regclass('fleet_events_20261121'), count(*) FROM fleet_keys") == [
        (None, 3)
    ]
    assert totals(query) == {**of("acme", 2), **of("", 1)}
    assert ledger.store([arrival(1), arrival(2, timestamp=int(NOW) - DAY)]) == 0
    assert totals(query) == {**of("acme", 2), **of("", 1)}


def test_what_is_removed_is_removed_in_parts(
    opened: Opening, query: Query, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction deletes more than so many events beside many that stay, of whichever table."""
    monkeypatch.setattr(retention, "BATCH", 10)
    ledger = opened()
    for first, day in ((100, 0), (200, 9 * DAY)):
        ledger.store([arrival(n, timestamp=int(NOW) + day) for n in range(first, first + 35)])
        ledger.store(
            [arrival(n, None, timestamp=int(NOW) + day) for n in range(first + 50, first + 61)]
        )
    assert len(query("SELECT DISTINCT tableoid FROM fleet_events")) == 2
    clock.now += 40 * DAY
    left: list[int] = []
    while ledger.tidy():
        left.append(query("SELECT count(*) FROM fleet_events")[0][0])
    assert list(dict.fromkeys(left)) == [82, 72, 62, 57, 47, 37, 27, 22]
    assert states(query) == {"held": 22}
    assert counters(query) == {"recorded": 92, "forgotten": 70}


def test_few_that_are_not_settled_outlive_the_table_of_their_day(
    opened: Opening, query: Query, clock: Clock
) -> None:
    """An event that is in flight, or that a person must see, stays when its table goes, and goes on from there."""
    ledger = opened(forwards=True)
    ledger.store([arrival(1), arrival(2), arrival(3, None), arrival(4)])
    sent = ledger.claim(9)
    ledger.record_outcomes([(sent[0], Outcome(Verdict.DELIVERED, "HTTP 201"))])
    ledger.record_outcomes([(sent[1], Outcome(Verdict.REFUSED, "HTTP 400"))])
    clock.now += 31 * DAY
    tidy(ledger)
    assert query("SELECT DISTINCT tableoid::regclass::text FROM fleet_events") == [
        ("fleet_events_other",)
    ]
    assert states(query) == {"dead": 1, "held": 1, "in_flight": 1}
    assert ledger.record_outcomes([(sent[2], Outcome(Verdict.DELIVERED, "HTTP 201"))]) == 0
    assert ledger.apply("drop", [key_of(f"{2:032x}")]) == 1
    tidy(ledger)
    assert states(query) == {"held": 1}
    assert ledger.apply("assign", [key_of(f"{3:032x}")], "acme") == 1
    assert states(query) == {"pending": 1}
    assert ledger.store([arrival(n) for n in range(1, 5)]) == 0
    expected = {"recorded": 4, "repeated": 4, "delivered": 2, "dropped": 1, "forgotten": 3}
    assert counters(query) == {**expected, "assigned": 1}


def test_what_was_detached_is_dropped_by_the_next(
    opened: Opening, query: Query, clock: Clock
) -> None:
    """A gateway that dies between two parts leaves nothing that the next one does not count and remove."""
    ledger = opened()
    ledger.store([arrival(1), arrival(2)])
    clock.now += 31 * DAY
    assert ledger.tidy()
    assert query("SELECT count(*) FROM fleet_events") == [(0,)]
    assert query("SELECT count(*) FROM fleet_events_20261121") == [(2,)]
    # What comes now finds no table of its day, and is counted as ever.
    other = opened()
    assert other.store([arrival(1), arrival(3)]) == 1
    assert other.tidy()
    assert query("SELECT to_regclass('fleet_events_20261121')") == [(None,)]
    tidy(other)
    assert counters(query) == {"recorded": 3, "repeated": 1, "forgotten": 3}
    assert totals(query) == of("acme", 3)


def hours(query: Query) -> dict[str, int]:
    """Return how many events each time of the totals by hour has, of whatever host."""
    rows = query(
        "SELECT time, sum(amount) FROM fleet_totals_by_hour WHERE unit = 'events' GROUP BY time"
    )
    return {time: int(number) for time, number in rows}


def test_hours_become_days(opened: Opening, query: Query, clock: Clock) -> None:
    """After 8 days the hours of a day are one sum for each host; what comes later, or changes, is a part of it."""
    ledger = opened()
    hour = 3600
    ledger.store(
        [
            arrival(1),
            arrival(2, host="web-2", timestamp=int(NOW) - hour),
            arrival(3, None, timestamp=int(NOW) - 5 * hour),
            arrival(4, timestamp=int(NOW) + DAY),
            arrival(7, timestamp=int(NOW) - 5 * hour),
        ]
    )
    before = hours(query)
    assert before == {
        "2026-11-21T13": 2,
        "2026-11-21T17": 2,
        "2026-11-22T18": 1,
    }
    clock.now += 8 * DAY
    tidy(ledger)
    assert hours(query) == before
    clock.now += DAY
    tidy(ledger)
    assert hours(query) == {"2026-11-21": 4, "2026-11-22T18": 1}
    assert query(
        "SELECT source_host, sum(amount) FROM fleet_totals_by_hour WHERE unit = 'events'"
        " AND time = '2026-11-21' GROUP BY source_host ORDER BY source_host"
    ) == [("web-1", 3), ("web-2", 1)]
    other = opened()
    other.store([arrival(5), arrival(6, timestamp=int(NOW) - 5 * hour)])
    other.apply("assign", [key_of(f"{3:032x}")], "acme")
    assert hours(query) == {"2026-11-21": 6, "2026-11-22T18": 1}
    assert totals(query) == of("acme", 7)


def test_hours_become_days_in_parts(
    opened: Opening, query: Query, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a day's hours are cut, its sums stay what they were."""
    monkeypatch.setattr(retention, "BATCH", 7)
    ledger = opened()
    ledger.store([arrival(n, host=f"web-{n % 3}", timestamp=int(NOW) - 600 * n) for n in range(60)])
    before = totals(query)
    clock.now += 9 * DAY
    assert tidy(ledger) > 10
    assert hours(query) == {"2026-11-21": 60}
    assert totals(query) == before


BEGUN: dict[str, tuple[dict[str, int], str, tuple[int, int], int, int, int]] = {
    "new": ({}, "", (3, 9), 3, 0, 0),
    "read": ({"": 5}, "", (3, 9), 5, 0, 0),
    "at the end": ({"": 9}, "", (3, 9), 9, 0, 0),
    "removed": ({"": 5}, "", (8, 9), 8, 3, 0),
    "end lost": ({"": 10}, "", (3, 9), 3, 0, 1),
    "made anew": ({"old": 5}, "new", (0, 9), 0, 0, 1),
    "removed from the new one": ({"old": 5, "new": 1}, "new", (4, 9), 4, 3, 0),
}
"""How far topics of one name were read, the id and the bounds of the present one, and what is found by that."""


@pytest.mark.parametrize("case", BEGUN)
def test_where_a_group_reads_on(opened: Opening, query: Query, case: str) -> None:
    """A position that is not in the partition is never passed over in silence: it is counted what is lost, once."""
    known, topic_id, bounds, offset, lost, renewed = BEGUN[case]
    ledger = opened()
    ledger.store([], [Position("g", "t", 0, number, name) for name, number in known.items()])
    found = ledger.begin("g", "t", topic_id, {0: Bounds(*bounds)})
    assert found == Beginning({0: offset}, {0: lost} if lost else {}, [0] * renewed)
    assert positions(query, topic_id) == {0: offset}
    again = opened().begin("g", "t", topic_id, {0: Bounds(*bounds)})
    assert again == Beginning({0: offset}, {}, [])
    expected = {"records_lost": lost, "partitions_renewed": renewed}
    assert counters(query) == {name: number for name, number in expected.items() if number}


def test_two_that_find_the_same_loss(opened: Opening, query: Query, database: str) -> None:
    """Of two gateways that get a partition one after the other within a moment, one counts what is lost."""
    ledger = opened()
    ledger.store([], [Position("g", "t", 0, 5)])
    found: list[Beginning] = []

    def begin() -> None:
        found.append(ledger.begin("g", "t", "", {0: Bounds(8, 9)}))

    with connect(database) as other, other.transaction():
        first = group_positions.begin(other, "g", "t", "", {0: Bounds(8, 9)})
        thread = threading.Thread(target=begin)
        thread.start()
        while not query("SELECT FROM pg_locks WHERE NOT granted"):
            assert thread.is_alive()
    thread.join()
    assert [first, *found] == [Beginning({0: 8}, {0: 3}, []), Beginning({0: 8}, {}, [])]
    assert counters(query) == {"records_lost": 3}


def test_an_event_that_comes_while_its_day_goes_stays(
    opened: Opening, query: Query, clock: Clock, database: str
) -> None:
    """A day's table is not removed with an event that another gateway has put there and not committed yet."""
    ledger = opened()
    ledger.store([arrival(1)])
    clock.now += 31 * DAY
    with psycopg.connect(database) as other:
        # As another gateway does: the rest of its row is of no matter.
        other.execute(
            "INSERT INTO fleet_events SELECT '\\x00', day, 0, '2', 2, due, recorded, attempts, lease, reason, host,"
            " source, customer, model, endpoint, status, units, at, group_number, trace_id, response_id, request_id,"
            " body"
            " FROM fleet_events"
        )
        thread = threading.Thread(target=tidy, args=(ledger,))
        thread.start()
        while not query("SELECT FROM pg_locks WHERE NOT granted"):
            assert thread.is_alive()
    thread.join()
    assert query("SELECT id, state FROM fleet_events") == [("2", STATES.index("held"))]


def test_an_event_of_a_day_whose_ids_are_forgotten_is_set_aside(
    opened: Opening, query: Query, clock: Clock
) -> None:
    """Where nobody knows any more whether an event was counted, it is neither counted nor lost."""
    ledger = opened()
    ledger.store([arrival(1)])
    clock.now += (KEYS_FOR + 1) * DAY
    tidy(ledger)
    assert query("SELECT count(*) FROM fleet_keys") == [(0,)]
    assert ledger.store([arrival(1)]) == 0
    assert query("SELECT reason FROM fleet_set_aside") == [("late",)]
    assert totals(query) == of("acme", 1)


def run_out(query: Query) -> None:
    """Have the leases of all that is in flight run out."""
    query(f"UPDATE fleet_events SET due = due - {LEASE + 1} WHERE state = 1 RETURNING 1")


def test_events_are_forwarded(opened: Opening, query: Query, clock: Clock) -> None:
    """Two that claim get different events, and each verdict moves its event as in the ledger of a host."""
    one, other = opened(forwards=True), opened(forwards=True)
    one.store([arrival(number) for number in range(4)])
    first, second = one.claim(2), other.claim(10)
    assert [event.id for event in [*first, *second]] == [f"{n:032x}" for n in range(4)]
    assert [event.body for event in first] == [arrival(0).body, arrival(1).body]
    one.record_outcomes(
        [
            (first[0], Outcome(Verdict.DELIVERED, "HTTP 201")),
            (first[1], Outcome(Verdict.REFUSED, "HTTP 400")),
        ]
    )
    other.record_outcomes([(second[0], Outcome(Verdict.RETRY, "HTTP 503")), (second[1], None)])
    assert states(query) == {"delivered": 1, "dead": 1, "pending": 2}
    assert query("SELECT reason, attempts FROM fleet_events WHERE state < 4 ORDER BY seq") == [
        ("HTTP 400", 0),
        ("HTTP 503", 1),
        (None, 0),
    ]
    assert query("SELECT id FROM fleet_events WHERE body IS NULL") == [(f"{0:032x}",)]
    # Whoever claims dies.
    assert len(other.claim(1)) == 1
    assert one.recover() == 0
    run_out(query)
    assert one.recover() == 1
    assert states(query) == {"delivered": 1, "dead": 1, "pending": 2}
    assert counters(query) == {"recorded": 4, "delivered": 1, "ambiguous": 1}


LATE = {
    "unsent": (None, "in_flight", 1),
    "retry": (Outcome(Verdict.RETRY, "HTTP 503"), "in_flight", 1),
    "refused": (Outcome(Verdict.REFUSED, "HTTP 400"), "in_flight", 1),
    "delivered": (Outcome(Verdict.DELIVERED, "HTTP 201"), "delivered", 0),
}
"""What comes late of an event, and what it is by that: that the backend has it is true, and the rest is not known."""


@pytest.mark.parametrize("case", LATE)
def test_an_outcome_whose_lease_ran_out(opened: Opening, query: Query, case: str) -> None:
    """While another gateway has the event in flight, what comes of the first attempt ends no other."""
    outcome, state, late = LATE[case]
    one, other = opened(forwards=True), opened(forwards=True)
    one.store([arrival(1)])
    first = one.claim(1)
    run_out(query)
    assert other.recover() == 1
    second = other.claim(1)
    assert [event.attempts for event in (*first, *second)] == [0, 1]
    assert one.record_outcomes([(first[0], outcome)]) == late
    assert states(query) == {state: 1}
    assert other.claim(1) == []
    delivered = [(second[0], Outcome(Verdict.DELIVERED, "HTTP 200"))]
    assert other.record_outcomes(delivered) == 1 - late
    assert states(query) == {"delivered": 1}
    assert counters(query) == {"recorded": 1, "delivered": 1, "ambiguous": 1}


def test_a_lease_is_told_from_a_later_one_of_the_same_gateway(
    opened: Opening, query: Query
) -> None:
    """An outcome of a claim that ran out moves nothing though the same gateway has claimed the event again."""
    ledger = opened(forwards=True)
    ledger.store([arrival(1)])
    [first] = ledger.claim(1)
    run_out(query)
    ledger.recover()
    [second] = ledger.claim(1)
    assert ledger.record_outcomes([(first, Outcome(Verdict.REFUSED, "HTTP 400"))]) == 1
    assert ledger.record_outcomes([(second, None)]) == 0
    assert states(query) == {"pending": 1}


def test_dead_letters_are_replayed_or_dropped(opened: Opening, query: Query) -> None:
    """A replayed event is pending again; of a dropped one the usage is told from what is billed."""
    ledger = opened(forwards=True)
    ledger.store([arrival(1), arrival(2)])
    ledger.record_outcomes(
        [(event, Outcome(Verdict.REFUSED, "HTTP 400")) for event in ledger.claim(2)]
    )
    keys = [key_of(f"{number:032x}") for number in (1, 2)]
    assert ledger.apply("drop", keys[:1]) == 1
    assert ledger.apply("replay", keys) == 1
    assert states(query) == {"dropped": 1, "pending": 1}
    assert query(
        "SELECT fate, sum(amount) FROM fleet_totals JOIN fleet_groups ON number = group_number"
        " WHERE unit = 'events' GROUP BY fate ORDER BY fate"
    ) == [
        ("", 1),
        ("dropped", 1),
    ]


def test_what_is_pending_for_30_days_is_dead(opened: Opening, query: Query, clock: Clock) -> None:
    """An event that was not delivered expires as on a host."""
    ledger = opened(forwards=True)
    ledger.store([arrival(1)])
    clock.now += 31 * DAY
    tidy(ledger)
    assert query("SELECT state, reason FROM fleet_events") == [(STATES.index("dead"), "expired")]


def test_hosts_say_how_they_are(opened: Opening, query: Query, clock: Clock) -> None:
    """The last word of a host counts, by the host's own clock; when it was heard is told by the gateway's."""
    ledger = opened()
    later = HostReport("web-1", "0.9.0", NOW, 10, 1, 2, 3, 4)
    ledger.report(later)
    clock.now += 5
    ledger.report(later._replace(at=NOW - 60, recorded=5))
    assert query(
        "SELECT host, version, at, recorded, pending, held, dead, unspooled, seen FROM fleet_hosts"
    ) == [(*later, NOW)]


def test_what_hosts_could_not_write(opened: Opening, database: str) -> None:
    """Events that are in the logs of hosts only are counted together."""
    ledger = opened()
    for host in ("web-1", "web-2"):
        ledger.report(HostReport(host, "0.9.0", NOW, 10, 1, 2, 3, 4))
    with FleetReader(database) as view:
        assert view.counts()["unspooled"] == 8


def test_migrations_are_taken_once(opened: Opening, query: Query) -> None:
    """Gateways that start at once on an empty database make its tables once."""
    ledgers = [opened() for _ in range(4)]
    threads = [threading.Thread(target=ledger.connect) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ledger.store([arrival(n)]) for n, ledger in enumerate(ledgers)] == [1, 1, 1, 1]
    assert query("SELECT version, name FROM fleet_migrations ORDER BY version") == [
        (1, "tables"),
        (2, "shelf"),
    ]


def test_a_later_version_is_left_alone(opened: Opening, query: Query) -> None:
    """A ledger that a later release has changed is not written by this one."""
    opened().connect()
    query("INSERT INTO fleet_migrations (version, name) VALUES (99, 'later') RETURNING 1")
    with pytest.raises(UnknownVersionError, match="version 99, and this release knows version 2"):
        opened().store([arrival(1)])


def test_a_server_that_dies_and_returns(mortal_postgres: Postgres) -> None:
    """What was stored is there when the server is back, and the same ledger goes on."""
    url = mortal_postgres.database()
    ledger = FleetLedger(url)
    assert ledger.store([arrival(1)], [Position("g", "t", 0, 1)]) == 1
    mortal_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        ledger.store([arrival(2)])
    mortal_postgres.start()
    assert ledger.store([arrival(1), arrival(2)]) == 1
    with connect(url) as connection:
        assert connection.execute("SELECT partition, next FROM fleet_positions").fetchall() == [
            (0, 1)
        ]
    ledger.close()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (
            "postgresql://meter:secret@db.example:5433/usage?sslmode=verify-full",
            "db.example:5433/usage",
        ),
        ("host=db dbname=usage password=secret", "db/usage"),
    ],
)
def test_a_name_has_no_password(url: str, name: str) -> None:
    """A database is called by where it is."""
    assert name_of(url) == name


@pytest.mark.parametrize(
    "url", ["postgresql://meter:hunter%zz@db/usage", "host=db password='hunter"]
)
def test_what_is_no_url_is_not_repeated(url: str) -> None:
    """The message on a URL that cannot be read has nothing of it: it may have a password."""
    with pytest.raises(UnusableUrlError) as error:
        FleetLedger(url)
    assert "hunter" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://meter:hunter@hunter@db/usage",
        "postgresql://meter:hunter/2@db/usage",
        "postgresql://meter:2/hunter@db/usage",
        "postgresql://meter:hunter/usage",
    ],
)
def test_a_password_that_is_not_encoded_is_no_name(url: str) -> None:
    """A part of a password that libpq takes for host, port or database is in no name and no message."""
    with pytest.raises(UnusableUrlError, match="percent-encoded") as error:
        name_of(url)
    assert "hunter" not in str(error.value)


def test_a_server_that_goes_without_a_word_is_noticed(database: str) -> None:
    """A connection asks whether the server is still there, unless its URL says otherwise."""
    with connect(database) as connection, connect(f"{database}?keepalives_idle=77") as other:
        asked = connection.info.get_parameters(), other.info.get_parameters()
    assert [each["keepalives_idle"] for each in asked] == ["10", "77"]
    assert [each["tcp_user_timeout"] for each in asked] == ["30000", "30000"]
