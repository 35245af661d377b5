"""The commands on the ledger of a fleet, as a person runs them: real PostgreSQL, the password nowhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from cmdrdata_exporter.cli.commands import cmdrdata
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.fleet.arrivals import HostReport
from cmdrdata_exporter.fleet.store import FleetLedger
from tests.fleet.samples import DAY, NOW, arrival

REFUSED = Outcome(Verdict.REFUSED, "HTTP 400")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str) -> Run:
    """Run a command that finds the ledger in its environment, with a password that the server does not ask for."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("CMDRDATA_LEDGER", database.replace("postgres@", "postgres:hunter2@"))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cmdrdata(list(arguments), prog_name="cmdrdata")
        out, err = capsys.readouterr()
        assert "hunter2" not in out + err
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return run


@pytest.fixture
def forwarded(database: str) -> FleetLedger:
    """A ledger whose events are sent on: one delivered, one dead, one held."""
    ledger = FleetLedger(database, forwards=True, clock=lambda: NOW)
    ledger.store([arrival(1), arrival(2, "beta", host="web-2"), arrival(3, None, source="span")])
    outcomes = [Outcome(Verdict.DELIVERED, "HTTP 201"), REFUSED]
    ledger.record_outcomes(list(zip(ledger.claim(9), outcomes, strict=True)))
    ledger.close()
    return ledger


def of(found: tuple[int, str, str]) -> Any:
    """Return the JSON that a command printed."""
    status, out, err = found
    assert (status, err) == (0, "")
    return json.loads(out)


def test_usage(run: Run, forwarded: FleetLedger) -> None:
    """Usage is that of all hosts, by host too, and says what is not delivered."""
    found = of(run("usage", "--by", "source_host,customer", "--json"))
    assert [(row["source_host"], row["customer"], row["events"]) for row in found["rows"]] == [
        ("web-1", "acme", 1),
        ("web-1", None, 1),
        ("web-2", "beta", 1),
    ]
    states = {state: number for state, number in found["states"].items() if number}
    assert states == {"delivered": 1, "held": 1, "dead": 1}
    billed = of(run("usage", "--only", "billed", "--json"))
    assert [(row["customer"], row["events"]) for row in billed["rows"]] == [("acme", 1)]
    assert forwarded.name == found["destination"]


def test_events_are_assigned_replayed_and_dropped(run: Run, forwarded: FleetLedger) -> None:
    """What a person decides is done at once, and said."""
    del forwarded
    assert run("assign", "--customer", "gamma", "--all") == (
        0,
        "1 of 1 held event assigned.\nA gateway sends them as soon as it can.\n",
        "",
    )
    assert run("held", "list")[:2] == (0, "No held events.\n")
    assert run("replay", "--reason", "HTTP 400")[1].startswith("1 of 1 dead letter replayed.")
    assert run("replay", "--all")[1] == "No dead letters to replay.\n"
    found = of(run("events", "list", "--json"))
    assert {event["customer"]: event["state"] for event in found["events"]} == {
        "acme": "delivered",
        "beta": "pending",
        "gamma": "pending",
    }


def test_dead_letters_are_dropped(run: Run, forwarded: FleetLedger) -> None:
    """A dropped event is counted as that and not as billed."""
    del forwarded
    [dead] = of(run("dead-letters", "list", "--json"))["events"]
    assert dead["reason"] == "HTTP 400"
    assert run("dead-letters", "drop", dead["id"])[0] == 0
    found = of(run("usage", "--json"))
    assert found["states"]["dropped"] == 1


def test_one_event(run: Run, forwarded: FleetLedger) -> None:
    """An event is found by what the provider calls it; the body of a delivered one is not kept."""
    del forwarded
    [held] = of(run("events", "show", "req_3", "--json"))["events"]
    assert (held["state"], held["reason"], held["customer"]) == ("held", "no customer", None)
    assert held["event"]["metadata"]["response_id"] == "chatcmpl-3"
    [delivered] = of(run("events", "show", "chatcmpl-1", "--json"))["events"]
    assert (delivered["state"], delivered["event"]) == ("delivered", None)
    assert run("events", "show", "req_9")[0] == 1
    exported = run("events", "export", "--state", "held")[1].splitlines()
    assert [json.loads(line)["event"] for line in exported] == [held["event"]]


def test_a_host_that_has_gone_quiet(run: Run, database: str) -> None:
    """Each host has a line; one that says nothing for three minutes is marked, and needs a person."""
    now = time.time()
    for name, seen in (("web-1", now), ("web-2", now - 600)):
        ledger = FleetLedger(database, clock=lambda seen=seen: seen)
        ledger.report(HostReport(name, "0.9.0", seen, 10, 1, 0, 0, 0))
        ledger.close()
    status, out, _ = run("status", "--fleet")
    assert status == 1
    assert [" ".join(line.split()) for line in out.splitlines() if line.startswith(" web")] == [
        "web-1 0 s ago 1 0 0 0",
        "web-2 10 min ago, quiet 1 0 0 0",
    ]
    assert "! 1 host gone quiet (web-2)" in out
    status, out, _ = run("status", "--json")
    [fleet] = json.loads(out)["destinations"]
    assert (status, list(fleet["needs"])) == (1, ["quiet"])
    assert [host["quiet"] for host in fleet["hosts"]] == [False, True]


def test_all_is_well(run: Run, database: str) -> None:
    """With nothing to do the status is 0, and the states add up."""
    ledger = FleetLedger(database)
    ledger.store([arrival(1), arrival(2)])
    ledger.close()
    status, out, _ = run("status")
    assert status == 0
    assert "2 recorded" in out
    assert "= 0 delivered + 2 local" in " ".join(out.split())
    assert "Nothing needs you." in out


def test_what_is_set_aside_needs_a_person(run: Run, database: str) -> None:
    """What cannot be counted is not silent."""
    ledger = FleetLedger(database, clock=lambda: NOW)
    ledger.store([arrival(1)._replace(body=b"{"), arrival(2, timestamp=int(NOW) - 500 * DAY)])
    ledger.close()
    status, out, _ = run("status")
    assert status == 1
    assert "2 records set aside" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("usage",), 1, "there is no ledger of a fleet"),
        (("assign", "--customer", "acme", "--all"), 1, "there is no ledger of a fleet"),
        (("usage", "--ledger", "postgresql://a:hunter2%zz@db/x"), 2, "cannot be read; expected is"),
        (
            ("usage", "--ledger", "postgresql://db/x", "--destination", "local"),
            2,
            "--ledger excludes",
        ),
        (("replay", "--local", "--since", "7d"), 2, "not with --ledger"),
        (("jobs", "--ledger", "postgresql://db/x"), 2, "for what is on this host"),
        (("flush", "--ledger", "postgresql://db/x"), 2, "for what is on this host"),
        (("drain", "--ledger", "postgresql://db/x"), 2, "for what is on this host"),
        (("dashboard", "--ledger", "postgresql://db/x"), 2, "for what is on this host"),
        (
            ("usage", "--ledger", "postgresql://a:hunter2@127.0.0.1:1/x"),
            1,
            "127.0.0.1:1/x cannot be read",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_done(run: Run, arguments: tuple[str, ...], status: int, said: str) -> None:
    """One line says what is wrong, without the password."""
    found, out, err = run(*arguments)
    assert (found, out) == (status, "")
    assert said in err


def test_doctor(run: Run, forwarded: FleetLedger) -> None:
    """What needs a person in the ledger is among what is found."""
    found = json.loads(run("doctor", "--json")[1])["findings"]
    name = forwarded.name
    ours = [finding["what"] for finding in found if name in finding["what"]]
    assert ours == [f"Ledger {name}: 1 held, no customer.", f"Ledger {name}: 1 dead letter."]


def test_whoever_decides_need_not_own_the_tables(
    run: Run, forwarded: FleetLedger, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role that may read and write the tables, and make none, can assign."""
    del forwarded
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE operator LOGIN")
        connection.execute(
            "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO operator"
        )
        try:
            monkeypatch.setenv("CMDRDATA_LEDGER", database.replace("postgres@", "operator@"))
            assert run("assign", "--customer", "gamma", "--all")[:2] == (
                0,
                "1 of 1 held event assigned.\nA gateway sends them as soon as it can.\n",
            )
        finally:
            connection.execute("DROP OWNED BY operator")
            connection.execute("DROP ROLE operator")


def test_a_named_destination_comes_first(run: Run) -> None:
    """With the variable set for good, the events of this host are still within reach."""
    _, _, err = run("usage", "--destination", "local")
    assert "no events recorded in" in err


def test_hosts_need_a_ledger(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--fleet` says what it needs."""
    monkeypatch.delenv("CMDRDATA_LEDGER")
    assert run("status", "--fleet")[0] == 2
