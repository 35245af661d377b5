"""How a command's destination is named: by its directory, by its account where that is clear, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.cli.conftest import Run
from tests.ledgers import DELIVERED, ENDPOINT, REFUSED, fill, record

RunJson = Callable[..., tuple[int, Any]]
OTHER = "https://eu.cmdrdata.test/api/events"


@pytest.fixture
def team(spool: Path) -> Directory:
    """The directory of another account."""
    return Directory.prepare(spool, ENDPOINT, "team")


@pytest.fixture
def filled(remote: Directory, team: Directory, local: Directory) -> None:
    """What three destinations recorded."""
    fill(remote, [record(1), record(2, "globex")], [DELIVERED, REFUSED])
    fill(team, [record(3), record(4, status="missing", units={})], [DELIVERED])
    fill(local, [record(5, status="missing")], local=True)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    "command", [("usage",), ("held", "list"), ("dead-letters", "list"), ("jobs",)]
)
def test_an_account(command: tuple[str, ...], run: Run) -> None:
    """Its name will do where no other destination has it; where events stay, only `local` will."""
    for name in ("team", "local"):
        assert "" == run(*command, "--destination", name).stderr
    assert 2 == run(*command, "--destination", "eu").returncode


def test_an_account_of_its_own(team: Directory, remote: Directory, run_json: RunJson) -> None:
    """It is the one that was meant; the account of local events is nobody's."""
    for name, directory in (("team", team), ("default", remote), (team.path.name, team)):
        assert directory.path.name == run_json("usage", "--destination", name)[1]["destination"]


def test_an_account_of_several(team: Directory, spool: Path, run: Run) -> None:
    """Status 2, with the names that tell them apart."""
    other = Directory.prepare(spool, OTHER, "team")
    done = run("usage", "--destination", "team")
    listed = sorted([(team.path.name, ENDPOINT), (other.path.name, OTHER)])
    assert (
        2,
        f"Error: 2 destinations have the account 'team' in {spool}. "
        "Choose one of these with --destination NAME:\n"
        + "".join(f"  {name}  (account team at {endpoint})\n" for name, endpoint in listed),
    ) == (done.returncode, done.stderr)


@pytest.mark.usefixtures("local")
def test_no_account_of_local_events(run: Run) -> None:
    """The directory of local events belongs to no account."""
    assert 2 == run("usage", "--destination", "default").returncode


def test_an_account_that_sends(remote: Directory, spool: Path, run: Run, run_json: RunJson) -> None:
    """`flush` takes the account of the environment; not that of another one, nor one that several have."""
    assert 0 == run_json("flush", "--destination", "default")[0]
    refused = run("flush", "--destination", "team")
    assert (2, True) == (refused.returncode, "this environment has the key of" in refused.stderr)
    Directory.prepare(spool, OTHER, "default")
    assert 2 == run("flush", "--destination", "default").returncode


@pytest.mark.usefixtures("filled")
def test_all_destinations(remote: Directory, team: Directory, run: Run, run_json: RunJson) -> None:
    """One report of all: rows are summed, destinations named, and the states are of all of them."""
    names = sorted([remote.path.name, team.path.name, "local"])
    _, found = run_json("usage", "--destination", "all")
    assert {
        "destination": "all",
        "destinations": names,
        "rows": [("acme", 4, 3000), ("globex", 1, 1000)],
        "states": {"delivered": 2, "local": 1, "pending": 1, "dead": 1},
        "incomplete_usage": {"missing": 2, "partial": 0},
    } == {
        **{name: found[name] for name in ("destination", "destinations", "incomplete_usage")},
        "rows": [
            (row["customer"], row["events"], row["units"]["input_tokens"]) for row in found["rows"]
        ],
        "states": {state: count for state, count in found["states"].items() if count},
    }
    assert (
        f"The sum of 3 destinations: {', '.join(names)}. "
        "A local event that was replayed to another one is counted in both.\n\n"
        "5 events = 2 delivered + 1 local + 1 pending + 1 dead. "
    ) in run("usage", "--destination", "all").stdout


@pytest.mark.usefixtures("filled")
def test_by_destination(remote: Directory, team: Directory, run_json: RunJson) -> None:
    """Each row may also be of one destination."""
    _, found = run_json("usage", "--destination", "all", "--by", "destination,customer")
    assert sorted(
        [
            (remote.path.name, "acme", 1),
            (remote.path.name, "globex", 1),
            (team.path.name, "acme", 2),
            ("local", "acme", 1),
        ]
    ) == [(row["destination"], row["customer"], row["events"]) for row in found["rows"]]


def test_all_of_nothing(run: Run, spool: Path, remote: Directory) -> None:
    """Nothing used is said of all; status 2 where there is no destination, and of commands that take one alone."""
    Directory.prepare(spool, OTHER, "default")
    assert run("usage", "--destination", "all").stdout.startswith("No usage recorded for any of ")
    assert 2 == run("usage", "--destination", "all", "--spool-dir", str(spool / "none")).returncode
    assert 2 == run("held", "list", "--destination", "all").returncode
