"""A fleet's ledger answers as the ledger of a host does: the same questions, the same numbers, to the token."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from cmdrdata_exporter.cli import reading
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.groups import COLUMNS
from cmdrdata_exporter.delivery.spool.directory import LOCAL, Directory
from cmdrdata_exporter.delivery.spool.index import Index
from cmdrdata_exporter.delivery.spool.index_view import IndexReader
from cmdrdata_exporter.delivery.spool.indexed import IndexedEvent, Wanted
from cmdrdata_exporter.delivery.spool.kept import Kept
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.records import Command, encode_command, encode_event, key_of
from cmdrdata_exporter.delivery.spool.totals import HOURS_FOR
from cmdrdata_exporter.delivery.usage import Question, UnreadableError
from cmdrdata_exporter.events import UsageEvent, encode
from cmdrdata_exporter.exporter import _header
from cmdrdata_exporter.fleet.arrivals import Arrival
from cmdrdata_exporter.fleet.events_view import FleetEvents
from cmdrdata_exporter.fleet.store import FleetLedger
from cmdrdata_exporter.fleet.view import FleetReader
from tests.fleet.samples import DAY, NOW, event

ENDPOINT = "https://cmdrdata.test/api/events"
DELIVERED = Outcome(Verdict.DELIVERED, "HTTP 201")
REFUSED = Outcome(Verdict.REFUSED, "HTTP 400", answer="no such model")
UNSENT = Outcome(Verdict.RETRY, "HTTP 503")

EVENTS: tuple[tuple[UsageEvent, Outcome | None], ...] = (
    (event(1), DELIVERED),
    (event(2, "beta", model="gpt-5", input_tokens=300_000, metadata={"plan": "pro"}), DELIVERED),
    (event(3, "beta", timestamp=int(NOW) - DAY, metadata={"plan": "pro"}), REFUSED),
    (event(4, None), None),
    (event(5, None, usage_status="missing", usage={}), None),
    (event(6, usage={"seconds": 1.5, "batch": True}, usage_status="partial"), UNSENT),
    (
        event(7, timestamp=int(NOW) - 22 * DAY, metadata={"plan": "free", "openai_project": "p-1"}),
        REFUSED,
    ),
    (event(8, "börse\N{GRINNING FACE}", endpoint="embeddings"), DELIVERED),
    (event(9, "gamma", input_tokens=1 << 40), REFUSED),
    (event(10, "gamma", input_tokens=3), DELIVERED),
)
"""Events, and what came of the attempt to deliver each; None: none was made."""


class Both(NamedTuple):
    """The same events in the ledger of a host and in a fleet's."""

    host: IndexReader
    fleet: FleetEvents

    def ask(self, question: str, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        """Return both answers."""
        ledgers: tuple[reading.Ledger, reading.Ledger] = (self.host.ledger, self.fleet.ledger)
        asked = operator.attrgetter(question)
        found: list[Any] = [asked(ledger)(*arguments, **options) for ledger in ledgers]
        if isinstance(found[0], Iterator):
            found = [list(answer) for answer in found]
        return found[0], found[1]


@pytest.fixture(params=["forwarded", "local", "folded"])
def both(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> Iterator[Both]:
    """Both ledgers, filled; of `folded` the hours of all events have become days."""
    local = request.param == "local"
    made = [each for each, _ in EVENTS]
    bodies = [encode(each) for each in made]
    outcomes = dict(
        zip((each.id for each in made), (outcome for _, outcome in EVENTS), strict=True)
    )

    directory = Directory.prepare(tmp_path, None if local else ENDPOINT, LOCAL if local else "acct")
    ledger = Ledger(directory, local=local, total_by=("plan",), index=Index(directory, 1000))
    records = [
        encode_event(each.id, _header(each, body, [], hold=True), body)
        for each, body in zip(made, bodies, strict=True)
    ]
    with ledger.transaction():
        ledger.import_records("journal", 0, records, [], NOW)
    fleet = FleetLedger(database, forwards=not local, total_by=("plan",), clock=lambda: NOW)
    assert fleet.store(
        [
            Arrival(each.id, body, f"web-{number % 2}", "event")
            for number, (each, body) in enumerate(zip(made, bodies, strict=True))
        ]
    ) == len(EVENTS)
    if not local:
        with ledger.transaction():
            claimed = ledger.claim(100, NOW)
            ledger.record_outcomes([(each, outcomes[each.id]) for each in claimed], NOW)
        fleet.record_outcomes([(each, outcomes[each.id]) for each in fleet.claim(100)])
        drop = [key_of(made[6].id)]
        with ledger.transaction():
            ledger.import_records(
                "commands", 0, [encode_command(Command("drop", tuple(drop)))], [], NOW
            )
        assert fleet.apply("drop", drop) == 1
    assign = [key_of(made[3].id)]
    with ledger.transaction():
        ledger.import_records(
            "commands", 1, [encode_command(Command("assign", tuple(assign), "delta"))], [], NOW
        )
    assert fleet.apply("assign", assign, "delta") == 1
    if request.param == "folded":
        with ledger.transaction():
            day = ""
            while (day := ledger.totals.tidy(day, "2026-01", "2026-12-01")[0]) != "":
                pass
        fleet.close()
        fleet = FleetLedger(
            database, forwards=True, keep_events=99, clock=lambda: NOW + (HOURS_FOR + 1) * DAY
        )
        while fleet.tidy():
            pass
    ledger.close()
    fleet.close()
    with IndexReader(directory) as host, FleetEvents(database) as view:
        yield Both(host, view)


BY: Sequence[Sequence[str]] = (
    (),
    *((name,) for name in (*COLUMNS, "plan")),
    ("customer", "model", "day"),
    ("status", "hour", "plan"),
    (*COLUMNS, "plan"),
)


@pytest.mark.parametrize("billed", [False, True])
@pytest.mark.parametrize("by", BY, ids=",".join)
def test_usage_is_the_same(both: Both, by: Sequence[str], billed: bool) -> None:
    """Usage by anything, recorded or billed, is the same rows in the same order."""
    host, fleet = both.ask("usage.totals", by, Question(billed=billed))
    assert host == fleet
    assert host


@pytest.mark.parametrize("billed", [False, True])
@pytest.mark.parametrize(
    "filters",
    [
        {"since": "2026-11-21"},
        {"since": "2026-11-20", "until": "2026-11-20"},
        {"customer": "beta"},
        {"customer": ""},
        {"where": {"plan": "pro", "model": "gpt-5"}},
        {"where": {"hour": "2026-11-21T17"}},
        {"where": {"month": "2026-10"}, "customer": "acme"},
        {"where": {"plan": ""}},
    ],
    ids=str,
)
def test_usage_of_a_part_is_the_same(both: Both, filters: dict[str, Any], billed: bool) -> None:
    """Filters leave the same usage."""
    host, fleet = both.ask("usage.totals", ["customer", "day"], Question(billed=billed, **filters))
    assert host == fleet


@pytest.mark.parametrize(
    "question",
    [
        ("usage.outside",),
        ("usage.outside", Question("2026-11-21", "2026-11-21")),
        ("usage.outside", Question(customer="beta")),
        ("reasons", "held"),
        ("reasons", "dead"),
        ("usage.labels",),
        ("not_imported",),
        ("open_jobs",),
        ("oldest_pending",),
        ("usage.dropped_before",),
        ("knows", key_of(EVENTS[0][0].id + "x"), NOW),
    ],
    ids=str,
)
def test_questions_have_the_same_answers(both: Both, question: tuple[Any, ...]) -> None:
    """What else the commands ask is answered alike."""
    host, fleet = both.ask(*question)
    assert host == fleet


def test_counts_are_the_same(both: Both) -> None:
    """Events in each state, and what else is counted, add up alike."""
    host, fleet = both.ask("counts")
    assert fleet == {name: number for name, number in host.items() if number or name in fleet}
    states = ("delivered", "local", "pending", "in_flight", "held", "dead", "dropped")
    assert fleet["recorded"] == sum(fleet[state] for state in states) == len(EVENTS)


@pytest.mark.parametrize("state", ["held", "dead", "pending", "local"])
def test_kept_events_are_the_same(both: Both, state: str) -> None:
    """The events in a state are the same, with their bodies."""
    host, fleet = both.ask("kept", state)
    assert list(map(_known, host)) == list(map(_known, fleet))


def _known(kept: Kept) -> tuple[Any, ...]:
    """Return what both ledgers know of an event: when it is due is random."""
    event = kept.event
    assert event is not None
    header = event.header
    return (
        *(kept.key, kept.state, kept.recorded, kept.attempts, kept.reason, event.id, event.body),
        *(header.customer, header.model, header.endpoint, header.status, header.day, header.units),
    )


def said(events: Sequence[IndexedEvent]) -> list[tuple[Any, ...]]:
    """Return what is known of events, but for numbers, which each ledger gives as it likes, and for times."""
    return [tuple(each._replace(number=0, since=None, attempts=None)) for each in events]


@pytest.mark.parametrize(
    "text",
    [
        EVENTS[0][0].id,
        "chatcmpl-2",
        "req_3",
        f"{4:032x}",
        "0" * 31,
        "0" * 20,
        "nothing",
        "",
        "%",
        "req_",
    ],
)
def test_events_are_found_alike(both: Both, text: str) -> None:
    """Any id finds the same events."""
    assert said(both.host.find(text)) == said(both.fleet.find(text))


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"state": "held"},
        {"state": "dead"},
        {"state": "pending"},
        {"customer": ""},
        {"customer": "beta", "model": "gpt-5"},
        {"endpoint": "embeddings"},
        {"since": int(NOW) - DAY, "until": int(NOW) - 3590},
        {"no_usage": True},
    ],
    ids=str,
)
def test_the_newest_are_the_same(both: Both, wanted: dict[str, Any]) -> None:
    """Lists of events are the same."""
    host, fleet = (said(reader.newest(100, Wanted(**wanted))) for reader in both)
    assert host == fleet


def test_usage_by_host(both: Both) -> None:
    """A fleet's ledger also tells who recorded the events, and what it tells adds up."""
    assert both.fleet.ledger.usage.columns() == (*COLUMNS, "plan", "source_host")
    found = list(both.fleet.ledger.usage.totals(["source_host"]))
    events = {total.group: total.amount for total in found if total.unit == "events"}
    assert events == {("web-0",): 5, ("web-1",): 5}
    one = list(
        both.fleet.ledger.usage.totals(["customer"], Question(where={"source_host": "web-1"}))
    )
    assert sum(total.amount for total in one if total.unit == "events") == 5


@pytest.mark.parametrize("both", ["folded"], indirect=True)
def test_hours_that_became_days(both: Both) -> None:
    """What was an hour is its day, also of events that are not delivered."""
    for billed in (False, True):
        found = list(both.fleet.ledger.usage.totals(["hour"], Question(billed=billed)))
        assert {total.group[0] for total in found} == {"2026-10-30", "2026-11-20", "2026-11-21"} - (
            {"2026-10-30", "2026-11-20"} if billed else set()
        )
        assert all(total.amount > 0 for total in found)


def test_a_database_without_a_ledger(database: str) -> None:
    """The message says what is missing."""
    with (
        pytest.raises(UnreadableError, match="there is no ledger of a fleet in 127"),
        FleetReader(database),
    ):
        pass


def test_a_server_that_is_not_there() -> None:
    """The message says where, and has no password."""
    with pytest.raises(UnreadableError, match=":1/usage cannot be read") as error:
        FleetReader("postgresql://meter:hunter2@127.0.0.1:1/usage")
    assert "hunter2" not in str(error.value)


def test_whoever_reads_needs_no_more_than_to_read(both: Both) -> None:
    """A role with nothing but SELECT can ask everything."""
    url = both.fleet.ledger._db.info.dsn
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS auditor")
        connection.execute("CREATE ROLE auditor LOGIN")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO auditor")
        try:
            with FleetReader(url.replace("user=postgres", "user=auditor")) as reader:
                assert reader.counts() == both.fleet.ledger.counts()
                assert list(reader.usage.totals(["customer"])) == list(
                    both.fleet.ledger.usage.totals(["customer"])
                )
        finally:
            connection.execute("DROP OWNED BY auditor")
            connection.execute("DROP ROLE auditor")
