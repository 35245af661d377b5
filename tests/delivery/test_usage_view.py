"""Usage totals: exact by whatever they are asked, wherever an event goes, and whoever recorded it."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from cmdrdata_exporter.delivery import Outcome
from cmdrdata_exporter.delivery.groups import COLUMNS, OTHER
from cmdrdata_exporter.delivery.spool import labels, totals, usage_view
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import Command, encode_command, key_of
from cmdrdata_exporter.delivery.usage import ALL, Question, Total, UnreadableError
from tests.delivery.samples import (
    BROKEN,
    DAY,
    DELIVERED,
    NOW,
    REFUSED,
    counts,
    event_id,
    record,
    told,
)

LABELS = ("plan", "team")


class Books:
    """A ledger, and what its totals say."""

    def __init__(self, directory: Directory, labels: Sequence[str] | None = LABELS) -> None:
        self.directory = directory
        self.ledger = Ledger(directory, total_by=labels, hold_ambiguous=True)

    def take_in(self, *records: bytes) -> None:
        """Import records in one transaction."""
        with self.ledger.transaction():
            self.ledger.import_records("1.journal", 99, records, [], NOW)

    def command(self, action: str, *numbers: int, customer: str | None = None) -> None:
        """Have a command obeyed."""
        keys = tuple(key_of(event_id(number)) for number in numbers)
        self.take_in(encode_command(Command(action, keys, customer)))

    def send(self, outcome: Outcome, limit: int = 100) -> None:
        """Have the same come of all events that are due, or of some."""
        with self.ledger.transaction():
            handed = self.ledger.claim(limit, NOW)
            self.ledger.record_outcomes([(event, outcome) for event in handed], NOW)

    def tidy(self, months_before: str = "", days_before: str = "") -> list[str]:
        """Make hours to days and days to months; return which days and months there were."""
        found = [""]
        with self.ledger.transaction():
            while day := self.ledger.totals.tidy(found[-1], months_before, days_before)[0]:
                found.append(day)
        return found[1:]

    def used(self, *by: str, unit: str = "events", **asked: Any) -> dict[tuple[str, ...], float]:
        """Return what was used of one unit, by groups."""
        with LedgerReader(self.directory) as reader:
            return {
                total.group: total.amount
                for total in reader.usage.totals(by, Question(**asked))
                if total.unit == unit
            }

    def outside(self, question: Question = ALL) -> dict[str, tuple[int, dict[str, float]]]:
        """Return what is not delivered and is not nothing."""
        with LedgerReader(self.directory) as reader:
            return {
                state: found for state, found in reader.usage.outside(question).items() if found[0]
            }


@pytest.fixture
def books(directory: Directory) -> Iterator[Books]:
    """A ledger with two labels."""
    books = Books(directory)
    yield books
    books.ledger.close()


# By what


def test_every_column(books: Books) -> None:
    """A total tells all that the body of an event says, in the order of the columns; labels come after them."""
    books.take_in(
        told(
            1,
            tokens=300_000,
            server_address="api.openai.com",
            request_model="gpt-5-mini",
            service_tier="flex",
            openai_organization="org-1",
            openai_project="proj_1",
            openai_key_hash="ab12",
            plan="pro",
            team=7,
            other="not asked for",
        )
    )
    expected = {
        "hour": "2026-11-21T10",
        "day": "2026-11-21",
        "month": "2026-11",
        "customer": "acme",
        "model": "m",
        "endpoint": "chat.completions",
        "status": "reported",
        "provider": "openai",
        "host": "api.openai.com",
        "request_model": "gpt-5-mini",
        "service_tier": "flex",
        "context": "272000",
        "organization": "org-1",
        "project": "proj_1",
        "key": "ab12",
        "plan": "pro",
        "team": "7",
    }
    assert (*COLUMNS, *LABELS) == tuple(expected)
    for unit, amount in (("events", 1), ("input_tokens", 300_000)):
        assert {tuple(expected.values()): amount} == books.used(*reversed(expected), unit=unit)
    for name, value in expected.items():
        assert {(value,): 1} == books.used(name) == books.used(name, where={name: value})
        assert {} == books.used(name, where={name: f"{value}x"})
    with LedgerReader(books.directory) as reader:
        assert LABELS == reader.usage.labels()


def test_what_only_the_line_tells(books: Books) -> None:
    """What is no event of ours, as its body says, is counted by the line of its record, on its day."""
    books.take_in(record(1), record(2, None, day="2026-11-22"), told(3))
    assert {
        (DAY, "acme", ""): 1,
        (f"{DAY}T10", "acme", "openai"): 1,
        ("2026-11-22", "", ""): 1,
    } == books.used("hour", "customer", "provider")
    # One that ended on another day than its line says: the line counts, as it always has.
    line, _, body = told(4, day="2026-11-23", hour="0").partition(b"\n")
    books.take_in(line.replace(b"2026-11-23", b"2026-11-24") + b"\n" + body)
    assert {("2026-11-24",): 1} == books.used("hour", since="2026-11-23")


@pytest.mark.parametrize("timestamp", [-1, 10**15, 10**30])
def test_a_time_that_is_none(books: Books, timestamp: int) -> None:
    """Whatever an event calls its time, it is counted on the day of its line."""
    line, _, body = told(1).partition(b"\n")
    event = json.loads(body) | {"timestamp": timestamp}
    books.take_in(line + b"\n" + json.dumps(event).encode())
    assert {(DAY,): 1} == books.used("hour")


def test_days_of_hours(books: Books) -> None:
    """The first and the last day that are asked for have all of their hours, and what is known by the day alone."""
    days = ("2026-10-31", "2026-11-01", "2026-11-02", "2026-11-30", "2026-12-01")
    for number, (day, hour) in enumerate(itertools.product(days, ("00", "23"))):
        books.take_in(told(number, day=day, hour=hour), record(100 + number, day=day))
    for since, until, number in (
        (None, None, 20),
        ("2026-11-01", None, 16),
        ("2026-11-01", "2026-11-30", 12),
        ("2026-11-01", "2026-11-01", 4),
        ("2026-11-02", "2026-11-29", 4),
        (None, "2026-10-31", 4),
        ("2026-12-01", "2026-12-31", 4),
    ):
        assert number == sum(books.used("hour", since=since, until=until).values())
        assert number == sum(books.used(since=since, until=until).values())
        assert number == sum(found for found, _ in books.outside(Question(since, until)).values())
    books.tidy("2026-12", "2026-12-02")
    assert {("2026-10",): 4, ("2026-11",): 12, ("2026-12-01",): 4} == books.used("hour")
    assert {("2026-11",): 12} == books.used("day", since="2026-11-01", until="2026-11-30")
    with pytest.raises(UnreadableError, match="is in the middle"):
        books.used(since="2026-11-02")
    with pytest.raises(UnreadableError, match="is in the middle"):
        books.outside(Question("2026-11-02"))


def test_hours_become_days_and_days_months(books: Books) -> None:
    """Usage is folded as it grows old, to the last token; what comes late joins it."""
    for number, day in enumerate(("2026-10-31", "2026-11-10", "2026-11-20")):
        books.take_in(
            told(number, day=day, tokens=3), told(10 + number, day=day, hour="11", tokens=4)
        )
    assert ["2026-10-31", "2026-11-10", "2026-11-20"] == books.tidy("2026-11", "2026-11-20")
    hours = {
        ("2026-10",): 7,
        ("2026-11-10",): 7,
        ("2026-11-20T10",): 3,
        ("2026-11-20T11",): 4,
    }
    assert hours == books.used("hour", unit="input_tokens")
    books.take_in(told(20, day="2026-10-31", tokens=5), told(21, day="2026-11-10", tokens=6))
    assert 32 == sum(books.used("hour", unit="input_tokens").values())
    late = {("2026-10",): 12, ("2026-11-10",): 13}
    assert hours | late == books.used("hour", unit="input_tokens")
    assert ["2026-10", "2026-11-10", "2026-11-20"] == books.tidy("2026-11", "2026-11-20")


@pytest.mark.parametrize(
    "day", ["", "x", "T", "2026-11-21T", "2026-11-21U", "2026-11-21T10x", "9" * 30]
)
def test_days_that_are_none(books: Books, day: str) -> None:
    """Whatever a record calls its day, all totals are gone through, and end."""
    books.take_in(record(1, day=day), told(2), record(3, day="2026-11-22"))
    for _ in range(2):
        assert len(books.tidy("2026-11", "2026-11-22")) <= 3
    assert 3 == sum(books.used().values())


# Labels


def test_labels_with_too_many_values(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label tells so many values apart and no more, whoever leads; a value that it knows is told all the same."""
    monkeypatch.setattr(labels, "MOST_VALUES", 3)
    books.take_in(*(told(number, plan=f"p{number}", team="t") for number in range(4)))
    books.ledger.close()
    books.ledger = Ledger(books.directory, total_by=LABELS)
    assert ["plan"] == books.ledger.totals.labels.full()
    books.take_in(told(10, plan="p2", team="u"), told(11, plan="p9", team="t"))
    assert {("p0",): 1, ("p1",): 1, ("p2",): 2, (OTHER,): 2} == books.used("plan")
    assert {("t",): 5, ("u",): 1} == books.used("team")


def test_other_labels_from_now_on(books: Books) -> None:
    """Another setting holds for what is imported from then on, and what was summed before stays."""
    books.take_in(told(1, plan="pro", team="a"))
    books.ledger.close()
    books.ledger = Ledger(books.directory, total_by=("region",))
    books.take_in(told(2, plan="pro", region="eu"), told(3, region=""), told(4))
    assert {("pro", ""): 1, ("", "eu"): 1, ("", ""): 2} == books.used("plan", "region")
    with LedgerReader(books.directory) as reader:
        assert ("plan", "region", "team") == reader.usage.labels()


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        ('["plan"]', ("pro",)),
        ('["plan", 7, null]', ("pro",)),
        ('{"plan": 1}', ("pro",)),
        ("damaged", ("",)),
        (None, ("",)),
        ("7", ("",)),
    ],
)
def test_a_command_that_imports(books: Books, fact: str | None, expected: tuple[str]) -> None:
    """It knows no settings: it sums by what the last leader did."""
    books.ledger._db.execute("INSERT OR REPLACE INTO facts VALUES ('total_by', ?)", (fact,))
    books.ledger.close()
    books.ledger = Ledger(books.directory)
    books.take_in(told(1, plan="pro"))
    assert {expected: 1} == books.used("plan")


def test_a_transaction_that_fails(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would have added is forgotten: groups have their rows once they are counted, labels all their room."""
    monkeypatch.setattr(labels, "MOST_VALUES", 1)
    with contextlib.suppress(ZeroDivisionError), books.ledger.transaction():
        books.ledger.import_records("1.journal", 9, [told(1, plan="one")], [], NOW)
        _ = 1 / 0
    assert {} == books.used("plan")
    books.take_in(told(2, plan="two"))
    books.take_in(told(1, plan="one"))
    assert {("two",): 1, (OTHER,): 1} == books.used("plan")


def test_more_groups_than_are_remembered(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many groups there are, each has one row."""
    monkeypatch.setattr(totals, "_MOST_KNOWN", 3)
    books.take_in(*(told(number, f"customer-{number % 7}") for number in range(70)))
    books.take_in(*(told(number, f"customer-{number % 7}") for number in range(70, 140)))
    assert {(f"customer-{number}",): 20 for number in range(7)} == books.used("customer")
    assert [(7,)] == books.ledger._db.execute("SELECT count(*) FROM groups").fetchall()


# What a person decides


def test_assigning(books: Books) -> None:
    """What is assigned moves to the same group of its customer, from the very hour in which it was counted."""
    books.take_in(
        told(1, None, tokens=5, plan="pro", service_tier="flex"),
        told(2, None, tokens=7, plan="free"),
        told(3, "globex", tokens=11, plan="pro", service_tier="flex"),
    )
    books.command("assign", 1, customer="globex")
    by = ("hour", "customer", "service_tier", "plan")
    assert {
        (f"{DAY}T10", "", "", "free"): 7,
        (f"{DAY}T10", "globex", "flex", "pro"): 16,
    } == books.used(*by, unit="input_tokens")
    # In the transaction in which it is imported, while others of its group are counted on the day.
    books.take_in(told(90, None, day="2026-11-22").replace(b"2026-11-22", DAY.encode(), 1))
    keys = (key_of(event_id(4)),)
    command = encode_command(Command("assign", keys, "initech"))
    books.take_in(told(4, None, tokens=13, hour="12"), command)
    assert {(f"{DAY}T12",): 13} == books.used("hour", customer="initech", unit="input_tokens")
    assert {("free", f"{DAY}T10"): 7, ("", DAY): 1} == {
        (plan, hour): amount
        for (hour, plan), amount in books.used(
            "plan", "hour", customer="", unit="input_tokens"
        ).items()
    }


@pytest.mark.parametrize(
    ("months", "days", "expected"), [("", "2026-11-22", DAY), ("2026-12", "", "2026-11")]
)
def test_what_is_decided_late(books: Books, months: str, days: str, expected: str) -> None:
    """Usage whose hour has become a part of a day or month is moved within that."""
    books.take_in(told(1, None), told(2, None), told(3))
    books.send(REFUSED)
    books.tidy(months, days)
    books.command("assign", 1, customer="globex")
    books.command("drop", 3)
    assert {(expected, ""): 1, (expected, "acme"): 1, (expected, "globex"): 1} == books.used(
        "hour", "customer"
    )
    books.send(DELIVERED)
    assert {(expected, "globex"): 1} == books.used("hour", "customer", billed=True)
    assert {
        "held": (1, {"input_tokens": 1}),
        "dropped": (1, {"input_tokens": 1}),
    } == books.outside()


@pytest.mark.parametrize(
    ("months", "days", "day"), [("", "2026-11-22", "2026-11-21"), ("2026-12", "", "2026-11")]
)
def test_what_comes_as_its_hours_become_one(books: Books, months: str, days: str, day: str) -> None:
    """What is imported, moved or dropped in the transaction that sums a day, or month, is in that sum."""
    books.take_in(told(1), told(2, None, tokens=2))
    with books.ledger.transaction():
        assign = encode_command(Command("assign", (key_of(event_id(2)),), "globex"))
        late = [told(3, tokens=4), assign]
        books.ledger.import_records("1.journal", 99, late, [], NOW)
        last = ""
        while last := books.ledger.totals.tidy(last, months, days)[0]:
            pass
    assert books.used("hour", "customer", unit="input_tokens") == {
        (day, "acme"): 5,
        (day, "globex"): 2,
    }
    assert books.used("hour", billed=True) == {}


def test_dropping(books: Books) -> None:
    """What is dropped stays recorded, and is in nothing that is billed."""
    books.take_in(told(1, tokens=5), told(2, tokens=7))
    books.send(REFUSED)
    books.command("drop", 2)
    assert {("acme",): 12} == books.used("customer", unit="input_tokens")
    assert {
        "dead": (1, {"input_tokens": 5}),
        "dropped": (1, {"input_tokens": 7}),
    } == books.outside()
    books.command("replay", 1)
    books.send(DELIVERED)
    assert {("acme",): 5} == books.used("customer", unit="input_tokens", billed=True)
    assert {"dropped": (1, {"input_tokens": 7})} == books.outside(Question(customer="acme"))
    assert {} == books.outside(Question(customer="globex"))
    with LedgerReader(books.directory) as reader:
        assert 0 == reader.usage.dropped_before()


@pytest.mark.parametrize(
    ("amounts", "billed"),
    [
        ([0.1, 0.2, 0.3], 0.1),
        ([3, 0.1, 0.7], 3),
        ([2**62, 2**62, 2**62], 2.0**62),
        ([1.5, 10**400, 10**400], None),
        ([10**400, 1.5, 1.5], 1e100),
    ],
)
def test_odd_amounts(books: Books, amounts: list[float], billed: float | None) -> None:
    """What is not billed is taken off a sum of fractions, or of more than SQLite can sum; rounding leaves nothing."""
    for number, amount in enumerate(amounts):
        books.take_in(told(number, units={"seconds": amount, "batch": True}))
    books.send(DELIVERED, limit=1)
    found = books.used(unit="seconds", billed=True)
    assert found == ({} if billed is None else {(): pytest.approx(billed, rel=1e-9)})
    assert {(): 1} == books.used(billed=True)


def test_what_rounding_leaves(books: Books) -> None:
    """Fractions that are added in another order than they are taken off leave nothing of a unit."""
    books.take_in(told(0, units={}))
    books.send(DELIVERED)
    books.take_in(told(1, units={"seconds": 0.1}))
    books.send(REFUSED)
    books.take_in(told(2, units={"seconds": 0.2}))
    books.take_in(told(3, units={"seconds": 0.3}))
    assert {(): 0.1 + 0.2 + 0.3} == books.used(unit="seconds")
    assert {} == books.used(unit="seconds", billed=True)
    assert {(): 1} == books.used(billed=True)


def test_what_comes_again(books: Books) -> None:
    """A duplicate is counted once, whatever became of the first."""
    books.take_in(told(1, remember=-1), told(2, None), told(1, remember=-1), told(2, None))
    books.send(REFUSED)
    books.command("assign", 2, customer="globex")
    books.take_in(told(2, None))
    books.command("drop", 1)
    books.take_in(told(1, remember=-1))
    assert {("acme",): 1, ("globex",): 1} == books.used("customer")


@pytest.mark.parametrize(
    "damage",
    [
        "customer = 'globex'",
        "model = x'ff'",
        "model = CAST(x'ff' AS TEXT)",
        "labels = CAST(x'ff' AS TEXT)",
        "number = 7",
    ],
)
def test_what_damage_has_altered(books: Books, damage: str) -> None:
    """An event cannot tell what it used whose record is damaged; its row may be, too, and its usage is found then."""
    books.take_in(
        told(1, tokens=5), told(2, None, tokens=7, plan="pro"), told(3, None, tokens=9), told(4)
    )
    db = books.ledger._db
    db.execute("UPDATE events SET crc = 0 WHERE seq = 1")
    db.execute(f'UPDATE groups SET {damage} WHERE labels = \'{{"plan":"pro"}}\'')
    db.execute(
        "UPDATE events SET group_number = (SELECT group_number FROM events WHERE seq = 4) WHERE seq = 3"
    )
    books.send(DELIVERED)
    assert {"dead": (1, {}), "held": (2, {"input_tokens": 16})} == books.outside()
    books.command("assign", 2, 3, customer="globex")
    assert {("acme",): 6, ("globex",): 16} == books.used("customer", unit="input_tokens")
    assert {("pro",): 7, ("",): 9} == books.used("plan", customer="globex", unit="input_tokens")
    books.command("drop", 1)
    books.send(DELIVERED)
    assert {("acme",): 1, ("globex",): 2} == books.used("customer", billed=True)
    assert {"dropped": (1, {})} == books.outside()


# All of it


def _told_by_line(number: int, customer: str | None, *, tokens: int, day: str, **_: str) -> bytes:
    """Return the record of an event whose body tells nothing."""
    units = {"input_tokens": tokens}
    return record(number, customer, units=units, day=day, hold=customer is None)


def _sum(found: Iterable[Total], unit: str) -> float:
    return sum(total.amount for total in found if total.unit == unit)


@pytest.mark.parametrize("seed", range(4))
def test_the_accounts(books: Books, seed: int) -> None:
    """Whatever happens, for any filter: recorded = billed + pending + in flight + held + dead + dropped."""
    dice = random.Random(seed)
    filters: list[dict[str, Any]] = [
        {"customer": customer, "since": since, "until": until}
        for customer in (None, "", "acme", "initech")
        for since, until in ((None, None), ("2026-11-20", None), ("2026-11-20", "2026-11-20"))
    ]
    used: list[int] = []
    for turn in range(40):
        for _ in range(dice.randrange(4)):
            make = told if dice.random() < 0.8 else _told_by_line
            of = {"hour": f"{dice.randrange(3)}", "plan": dice.choice("ab")}
            day, tokens = f"2026-11-{dice.randrange(19, 22)}", dice.randrange(1, 100)
            customer = dice.choice(("acme", "globex", None))
            books.take_in(make(len(used), customer, tokens=tokens, day=day, **of))
            used.append(tokens)
        some = [number for number in range(len(used)) if dice.random() < 0.2]
        step = dice.randrange(6)
        if step < 3:
            books.send((DELIVERED, REFUSED, BROKEN)[step], limit=dice.randrange(1, 4))
        elif step == 3:
            books.command("assign", *some, customer="initech")
        elif step == 4:
            books.command("drop", *some)
        else:
            books.tidy("", f"2026-11-{dice.randrange(19, 23)}")
        if turn % 5 == 4:
            with books.ledger.transaction():
                books.ledger.claim(1, NOW)
        with LedgerReader(books.directory) as reader:
            for asked in filters:
                outside = reader.usage.outside(Question(**asked)).values()
                others = {
                    "events": sum(events for events, _ in outside),
                    "input_tokens": sum(units.get("input_tokens", 0) for _, units in outside),
                }
                for by, (unit, number) in itertools.product(((), ("hour", "plan")), others.items()):
                    recorded = _sum(reader.usage.totals(by, Question(**asked)), unit)
                    assert recorded == number + _sum(
                        reader.usage.totals(by, Question(billed=True, **asked)), unit
                    )
            assert (len(used), sum(used)) == tuple(
                _sum(reader.usage.totals(("day",)), unit) for unit in ("events", "input_tokens")
            )
            delivered = _sum(reader.usage.totals((), Question(billed=True)), "events")
        assert counts(books.directory).get("delivered", 0) == delivered


def test_what_was_dropped_is_known_without_the_backlog(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record is read for it: there may be a hundred thousand that wait."""
    books.take_in(told(1), told(2))
    books.send(REFUSED)
    books.command("drop", 1)
    monkeypatch.delattr(usage_view, "intact")
    with LedgerReader(books.directory) as reader:
        assert reader.usage.dropped_before() == 0
