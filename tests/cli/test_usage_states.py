"""What is in the numbers of a usage report: shown = delivered + local + pending + in flight + held + dead + dropped."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cmdrdata_exporter.cli.states import STATES
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from tests.cli.conftest import Run
from tests.ledgers import AMBIGUOUS, DELIVERED, IN_FLIGHT, REFUSED, fill, record

RunJson = Callable[..., tuple[int, Any]]
DAYS = ("2026-10-31", "2026-11-20", "2026-11-21")
OUTCOMES = (DELIVERED, REFUSED, REFUSED, AMBIGUOUS, IN_FLIGHT)
"""What comes of the events of a customer: one is delivered, one dead, one dropped, one waits, one is being sent."""
QUESTIONS = [
    (),
    ("--customer", "acme"),
    ("--customer", "globex"),
    ("--customer", "nobody-else"),
    ("--no-customer",),
    ("--since", "2026-11-21"),
    ("--until", "2026-11-20"),
    ("--since", "2026-11-20", "--until", "2026-11-20"),
    ("--since", "2026-10", "--until", "2026-10"),
    ("--since", "2026-11", "--customer", "globex"),
    ("--until", "2026-09"),
]
DESTINATIONS = ["default", "local", "all"]


def units(number: int) -> dict[str, int | float]:
    """Return what an event used, a sum of its own for each set of events."""
    return {"input_tokens": 1 << number, "audio_seconds": 0.25 * number}


@pytest.fixture
def every_state(remote: Directory, local: Directory, run: Run) -> None:
    """Events of three days and of two customers in each state, events of nobody, and local ones."""
    days = [day for day in DAYS for _ in OUTCOMES]
    paid = [
        record(number, ("acme", "globex")[number % 2], day=day, units=units(number))
        for number, day in enumerate(days, 1)
    ]
    held = [record(50 + n, None, day=day, units=units(20 + n)) for n, day in enumerate(DAYS)]
    fill(remote, [*paid, *held], OUTCOMES * len(DAYS))
    kept = [record(80 + n, "acme", day=day, units=units(30 + n)) for n, day in enumerate(DAYS)]
    fill(local, kept, local=True)
    dead = [f"{number:04d}" for number in range(1, len(days) + 1) if number % len(OUTCOMES) == 3]
    assert 0 == run("dead-letters", "drop", *dead).returncode


@pytest.mark.usefixtures("every_state")
@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_the_sum_is_exact(question: tuple[str, ...], destination: str, run_json: RunJson) -> None:
    """For whatever is asked, the states add up to what is shown, and what was billed is what settled."""
    asked = ("usage", "--by", "customer,day", *question, "--destination", destination)
    _, shown = run_json(*asked)
    _, billed = run_json(*asked, "--only", "billed")
    states = shown["states"]
    assert list(STATES) == list(states)
    assert states == billed["states"]
    for found, total in (
        (shown, sum(states.values())),
        (billed, states["delivered"] + states["local"]),
    ):
        assert total == found["total"]["events"] == sum(row["events"] for row in found["rows"])
        sums: Counter[str] = Counter()
        for row in found["rows"]:
            sums.update(row["units"])
        assert dict(sums) == found["total"]["units"]


@pytest.mark.usefixtures("every_state")
def test_every_state_is_in_it(run: Run, run_json: RunJson) -> None:
    """Each state has its events; what was billed is what the delivered ones used, to the unit; both are said."""
    asked = ("usage", "--destination", "all")
    assert {
        "delivered": 3,
        "local": 3,
        "pending": 3,
        "in_flight": 3,
        "held": 3,
        "dead": 3,
        "dropped": 3,
    } == run_json(*asked)[1]["states"]
    settled = [1, 6, 11, 30, 31, 32]
    assert {
        "events": 6,
        "units": {
            "input_tokens": sum(1 << number for number in settled),
            "audio_seconds": 0.25 * sum(settled),
        },
    } == run_json(*asked, "--only", "billed")[1]["total"]
    assert (
        "\n21 events = 3 delivered + 3 local + 3 pending + 3 in flight + 3 held + 3 dead + 3 dropped. "
        "Delivered alone: --only billed\n"
    ) in run(*asked).stdout
    assert (
        "\n6 events = 3 delivered + 3 local. Left out: 3 pending, 3 in flight, 3 held, 3 dead, 3 dropped.\n"
    ) in run(*asked, "--only", "billed").stdout


@pytest.mark.usefixtures("every_state")
def test_assigned(run: Run, run_json: RunJson) -> None:
    """An event that is given a customer is in the customer's numbers then, and in nobody's no longer."""
    assert 0 == run("assign", "--customer", "globex", "--all").returncode
    assert 0 == run_json("usage", "--no-customer")[1]["total"]["events"]
    _, found = run_json("usage", "--customer", "globex")
    assert found["total"]["events"] == sum(found["states"].values())
    assert 0 == found["states"]["held"]


@pytest.mark.usefixtures("every_state")
@pytest.mark.parametrize("form", ["--csv", "--focus"])
def test_beside_a_file(form: str, run: Run) -> None:
    """A file is a file: what is in its numbers, or not, is on standard error."""
    told = run("usage", form, "--only", "billed").stderr
    assert (
        "Note: 3 events = 3 delivered. Left out: 3 pending, 3 in flight, 3 held, 3 dead, 3 dropped.\n"
    ) in told


@pytest.mark.parametrize("only", [(), ("--only", "billed")])
def test_all_is_delivered(only: tuple[str, ...], remote: Directory, run: Run) -> None:
    """Then there is nothing to be said."""
    fill(remote, [record(1), record(2)], [DELIVERED] * 2)
    assert "delivered" not in run("usage", *only).stdout


def test_nothing_is_delivered(remote: Directory, run: Run) -> None:
    """Where nothing is left, it is said why."""
    fill(remote, [record(1)])
    assert (
        f"No usage recorded for {remote.path.name} with these filters.\n\n"
        "0 events = none delivered. Left out: 1 pending.\n"
    ) == run("usage", "--only", "billed").stdout


def test_dropped_by_an_earlier_version(remote: Directory, run: Run, run_json: RunJson) -> None:
    """Its ledger tells no longer which events these were: they count as delivered, and that is said."""
    fill(remote, [record(1), record(2)], [DELIVERED] * 2)
    db = sqlite3.connect(remote.path / LEDGER)
    with db:
        db.execute("INSERT INTO counters VALUES ('dropped', 1)")
    db.close()
    _, found = run_json("usage")
    assert (1, 2, 0) == (
        found["dropped_before"],
        found["states"]["delivered"],
        found["states"]["dropped"],
    )
    assert run("usage").stdout.endswith(
        "\n\nAn earlier version dropped 1 event: these count as delivered here.\n"
    )
