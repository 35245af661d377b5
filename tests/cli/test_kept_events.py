"""`cmdrdata dead-letters` and `cmdrdata held`: what goes no further is listed, shown, dropped."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cmdrdata_exporter.delivery import Event, Outcome, Verdict
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import decode, encode_event, key_of
from tests.cli.conftest import Run
from tests.ledgers import AMBIGUOUS, REFUSED, body, event_id, fill, record

RunJson = Callable[..., tuple[int, Any]]


@pytest.fixture
def stuck(remote: Directory) -> Directory:
    """A ledger with two dead letters, an ambiguous event, one without a customer, and one to be sent."""
    too_large = Outcome(Verdict.REFUSED, "HTTP 413")
    fill(
        remote,
        [record(1), record(2, "globex"), record(3), record(4, None, model="whisper-1"), record(5)],
        [REFUSED, too_large, AMBIGUOUS],
        hold_ambiguous=True,
    )
    return remote


def row(number: int, **changes: object) -> dict[str, object]:
    """Return what a list says of an event."""
    return {
        "id": event_id(number),
        "reason": "HTTP 400",
        "since": "2026-11-21T18:33:20Z",
        "customer": "acme",
        "model": "gpt-5-mini",
        "endpoint": "chat.completions",
        "day": "2026-11-20",
    } | changes


def test_customers_that_were_refused(remote: Directory, run: Run, run_json: RunJson) -> None:
    """What was named and cannot be billed is shown with the reason, and in no event in which nothing was."""
    refused: dict[str, object] = {
        "customer_refused": "not a string",
        "customer_refused_value": "1001",
    }
    fill(remote, [record(1, None, metadata={**refused, "plan": "pro"}), record(2, None)])
    nobody = {"reason": "no customer", "customer": None}
    assert [row(1, **nobody, **refused), row(2, **nobody)] == run_json("held", "list")[1]["events"]
    assert {**row(1, **nobody, **refused), "event": body(1, None, {**refused, "plan": "pro"})} == (
        json.loads(run("held", "show", "0001").stdout)
    )
    assert [
        "0001 no customer (not no customer gpt-5-mini",
        "a string: 1001)",
        "0002 no customer no customer gpt-5-mini",
    ] == [
        " ".join(line.replace("00000000   2026-11-21 18:33", "").split())
        for line in run("held", "list").stdout.splitlines()[2:]
    ]


def damage(directory: Directory, number: int) -> None:
    """Alter a bit of an event's record."""
    ledger = Ledger(directory)
    ledger._db.execute("UPDATE events SET crc = crc + 1 WHERE key = ?", (key_of(event_id(number)),))
    ledger.close()


def counts(directory: Directory) -> dict[str, int]:
    """Return the counts of a ledger that are not 0."""
    with LedgerReader(directory) as ledger:
        return {name: number for name, number in ledger.counts().items() if number}


def test_lists_as_json(stuck: Directory, run_json: RunJson) -> None:
    """A script gets all of each, but for the body."""
    name = stuck.path.name
    assert (
        0,
        {
            "destination": name,
            "events": [row(1), row(2, reason="HTTP 413", customer="globex")],
        },
    ) == run_json("dead-letters", "list")
    held = [
        row(3, reason="ambiguous"),
        row(4, reason="no customer", customer=None, model="whisper-1"),
    ]
    code, found = run_json("held", "list")
    assert (0, name, held) == (
        code,
        found["destination"],
        sorted(found["events"], key=lambda event: event["id"]),
    )


def test_where_calls_of_nobody_come_from(remote: Directory, run: Run, run_json: RunJson) -> None:
    """The line of the code that made a call is shown where nobody pays for it, beside who was refused."""
    site: dict[str, object] = {"call_site": "shop/chat.py:42 ask"}
    refused: dict[str, object] = {"customer_refused": "empty", "customer_refused_value": "''"}
    fill(
        remote,
        [
            record(1, None, metadata={**site, **refused}),
            record(2, None, metadata=site),
            record(3, metadata=site),
        ],
        [AMBIGUOUS],
        hold_ambiguous=True,
    )
    listed = run_json("held", "list")[1]["events"]
    assert [{**site, **refused}, site, site] == [
        {key: event[key] for key in (*site, *refused) if key in event} for event in listed
    ]
    shown = run("held", "list").stdout
    assert (
        """\
 000100000000   2026-11-21 18:33   no customer         no customer   gpt-5-mini
                                   (empty: ''):
                                   shop/chat.py:42
                                   ask
 000200000000   2026-11-21 18:33   no customer:        no customer   gpt-5-mini
                                   shop/chat.py:42
                                   ask
 000300000000   2026-11-21 18:33   ambiguous           acme          gpt-5-mini
"""
        == "\n".join(shown.splitlines()[2:]) + "\n"
    )


def test_lists_for_a_reader(stuck: Directory, run: Run) -> None:
    """At 80 columns a reader sees which, since when, why, whose and of which model."""
    assert (
        """\
 ID             Since (UTC)        Reason     Customer   Model
────────────────────────────────────────────────────────────────────
 000100000000   2026-11-21 18:33   HTTP 400   acme       gpt-5-mini
 000200000000   2026-11-21 18:33   HTTP 413   globex     gpt-5-mini
"""
        == run("dead-letters", "list").stdout
    )
    assert (
        """\
 ID             Since (UTC)        Reason     Customer   Model
────────────────────────────────────────────────────────────────────
 000100000000   2026-11-21 18:33   HTTP 400   acme       gpt-5-mini

Not shown: 1 dead letter. Use --limit or --json.
"""
        == run("dead-letters", "list", "--limit", "1").stdout
    )


def test_names_command_no_terminal(remote: Directory, run: Run) -> None:
    """What others have named is shown without what a terminal would obey."""
    fill(remote, [record(1, model="m\x1b[2J\x9b2J")], [REFUSED])
    assert "acme       m\\x1b[2J\\x9b2J\n" in run("dead-letters", "list").stdout
    assert "m\\x1b[2J\\x9b2J" in run("usage", "--by", "model").stdout


def test_a_long_reason(remote: Directory, run: Run, run_json: RunJson) -> None:
    """A backend may answer with all that it was sent: a list for a reader has its beginning, JSON has all."""
    reason = f"HTTP 422: {'x' * 300}"
    fill(remote, [record(1)], [Outcome(Verdict.REFUSED, reason)])
    shown = run("dead-letters", "list").stdout
    assert 80 - len("HTTP 422: ") == shown.count("x")
    assert "show has all" in " ".join(shown.split())
    assert reason == run_json("dead-letters", "list")[1]["events"][0]["reason"]


def test_empty_lists(remote: Directory, run: Run, run_json: RunJson) -> None:
    """Nothing is said in words, or is an empty list."""
    assert "No dead letters.\n" == run("dead-letters", "list").stdout
    assert "No held events.\n" == run("held", "list").stdout
    assert [] == run_json("held", "list")[1]["events"]


def test_one_event_whole(stuck: Directory, run: Run) -> None:
    """It is JSON with or without the option, with the body as it would be sent; a beginning of its id will do."""
    expected = row(2, reason="HTTP 413", customer="globex", event=body(2, "globex"))
    for arguments in (
        ["dead-letters", "show", "0002"],
        ["dead-letters", "show", event_id(2), "--json"],
    ):
        done = run(*arguments)
        assert (0, expected) == (done.returncode, json.loads(done.stdout))
    assert body(4, None) == json.loads(run("held", "show", "0004").stdout)["event"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("0009", "no dead letter has an id that begins with '0009'"),
        ("000", "more than one dead letter has an id that begins with '000'"),
        # Held, not dead.
        ("0004", "no dead letter has an id that begins with '0004'"),
    ],
)
def test_an_id_that_names_not_one(wanted: str, message: str, stuck: Directory, run: Run) -> None:
    """Status 2; nothing is guessed."""
    for command in ("show", "drop"):
        done = run("dead-letters", command, wanted)
        assert (2, "") == (done.returncode, done.stdout)
        assert done.stderr.endswith(f"\n\nError: {message}\n")


def test_a_damaged_event(stuck: Directory, run: Run, run_json: RunJson) -> None:
    """It is listed by what stands for its id, and can be dropped."""
    damage(stuck, 1)
    unknown = dict.fromkeys(("customer", "model", "endpoint", "day"))
    damaged = row(1, **unknown)
    assert damaged == run_json("dead-letters", "list")[1]["events"][0]
    assert {**damaged, "event": None} == run_json("dead-letters", "show", "0001")[1]
    assert (
        " 000100000000   2026-11-21 18:33   HTTP 400   cannot be read\n"
        in run("dead-letters", "list").stdout
    )
    assert (0, {"selected": 1, "dropped": 1, "in_time": True}) == run_json(
        "dead-letters", "drop", "0001"
    )


def test_dropping_some(stuck: Directory, run: Run) -> None:
    """Those that are named are given up, each once, and nothing else is."""
    done = run("dead-letters", "drop", "0002", event_id(2))
    assert (0, "1 of 1 dead letter dropped.\n", "") == (done.returncode, done.stdout, done.stderr)
    assert {
        "recorded": 5,
        "pending": 1,
        "held": 2,
        "dead": 1,
        "dropped": 1,
        "ambiguous": 1,
    } == counts(stuck)


def test_dropping_all(stuck: Directory, run: Run, run_json: RunJson) -> None:
    """Money is given up for good: that needs a yes. Once nothing is there any more, that is no fault."""
    done = run("dead-letters", "drop", "--all")
    assert 2 == done.returncode
    assert done.stderr.endswith(
        "Error: --all drops every dead letter for good; to confirm, add --yes\n"
    )
    assert (0, {"selected": 2, "dropped": 2, "in_time": True}) == run_json(
        "dead-letters", "drop", "--all", "--yes"
    )
    done = run("dead-letters", "drop", "--all", "--yes")
    assert (0, "No dead letters to drop.\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize("arguments", [[], ["0001", "--all", "--yes"]])
def test_dropping_needs_one_choice(arguments: list[str], stuck: Directory, run: Run) -> None:
    """Ids or all, not none and not both."""
    done = run("dead-letters", "drop", *arguments)
    assert 2 == done.returncode
    assert done.stderr.endswith(
        "Error: name the dead letters by their ids, or all of them with --all\n"
    )


def test_more_digits_than_python_converts(remote: Directory, run: Run) -> None:
    """A number in an event that Python would not read is shown as it is written."""
    digits = "7" * 5000
    body = f'{{"customer_id":"acme","number":{digits},"small":7}}'.encode()
    original = record(1)
    event = decode(original)
    assert isinstance(event, Event)
    fill(remote, [encode_event(event.id, event.header, body)], [REFUSED])
    shown = json.loads(run("dead-letters", "show", "0001").stdout)["event"]
    assert {"customer_id": "acme", "number": digits, "small": 7} == shown


def test_what_the_backend_said(remote: Directory, run: Run, run_json: RunJson) -> None:
    """A dead letter has the backend's words in the list, and alone; the status it had chooses it for a replay."""
    refused = Outcome(Verdict.REFUSED, "HTTP 422", answer='{"detail":"no such customer: acme"}')
    fill(remote, [record(1), record(2)], [refused, REFUSED])
    reason = 'HTTP 422: {"detail":"no such customer: acme"}'
    _, shown = run_json("dead-letters", "show", event_id(1))
    assert shown["reason"] == reason
    _, listed = run_json("dead-letters", "list")
    assert [event["reason"] for event in listed["events"]] == [reason, "HTTP 400"]
    with LedgerReader(remote) as ledger:
        assert ledger.reasons("dead") == {"HTTP 400": 1, "HTTP 422": 1}
    assert run("replay", "--reason", "HTTP 422").returncode == 0
    assert counts(remote) == {"recorded": 2, "dead": 1, "pending": 1, "replayed": 1}
