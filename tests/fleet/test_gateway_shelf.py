"""Spans on the shelf of a real PostgreSQL: one call is one event once, in whichever order its spans come."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
import pytest

from cmdrdata_exporter.fleet.arrivals import Arrival, Position
from cmdrdata_exporter.fleet.gateway.pieces import read_protobuf
from cmdrdata_exporter.fleet.gateway.shelf import Settled, Settler, Shelf
from cmdrdata_exporter.fleet.gateway.spans import SpanRow, take
from cmdrdata_exporter.fleet.store import FleetLedger
from tests.fleet.otlp import CHAT, request, span
from tests.fleet.samples import DAY

SDK = "opentelemetry.instrumentation.openai.v1"
FRAMEWORK = "opentelemetry.instrumentation.langchain"
OURS = "opentelemetry_instrumentation_cmdrdata"
APPLICATION = "shop"


class Taking:
    """A ledger that remembers what it was given."""

    def __init__(self) -> None:
        self.events: dict[str, Arrival] = {}
        self.repeated = 0
        self.fails = False

    def store(self, arrivals: Sequence[Arrival]) -> int:
        """Take events, each once."""
        if self.fails:
            raise psycopg.OperationalError("the ledger is away")
        new = {each.id: each for each in arrivals if each.id not in self.events}
        self.repeated += len(arrivals) - len(new)
        self.events |= new
        return len(new)

    @property
    def spans(self) -> list[str]:
        """The ids of the spans that were billed."""
        return sorted(json.loads(each.body)["metadata"]["span_id"] for each in self.events.values())


def rows(*spans: tuple[str, Any]) -> list[SpanRow]:
    """Return what is kept of spans that came in one request."""
    taken = take(read_protobuf(request(*spans).SerializeToString()))
    assert taken.refused == 0
    return taken.rows


@pytest.fixture
def shelf(database: str) -> Iterable[Shelf]:
    """An empty shelf."""
    ledger = FleetLedger(database)
    ledger.connect()
    ledger.close()
    shelf = Shelf(database)
    yield shelf
    shelf.close()


@pytest.fixture
def ledger() -> Taking:
    """An empty ledger."""
    return Taking()


def settler(database: str, ledger: Taking, *, window: float = 0.0) -> Settler:
    """Return what settles; without a window all is due at once."""
    return Settler(database, ledger.store, window=window)


CALL = [
    (SDK, span(1, 3, parent=2, at=(1, 2))),
    (APPLICATION, span(1, 2, parent=1, at=(0.5, 2.5), attributes={})),
    (FRAMEWORK, span(1, 1, at=(0, 3))),
]
"""One call: the SDK's span, in one of the application's own, in a framework's."""


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_one_call_in_any_order(
    database: str, shelf: Shelf, ledger: Taking, order: Sequence[int]
) -> None:
    """Spans of one call that come within the window, each in a request of its own, are one event: the innermost."""
    # Of a trace that nothing is known of, what is no call is not kept.
    shelf.store(rows((SDK, span(1, 9, at=(10, 11)))))
    for number in order:
        shelf.store(rows(CALL[number]))
    settling = settler(database, ledger)
    assert settling.round() == Settled(4, 3, 2, 2, 2)
    settling.close()
    assert ledger.spans == [f"{3:016x}", f"{9:016x}"]


def test_spans_that_come_late(database: str, shelf: Shelf, ledger: Taking) -> None:
    """What was decided stays decided: a span of the same call that comes after it makes no second event."""
    settling = settler(database, ledger)
    shelf.store(rows(CALL[0]))
    assert settling.round() == Settled(1, 1, 1, 1, 1)
    shelf.store(rows(*CALL[1:]))
    assert settling.round() == Settled(2, 1, 0, 0, 0)
    # The other way round: who contains it came before, and was billed.
    outer, inner = (FRAMEWORK, span(2, 1, at=(0, 3))), (SDK, span(2, 2, parent=1, at=(1, 2)))
    shelf.store(rows(outer))
    assert settling.round() == Settled(1, 1, 1, 1, 1)
    shelf.store(rows(inner))
    assert settling.round() == Settled(1, 1, 0, 0, 0)
    settling.close()
    assert ledger.spans == [f"{1:016x}", f"{3:016x}"]


def test_a_batch_that_comes_again(database: str, shelf: Shelf, ledger: Taking) -> None:
    """A request that is repeated, whole or in part, before its calls are settled or afterwards, changes nothing."""
    settling = settler(database, ledger)
    shelf.store(rows(*CALL))
    shelf.store(rows(CALL[2]))
    assert settling.round() == Settled(3, 2, 1, 1, 1)
    shelf.store(rows(CALL[2]))
    shelf.store(rows(*CALL))
    assert settling.round() == Settled(0, 0, 0, 0, 0)
    settling.close()
    assert ledger.spans == [f"{3:016x}"]


def test_two_calls_of_one_trace(database: str, shelf: Shelf, ledger: Taking) -> None:
    """Calls beside each other are an event each, in one trace or in two."""
    shelf.store(
        rows(
            (SDK, span(1, 2, parent=1, at=(0, 1))),
            (SDK, span(1, 3, parent=1, at=(0, 1))),
            (SDK, span(2, 4, at=(0, 1))),
            (APPLICATION, span(3, 5, attributes={})),
        )
    )
    settling = settler(database, ledger)
    assert settling.round() == Settled(3, 3, 3, 3, 3)
    settling.close()
    assert ledger.spans == [f"{number:016x}" for number in (2, 3, 4)]
    assert {(each.host, each.source) for each in ledger.events.values()} == {("web-1", "span")}
    events = [json.loads(each.body) for each in ledger.events.values()]
    assert {(each["customer_id"], each["metadata"]["source"]) for each in events} == {
        ("acme", "span")
    }


def test_our_own_spans(database: str, shelf: Shelf, ledger: Taking) -> None:
    """A call of our instrumentation is metered where it was made: neither its span nor another of it is an event."""
    shelf.store(
        rows(
            (FRAMEWORK, span(1, 1, at=(0, 3))),
            (OURS, span(1, 2, parent=1, at=(0.5, 2.5))),
            (SDK, span(1, 3, parent=2, at=(1, 2))),
        )
    )
    settling = settler(database, ledger)
    assert settling.round() == Settled(3, 2, 0, 0, 0)
    settling.close()
    assert ledger.spans == []


def test_the_window(database: str, shelf: Shelf, ledger: Taking) -> None:
    """Before its window is over nothing of a span is decided."""
    settling = settler(database, ledger, window=3600)
    shelf.store(rows(*CALL))
    assert settling.round() == Settled(0, 0, 0, 0, 0)
    assert settling.waiting() == 3
    settling.close()


def test_a_ledger_that_is_away(database: str, shelf: Shelf, ledger: Taking) -> None:
    """What was decided but not stored is stored later, as it was decided, whatever has come meanwhile."""
    outer, inner = (FRAMEWORK, span(2, 1, at=(0, 3))), (SDK, span(2, 2, parent=1, at=(1, 2)))
    shelf.store(rows(outer))
    ledger.fails = True
    settling = settler(database, ledger)
    with pytest.raises(psycopg.OperationalError):
        settling.round()
    shelf.store(rows(inner))
    ledger.fails = False
    other = settler(database, ledger)
    assert other.round() == Settled(1, 1, 0, 1, 1)
    assert ledger.spans == [f"{1:016x}"]
    other.close()
    settling.close()


def test_two_settle_at_once(database: str, shelf: Shelf, ledger: Taking) -> None:
    """While one has a bucket, another one leaves it alone."""
    shelf.store(rows(*CALL))
    second = settler(database, ledger)
    met: list[Settled] = []

    class Slow(Taking):
        def store(self, arrivals: Sequence[Arrival]) -> int:
            met.append(second.round())
            return super().store(arrivals)

    slow = Slow()
    first = settler(database, slow)
    assert first.round() == Settled(3, 2, 1, 1, 1)
    assert met == [Settled(0, 0, 0, 0, 0)]
    assert second.round() == Settled(0, 0, 0, 0, 0)
    first.close()
    second.close()


def test_positions(database: str, shelf: Shelf) -> None:
    """Positions are stored with the spans, and never go back."""
    shelf.store(rows(*CALL), [Position("g", "t", 0, 5), Position("g", "t", 1, 7)])
    shelf.store([], [Position("g", "t", 0, 3), Position("g", "t", 1, 9), Position("h", "t", 0, 1)])
    with psycopg.connect(database) as connection:
        known = connection.execute(
            'SELECT "group", partition, next FROM fleet_positions ORDER BY 1, 2'
        ).fetchall()
    assert known == [("g", 0, 5), ("g", 1, 9), ("h", 0, 1)]


def pass_days(database: str, days: float) -> None:
    """Have what is on the shelf be there for so many days more."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE gateway_spans SET latest = latest - make_interval(secs => %s)", (days * DAY,)
        )


def test_what_is_forgotten(database: str, shelf: Shelf, ledger: Taking) -> None:
    """Spans that are settled go when events of their day have gone; those that wait stay."""
    settling = settler(database, ledger)
    keeping = FleetLedger(database, keep_events=5)
    shelf.store(rows(*CALL))
    pass_days(database, 9)
    assert not keeping.tidy()
    settling.round()
    pass_days(database, -4)
    assert not keeping.tidy()
    assert shelved(database) == 3
    pass_days(database, 4)
    assert not keeping.tidy()
    assert shelved(database) == 0
    settling.close()
    keeping.close()


def shelved(database: str) -> int:
    """Return how many spans are on the shelf."""
    with psycopg.connect(database) as connection:
        [[number]] = connection.execute("SELECT count(*) FROM gateway_spans").fetchall()
    return number


@pytest.mark.parametrize("again", [(0, 1), (0,), (1,)], ids=str)
def test_a_topic_that_is_read_again_much_later(
    database: str, shelf: Shelf, again: Sequence[int]
) -> None:
    """Whichever spans of a call come again, and whenever, it is one event: what nobody knows any more is set aside."""
    call = [(FRAMEWORK, span(2, 1, at=(0, 3))), (SDK, span(2, 2, parent=1, at=(1, 2)))]
    clock = time.time()
    keeping = FleetLedger(database, keep_events=5, clock=lambda: clock)
    settling = Settler(database, keeping.store, window=0)
    # The framework's span is billed, since the SDK's comes late.
    for each in call:
        shelf.store(rows(each))
        settling.round()
    pass_days(database, 6)
    keeping.tidy()
    for days in (0, 8):
        clock += days * DAY
        pass_days(database, days)
        keeping.tidy()
        assert shelved(database) == (0 if days else 2)
        shelf.store(rows(*(call[number] for number in again)))
        settling.round()
    with psycopg.connect(database) as connection:
        counted = connection.execute(
            "SELECT amount FROM fleet_totals WHERE unit = 'events'"
        ).fetchall()
        aside = connection.execute("SELECT reason FROM fleet_set_aside").fetchall()
    assert counted == [(1,)]
    assert aside == [("late",)] * (1 in again)
    settling.close()
    keeping.close()


def test_a_trace_of_more_spans_than_are_settled_at_once(
    database: str, shelf: Shelf, ledger: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a trace that goes on and on no more is in memory than so many spans, and each call of it is an event."""
    monkeypatch.setattr("cmdrdata_exporter.fleet.gateway.shelf.COMPARED", 10)
    shelf.store(
        rows(*((SDK, span(1, number, at=(number, number + 0.5))) for number in range(1, 36)))
    )
    settling = settler(database, ledger)
    decided = [settling.round().decided for _ in range(5)]
    settling.close()
    assert decided == [10, 10, 10, 5, 0]
    assert ledger.spans == [f"{number:016x}" for number in range(1, 36)]


def test_nothing_of_the_content(database: str, shelf: Shelf) -> None:
    """Prompts and answers never come to the database."""
    said = {"gen_ai.input.messages": "my secret", "gen_ai.prompt.0.content": "my secret"}
    shelf.store(rows((SDK, span(1, 1, attributes=CHAT | said))))
    with psycopg.connect(database) as connection:
        [row] = connection.execute("SELECT gateway_spans::text, body FROM gateway_spans").fetchall()
    assert "my secret" not in str(row)
    assert b"my secret" not in bytes(row[1])


def test_a_customer_that_cannot_be_is_not_another_one(
    database: str, shelf: Shelf, ledger: Taking
) -> None:
    """A customer's id with a NUL is refused, as in a process: without it it would be the id of someone else."""
    shelf.store(rows((SDK, span(1, 1, attributes=CHAT | {"cmdrdata.customer.id": "ac\0me"}))))
    settling = settler(database, ledger)
    settling.round()
    settling.close()
    [event] = ledger.events.values()
    assert json.loads(event.body)["customer_id"] is None


def test_what_many_spans_have_in_common_is_kept_of_each_in_short() -> None:
    """A long name of a scope, which comes once, does not fill the memory with a copy for each of its spans."""
    message = request(("a" * 100_000, span(1, 0, attributes={})))
    scope = message.resource_spans[0].scope_spans[0]
    scope.spans.extend(span(1, number, attributes={}) for number in range(1, 100))
    kept = take(read_protobuf(message.SerializeToString())).rows
    assert len(kept) == 100
    assert sum(len(row.relation) for row in kept) < 100_000


def test_two_gateways_that_get_the_same_spans_do_not_wait_for_each_other(
    database: str, shelf: Shelf
) -> None:
    """A batch that comes to two gateways at once, its spans in another order, is stored by both."""
    other = Shelf(database)
    batch = rows(*((SDK, span(number, number)) for number in range(1, 2001)))
    failures: list[Exception] = []

    def store(to: Shelf, kept: list[SpanRow]) -> None:
        try:
            to.store(kept)
        except psycopg.Error as error:
            failures.append(error)

    threads = [
        threading.Thread(target=store, args=each) for each in ((shelf, batch), (other, batch[::-1]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert failures == []
