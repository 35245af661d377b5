"""What others have named never commands a terminal, is never taken for markup, and fails no command."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from cmdrdata_exporter.cli import service
from cmdrdata_exporter.cli.terminal import plain
from cmdrdata_exporter.delivery import Header, Outcome, Verdict
from cmdrdata_exporter.delivery.http.client import Client
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.records import encode_event
from tests.cli.conftest import Run
from tests.ledgers import ENDPOINT, NOW, event_id, fill

HOSTILE = "[/x][bold]:bomb:\x1b[2J\x9b31m\x07\u202ecba\u2066\u200b\ufeff\r\n\té客"
SHOWN = "[/x][bold]:bomb:\\x1b[2J"
REASON = Outcome(Verdict.REFUSED, HOSTILE)


def record(number: int, *, hold: bool = False) -> bytes:
    """Return an event of which nothing is harmless."""
    text = HOSTILE
    header = Header(
        customer=None if hold else text,
        model=text,
        endpoint=text,
        status=text,
        units={text: 5, "input_tokens": 1},
        day="2026-11-20",
        hold=hold,
    )
    body = {
        "customer_id": None if hold else text,
        "model": text,
        "request": {"id": event_id(number)},
        "metadata": {text: text},
    }
    return encode_event(event_id(number), header, json.dumps(body, separators=(",", ":")).encode())


@pytest.fixture
def hostile(spool: Path, monkeypatch: pytest.MonkeyPatch) -> Directory:
    """The ledger of a destination whose path, endpoint, account, events and pause are hostile."""
    place = spool / HOSTILE.replace("/", "|")
    place.mkdir(mode=0o700)
    monkeypatch.setenv("CMDRDATA_SPOOL_DIR", str(place))
    text = HOSTILE
    directory = Directory.prepare(place, f"{ENDPOINT}/{text}", text)
    facts = {
        "pid": 1,
        "at": NOW,
        "paused": True,
        "probing": True,
        "reason": HOSTILE,
        "next_attempt": NOW + 60,
    }
    fill(
        directory,
        [record(1), record(2), record(3, hold=True)],
        [Outcome(Verdict.REFUSED, text)],
        facts=facts,
    )
    return directory


COMMANDS = [
    ("status",),
    ("usage", "--by", "customer,model,endpoint,status"),
    ("usage", "--by", "customer", "--json"),
    ("dead-letters", "list"),
    ("dead-letters", "show", "0001"),
    ("events", "list"),
    ("events", "list", "--json"),
    ("events", "show", "0001"),
    ("events", "show", HOSTILE),
    ("events", "export"),
    ("held", "list"),
    ("held", "show", "0003"),
    ("replay", "0001"),
    ("replay", "--reason", HOSTILE),
    ("dead-letters", "drop", "0001"),
    ("assign", "--customer", "acme", "--all"),
    ("assign", "--customer", HOSTILE, "--all"),
    ("usage", "--customer", HOSTILE),
    ("usage", "--by", HOSTILE),
    ("usage", "--since", HOSTILE),
    ("dead-letters", "show", HOSTILE),
    ("dead-letters", HOSTILE),
    ("usage", f"--{HOSTILE}"),
    (HOSTILE,),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_every_command(
    command: tuple[str, ...],
    columns: str,
    hostile: Directory,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a command shows is printable, and it ends as it does with names that are harmless."""
    chosen = (
        ()
        if command[0] in ("status", HOSTILE) or HOSTILE in command[1]
        else ("--destination", hostile.path.name)
    )
    monkeypatch.setenv("COLUMNS", columns)
    done = run(*command, *chosen)
    assert done.returncode in (0, 1, 2)
    for text in (done.stdout, done.stderr):
        assert [] == [c for c in text if not c.isprintable() and c != "\n"]


def test_what_is_shown(hostile: Directory, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a name is lost: what cannot be seen as it is can be read."""
    monkeypatch.setenv("COLUMNS", "2000")
    for command in (
        ("dead-letters", "list"),
        ("held", "list"),
        ("usage", "--by", "customer,model,endpoint,status"),
    ):
        assert SHOWN in run(*command, "--destination", hostile.path.name).stdout
    assert SHOWN in run("status").stdout


@pytest.mark.parametrize("form", ["--csv", "--focus"])
def test_a_file(form: str, hostile: Directory, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has what a terminal would not survive; on a terminal it is escaped."""
    command = ("usage", form, "--destination", hostile.path.name)
    assert "\x1b[2J" in run(*command).stdout
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = run(*command).stdout
    assert [] == [c for c in shown if not c.isprintable() and c != "\n"]
    assert SHOWN in shown


def test_a_destination_that_is_hostile(hostile: Directory, run: Run) -> None:
    """The names of the destinations that there are stand on lines of their own, and are escaped."""
    done = run("usage", "--destination", HOSTILE * 2)
    assert 2 == done.returncode
    assert [] == [c for c in done.stderr if not c.isprintable() and c != "\n"]
    assert f"\n  {hostile.path.name}  (account {SHOWN}" in done.stderr


def test_an_argument_that_is_no_text(remote: Directory, run: Run) -> None:
    """Status 2 where an argument holds bytes that are no UTF-8."""
    done = run("usage", "--customer", "a\udcff")
    assert (2, "Error: 'a\\udcff' holds bytes that are not UTF-8; expected is text in UTF-8\n") == (
        done.returncode,
        done.stderr,
    )


@pytest.fixture
def hostile_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that refuses the key in words of its own."""

    def post(*_: object) -> Outcome:
        return Outcome(Verdict.MISCONFIGURED, HOSTILE)

    monkeypatch.setattr(Client, "post", staticmethod(post))


def test_flush(remote: Directory, run: Run, hostile_backend: None) -> None:
    """The reason why nothing is delivered is escaped."""
    fill(remote, [record(1)])
    done = run("flush", "--timeout", "20")
    assert 1 == done.returncode
    assert f"Blocked by: {SHOWN}" in done.stdout
    assert [] == [c for c in done.stdout if not c.isprintable() and c != "\n"]


def test_the_log_of_drain() -> None:
    """What drain logs is escaped, line by line."""
    entry = logging.LogRecord("cmdrdata", logging.INFO, "", 0, "one\n%s", (HOSTILE,), None)
    shown = service._Formatter("%(message)s").format(entry)
    assert [] == [c for c in shown if not c.isprintable() and c != "\n"]
    assert shown.startswith(f"one\n{SHOWN}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acme Ltd. é 客 🙂", "acme Ltd. é 客 🙂"),
        ("a\x00b\x1bc\x7fd\x9b", "a\\x00b\\x1bc\\x7fd\\x9b"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\u202e\u2066\u200f\u200b\ufeff\u2028", "\\u202e\\u2066\\u200f\\u200b\\ufeff\\u2028"),
        ("\ud800", "\\ud800"),
        (7, "7"),
    ],
)
def test_escaped(text: object, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Letters of all scripts stay; what is not seen as it is becomes its escape."""
    assert expected == plain(text)
