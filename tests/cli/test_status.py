"""`cmdrdata status`: where every event is, and what needs a person."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cmdrdata_exporter.cli import destination, status, terminal
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.records import Command, encode_command
from tests.cli.conftest import Run
from tests.ledgers import (
    AMBIGUOUS,
    DELIVERED,
    ENDPOINT,
    IN_FLIGHT,
    NOW,
    REFUSED,
    fill,
    record,
)

PAUSED = {
    "pid": os.getpid(),
    "at": NOW,
    "paused": True,
    "probing": True,
    "reason": "HTTP 401",
    "next_attempt": NOW + 60,
}

NOTHING_COUNTED = dict.fromkeys(status.COUNTED, 0)


def always(value: object) -> Callable[..., object]:
    """Return a function that returns a value, whatever it is asked."""
    return lambda *_: value


@pytest.fixture(autouse=True)
def time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is three minutes after everything, and every directory has 3 MiB."""
    monkeypatch.setattr(terminal, "time", SimpleNamespace(time=lambda: NOW + 180))
    monkeypatch.setattr(Directory, "size", always(3 << 20))


@pytest.fixture
def leader(remote: Directory) -> Iterator[int]:
    """This process leads in the directory."""
    lock_file = remote.try_to_lead()
    assert lock_file is not None
    yield os.getpid()
    os.close(lock_file)


def test_everything_as_json(
    remote: Directory, leader: int, run_json: Callable[..., tuple[int, Any]], spool: Path
) -> None:
    """A script gets every count, the reasons, who sends and why not, and what needs a person."""
    records = [record(number) for number in range(1, 9)]
    outcomes = [DELIVERED, DELIVERED, REFUSED, AMBIGUOUS, AMBIGUOUS, IN_FLIGHT]
    fill(remote, [*records, records[0], record(9, None)], outcomes, facts=PAUSED)
    commands.append(remote, [record(10)])
    needs = {
        "paused": "Paused: the backend refuses the key or endpoint (HTTP 401). Check both; all events are kept",
        "no_customer": "1 held, no customer: cmdrdata held list, then cmdrdata assign",
        "dead": "1 dead letter: cmdrdata dead-letters list, then cmdrdata replay",
    }
    assert (
        1,
        {
            "spool_dir": str(spool),
            "unusable": None,
            "destinations": [
                {
                    "name": remote.path.name,
                    "endpoint": ENDPOINT,
                    "account": "default",
                    "directory": str(remote.path),
                    "events": {
                        "recorded": 10,
                        "delivered": 2,
                        "local": 0,
                        "pending": 5,
                        "in_flight": 1,
                        "held": 1,
                        "dead": 1,
                        "dropped": 0,
                    },
                    "oldest_pending": "2026-11-21T18:33:20Z",
                    "held": {"no customer": 1},
                    "dead": {"HTTP 400": 1},
                    "sending": {
                        "leader": leader,
                        "state": "paused",
                        "reason": "HTTP 401",
                        "next_attempt": "2026-11-21T18:34:20Z",
                        "as_of": "2026-11-21T18:33:20Z",
                    },
                    "spool": {
                        "bytes": 3 << 20,
                        "limit": 1 << 30,
                        "nearly_full": False,
                        "journals": 1,
                        "not_imported": 1,
                    },
                    "index": {
                        "there": False,
                        "events": 0,
                        "missing_before": None,
                        "filling": False,
                        "reason": None,
                    },
                    "counted": {**NOTHING_COUNTED, "repeated": 1, "ambiguous": 2},
                    "incomplete_usage": {"since": terminal.day(6), "missing": 0, "partial": 0},
                    "attention": list(needs.values()),
                    "needs": needs,
                }
            ],
        },
    ) == run_json("status")


def test_where_no_application_sends(
    remote: Directory,
    run_json: Callable[..., tuple[int, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where applications are told not to deliver, a process that does is missing."""
    fill(remote, [record(1)])
    monkeypatch.setenv("CMDRDATA_DRAIN", "none")
    _, found = run_json("status")
    (destination,) = found["destinations"]
    assert destination["attention"] == [
        "1 event to send, but no process sends: CMDRDATA_DRAIN is none, so start cmdrdata drain, or run "
        "cmdrdata flush"
    ]


def test_everything_for_a_reader(remote: Directory, local: Directory, run: Run) -> None:
    """At 80 columns a reader sees that the counts are a sum, and what to do."""
    records = [record(number) for number in range(1, 9)]
    outcomes = [DELIVERED, DELIVERED, REFUSED, AMBIGUOUS, AMBIGUOUS, IN_FLIGHT]
    fill(
        remote,
        [*records, record(9, None)],
        outcomes,
        hold_ambiguous=True,
        facts={**PAUSED, "pid": 1},
    )
    commands.append(remote, [record(10)])
    fill(local, [record(11)], local=True)
    done = run("status")
    assert (1, "") == (done.returncode, done.stderr)
    name = remote.path.name
    directory = {name: remote.path, "local": local.path}
    assert (
        f"""
{f"{name} ".ljust(80, "─")}
Events go to {ENDPOINT}, account default.
Kept in {directory[name]}.
No process sends them now. The last one was paused: the backend refuses the key
or endpoint (HTTP 401), as of 2026-11-21T18:33:20Z.

     10 recorded
=     2 delivered
+     0 local
+     3 pending   the oldest for 3 min
+     1 in flight
+     3 held      2 ambiguous, 1 no customer
+     1 dead      1 HTTP 400
+     0 dropped

Disk: 3 MiB of 1.0 GiB (0%).
Not imported yet: 1 pending event, in 1 journal.
Also counted:
2 ambiguous: attempts whose answer was lost; each may be billed twice

Needs you:
! Paused: the backend refuses the key or endpoint (HTTP 401). Check both; all
  events are kept
! 4 events to send, but no process sends: start the application, or run cmdrdata
  flush
! 1 held, no customer: cmdrdata held list, then cmdrdata assign
! 2 held, ambiguous: cmdrdata held list, then cmdrdata replay --ambiguous
! 1 dead letter: cmdrdata dead-letters list, then cmdrdata replay

{"local ".ljust(80, "─")}
Events stay on this host.
Kept in {directory["local"]}.
No process keeps the ledger now.

      1 recorded
=     0 delivered
+     1 local
+     0 pending
+     0 in flight
+     0 held
+     0 dead
+     0 dropped

Disk: 3 MiB of 1.0 GiB (0%).

Nothing needs you.

Commands use the destination from the environment unless --destination NAME is
given.
"""
        == done.stdout
    )


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "Process {pid} sends them."),
        (
            PAUSED,
            "Process {pid} sends them. It is paused: the backend refuses the key or endpoint\n"
            "(HTTP 401), next attempt at 2026-11-21T18:34:20Z.",
        ),
        (
            {**PAUSED, "paused": False, "reason": "HTTP 503"},
            "Process {pid} sends them. It is probing: one attempt at a time, since the backend\n"
            "is in trouble (HTTP 503), next attempt at 2026-11-21T18:34:20Z.",
        ),
        ({**PAUSED, "probing": False, "paused": False}, "Process {pid} sends them."),
        # What another process has noted before this one led says nothing about it.
        ({**PAUSED, "pid": 1}, "Process {pid} sends them."),
    ],
)
def test_who_sends(
    *,
    facts: dict[str, object],
    said: str,
    remote: Directory,
    leader: int,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process that leads is named, and what it has noted of the backend is said."""
    pid = 4711
    monkeypatch.setattr(Directory, "leader", always(pid))
    if facts.get("pid") == leader:
        facts = {**facts, "pid": pid}
    fill(remote, [record(1)], [DELIVERED], facts=facts)
    assert f"{said.format(pid=pid)}\n\n" in run("status").stdout


@pytest.mark.parametrize(
    ("waits", "said"),
    [
        (899, []),
        (
            900,
            [
                "Events wait: the backend cannot be reached or fails (HTTP 503), for 15 min now. "
                "All events are kept"
            ],
        ),
    ],
)
@pytest.mark.usefixtures("leader")
def test_a_long_outage_needs_a_person(
    waits: int, said: list[str], remote: Directory, run_json: Callable[..., tuple[int, Any]]
) -> None:
    """An outage is waited out; one that lasts is said."""
    facts = {**PAUSED, "paused": False, "reason": "HTTP 503"}
    fill(remote, [record(1)], now=NOW + 180 - waits, facts=facts)
    code, found = run_json("status")
    assert (int(bool(said)), said) == (code, found["destinations"][0]["attention"])


def test_all_is_well(
    remote: Directory, leader: int, run_json: Callable[..., tuple[int, Any]]
) -> None:
    """Events that wait for a process that sends need nobody: status 0."""
    fill(remote, [record(1), record(2)], [DELIVERED], facts={})
    code, found = run_json("status")
    assert (0, []) == (code, found["destinations"][0]["attention"])


@pytest.mark.parametrize("what", ["link", "open to all", "no directory", "below a file"])
def test_a_directory_that_the_application_refuses(
    tmp_path: Path, run_json: Callable[..., tuple[int, Any]], what: str
) -> None:
    """Where no event can be kept, `status` says why, as the application does, and ends with 1."""
    spool = tmp_path / "refused"
    told = {
        "link": "is a symbolic link; events are kept in real directories",
        "open to all": "can be written by other users",
        "no directory": "is no directory; events are kept in real directories",
        "below a file": "cannot be made by this user",
    }[what]
    if what == "link":
        spool.symlink_to(tmp_path)
    elif what == "open to all":
        spool.mkdir()
        spool.chmod(0o777)
    else:
        spool.touch()
    if what == "below a file":
        spool = spool / "below"
    code, found = run_json("status", "--spool-dir", str(spool))
    assert (1, []) == (code, found["destinations"])
    assert found["unusable"].startswith(f"{str(spool)!r} {told}")


def test_nothing_yet(run: Run, spool: Path) -> None:
    """Before the first event that is said, and is no fault; the directory can be named."""
    done = run("status", "--spool-dir", str(spool / "elsewhere"))
    # A path is one word, wherever a narrow terminal cuts it.
    assert (
        f"No events recorded in {spool}/elsewhere yet. If the application uses another directory, "
        "set CMDRDATA_SPOOL_DIR or --spool-dir to it."
    ) == " ".join(done.stdout.split()).replace("- ", "-")
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (
            1,
            '1 event could not be written to the disk: look for "cmdrdata": "unspooled" in the application\'s log',
        ),
        (
            2,
            '2 events could not be written to the disk: look for "cmdrdata": "unspooled" in the application\'s log',
        ),
    ],
)
def test_what_is_in_the_log_needs_a_person(
    number: int, said: str, remote: Directory, run_json: Callable[..., tuple[int, Any]]
) -> None:
    """Events that could not be written are nowhere but in the log."""
    commands.take_in(remote, [encode_command(Command("unspooled", (), number=number))], timeout=0)
    code, found = run_json("status")
    assert (1, [said]) == (code, found["destinations"][0]["attention"])


def test_damage_and_room_need_a_person(
    remote: Directory,
    run_json: Callable[..., tuple[int, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Damaged records, lost events and a directory that is nearly full are said."""
    monkeypatch.setattr(Directory, "size", always(900 << 20))
    fill(remote, [b"no record"])
    ledger = Ledger(remote)
    with ledger.transaction():
        ledger._counts["lost"] += 2
    ledger.close()
    code, found = run_json("status")
    assert (
        1,
        [
            "1 damaged record: check the disk",
            "2 events lost in a damaged ledger: check the disk",
            "Disk: 900 MiB of 1.0 GiB are used; beyond that new events go to the application's log",
        ],
    ) == (code, found["destinations"][0]["attention"])


def test_a_ledger_that_cannot_be_read(
    remote: Directory, run: Run, run_json: Callable[..., tuple[int, Any]]
) -> None:
    """It is named with what is wrong, and the other destinations are shown."""
    (remote.path / LEDGER).write_bytes(b"no database" * 1000)
    code, found = run_json("status")
    assert (1, ["the ledger cannot be read: file is not a database"]) == (
        code,
        found["destinations"][0]["attention"],
    )
    assert "! the ledger cannot be read: file is not a database\n" in run("status").stdout


def test_a_directory_of_another_user(
    remote: Directory, run: Run, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not read it is told as whom to run the command."""
    monkeypatch.setattr(destination.os, "access", always(False))
    owner = pwd.getpwuid(os.geteuid()).pw_name
    done = run("status")
    assert (
        2,
        f"Error: {spool} cannot be read by this user; "
        f"run the command as its owner: sudo -u {owner} cmdrdata ...\n",
    ) == (done.returncode, done.stderr)


def test_calls_that_told_no_usage(
    remote: Directory, run: Run, run_json: Callable[..., tuple[int, Any]]
) -> None:
    """Those of the last week need a person, since what made them can still be mended; older ones do not for ever."""
    days = {1: 0, 2: 6, 3: 7, 4: 100}
    fill(
        remote,
        [record(number, status="missing", day=terminal.day(ago)) for number, ago in days.items()]
        + [record(5, status="partial", day=terminal.day(1))],
        5 * [DELIVERED],
    )
    code, found = run_json("status")
    [destination] = found["destinations"]
    assert 1 == code
    assert {"since": terminal.day(6), "missing": 2, "partial": 1} == destination["incomplete_usage"]
    assert [
        "2 calls of the last 7 days reported no usage, so no tokens are billed: "
        "cmdrdata events list --no-usage; for streams see CMDRDATA_STREAM_USAGE"
    ] == destination["attention"]
    assert "! 2 calls of the last 7 days reported no usage" in run("status").stdout
