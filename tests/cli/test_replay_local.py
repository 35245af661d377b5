"""`cmdrdata replay --local`: events that stayed on this host are sent, once there is a key."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cmdrdata_exporter.delivery import FOR_EVER
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from tests.cli.conftest import Run
from tests.ledgers import (
    DELIVERED,
    KEY,
    body,
    event_id,
    fill,
    record,
)

RunJson = Callable[..., tuple[int, Any]]
NOBODY_SENDS = "No process sends them now: start the application, or run cmdrdata flush.\n"


def counts(directory: Directory) -> dict[str, int]:
    """Return the counts of a ledger that are not 0."""
    with LedgerReader(directory) as ledger:
        return {name: number for name, number in ledger.counts().items() if number}


@pytest.fixture(autouse=True)
def kept(local: Directory) -> None:
    """Events of three days, and one that is held."""
    fill(
        local,
        [
            record(1, day="2026-11-19"),
            record(2),
            record(3, day="2026-11-21"),
            record(4, None),
        ],
        local=True,
    )


def test_once_and_for_ever(
    remote: Directory, local: Directory, run: Run, run_json: RunJson
) -> None:
    """The same events again bill nothing, not even after their delivery; they stay local in their own ledger."""
    name = remote.path.name
    done = run("replay", "--local", "--since", "2026-11-20", "--until", "2026-11-20")
    assert (
        0,
        f"1 of 1 local event added to {name}; 0 already there.\n{NOBODY_SENDS}",
    ) == (done.returncode, done.stdout)
    with LedgerReader(remote) as ledger:
        [kept] = ledger.kept("pending")
    assert kept.event
    assert (event_id(2), FOR_EVER) == (kept.event.id, kept.event.header.remember)
    assert body(2) == json.loads(kept.event.body)
    fill(remote, [], [DELIVERED], now=kept.since)

    expected = {"selected": 2, "known": 1, "replayed": 1, "in_time": True, "destination": name}
    assert (0, expected) == run_json("replay", "--local", "--since", "2026-11-20")
    expected |= {"known": 2, "replayed": 0}
    assert (0, expected) == run_json("replay", "--local", "--since", "2026-11-20")
    assert {"recorded": 2, "delivered": 1, "pending": 1} == counts(remote)
    assert {"recorded": 4, "local": 3, "held": 1} == counts(local)


def test_a_destination_without_events_yet(
    local: Directory, run_json: RunJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory is made, as the application would."""
    monkeypatch.setenv("CMDRDATA_API_KEY", KEY)
    monkeypatch.setenv("CMDRDATA_ACCOUNT", "new")
    code, found = run_json("replay", "--local", "--since", "2026-11-01")
    assert (0, 3, 3) == (code, found["selected"], found["replayed"])
    assert found["destination"].startswith("new-")


def test_without_a_key(local: Directory, run: Run) -> None:
    """Status 2: what stays local by the settings is not sent anywhere."""
    done = run("replay", "--local", "--since", "2026-11-01")
    assert (
        2,
        "Error: the destination of the environment is local too: "
        "set CMDRDATA_API_KEY (and CMDRDATA_ENDPOINT), as the application will have them\n",
    ) == (done.returncode, done.stderr)


@pytest.mark.usefixtures("remote")
def test_nothing_of_those_days(run: Run) -> None:
    """That is no fault."""
    done = run("replay", "--local", "--since", "2027-01-01")
    assert (0, "0 of 0 local events added to ") == (done.returncode, done.stdout[:29])
