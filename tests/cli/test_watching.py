"""`cmdrdata status --watch`: what changes is told once, to whoever reads and to a webhook."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from pytest_httpserver import HTTPServer
from urllib3 import exceptions
from werkzeug import Request, Response

from cmdrdata_exporter.cli import status, terminal, watching, webhook
from cmdrdata_exporter.cli.states import NEEDS
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.records import Command, encode_command, key_of
from tests.cli.conftest import Run
from tests.ledgers import DELIVERED, NOW, REFUSED, event_id, fill, record

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
PROGRAM = Path(sys.executable).with_name("cmdrdata")
HELD = "1 held, no customer: cmdrdata held list, then cmdrdata assign"
DEAD = "1 dead letter: cmdrdata dead-letters list, then cmdrdata replay"
SECRET = "T0/B0/abcdefghijklmnop"


class Time:
    """A time that passes only while somebody sleeps; what is planned happens then, and Ctrl-C at the end."""

    def __init__(self) -> None:
        self.now = 0.0
        self.plan: dict[float, Callable[[], object]] = {}
        self.end = 60.0

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.now += seconds
        for moment in sorted(moment for moment in self.plan if moment <= self.now):
            self.plan.pop(moment)()
        if self.now >= self.end:
            raise KeyboardInterrupt


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The time of the command; no backoff is longer than another."""
    passing = Time()
    clock = SimpleNamespace(monotonic=lambda: passing.now)
    monkeypatch.setattr(watching, "clocks", clock)
    monkeypatch.setattr(webhook, "clocks", clock)
    monkeypatch.setattr(webhook, "backoff", doubling)
    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=passing.sleep))
    monkeypatch.setattr(terminal, "time", SimpleNamespace(time=lambda: NOW + passing.now))
    return passing


@pytest.fixture(autouse=True)
def leader(remote: Directory) -> Iterator[None]:
    """A process leads in the directory."""
    lock_file = remote.try_to_lead()
    assert lock_file is not None
    yield
    os.close(lock_file)


def command(action: str, number: int, customer: str | None = None) -> bytes:
    """Return what a person asks of an event."""
    return encode_command(Command(action, (key_of(event_id(number)),), customer))


@pytest.fixture
def changing(time: Time, remote: Directory) -> None:
    """One event is held from the start until the 22nd second, another one is dead from the 12th on."""
    fill(remote, [record(1), record(2, None)], [DELIVERED])
    time.plan = {
        12: lambda: fill(remote, [record(3)], [REFUSED]),
        22: lambda: fill(remote, [command("assign", 2, "acme")], [DELIVERED]),
    }


@pytest.mark.usefixtures("changing")
def test_a_line_for_each_change(run: Run, remote: Directory) -> None:
    """Where nobody looks at a terminal there is one line for each change; the end has the status of `status`."""
    name = remote.path.name
    done = run("status", "--watch")
    assert (
        1,
        f"2026-11-21T18:33:20Z {name}: {HELD}\n"
        f"2026-11-21T18:33:35Z {name}: {DEAD}\n"
        f"2026-11-21T18:33:45Z {name}: over: {HELD}\n",
        "",
    ) == (done.returncode, done.stdout, done.stderr)


@pytest.mark.usefixtures("changing")
def test_a_document_for_each_change(run: Run, remote: Directory) -> None:
    """With `--json` each change is a line that a script can read, as a webhook gets it."""
    done = run("status", "--watch", "--json", "--every", "10")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [("begins", "no_customer"), ("begins", "dead"), ("over", "no_customer")] == [
        (each["event"], each["kind"]) for each in found
    ]
    assert 3 == len({each["id"] for each in found})


def test_nothing_needs_anybody(time: Time, run: Run, remote: Directory) -> None:
    """Whoever watches sees that there is something to watch; the status is 0."""
    fill(remote, [record(1)], [DELIVERED])
    done = run("status", "--watch")
    assert (0, f"2026-11-21T18:33:20Z {remote.path.name}: nothing needs you\n") == (
        done.returncode,
        done.stdout,
    )


def test_what_is_not_known_is_not_over(
    time: Time, run: Run, remote: Directory, tmp_path: Path
) -> None:
    """Where a ledger cannot be read, or is gone, nobody is told that what was held is held no more."""
    fill(remote, [record(1, None)])
    ledger = (remote.path / LEDGER).read_bytes()
    time.plan = {
        7: lambda: (remote.path / LEDGER).write_bytes(b"no ledger" * 1000),
        17: lambda: (remote.path / LEDGER).write_bytes(ledger),
        27: lambda: remote.path.rename(tmp_path / "elsewhere"),
        37: lambda: (tmp_path / "elsewhere").rename(remote.path),
    }
    done = run("status", "--watch")
    lines = [line.split(": ", 1)[1] for line in done.stdout.splitlines()]
    unreadable = "the ledger cannot be read: file is not a database"
    assert [
        HELD,
        unreadable,
        f"over: {unreadable}",
        watching.GONE,
        f"over: {watching.GONE}",
    ] == lines
    assert 1 == done.returncode


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def doubling(failures: int) -> float:
    """Return the seconds to wait after one failure and so many more, without chance."""
    return 2.0**failures


class Receiver:
    """The receiver of a webhook."""

    def __init__(self, server: HTTPServer) -> None:
        self.statuses: list[int] = []
        """What it answers next; then it accepts."""
        self.got: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        server.expect_request(f"/{SECRET}", method="POST").respond_with_handler(self._answer)
        self.url = server.url_for(f"/{SECRET}")

    def _answer(self, request: Request) -> Response:
        self.got.append(json.loads(request.get_data()))
        self.keys.append(request.headers.get("Idempotency-Key"))
        status = self.statuses.pop(0) if self.statuses else 204
        return Response(status=status, headers={"Location": self.url} if status == 302 else {})


@pytest.fixture
def receiver(httpserver: HTTPServer) -> Receiver:
    """A receiver on loopback."""
    return Receiver(httpserver)


def documented() -> dict[str, Any]:
    """Return the notice that the page shows."""
    (notice,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return json.loads(notice)


@pytest.mark.usefixtures("changing")
def test_a_webhook(
    time: Time, run: Run, remote: Directory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets one POST when something begins to need a person, and one when it is over; none while it lasts."""
    monkeypatch.setattr(watching, "socket", SimpleNamespace(gethostname=lambda: "web-1"))
    time.plan[50] = time.plan.pop(22)
    time.end = 100.0
    done = run("status", "--watch", "--webhook", receiver.url)
    assert [list(documented())] * 3 == [list(each) for each in receiver.got]
    ids = [each.pop("id") for each in receiver.got]
    about = {"host": "web-1", "destination": remote.path.name, "account": "default"}
    held = {**about, "kind": "no_customer", "text": HELD}
    assert [
        {"event": "begins", "at": "2026-11-21T18:33:20Z", **held},
        {"event": "begins", "at": "2026-11-21T18:33:35Z", **about, "kind": "dead", "text": DEAD},
        {"event": "over", "at": "2026-11-21T18:34:10Z", **held},
    ] == receiver.got
    assert ids == receiver.keys
    assert 3 == len(set(ids))
    assert (1, "") == (done.returncode, done.stderr)


@pytest.mark.usefixtures("changing")
def test_what_does_not_last(time: Time, run: Run, receiver: Receiver) -> None:
    """What is over within half a minute, as where a process is restarted, is told to nobody far away."""
    time.end = 100.0
    run("status", "--watch", "--webhook", receiver.url)
    assert [("begins", "dead")] == [(each["event"], each["kind"]) for each in receiver.got]


def test_a_receiver_that_is_down(
    time: Time, run: Run, remote: Directory, receiver: Receiver
) -> None:
    """A notice is sent again, the same one and ever more seldom, until it is accepted; a redirect is not followed."""
    fill(remote, [record(1, None)])
    receiver.statuses = [500, 404, 302]
    time.end = 120.0
    done = run("status", "--watch", "--webhook", receiver.url)
    assert 4 == len(receiver.got)
    assert [receiver.got[0]] * 4 == receiver.got
    host = receiver.url.removeprefix("http://").split("/")[0]
    # At 30 seconds, and 1, 2 and 4 seconds after each other.
    assert [
        f"2026-11-21T18:33:50Z Webhook at {host}: it answers 500; 1 notice to send",
        f"2026-11-21T18:33:51Z Webhook at {host}: it answers 404; 1 notice to send",
        f"2026-11-21T18:33:53Z Webhook at {host}: it answers 302; 1 notice to send",
        f"2026-11-21T18:33:57Z Webhook at {host}: it answers again",
    ] == done.stderr.splitlines()
    assert SECRET not in done.stdout + done.stderr


def test_a_receiver_that_is_away(time: Time, run: Run, remote: Directory, free_port: int) -> None:
    """One that cannot be reached is told of once, also at the end, and never by its secret."""
    fill(remote, [record(1, None)])
    done = run("status", "--watch", "--webhook", f"http://127.0.0.1:{free_port}/{SECRET}")
    assert [
        f"2026-11-21T18:33:50Z Webhook at 127.0.0.1:{free_port}: it cannot be reached; 1 notice to send",
        f"1 notice could not be sent to 127.0.0.1:{free_port}.",
    ] == done.stderr.splitlines()
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (exceptions.SSLError("certificate"), "its certificate is not accepted"),
        (exceptions.ReadTimeoutError(Mock(), SECRET, "late"), "it does not answer in time"),
        (exceptions.ProtocolError(SECRET), "it cannot be reached"),
        (OSError(SECRET), "it cannot be reached"),
    ],
    ids=["certificate", "late", "broken", "network"],
)
def test_why_a_notice_is_not_accepted(error: Exception, words: str) -> None:
    """A failure is told in words of ours: the words of a library may have the URL in them."""
    assert words == webhook._failure(error)


def test_too_many_notices(time: Time, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    """Memory is bounded while a receiver is down, and what is given up is said."""
    monkeypatch.setattr(webhook, "MOST", 2)
    told = webhook.Webhook(receiver.url)
    for number in range(3):
        told.add({"id": str(number), "event": "over", "destination": "d", "kind": str(number)})
    assert f"Webhook at {told.host}: it answers again; 2 notices to send, 1 given up" == (
        told.describe()
    )
    told.send()
    assert ["1", "2"] == [each["id"] for each in receiver.got]


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("http://hooks.example/secret", "http:// would show it to whoever is on the way"),
        ("https://user:secret@hooks.example/", "it holds a user name or password"),
        ("ftp://hooks.example/secret", "it is not a URL"),
        ("https:///secret", "it is not a URL"),
        ("https://hooks.example:secret/", "it is not a URL"),
        ("https://hooks.example/secret hook", "it holds blanks, or characters that no URL has"),
        ("https://hooks.example\\secret/", "it holds blanks, or characters that no URL has"),
        ("secret", "it is not a URL"),
    ],
)
def test_urls_that_cannot_be_used(url: str, wrong: str, run: Run) -> None:
    """A URL that would be read by others, or is none, is refused; what it holds is not shown."""
    done = run("status", "--watch", "--webhook", url)
    assert 2 == done.returncode
    assert (
        f"Error: Invalid value for '--webhook': {wrong}; expected is an https:// URL, or an http:// URL of this machine"
        == done.stderr.splitlines()[-1]
    )


def test_a_proxy_that_cannot_be_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook takes the proxy that the environment asks for; one that is none is refused before anything else."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example")
    done = run("status", "--watch", "--webhook", "https://hooks.example/x")
    assert 2 == done.returncode
    assert "HTTPS_PROXY names a socks5:// proxy" in done.stderr


def test_a_proxy(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook goes through the proxy of the environment, with its password; the proxy does not learn the secret."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        asked: list[bytes] = []

        def refuse() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        answering = threading.Thread(target=refuse)
        answering.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://app:p%40ss@127.0.0.1:{proxy.getsockname()[1]}")
        told = webhook.Webhook(f"https://hooks.example/{SECRET}")
        told.add({"id": "1", "event": "over", "destination": None, "kind": "unusable"})
        told.send()
        answering.join()
    (request,) = asked
    assert request.startswith(b"CONNECT hooks.example:443 HTTP/1.")
    token = base64.b64encode(b"app:p@ss")
    assert b"proxy-authorization: Basic " + token in request
    assert SECRET.encode() not in request
    assert "the proxy makes no connection" == told.trouble


def test_a_webhook_without_a_watch(run: Run) -> None:
    """Whoever asks once gets the answer by the exit status."""
    done = run("status", "--webhook", "https://hooks.example/x")
    assert (2, "Error: a webhook goes with --watch") == (
        done.returncode,
        done.stderr.splitlines()[-1],
    )


def test_a_webhook_in_a_file(
    time: Time, run: Run, remote: Directory, receiver: Receiver, tmp_path: Path
) -> None:
    """The URL may be in a file, where other users of the machine do not see it."""
    fill(remote, [record(1, None)])
    file = tmp_path / "webhook"
    file.write_text(f"{receiver.url}\n")
    run("status", "--watch", "--webhook-file", str(file))
    assert ["no_customer"] == [each["kind"] for each in receiver.got]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (None, "'FILE' cannot be read: No such file or directory"),
        (b"\xff\xfe", "'FILE' cannot be read: it is not text"),
        (b"http://hooks.example/secret", "http:// would show it to whoever is on the way"),
        (b"", "it is not a URL"),
    ],
)
def test_files_that_cannot_be_used(
    content: bytes | None, wrong: str, run: Run, tmp_path: Path
) -> None:
    """A file without a URL that can be used is refused, and what it holds is not shown."""
    file = tmp_path / "webhook"
    if content is not None:
        file.write_bytes(content)
    done = run("status", "--watch", "--webhook-file", str(file))
    said = done.stderr.splitlines()[-1].replace(str(file), "FILE")
    assert 2 == done.returncode
    assert said.startswith(f"Error: Invalid value for '--webhook-file': {wrong}")
    assert "hooks.example" not in said


def test_two_webhooks(run: Run, tmp_path: Path) -> None:
    """Which of two URLs is meant is not guessed."""
    (tmp_path / "webhook").write_text("https://hooks.example/x")
    done = run(
        *("status", "--watch", "--webhook", "https://hooks.example/y"),
        *("--webhook-file", str(tmp_path / "webhook")),
    )
    assert (2, "Error: --webhook and --webhook-file exclude each other") == (
        done.returncode,
        done.stderr.splitlines()[-1],
    )


def test_the_words_for_what_needs_a_person() -> None:
    """Each kind that may be told has a meaning, and none is explained that is not told."""
    counts = dict.fromkeys(("pending", "in_flight", "dead"), 1)
    known: dict[str, Any] = {
        "events": counts,
        "oldest_pending": terminal.moment(0),
        "held": {"no customer": 1, "ambiguous": 1},
        "sending": {"state": "paused", "leader": None, "reason": "HTTP 401"},
        "spool": {"nearly_full": True, "bytes": 1, "limit": 1},
        "counted": dict.fromkeys(("damaged", "lost", "unspooled"), 1),
        "incomplete_usage": {"missing": 1},
    }
    kinds = set(status._needs(known))
    kinds |= set(status._needs({**known, "sending": {**known["sending"], "state": "probing"}}))
    # The last four are of a fleet's ledger, which tests/fleet has.
    others = {"unreadable", "gone", "unusable"}
    others |= {"quiet", "set_aside", "records_lost", "partitions_renewed"}
    assert set(NEEDS) == kinds | others


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end(number: signal.Signals, remote: Directory) -> None:
    """Ctrl-C and SIGTERM end it without a traceback, with the status that `status` would have."""
    fill(remote, [record(1, None)])
    with subprocess.Popen(
        [PROGRAM, "status", "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching_it:
        assert watching_it.stdout is not None
        assert watching_it.stdout.readline().endswith(f"{HELD}\n")
        watching_it.send_signal(number)
        assert ("", "") == watching_it.communicate(timeout=10)
    assert 1 == watching_it.returncode


def drawn(lines: int, columns: int, until: str) -> str:
    """Return what is drawn on a terminal of a size until some text is, without its colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    variables = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        variables.pop(name, None)
    with subprocess.Popen(
        [PROGRAM, "status", "--watch", "--every", "1"], stdin=its, stdout=its, env=variables
    ) as running:
        os.close(its)
        text = ""
        while until not in text:
            text += re.sub(r"\x1b\[[0-9;]*m", "", os.read(ours, 65536).decode())
        running.send_signal(signal.SIGINT)
        running.wait(timeout=10)
    os.close(ours)
    return text


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_it_is_drawn_anew(columns: int, remote: Directory) -> None:
    """On a terminal each look is drawn over the one before, line by line, without anything left of it."""
    fill(remote, [record(1), record(2, None)], [DELIVERED])
    frames = drawn(40, columns, "\x1b[J\x1b[H").split("\x1b[H")
    shown = frames[-2].split("\x1b[J")[0].replace("\x1b[K\r\n", "\n")
    assert "\x1b" not in shown
    # A path is whole, so that it can be copied: the terminal wraps it.
    lines = [line for line in shown.splitlines() if not line.startswith("Kept in ")]
    assert columns == max(map(len, lines))
    assert re.fullmatch(
        rf"\S+Z, every 1 s until Ctrl-C {remote.path.name} ─+"
        r" Events go to https://cmdrdata.test/api/events, account default. Kept in \S+ Process \d+ sends them."
        r" 2 recorded = 1 delivered \+ 0 local \+ 0 pending \+ 0 in flight \+ 1 held 1 no customer \+ 0 dead"
        r" \+ 0 dropped Disk: .* Needs you: ! 1 held, no customer: cmdrdata held list, then cmdrdata assign",
        " ".join(shown.split()),
    )


def test_a_terminal_with_little_room(remote: Directory) -> None:
    """Where not all has room, what needs a person has."""
    fill(remote, [record(1), record(2, None)], [DELIVERED])
    shown = drawn(8, 80, "\x1b[J").replace("\x1b[K\r\n", "\n")
    assert "2 recorded = 1 delivered + 1 held\n! 1 held, no customer" in shown
    assert "taller" not in shown
    shown = drawn(4, 80, "\x1b[J").replace("\x1b[K\r\n", "\n")
    assert "(Use a taller terminal to see all.)\n" in shown
