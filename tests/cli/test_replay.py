"""`cmdrdata replay`: what went no further is sent again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from tests.cli.conftest import Run
from tests.ledgers import (
    AMBIGUOUS,
    DELIVERED,
    REFUSED,
    fill,
    record,
)

RunJson = Callable[..., tuple[int, Any]]
NOBODY_SENDS = "No process sends them now: start the application, or run cmdrdata flush.\n"


def pending(directory: Directory) -> dict[str, str | None]:
    """Return the numbers of the events that are to be sent, with their customers."""
    with LedgerReader(directory) as ledger:
        return {
            kept.event.id[:4]: kept.event.header.customer
            for kept in ledger.kept("pending")
            if kept.event
        }


@pytest.fixture(autouse=True)
def stuck(remote: Directory) -> None:
    """Two dead letters, two held events, and one that was delivered."""
    fill(
        remote,
        [record(1), record(2), record(3), record(4), record(5, None)],
        [REFUSED, Outcome(Verdict.REFUSED, "HTTP 413"), AMBIGUOUS, DELIVERED],
        hold_ambiguous=True,
    )


@pytest.mark.parametrize(
    ("options", "replayed"),
    [
        (["--all"], ["0001", "0002"]),
        (["--reason", "HTTP 413"], ["0002"]),
        (["--reason", "HTTP 422"], []),
        (["--ambiguous"], ["0003"]),
        (["0001", "0003"], ["0001", "0003"]),
    ],
)
def test_what_is_chosen(
    options: list[str], replayed: list[str], remote: Directory, run_json: RunJson
) -> None:
    """Dead letters by ids, reason or all, and those that are held as ambiguous; they are to be sent then."""
    number = len(replayed)
    assert (0, {"selected": number, "replayed": number, "in_time": True}) == run_json(
        "replay", *options
    )
    assert dict.fromkeys(replayed, "acme") == pending(remote)


def test_what_a_reader_sees(remote: Directory, run: Run) -> None:
    """How many, and which process sends them."""
    asked = threading.Event()

    def refuse(event_id: str, body: bytes, timeout: float) -> Outcome:
        asked.set()
        return REFUSED

    commands.append(remote, [record(6)])
    leader = DurableDelivery(remote, Options(post=refuse))
    leader.start()
    try:
        assert asked.wait(10)
        done = run("replay", "--reason", "HTTP 413")
    finally:
        leader.close(1)
    assert (
        0,
        f"1 of 1 dead letter replayed.\nProcess {os.getpid()} sends them as soon as it can.\n",
    ) == (
        done.returncode,
        done.stdout,
    )


def test_a_damaged_event_is_not_sent(remote: Directory, run: Run) -> None:
    """Status 1: fewer were replayed than chosen, and it stays where it is."""
    ledger = Ledger(remote)
    ledger._db.execute("UPDATE events SET crc = crc + 1 WHERE reason = 'HTTP 413'")
    ledger.close()
    done = run("replay", "--all")
    assert (1, f"1 of 2 dead letters replayed.\n{NOBODY_SENDS}") == (done.returncode, done.stdout)
    assert {"0001": "acme"} == pending(remote)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "choose the events: by their ids, or with one of --all, --reason,"),
        (["--all", "--ambiguous"], "choose the events: by their ids, or with one of"),
        (["0001", "--since", "2026-11-01"], "--since and --until belong to --local"),
        (["0005"], "no dead letter or ambiguous event has an id that begins with '0005'"),
        (["--local"], "--local needs --since, the first day to be sent"),
        (
            ["--local", "--since", "2026-11-01", "--destination", "local"],
            "--local sends to the destination of the environment",
        ),
    ],
)
def test_what_cannot_be_done(options: list[str], message: str, remote: Directory, run: Run) -> None:
    """Status 2, and nothing is changed."""
    done = run("replay", *options)
    assert (2, "") == (done.returncode, done.stdout)
    assert f"Error: {message}" in done.stderr
    assert {} == pending(remote)
