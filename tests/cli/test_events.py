"""`cmdrdata events`: what was recorded is listed, followed, shown whole and exported, wherever it is by now."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.cli import events as module
from cmdrdata_exporter.cli.commands import cmdrdata
from cmdrdata_exporter.delivery.spool.directory import INDEX, Directory
from cmdrdata_exporter.delivery.spool.index import Index
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from tests import ledgers
from tests.cli.conftest import Run
from tests.ledgers import AMBIGUOUS, DELIVERED, IN_FLIGHT, NOW, REFUSED, body, event_id, fill

RunJson = Callable[..., tuple[int, Any]]
UNITS = {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020}
ABOUT = {"there": True, "missing_before": None, "filling": False, "reason": None}


def metadata(number: int) -> dict[str, object]:
    """Return the ids of an event; two and two are of one trace."""
    return {
        "trace_id": f"{0xABC0 + number // 2:032x}",
        "response_id": f"chatcmpl-{number}",
        "request_id": f"req_{number}",
    }


def record(number: int, customer: str | None = "acme", **changes: Any) -> bytes:
    """Return an event whose call ended so many minutes after 17:33:20."""
    return ledgers.record(number, customer, metadata=metadata(number), **changes)


def row(number: int, state: str, **changes: object) -> dict[str, object]:
    """Return what a script gets of an event."""
    return {
        "id": event_id(number),
        "at": f"2026-11-21T17:{33 + number}:20Z",
        "customer": "acme",
        "model": "gpt-5-mini",
        "endpoint": "chat.completions",
        "usage_status": "reported",
        "units": UNITS,
        **metadata(number),
        "state": state,
        "reason": None,
        "since": "2026-11-21T18:33:20Z",
        "attempts": 0,
        **changes,
    }


GONE = {"since": None, "attempts": None}
"""What is not known of an event that the ledger has no more."""


@pytest.fixture
def mixed(remote: Directory) -> Directory:
    """A ledger with an event in each state that there is with a backend, and one more in a journal."""
    fill(
        remote,
        [
            record(1),
            record(2, "globex"),
            record(3, status="missing", units={}),
            record(4, model="o3"),
            record(5, None, model="whisper-1", units={"audio_seconds": 9.5}),
            record(6, status="partial", endpoint="responses"),
            record(7),
        ],
        [DELIVERED, REFUSED, REFUSED, IN_FLIGHT, AMBIGUOUS],
        index=1000,
    )
    journal = Journal(remote)
    journal.append(record(8))
    journal.seal()
    return remote


ROWS = [
    row(1, "delivered", **GONE),
    row(2, "dead", customer="globex", reason="HTTP 400"),
    row(3, "dead", reason="HTTP 400", usage_status="missing", units={}),
    row(4, "in_flight", model="o3"),
    row(
        5,
        "held",
        customer=None,
        reason="no customer",
        model="whisper-1",
        units={"audio_seconds": 9.5},
    ),
    row(
        6,
        "pending",
        usage_status="partial",
        endpoint="responses",
        reason="ReadTimeoutError",
        attempts=1,
    ),
    row(7, "pending"),
    row(8, "pending", since=None),
]
"""The events of `mixed`, the oldest first."""


def listed(run_json: RunJson, *arguments: str) -> list[int]:
    """Return the numbers of the events that a list has."""
    code, found = run_json("events", "list", *arguments)
    assert code == 0
    return [int(event["id"][:4]) for event in found["events"]]


# list


def test_list_as_json(mixed: Directory, run_json: RunJson) -> None:
    """A script gets all that is known of each event, the newest first, also of what no ledger has yet or any more."""
    code, found = run_json("events", "list")
    events = found.pop("events")
    # A failed attempt is tried again at a random time.
    assert events[2]["since"] in ("2026-11-21T18:33:20Z", "2026-11-21T18:33:21Z")
    events[2]["since"] = ROWS[5]["since"]
    assert events == ROWS[::-1]
    assert (0, {"destination": mixed.path.name, "index": ABOUT, "more": False}) == (code, found)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--state", "delivered"], [1]),
        (["--state", "dead"], [3, 2]),
        (["--state", "in-flight"], [4]),
        (["--state", "held"], [5]),
        (["--state", "pending"], [8, 7, 6]),
        (["--state", "dropped"], []),
        (["--state", "local"], []),
        (["--customer", "globex"], [2]),
        (["--no-customer"], [5]),
        (["--model", "o3"], [4]),
        (["--endpoint", "responses"], [6]),
        (["--no-usage"], [6, 3]),
        (["--no-usage", "--state", "pending"], [6]),
        (["--since", "2026-11-21", "--until", "2026-11-21"], [8, 7, 6, 5, 4, 3, 2, 1]),
        (["--until", "2026-11-20"], []),
        (["--since", "2026-11-22"], []),
        (["--limit", "2"], [8, 7]),
    ],
)
def test_choosing(
    mixed: Directory, run_json: RunJson, arguments: list[str], expected: list[int]
) -> None:
    """Each option chooses, with an index and without one; only delivered events need it."""
    assert expected == listed(run_json, *arguments)
    for path in mixed.path.glob(f"{INDEX}*"):
        path.unlink()
    assert [number for number in expected if number != 1] == listed(run_json, *arguments)


def test_list_for_a_reader(mixed: Directory, run: Run) -> None:
    """At 80 columns each event has a line, whatever its names are."""
    fill(mixed, [record(9, "a-customer-with-a-long-name", model="gpt-4o-mini-2024-07-18")])
    assert (
        """\
Time (UTC)      Customer        Model               In  Out  State      ID
────────────────────────────────────────────────────────────────────────────────
11-21 17:42:20  a-customer-wi…  gpt-4o-mini-2…   1,000   20  pending    00090000
11-21 17:41:20  acme            gpt-5-mini       1,000   20  pending    00080000
11-21 17:40:20  acme            gpt-5-mini       1,000   20  pending    00070000
11-21 17:39:20  acme            gpt-5-mini      ≥1,000  ≥20  pending    00060000
11-21 17:38:20  no customer     whisper-1                    held       00050000
11-21 17:37:20  acme            o3               1,000   20  in flight  00040000
11-21 17:36:20  acme            gpt-5-mini           -    -  dead       00030000
11-21 17:35:20  globex          gpt-5-mini       1,000   20  dead       00020000
11-21 17:34:20  acme            gpt-5-mini       1,000   20  delivered  00010000

Not shown: endpoint. Use a wider terminal or --json.
"""
        == run("events", "list").stdout
    )


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    ("columns", "line", "hidden"),
    [
        (60, "11-21 17:35  globex        gpt-5-mini    dead       00020000", "endpoint, tokens"),
        (
            120,
            "2026-11-21 17:35:20  globex       gpt-5-mini  chat.completions  1,000   20  dead       000200000000",
            None,
        ),
    ],
)
def test_other_widths(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int, line: str, hidden: str | None
) -> None:
    """What there is no room for is left out as a whole, and said."""
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = run("events", "list").stdout
    assert line.split() in [each.split() for each in shown.splitlines()]
    assert max(map(len, shown.splitlines())) <= columns
    assert (hidden is None) == ("Not shown" not in shown)
    if hidden:
        assert f"\nNot shown: {hidden}. Use a wider terminal or --json.\n" in shown


def test_there_is_more(mixed: Directory, run: Run, run_json: RunJson) -> None:
    """A list that is cut says so."""
    assert mixed
    assert (
        "\nThese are the newest 2. For more: --limit"
        in run("events", "list", "--limit", "2").stdout
    )
    assert run_json("events", "list", "--limit", "2")[1]["more"]
    assert not run_json("events", "list", "--limit", "8")[1]["more"]


def test_nothing_yet(remote: Directory, run: Run) -> None:
    """Nothing is said in words, and that delivered events would not be found."""
    assert remote
    no_index = "There is no index: events that were delivered are not found.\n"
    assert f"No events.\n{no_index}" == run("events", "list").stdout
    assert "No events.\n" == run("events", "list", "--state", "held").stdout


def test_what_is_not_known_is_no_zero(remote: Directory, run: Run) -> None:
    """A body has zeros for usage that was not told; a reader sees none, and of a part of it that it is the least."""
    nothing: dict[str, int | float] = {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
    }
    part: dict[str, int | float] = {**nothing, "input_tokens": 1000, "total_tokens": 1000}
    fill(
        remote,
        [
            record(1, status="missing", units=nothing),
            record(2, status="partial", units=part),
            record(3, status="not_applicable", units=nothing),
        ],
    )
    lines = run("events", "list").stdout.splitlines()[2:5]
    assert [["0", "0"], ["≥1,000", "-"], ["-", "-"]] == [line.split()[4:6] for line in lines]
    said = {
        number: run("events", "show", event_id(number)).stdout.split("  Usage     ")[1]
        for number in (1, 2, 3)
    }
    assert {
        1: "missing",
        2: "partial: ≥1,000 input tokens, ≥1,000 total tokens",
        3: "not_applicable: 0 input tokens, 0 output tokens, 0 total tokens",
    } == {number: text.split("\n")[0] for number, text in said.items()}


def test_a_pipe_gets_whole_lines(
    remote: Directory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no terminal says how wide it is, nothing is cut or broken, and no line ends in a blank."""
    customer, model = "a-customer-with-a-long-name" * 3, "gpt-4o-mini-2024-07-18" * 3
    fill(remote, [record(1, customer, model=model), record(2, None, model=model)])
    monkeypatch.delenv("COLUMNS", raising=False)
    for arguments in (["events", "list"], ["held", "list"], ["status"], ["events", "show", "0001"]):
        with pytest.raises(SystemExit):
            cmdrdata(arguments, prog_name="cmdrdata")
        shown = capsys.readouterr().out
        assert [line.rstrip(" ") for line in shown.split("\n")] == shown.split("\n")
        assert (model in shown) == (arguments != ["status"])


def test_options_that_exclude_each_other(remote: Directory, run: Run) -> None:
    """As for `usage`."""
    assert remote
    done = run("events", "list", "--customer", "acme", "--no-customer")
    assert done.returncode == 2
    assert done.stderr.endswith("Error: --customer and --no-customer exclude each other\n")


def test_a_damaged_event(remote: Directory, run: Run, run_json: RunJson) -> None:
    """Without an index a damaged event is listed by what stands for its id; with one, by all that it was."""
    fill(remote, [record(1)], [REFUSED])
    ledger = Ledger(remote)
    ledger._db.execute("UPDATE events SET crc = crc + 1")
    ledger.close()
    unknown = dict.fromkeys(
        ("customer", "model", "endpoint", "usage_status", "trace_id", "response_id", "request_id")
    )
    damaged = row(1, "dead", reason="HTTP 400", at="2026-11-21T18:33:20Z", units={}, **unknown)
    assert [damaged] == run_json("events", "list")[1]["events"]
    assert "18:33:20  damaged " in run("events", "list").stdout
    shown = run_json("events", "show", "0001")[1]["events"]
    assert [{**damaged, "event": None, "body": "is damaged"}] == shown
    assert "  Body      is damaged\n" in run("events", "show", "0001").stdout
    done = run("events", "export")
    assert (1, "", "1 event not exported: damaged on the disk\n") == (
        done.returncode,
        done.stdout,
        done.stderr,
    )


# list --follow


def test_following(mixed: Directory, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes is shown once, from its journal or the ledger, until Ctrl-C, which is no error."""
    looks = iter(range(100))

    def look(_: float) -> None:
        match next(looks):
            case 0:
                journal = Journal(mixed)
                journal.append(record(9))
                journal.seal()
            case 1:
                # What was in journals is imported, and delivered; and one more.
                for path in mixed.journals():
                    path.unlink()
                fill(mixed, [record(8), record(9), record(10, "globex")], [DELIVERED] * 4)
            case 2:
                pass
            case _:
                raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", look)
    done = run("events", "list", "--follow", "--limit", "2")
    assert (0, "") == (done.returncode, done.stderr)
    assert ["7 pending", "8 pending", "9 pending", "10 delivered"] == [
        f"{int(line.split()[-1][:4])} {line.split()[-2]}" for line in done.stdout.splitlines()[2:]
    ]
    looks = iter(range(3, 100))
    done = run("events", "list", "-f", "--limit", "1", "--json", "--state", "dead")
    assert [row(3, "dead", reason="HTTP 400", usage_status="missing", units={})] == [
        json.loads(line) for line in done.stdout.splitlines()
    ]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_ctrl_c(mixed: Directory, arguments: list[str]) -> None:
    """In a process of its own, too: status 0, and nothing odd is printed."""
    assert mixed
    program = "from cmdrdata_exporter.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "events", "list", "--follow", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=30)
    assert (0, "") == (process.returncode, err)
    shown = [first, *rest.splitlines(keepends=True)]
    assert len(shown) in (range(9) if arguments else range(11))
    assert all("^C" not in line and "Abort" not in line for line in shown)


# show


def test_a_delivered_event(mixed: Directory, run: Run, run_json: RunJson) -> None:
    """Its body has gone to the backend; what it was is known."""
    expected = row(
        1, "delivered", **GONE, event=None, body="went to the backend, and is not kept here"
    )
    for text in (event_id(1), "0001", "chatcmpl-1", "req_1"):
        code, found = run_json("events", "show", text)
        assert (0, [expected]) == (code, found["events"])
    assert {
        "destination": mixed.path.name,
        "looked_for": "req_1",
        "index": ABOUT,
        "searched": None,
    } == {name: value for name, value in found.items() if name != "events"}
    assert (
        """\
Event 00010000000000000000000000000001
  State     delivered
  Ended     2026-11-21 17:34:20 UTC
  Customer  acme
  Model     gpt-5-mini
  Endpoint  chat.completions
  Usage     reported: 1,000 input tokens, 20 output tokens, 1,020 total tokens
  Response  chatcmpl-1
  Request   req_1
  Trace     0000000000000000000000000000abc0
  Body      went to the backend, and is not kept here
"""
        == run("events", "show", "0001").stdout
    )


def test_all_of_a_trace(mixed: Directory, run: Run, run_json: RunJson) -> None:
    """Each event of a trace is shown, with its body where that is here."""
    trace = str(metadata(2)["trace_id"])
    assert [
        {**ROWS[1], "event": body(2, "globex", metadata(2)), "body": None},
        {**ROWS[2], "event": body(3, "acme", metadata(3)), "body": None},
    ] == run_json("events", "show", trace)[1]["events"]
    shown = run("events", "show", trace).stdout
    first, second = shown.split("\n\n")
    assert "\n  State     dead: HTTP 400, since 2026-11-21 18:33:20 UTC\n" in first
    head, _, document = first.partition("  Body      as it would be sent:\n")
    assert head.startswith(f"Event {event_id(2)}\n")
    assert body(2, "globex", metadata(2)) == json.loads(document)
    assert second.startswith(f"Event {event_id(3)}\n")
    assert mixed


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (4, "in flight, since 2026-11-21 18:33:20 UTC"),
        (5, "held: no customer, since 2026-11-21 18:33:20 UTC"),
        (7, "pending, since 2026-11-21 18:33:20 UTC"),
        (8, "pending"),
    ],
)
def test_the_state_in_words(mixed: Directory, run: Run, number: int, state: str) -> None:
    """The state is told with its reason, since when, and how often it was tried."""
    assert mixed
    shown = run("events", "show", f"req_{number}").stdout
    assert f"\n  State     {state}\n" in shown
    assert f'"request_id": "req_{number}"' in shown


def test_an_event_that_was_tried(mixed: Directory, run: Run) -> None:
    """Of one that waits for its next attempt that is said."""
    assert mixed
    shown = run("events", "show", "0006").stdout
    [line] = [line for line in shown.splitlines() if line.startswith("  State")]
    assert line.startswith(
        "  State     pending: ReadTimeoutError, next attempt at 2026-11-21 18:33:2"
    )
    assert line.endswith(" UTC,")
    assert "\n            tried 1 time in vain\n" in shown


def test_a_dropped_event(mixed: Directory, run: Run, run_json: RunJson) -> None:
    """What a person gave up is dropped, not delivered."""
    assert mixed
    assert 0 == run("dead-letters", "drop", "0002").returncode
    dropped = row(2, "dropped", customer="globex", **GONE)
    assert [dropped] == run_json("events", "list", "--state", "dropped")[1]["events"]
    assert (
        "  Body      is not kept: the event was given up\n" in run("events", "show", "0002").stdout
    )


def test_an_assigned_event(mixed: Directory, run: Run, run_json: RunJson) -> None:
    """An event that got a customer has it, also when it is delivered."""
    assert 0 == run("assign", "0005", "--customer", "initech").returncode
    # After the time until the next attempt of one.
    fill(mixed, [record(8)], [DELIVERED] * 4, now=time.time())
    [found] = run_json("events", "show", "chatcmpl-5")[1]["events"]
    assert ("initech", "delivered") == (found["customer"], found["state"])


def test_not_found(mixed: Directory, run: Run, run_json: RunJson) -> None:
    """Status 1, and what was looked through."""
    assert mixed
    done = run("events", "show", "req_99")
    assert (1, "") == (done.returncode, done.stderr)
    assert (
        """\
No event has the id 'req_99': as its own, or of a response, request or trace.
Looked through: the index (7 events), the ledger (6 events), journals (1 event).
"""
        == done.stdout
    )
    code, found = run_json("events", "show", "req_99")
    assert (1, [], {"index": 7, "ledger": 6, "journals": 1}) == (
        code,
        found["events"],
        found["searched"],
    )


def test_not_found_without_an_index(mixed: Directory, run: Run) -> None:
    """Where there is none, or it does not go back so far, that is said."""
    fill(mixed, [record(10)], [DELIVERED] * 2, index=2)
    shown = run("events", "show", "chatcmpl-1").stdout
    assert shown.endswith(
        "\nEvents that were delivered before 2026-11-21 17:39 UTC are not found.\n"
    )
    for path in mixed.path.glob(f"{INDEX}*"):
        path.unlink()
    shown = run("events", "show", "chatcmpl-1").stdout
    assert "Looked through: the index (0 events), the ledger (" in shown
    assert shown.endswith("\nThere is no index: events that were delivered are not found.\n")


def test_a_beginning_of_several(mixed: Directory, run: Run) -> None:
    """Nothing is guessed."""
    assert mixed
    done = run("events", "show", "000")
    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.endswith(
        "Error: 8 events have an id that begins with '000'; expected is one: add a character or two\n"
    )


# export


def line(number: int, state: str, customer: str | None = "acme") -> str:
    """Return an event as it is exported."""
    sent = json.dumps(body(number, customer, metadata(number)), separators=(",", ":"))
    return f'{{"cmdrdata": "{state}", "id": "{event_id(number)}", "event": {sent}}}\n'


def test_export(mixed: Directory, run: Run) -> None:
    """Each event whose body is here is one line, the body as it would be sent."""
    assert mixed
    done = run("events", "export")
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.splitlines(keepends=True) == [
        line(5, "held", None),
        line(2, "dead", "globex"),
        line(3, "dead"),
        line(7, "pending"),
        line(6, "pending"),
        line(8, "pending"),
        line(4, "in_flight"),
    ]
    assert line(2, "dead", "globex") == run("events", "export", "--customer", "globex").stdout
    assert line(5, "held", None) + line(4, "in_flight") == (
        run("events", "export", "--state", "held", "--state", "in-flight").stdout
    )
    assert "" == run("events", "export", "--until", "2026-11-20").stdout


def test_export_of_local_events(local: Directory, tmp_path: Path) -> None:
    """Into a file goes what would be sent, byte for byte, whatever its encoding."""
    fill(local, [ledgers.record(1, "müller客", metadata={"note": "\x9b31m\u202e"})], local=True)
    sent = json.dumps(body(1, "müller客", {"note": "\x9b31m\u202e"}), separators=(",", ":"))
    program = "from cmdrdata_exporter.cli import main; main()"
    with (tmp_path / "events.jsonl").open("wb") as file:
        subprocess.run(
            [sys.executable, "-c", program, "events", "export", "--state", "local"],
            stdout=file,
            check=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
    assert (tmp_path / "events.jsonl").read_bytes() == (
        f'{{"cmdrdata": "local", "id": "{event_id(1)}", "event": {sent}}}\n'.encode()
    )


def test_local_events(local: Directory, run: Run, run_json: RunJson) -> None:
    """Events that stay here are listed, with their bodies and, later, without."""
    fill(local, [record(1), record(2)], local=True, index=9)
    assert [2, 1] == listed(run_json, "--state", "local")
    ledger = Ledger(local, local=True)
    with ledger.transaction():
        ledger.retention.shrink_local(1)
    ledger.close()
    assert [2, 1] == listed(run_json, "--state", "local")
    assert (
        "  Body      is not kept any more; its usage is\n" in run("events", "show", "0001").stdout
    )
    assert "  Body      as it would be sent:\n" in run("events", "show", "0002").stdout


def test_status_says_why(mixed: Directory, run: Run, run_json: RunJson) -> None:
    """Where there is no index, or a new one, `status` says why, and `events` which events are not found."""
    (mixed.path / INDEX).write_bytes(b"no database at all" * 100)
    reason = "the index cannot be read: file is not a database"
    assert reason == run_json("status")[1]["destinations"][0]["index"]["reason"]
    assert f"\nNo index of events: {reason}.\n" in run("status").stdout
    assert f"There is no index ({reason}): events that were delivered are not found." in " ".join(
        run("events", "list").stdout.split()
    )
    index = Index(mixed, 9)
    ledger = Ledger(mixed, index=index)
    index._again_at = 0.0
    with ledger.transaction():
        index.tidy(ledger.before, ledger.last(), NOW)
    ledger.close()
    assert (
        "\nIndex of events begun anew: SQLite says file is not a database.\n"
        in run("status").stdout
    )
    assert (
        "\nEvents that were delivered before 2026-11-21 18:33 UTC are not found (SQLite\n"
        "says file is not a database).\n" in run("events", "list").stdout
    )
