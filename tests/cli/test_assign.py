"""`cmdrdata assign`: events without a customer get one, and go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cmdrdata_exporter.cli import changes, destination
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.schema import MIGRATIONS, UnknownVersionError
from tests.cli.conftest import Run
from tests.ledgers import (
    AMBIGUOUS,
    body,
    event_id,
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


@pytest.fixture
def leading(remote: Directory) -> Iterator[None]:
    """A process leads, and does nothing."""
    lock_file = remote.try_to_lead()
    assert lock_file is not None
    yield
    os.close(lock_file)


@pytest.fixture(autouse=True)
def unattributed(remote: Directory) -> None:
    """Three events without a customer, and an ambiguous one of a customer."""
    fill(
        remote,
        [
            record(4),
            record(1, None),
            record(2, None, model="whisper-1"),
            record(3, None, day="2026-11-22"),
        ],
        [AMBIGUOUS],
        hold_ambiguous=True,
    )


@pytest.mark.parametrize(
    ("options", "assigned"),
    [
        (["--all"], ["0001", "0002", "0003"]),
        (["0001", event_id(3)], ["0001", "0003"]),
        (["--model", "whisper-1"], ["0002"]),
        (["--since", "2026-11-21"], ["0003"]),
        (["--since", "2026-11-20", "--model", "gpt-5-mini"], ["0001", "0003"]),
    ],
)
def test_who_is_chosen(
    options: list[str], assigned: list[str], remote: Directory, run_json: RunJson
) -> None:
    """Ids, all, or a model and a first day; they are to be sent then, in the customer's name."""
    number = len(assigned)
    assert (
        0,
        {"selected": number, "assigned": number, "in_time": True, "customer": "globex"},
    ) == run_json("assign", "--customer", "globex", *options)
    assert dict.fromkeys(assigned, "globex") == pending(remote)


@pytest.mark.parametrize(
    ("options", "assigned"),
    [
        (["--refused-value", "1001"], ["0005"]),
        (["--refused-value", "a\nb"], ["0006"]),
        (["--refused-value", r"'a\nb'"], ["0006"]),
        (["--refused-value", ""], []),
        (["--call-site", "app/chat.py:42 Bot.ask"], ["0005", "0006"]),
        (["--call-site", "app/chat.py:42"], ["0005", "0006"]),
        (["--call-site", "app/chat.py"], ["0005", "0006"]),
        (["--call-site", "app/chat.py:4"], []),
        (["--call-site", ""], []),
        (["--metadata", "plan=pro"], ["0005", "0007"]),
        (["--metadata", "seats=5"], ["0006"]),
        (["--metadata", "seats=1.50"], ["0007"]),
        (["--metadata", "trial=true"], ["0007"]),
        (["--metadata", "note="], ["0007"]),
        (["--metadata", "equation=a=b"], ["0005"]),
        (["--metadata", "nothing=pro"], []),
        (["--metadata", "plan=pro", "--metadata", "trial=true"], ["0007"]),
        (["--metadata", "plan=pro", "--model", "whisper-1"], ["0007"]),
        (["--refused-value", "1001", "--call-site", "elsewhere"], []),
    ],
)
def test_chosen_by_what_is_in_them(
    options: list[str], assigned: list[str], remote: Directory, run_json: RunJson
) -> None:
    """The value that was refused, the place in the code, any metadata: an event has all that is asked for."""
    place = "app/chat.py:42 Bot.ask"
    refused = {"customer_refused": "not a string", "customer_refused_value": "1001"}
    quoted = {
        "customer_refused": "holds control characters",
        "customer_refused_value": r"'a\nb'",
    }
    last: dict[str, object] = {"plan": "pro", "trial": True, "seats": 1.5, "note": ""}
    text = json.dumps(body(7, None, last), separators=(",", ":")).replace("1.5", "1.50")
    fill(
        remote,
        [
            record(
                5, None, metadata={**refused, "call_site": place, "plan": "pro", "equation": "a=b"}
            ),
            record(6, None, metadata={**quoted, "call_site": place, "seats": 5}),
            record(7, None, model="whisper-1").partition(b"\n")[0] + b"\n" + text.encode(),
            record(8, None, metadata={"plan": None, "seats": "many"}),
        ],
    )
    number = len(assigned)
    assert (
        0,
        {"selected": number, "assigned": number, "in_time": True, "customer": "globex"},
    ) == run_json("assign", "--customer", "globex", *options)
    assert dict.fromkeys(assigned, "globex") == pending(remote)


def test_a_customer_with_blanks(run: Run) -> None:
    """It is taken as it is, and told."""
    done = run("assign", "--customer", "acme ", "0001")
    assert (
        0,
        f"1 of 1 held event assigned.\n{NOBODY_SENDS}",
        "Note: --customer begins or ends with a blank, which makes it another customer.\n",
    ) == (done.returncode, done.stdout, done.stderr)


def test_what_a_reader_sees(run: Run) -> None:
    """How many, and who sends them; once there are none, that is no fault."""
    done = run("assign", "--customer", "Größe & Söhne", "--all")
    assert (0, f"3 of 3 held events assigned.\n{NOBODY_SENDS}", "") == (
        done.returncode,
        done.stdout,
        done.stderr,
    )
    done = run("assign", "--customer", "globex", "--all")
    assert (0, "No held events to assign.\n") == (
        done.returncode,
        done.stdout,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--customer", "", "--all"], "--customer is empty; expected are 1 to 256 characters"),
        (["--customer", "a\x07", "--all"], "--customer holds control characters; expected"),
        (["--customer", "acme"], "choose the events by their ids, by --model, --since"),
        (
            ["--customer", "acme", "--metadata", "plan"],
            "--metadata is 'plan'; expected is KEY=VALUE",
        ),
        (["--customer", "acme", "--metadata", "=pro"], "--metadata is ''; expected is KEY=VALUE"),
        (["--customer", "acme", "--call-site", "a", "0001"], "choose the events by their ids, by"),
        (["--customer", "acme", "--all", "0001"], "choose the events by their ids, by"),
        (["--customer", "acme", "0004"], "no held event has an id that begins"),
        (["--all"], "Missing option '--customer'"),
    ],
)
def test_what_cannot_be_done(options: list[str], message: str, remote: Directory, run: Run) -> None:
    """Status 2, and nothing is changed."""
    done = run("assign", *options)
    assert (2, "") == (done.returncode, done.stdout)
    assert f"Error: {message}" in done.stderr
    assert {} == pending(remote)


@pytest.mark.usefixtures("leading")
def test_a_leader_that_stands_still(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 1: it is said that it will be done, and by whom."""
    # What is waited for, and what is said of it.
    for module in (destination, changes):
        monkeypatch.setattr(module, "TIMEOUT", 0.0)
    done = run("assign", "--customer", "globex", "0001")
    assert (
        1,
        "0 of 1 held event assigned.\n",
        "The leader has not answered within 0 s; it applies the rest when it continues. "
        "See: cmdrdata status\n",
    ) == (done.returncode, done.stdout, done.stderr)


def test_the_directory_of_another_user(
    remote: Directory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written that the application could not read."""
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    done = run("assign", "--customer", "globex", "--all")
    assert 2 == done.returncode
    assert done.stderr.startswith(
        f"Error: {remote.path} belongs to another user; run the command as"
    )
    assert [] == remote.journals()


def test_a_ledger_of_a_later_version(remote: Directory, run: Run) -> None:
    """Status 1, with both versions."""
    ledger = Ledger(remote)
    ledger._db.execute("PRAGMA user_version = 99")
    ledger.close()
    done = run("assign", "--customer", "globex", "--all")
    assert (
        1,
        f"Error: its ledger is of version 99, and this release knows version {len(MIGRATIONS)}\n",
    ) == (
        done.returncode,
        done.stderr,
    )
    with pytest.raises(UnknownVersionError):
        Ledger(remote)
