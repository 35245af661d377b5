"""`cmdrdata flush` and `cmdrdata drain`: processes of their own, which send as the application does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from cmdrdata_exporter.cli import sending
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from tests.cli.conftest import Run
from tests.ledgers import ENDPOINT, KEY, NOW, REFUSED, event_id, fill, record

PROGRAM = Path(sys.executable).with_name("cmdrdata")


@pytest.fixture
def backend(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """A backend on loopback, which is that of the environment."""
    monkeypatch.setenv("CMDRDATA_API_KEY", KEY)
    monkeypatch.setenv("CMDRDATA_ENDPOINT", httpserver.url_for("/api/events"))
    return httpserver


@pytest.fixture
def directory(backend: HTTPServer, spool: Path) -> Directory:
    """The directory of its destination."""
    return Directory.prepare(spool, backend.url_for("/api/events"), "default")


def answer(backend: HTTPServer, status: int) -> None:
    """Have every event answered so."""
    backend.expect_request("/api/events", method="POST").respond_with_data(status=status)


def arrived(backend: HTTPServer) -> list[str]:
    """Return the first digits of the ids of the events that arrived."""
    return sorted(request.headers["Idempotency-Key"][:4] for request, _ in backend.log)


def flush(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `cmdrdata flush` in a process of its own."""
    return subprocess.run(
        [PROGRAM, "flush", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def test_flush_delivers(backend: HTTPServer, directory: Directory) -> None:
    """With nobody else to send it sends what is in the ledger and in journals, and says what is left."""
    answer(backend, 201)
    fill(directory, [record(1), record(2), record(3, None)], [REFUSED])
    commands.append(directory, [record(4)])
    done = flush()
    assert (0, "2 events delivered. Left: 0 pending, 0 in flight, 1 held, 1 dead.\n", "") == (
        done.returncode,
        done.stdout,
        done.stderr,
    )
    assert ["0002", "0004"] == arrived(backend)
    assert f"Bearer {KEY}" == backend.log[0][0].headers["Authorization"]


def test_flush_ends_where_waiting_is_in_vain(backend: HTTPServer, directory: Directory) -> None:
    """A backend that refuses the key is not waited for: status 1, and why."""
    answer(backend, 401)
    commands.append(directory, [record(1)])
    done = flush("--timeout", "20")
    assert (
        1,
        "0 events delivered. Left: 1 pending, 0 in flight, 0 held, 0 dead.\n"
        "Blocked by: HTTP 401. All events are kept.\n",
        "",
    ) == (
        done.returncode,
        done.stdout,
        done.stderr.partition("\n")[2],
    )
    assert done.stderr.startswith(
        "delivery is paused: the backend refuses the key or endpoint (HTTP 401)"
    )


def test_flush_as_json(backend: HTTPServer, directory: Directory) -> None:
    """A script gets what was delivered, what is left and why."""
    answer(backend, 401)
    fill(directory, [record(1), record(2, None)])
    done = flush("--json")
    assert (
        1,
        {
            "delivered": 0,
            "left": {"pending": 1, "in_flight": 0, "held": 1, "dead": 0},
            "reason": "HTTP 401",
        },
    ) == (done.returncode, json.loads(done.stdout))
    backend.clear()
    answer(backend, 201)
    done = flush("--json")
    assert (
        0,
        {
            "delivered": 1,
            "left": {"pending": 0, "in_flight": 0, "held": 1, "dead": 0},
            "reason": None,
        },
    ) == (done.returncode, json.loads(done.stdout))


@pytest.fixture
def leader(directory: Directory) -> Iterator[int]:
    """This process leads, and sends nothing."""
    lock_file = directory.try_to_lead()
    assert lock_file is not None
    yield os.getpid()
    os.close(lock_file)


def test_flush_waits_for_who_leads(directory: Directory, leader: int, run: Run) -> None:
    """Where another process sends, its time is waited for, and not more."""
    commands.append(directory, [record(1)])
    done = run("flush", "--timeout", "0.2")
    assert (
        1,
        "0 events delivered. Left: 1 pending, 0 in flight, 0 held, 0 dead.\n"
        "Blocked by: the timeout. All events are kept.\n",
    ) == (done.returncode, done.stdout)


def test_flush_says_that_who_leads_is_paused(directory: Directory, leader: int, run: Run) -> None:
    """A pause that lasts longer than there is time is not waited for."""
    facts = {"pid": leader, "paused": True, "reason": "HTTP 403", "next_attempt": 4e9}
    fill(directory, [record(1)], facts=facts)
    done = run("flush", "--timeout", "60")
    assert (1, f"Blocked by: the leader, process {leader}, is paused: HTTP 403. ") == (
        done.returncode,
        done.stdout.partition("\n")[2].partition("All")[0],
    )


def test_flush_waits_for_the_end_of_a_pause(directory: Directory, leader: int, run: Run) -> None:
    """Where the process that leads will ask again in time, that is waited for."""
    facts = {"pid": leader, "paused": True, "reason": "HTTP 403", "next_attempt": NOW}
    fill(directory, [record(1)], facts=facts)
    done = run("flush", "--timeout", "0.2")
    assert (1, "Blocked by: HTTP 403. All events are kept.\n") == (
        done.returncode,
        done.stdout.partition("\n")[2],
    )


@pytest.mark.parametrize("command", ["flush", "drain"])
def test_nothing_can_be_sent_without_a_key(command: str, run: Run) -> None:
    """Status 2, and what to set; nothing is written."""
    done = run(command)
    assert (
        2,
        "Error: neither CMDRDATA_API_KEY nor CMDRDATA_ENDPOINT is set, so nothing can be sent. "
        "Set them as for the application. For events that stay on this host: --destination local\n",
    ) == (done.returncode, done.stderr)


def test_nothing_is_sent_under_another_key(
    backend: HTTPServer, directory: Directory, spool: Path, run: Run
) -> None:
    """Status 2: a destination's events are sent with its own settings alone."""
    other = Directory.prepare(spool, ENDPOINT, "default").path.name
    done = run("flush", "--destination", other)
    assert (
        2,
        f"Error: this environment has the key of {directory.path.name}, not of {other!r}: "
        "set the key, endpoint and account of that destination\n",
    ) == (done.returncode, done.stderr)


def test_a_spool_directory_that_cannot_be_used(
    backend: HTTPServer, run: Run, tmp_path: Path
) -> None:
    """Status 2, with what is wrong with it."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    done = run("flush", "--spool-dir", str(link))
    assert 2 == done.returncode
    assert done.stderr.startswith(
        f"Error: the spool directory cannot be used: {str(link)!r} is a symbolic link"
    )


@pytest.mark.parametrize("command", ["flush", "drain"])
def test_a_spool_directory_of_another_user(
    command: str, directory: Directory, spool: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2, with as whom to run the command."""
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    done = run(command)
    assert 2 == done.returncode
    assert done.stderr.startswith(
        f"Error: {spool} belongs to another user; run the command as its owner: sudo -u "
    )


def test_flush_of_local_events_imports_them(local: Directory, run: Run) -> None:
    """Nothing is sent, and nothing is left to send."""
    commands.append(local, [record(1)])
    done = run("flush", "--destination", "local")
    assert (0, "0 events delivered. Left: 0 pending, 0 in flight, 0 held, 0 dead.\n") == (
        done.returncode,
        done.stdout,
    )
    with LedgerReader(local) as ledger:
        assert 1 == ledger.counts()["local"]


class Drain:
    """`cmdrdata drain` in a process of its own, and what it has said so far."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "drain", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []

    def wait_for(self, text: str) -> None:
        """Wait until it has said something."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if text in line:
                return
        pytest.fail(f"it never said {text!r}: {''.join(self.log)}")

    def end(self, number: int) -> tuple[int, str, str]:
        """Send it a signal; return its status and what it has written since."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=15)
        return self.process.returncode, out, err


@pytest.fixture
def drain() -> Iterator[Callable[..., Drain]]:
    """Start `cmdrdata drain`; whatever is left of it ends with the test."""
    running: list[Drain] = []

    def start(*arguments: str) -> Drain:
        running.append(Drain(*arguments))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain_until_it_is_told_to_end(
    number: signal.Signals,
    backend: HTTPServer,
    directory: Directory,
    drain: Callable[..., Drain],
) -> None:
    """It sends what waits and what comes; a signal ends it, with status 0."""
    came = threading.Semaphore(0)

    def accept(request: Request) -> Response:
        came.release()
        return Response(status=201)

    backend.expect_request("/api/events", method="POST").respond_with_handler(accept)
    commands.append(directory, [record(1)])
    running = drain()
    running.wait_for("this process is now the leader")
    assert f"INFO destination default at {backend.url_for('/api/events')}, " in running.log[0]
    assert came.acquire(timeout=10)
    commands.append(directory, [record(2)])
    assert came.acquire(timeout=10)
    code, out, err = running.end(number)
    assert (0, "2 events delivered. Left: 0 pending, 0 in flight, 0 held, 0 dead.\n") == (
        code,
        out,
    )
    assert f"{number.name}: ending" in err
    assert ["0001", "0002"] == arrived(backend)


def test_drain_takes_over(
    backend: HTTPServer, directory: Directory, drain: Callable[..., Drain]
) -> None:
    """While another process leads it waits; when that has gone it sends."""
    answer(backend, 201)
    lock_file = directory.try_to_lead()
    assert lock_file is not None
    commands.append(directory, [record(1)])
    running = drain("--json")
    running.wait_for(f"process {os.getpid()} is the leader; waiting to take over")
    os.close(lock_file)
    running.wait_for("this process is now the leader")
    code, out, _ = running.end(signal.SIGTERM)
    left: dict[str, Any] = {"pending": 0, "in_flight": 0, "held": 0, "dead": 0}
    assert (0, {"delivered": 1, "left": left, "reason": None}) == (code, json.loads(out))
    assert [event_id(1)[:4]] == arrived(backend)


def test_drain_ends_in_time_where_nothing_answers(
    backend: HTTPServer, directory: Directory, drain: Callable[..., Drain]
) -> None:
    """Nobody waits for a backend that does not answer: status 1, and nothing is lost."""
    asked, over = threading.Event(), threading.Event()

    def stall(request: Request) -> Response:
        asked.set()
        over.wait(30)
        return Response(status=201)

    backend.expect_request("/api/events", method="POST").respond_with_handler(stall)
    commands.append(directory, [record(1)])
    running = drain()
    assert asked.wait(10)
    try:
        code, out, _ = running.end(signal.SIGTERM)
    finally:
        over.set()
    assert (1, "0 events delivered. Left: 0 pending, 1 in flight, 0 held, 0 dead.\n") == (
        code,
        out,
    )


def test_options_of_the_settings(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sidecar sends by the same settings as the application."""
    monkeypatch.setenv("CMDRDATA_API_KEY", KEY)
    monkeypatch.setenv("CMDRDATA_AMBIGUOUS", "hold")
    monkeypatch.setenv("CMDRDATA_PROBE_INTERVAL", "7")
    # Which is about the application only.
    monkeypatch.setenv("CMDRDATA_DRAIN", "none")
    delivery, description = sending.delivery_of(None, None)
    how = delivery.drainer._options
    assert (how.drains, how.stays) == (True, True)
    assert (True, 7.0, "default at https://api.cmdrdata.ai/api/events") == (
        how.hold_ambiguous,
        how.probe_interval,
        description,
    )
