"""`cmdrdata usage`: what was used, and of which destination."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.cli.days import day_of
from cmdrdata_exporter.cli.states import STATES
from cmdrdata_exporter.cli.usage.numbers import COLUMNS
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from tests.cli.conftest import Run
from tests.ledgers import DELIVERED, ENDPOINT, fill, record

RunJson = Callable[..., tuple[int, Any]]

CHAT = {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020}
AUDIO = {"audio_seconds": 12.5, "input_tokens": 4}
NOWHERE = dict.fromkeys(STATES, 0)


@pytest.fixture
def used(remote: Directory) -> Directory:
    """The ledger of some days."""
    fill(
        remote,
        [
            record(1, "acme"),
            record(2, "acme", day="2026-11-21", units={**CHAT, "reasoning_output_tokens": 7}),
            record(3, "acme", model="whisper-1", endpoint="audio.transcriptions", units=AUDIO),
            record(4, "globex", day="2026-11-19"),
            record(5, None, units={**CHAT, "cache_read_input_tokens": 512, "images": 0}),
        ],
    )
    return remote


def test_usage_as_json(used: Directory, run_json: RunJson) -> None:
    """By default each customer's events and units, tokens first; nobody is null and comes last."""
    commands.append(used, [record(6)])
    assert (
        0,
        {
            "destination": used.path.name,
            "destinations": [used.path.name],
            "by": ["customer"],
            "since": None,
            "until": None,
            "only": None,
            "rows": [
                {
                    "customer": "acme",
                    "events": 3,
                    "units": {
                        "input_tokens": 2004,
                        "output_tokens": 40,
                        "total_tokens": 2040,
                        "audio_seconds": 12.5,
                        "reasoning_output_tokens": 7,
                    },
                },
                {"customer": "globex", "events": 1, "units": CHAT},
                {
                    "customer": None,
                    "events": 1,
                    "units": {**CHAT, "cache_read_input_tokens": 512},
                },
            ],
            "total": {
                "events": 5,
                "units": {
                    "input_tokens": 4004,
                    "output_tokens": 80,
                    "total_tokens": 4080,
                    "audio_seconds": 12.5,
                    "cache_read_input_tokens": 512,
                    "reasoning_output_tokens": 7,
                },
            },
            "states": {**NOWHERE, "pending": 4, "held": 1},
            "dropped_before": 0,
            "incomplete_usage": {"missing": 0, "partial": 0},
            "not_imported": 1,
        },
    ) == run_json("usage")


def test_columns_in_the_order_that_was_asked_for(used: Directory, run_json: RunJson) -> None:
    """Each of the columns groups, in any order, and the rows are sorted by the first of them."""
    _, found = run_json("usage", "--by", "day, customer,model,day,endpoint,status")
    assert ["day", "customer", "model", "endpoint", "status"] == found["by"]
    assert [
        ("2026-11-19", "globex", "gpt-5-mini", "chat.completions", "reported", 1),
        ("2026-11-20", "acme", "gpt-5-mini", "chat.completions", "reported", 1),
        ("2026-11-20", "acme", "whisper-1", "audio.transcriptions", "reported", 1),
        ("2026-11-20", None, "gpt-5-mini", "chat.completions", "reported", 1),
        ("2026-11-21", "acme", "gpt-5-mini", "chat.completions", "reported", 1),
    ] == [tuple(row[name] for name in (*found["by"], "events")) for row in found["rows"]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--since", "2026-11-20"], {"acme": 3, None: 1}),
        (["--until", "2026-11-20"], {"acme": 2, "globex": 1, None: 1}),
        (["--since", "2026-11-21", "--until", "2026-11-21"], {"acme": 1}),
        (["--since", "2026-11", "--until", "2026-11"], {"acme": 3, "globex": 1, None: 1}),
        (["--until", "2026-10"], {}),
        (["--customer", "globex"], {"globex": 1}),
        (["--no-customer"], {None: 1}),
        (["--unattributed"], {None: 1}),
        (["--customer", "nobody-else"], {}),
    ],
)
def test_filters(
    options: list[str], expected: dict[str | None, int], used: Directory, run_json: RunJson
) -> None:
    """Days are inclusive, a customer is named as it is billed, and nobody can be asked for."""
    code, found = run_json("usage", *options)
    assert (0, expected) == (code, {row["customer"]: row["events"] for row in found["rows"]})


def test_usage_as_csv(used: Directory, run: Run) -> None:
    """A line for each unit of each group, whatever the units are; what is not in it is said beside it."""
    commands.append(used, [record(6), record(7, status="missing")])
    done = run("usage", "--csv", "--by", "customer,day", "--customer", "acme")
    assert (
        """\
customer,day,unit,amount
acme,2026-11-20,events,2
acme,2026-11-20,input_tokens,1004
acme,2026-11-20,output_tokens,20
acme,2026-11-20,total_tokens,1020
acme,2026-11-20,audio_seconds,12.5
acme,2026-11-21,events,1
acme,2026-11-21,input_tokens,1000
acme,2026-11-21,output_tokens,20
acme,2026-11-21,total_tokens,1020
acme,2026-11-21,reasoning_output_tokens,7
"""
        == done.stdout
    )
    assert (
        "Note: 3 events = 3 pending. Delivered alone: --only billed\n"
        "Note: Not counted yet: 2 more events, recorded just now.\n"
    ) == done.stderr
    assert run("usage", "--csv", "--no-customer").stdout.startswith(
        "customer,unit,amount\n,events,1"
    )


@pytest.mark.parametrize(
    ("said", "first", "last"),
    [
        ("2026-11-21", "2026-11-21", "2026-11-21"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("today", "2026-03-01", "2026-03-01"),
        ("Yesterday", "2026-02-28", "2026-02-28"),
        ("7d", "2026-02-22", "2026-02-22"),
        ("0d", "2026-03-01", "2026-03-01"),
        ("month", "2026-03-01", "2026-03-31"),
        ("last-month", "2026-02-01", "2026-02-28"),
        ("9999-12", "9999-12-01", None),
        ("365d", "2025-03-01", "2025-03-01"),
        ("2026-1-1", None, None),
        ("7 d", None, None),
        ("2026-13", None, None),
        ("tomorrow", None, None),
        ("", None, None),
    ],
)
def test_days_as_a_person_says_them(said: str, first: str | None, last: str | None) -> None:
    """A month begins with its first day and ends with its last; what is no day is none."""
    today = date(2026, 3, 1)
    meant = (day_of(said, today), day_of(said, today, last=True))
    assert (first, last) == tuple(None if day is None else day.isoformat() for day in meant)


SHARES = [
    (["missing"], "Totals are too low: 1 call reported no usage."),
    (["partial", "partial"], "Totals are too low: 2 calls reported usage only in part."),
    (
        ["missing", "missing", "partial", "not_applicable"],
        "Totals are too low: 2 calls reported no usage, 1 call reported usage only in part.",
    ),
    (["reported", "not_applicable"], None),
]


@pytest.mark.parametrize(("statuses", "footnote"), SHARES)
def test_usage_that_is_not_known(
    statuses: list[str], footnote: str | None, remote: Directory, run: Run, run_json: RunJson
) -> None:
    """Where calls told no usage, or only part of it, the numbers are too low, and it is said of how many."""
    fill(
        remote,
        [
            *(record(number, status=status) for number, status in enumerate(statuses, 1)),
            record(90, "globex", status="missing"),
            record(91, day="2026-11-21", status="missing"),
        ],
        [DELIVERED] * (len(statuses) + 2),
    )
    chosen = ("usage", "--customer", "acme", "--until", "2026-11-20")
    told = run(*chosen).stdout.partition("\n\n")[2] or None
    assert told == (footnote and f"{footnote} To see which: --by endpoint,model,status\n")
    assert {
        "missing": statuses.count("missing"),
        "partial": statuses.count("partial"),
    } == run_json(*chosen)[1]["incomplete_usage"]


def test_no_home(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 2 where no directory can be named: some containers' users have no home."""
    monkeypatch.setenv("CMDRDATA_SPOOL_DIR", "~nobody-at-all/spool")
    done = run("usage")
    assert (
        2,
        "Error: Could not determine home directory; set CMDRDATA_SPOOL_DIR or --spool-dir\n",
    ) == (done.returncode, done.stderr)


def test_nothing_was_used(remote: Directory, run: Run) -> None:
    """That is said in words."""
    assert f"No usage recorded for {remote.path.name} with these filters.\n" == run("usage").stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--by", "customer,colour"],
            f"Invalid value for '--by': 'colour' is none of: {', '.join(COLUMNS)}",
        ),
        (
            ["--since", "2026-02-30"],
            "Invalid value for '--since': '2026-02-30' is no day; expected is one of: 2026-11-21, 2026-11, "
            "today, yesterday, 7d (seven days ago), month, last-month",
        ),
        (["--csv", "--json"], "--csv, --focus, --html and --json exclude each other"),
        (["--csv", "--focus"], "--csv, --focus, --html and --json exclude each other"),
        (["--focus", "--by", "day"], "--focus has columns of its own: leave --by away"),
        (["--only", "dead"], "Invalid value for '--only': 'dead' is not 'billed'."),
        (["--customer", "acme", "--unattributed"], "exclude each other"),
    ],
)
def test_what_cannot_be_asked(
    options: list[str], message: str, remote: Directory, run: Run
) -> None:
    """Status 2, and what is wrong with which option."""
    done = run("usage", *options)
    assert (2, "") == (done.returncode, done.stdout)
    assert message in " ".join(done.stderr.split())


def test_a_ledger_that_cannot_be_read(remote: Directory, run: Run) -> None:
    """Status 1: a person is needed."""
    (remote.path / LEDGER).write_bytes(b"no database" * 1000)
    done = run("usage")
    assert (1, "", "Error: the ledger cannot be read: file is not a database\n") == (
        done.returncode,
        done.stdout,
        done.stderr,
    )


def test_the_destination_of_the_environment(
    remote: Directory, local: Directory, run_json: RunJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the settings, as for the application, unless one is named."""
    assert remote.path.name == run_json("usage")[1]["destination"]
    assert "local" == run_json("usage", "--destination", "local")[1]["destination"]
    monkeypatch.delenv("CMDRDATA_API_KEY")
    monkeypatch.delenv("CMDRDATA_ENDPOINT")
    assert "local" == run_json("usage")[1]["destination"]
    named = run_json("usage", "--destination", remote.path.name, "--spool-dir", remote.path.parent)
    assert remote.path.name == named[1]["destination"]


def test_a_destination_that_is_not_there(
    remote: Directory, local: Directory, run: Run, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2, with the names of those that are."""
    monkeypatch.setenv("CMDRDATA_ACCOUNT", "another")
    others = (
        f"in {spool}. Choose one of these with --destination NAME:\n"
        f"  {remote.path.name}  (account default at {ENDPOINT})\n"
        "  local  (events stay on this host)\n"
    )
    done = run("usage")
    assert (2, f"Error: no events recorded for 'another at {ENDPOINT}' {others}") == (
        done.returncode,
        done.stderr,
    )
    done = run("usage", "--destination", "other")
    assert (2, f"Error: no events recorded for 'other' {others}") == (
        done.returncode,
        done.stderr,
    )


def test_no_destination_at_all(run: Run, spool: Path) -> None:
    """Status 2, and which variable may be missing."""
    done = run("usage")
    assert (
        2,
        f"Error: no events recorded in {spool}. If the application uses another directory, "
        "set CMDRDATA_SPOOL_DIR or --spool-dir to it\n",
    ) == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "CMDRDATA_API_KEY",
            "tk-short",
            "Error: CMDRDATA_API_KEY has 8 characters; expected is a CmdrData key: 20 to 500 printable ASCII "
            "characters without spaces, commonly with tk- at the beginning. Copy it again from your CmdrData account. "
            "Or choose a destination with --destination NAME\n",
        ),
        (
            "CMDRDATA_ENABLED",
            "false",
            "Error: CMDRDATA_ENABLED switches metering off here, so there is no destination. "
            "Or choose a destination with --destination NAME\n",
        ),
    ],
)
def test_an_environment_that_cannot_be_used(
    *,
    variable: str,
    value: str,
    message: str,
    remote: Directory,
    run: Run,
    run_json: RunJson,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Status 2, never with a key; what needs no key can still be had by the destination's name."""
    monkeypatch.setenv(variable, value)
    done = run("usage")
    assert (2, message) == (done.returncode, done.stderr)
    assert 0 == run_json("usage", "--destination", remote.path.name)[0]


def test_a_directory_that_fails(used: Directory, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operating system refuses is one line and status 1, whichever command meets it."""

    def refuse(_: Directory) -> None:
        raise PermissionError(13, "Permission denied", "a\x1b.journal")

    monkeypatch.setattr(Directory, "journals", refuse)
    for command in (("usage",), ("flush",)):
        done = run(*command)
        assert (1, "", "Error: [Errno 13] Permission denied: 'a\\x1b.journal'\n") == (
            done.returncode,
            done.stdout,
            done.stderr,
        )
