"""`cmdrdata reconcile`: what is missing is found to the last unit, and no cause is made up."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from cmdrdata_exporter.cli.reconcile import api
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.records import Command, encode_command
from cmdrdata_exporter.key_hash import key_hash
from tests.cli.conftest import Run
from tests.ledgers import fill
from tests.usage_months import FIRST, GAPS, LAST, MINI, MONTH, SURFACES, YEAR, Call, Month

RunJson = Callable[..., tuple[int, Any]]
CALLS = 3100


def record_in(directory: Directory, month: Month) -> None:
    """Put the events and open jobs of a month into a ledger."""
    jobs = [encode_command(Command("job", (job.key,), job=job)) for job in month.jobs]
    fill(directory, [*month.records, *jobs], local=True)


def write(folder: Path, month: Month, *group_by: str) -> list[str]:
    """Write the provider's side into files; return their names."""
    paths = [folder / f"{surface}.json" for surface in SURFACES]
    for path, text in zip(paths, month.documents(group_by or ("model",)), strict=True):
        path.write_text(text, encoding="utf-8")
    return list(map(str, paths))


@pytest.fixture(scope="module")
def month() -> Month:
    """A month with gaps."""
    return Month(CALLS)


@pytest.fixture
def files(local: Directory, month: Month, tmp_path: Path) -> list[str]:
    """The files of the provider's side; the month is in the ledger."""
    record_in(local, month)
    return write(tmp_path, month)


def differing(found: Any) -> list[dict[str, Any]]:
    """Return the rows that differ, as `GAPS` has them."""
    rows: list[dict[str, Any]] = []
    for row in found["rows"]:
        differences = {
            unit: pair["difference"] for unit, pair in row["units"].items() if pair["difference"]
        }
        if differences:
            day = int(row["day"].removeprefix(f"{YEAR}-{MONTH:02}-"))
            rows.append(
                {
                    "of": (day, row["model"]),
                    "differences": differences,
                    "causes": row["causes"],
                    "unexplained": row["unexplained"],
                }
            )
    return rows


def test_exactly_what_is_missing(files: list[str], run_json: RunJson) -> None:
    """Of a month with known gaps those are found, with what is known of each, and nothing else differs."""
    code, found = run_json("reconcile", *files)
    assert 0 == code
    assert list(GAPS) == differing(found)
    assert (FIRST, LAST, ["day", "model"]) == (found["since"], found["until"], found["by"])


def test_a_month_without_gaps(
    local: Directory, tmp_path: Path, run_json: RunJson, run: Run
) -> None:
    """What both have counted alike is equal in every unit, theirs added up from parts that exclude each other."""
    month = Month(CALLS, gaps=False)
    record_in(local, month)
    files = write(tmp_path, month)
    code, found = run_json("reconcile", *files, "--check", "100")
    assert (0, []) == (code, differing(found))
    assert {unit: pair["covered"] for unit, pair in found["total"].items()} == dict.fromkeys(
        (
            "requests",
            "input_tokens",
            "cache_read_input_tokens",
            "audio_input_tokens",
            "output_tokens",
            "audio_output_tokens",
            "images",
            "characters",
            "audio_seconds",
        ),
        1,
    )
    rows = len(found["rows"])
    assert f"All of {rows} rows are equal, to the last unit." in run("reconcile", *files).stdout


@pytest.mark.parametrize(
    "by", ["day,model,project,key,tier", "project", "tier,model", "key", "day"]
)
def test_by_whatever_both_tell(
    by: str, local: Directory, tmp_path: Path, run_json: RunJson
) -> None:
    """A month that is alike is alike by whatever it is compared by; keys are matched by what is shown of them."""
    month = Month(CALLS, gaps=False)
    record_in(local, month)
    keys = tmp_path / "keys.json"
    keys.write_text(
        '{"data": [{"id": "key_shop", "redacted_value": "sk-proj-...wxYZ"}]}\n'
        '[{"id": "key_lab", "redacted_value": "sk-proj-****_-09"}]'
    )
    fields = ("model", "project_id", "api_key_id", "batch", "service_tier")
    files = write(tmp_path, month, *fields)
    code, found = run_json("reconcile", *files, "--by", by, "--keys", str(keys))
    assert (0, True) == (code, bool(found["rows"]))
    assert [] == [
        row for row in found["rows"] if any(pair["difference"] for pair in row["units"].values())
    ]
    assert [] == found["notes"]
    if by == "key":
        assert {"key_shop", "key_lab"} == {row["key"] for row in found["rows"]}


def test_coverage(files: list[str], run: Run, run_json: RunJson) -> None:
    """Coverage is that of the unit that is worst, and too little of it is a status for scripts."""
    _, found = run_json("reconcile", *files)
    # Nothing of the web searches was recorded.
    assert 0 == found["lowest_coverage"]
    done = run("reconcile", *files, "--check", "99.5")
    assert (1, "Covered is 0.00 %; expected is 99.5 % or more.\n") == (done.returncode, done.stderr)
    tokens = [path for path in files if "web" not in path]
    covered = run_json("reconcile", *tokens)[1]["total"]["output_tokens"]
    short = 7_400 + 250 + 240 + 18_000 + 50_000 + 9_000 + 123 + 480 + 200
    assert 1 - short / covered["theirs"] == pytest.approx(covered["covered"], abs=1e-12)
    assert 0 == run("reconcile", *tokens, "--check", "50").returncode


def test_csv(files: list[str], run: Run) -> None:
    """A line for each unit of each row, with stable columns."""
    done = run("reconcile", *files, "--csv")
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    (line,) = (
        line
        for line in lines
        if (line["day"], line["model"], line["unit"]) == ("2026-10-03", MINI, "output_tokens")
    )
    assert [
        "day",
        "model",
        "unit",
        "theirs",
        "ours",
        "difference",
        "covered",
        "causes",
        "unexplained",
    ] == list(line)
    assert ("-7400", "", "-7400") == (line["difference"], line["causes"], line["unexplained"])
    assert int(line["theirs"]) - int(line["ours"]) == 7400
    assert {"open_jobs"} == {
        line["causes"]
        for line in lines
        if line["day"] == "2026-10-20" and line["difference"] != "0"
    }


# --- What it is asked with -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either files of OpenAI's usage, or --from-api"),
        (["FILE", "--from-api"], "give either files of OpenAI's usage, or --from-api"),
        (["FILE", "--base-url", "https://x.test"], "--base-url is for --from-api"),
        (["FILE", "--by", "key"], "--by key needs --keys FILE, or --from-api"),
        (["FILE", "--by", "day,colour"], "'colour' is none of: day, model, tier, project, key"),
        (["FILE", "--csv", "--json"], "--csv and --json exclude each other"),
        (["FILE", "--check", "101"], "101.0 is not in the range 0<=x<=100"),
        (["FILE", "--by", "project"], "is not grouped by project_id, so it cannot be compared by"),
        (["FILE", "--since", "2027-01-01"], "neither usage nor a day without usage"),
        (["BAD"], "bad.json is no whole JSON"),
        (["FILE", "--keys", "BAD"], "bad.json is no list of keys"),
        (["--from-api"], "OPENAI_ADMIN_KEY is not set"),
        (["--from-api", "--since", "today"], "is after --until"),
        (["FILE", "--since", "today", "--until", "7d"], "is after --until"),
    ],
)
def test_what_cannot_be_compared(
    arguments: list[str], message: str, files: list[str], tmp_path: Path, run: Run
) -> None:
    """What is wrong is said, with status 2."""
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    names = {"FILE": files[0], "BAD": str(bad)}
    done = run("reconcile", *(names.get(argument, argument) for argument in arguments))
    assert (2, "") == (done.returncode, done.stdout)
    assert message in " ".join(done.stderr.split())


def test_an_sdk_without_the_admin_api(
    files: list[str], monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """Without the SDK, or with one from before the admin API, files can be compared, and the API cannot be asked."""

    def from_before(*, api_key: str, base_url: str, timeout: float, max_retries: int) -> None:
        """Take what the client of an older version takes."""

    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-AbCdEfGhIjKlMnOp")
    monkeypatch.setattr(openai, "OpenAI", from_before)
    done = run("reconcile", "--from-api")
    assert (2, "") == (done.returncode, done.stdout)
    assert "knows no admin API; upgrade it, or give a file of usage" in " ".join(
        done.stderr.split()
    )
    monkeypatch.setattr(api, "find_spec", {"openai": None}.get)
    done = run("reconcile", "--from-api")
    assert (2, "") == (done.returncode, done.stdout)
    assert "--from-api needs the openai package" in done.stderr
    assert 0 == run("reconcile", *files).returncode


def test_all_destinations(
    spool: Path, local: Directory, tmp_path: Path, run_json: RunJson, run: Run
) -> None:
    """What several destinations have recorded is one side."""
    month = Month(CALLS, gaps=False)
    other = Directory.prepare(spool, "https://other.test/events", "default")
    half = len(month.records) // 2
    fill(local, month.records[:half], local=True)
    fill(other, month.records[half:])
    files = write(tmp_path, month)
    code, found = run_json("reconcile", *files, "--destination", "all", "--check", "100")
    assert (0, [], 1) == (code, differing(found), found["lowest_coverage"])
    assert {local.path.name, other.path.name} == set(found["destinations"])
    assert {"pending": len(month.records) - half} == found["not_delivered"]
    alone = run("reconcile", *files, "--destination", local.path.name, "--check", "99")
    assert 1 == alone.returncode


@pytest.mark.parametrize("width", [60, 80, 120])
def test_as_a_reader_sees_it(
    width: int, files: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each width no line is longer, no number is broken, and a column that is left out is named."""
    run_at = run

    def wide(*arguments: str) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        return run_at(*arguments).stdout

    shown = wide("reconcile", *files)
    assert max(map(len, shown.splitlines())) <= width
    text = " ".join(shown.split())
    assert "14 of 219 rows differ, by day, model" in text
    assert (
        "- UNEXPLAINED: 37,000 input tokens, 3,700 cache read input tokens, 7,400 output tokens "
        "(37 more requests there than calls here)"
    ) in text
    assert "Not counted, at gateway.internal: 30 requests, 60,000 input tokens" in text
    assert text.endswith("Least covered: web search calls, 0.00 %. Unexplained: 2 rows.")
    left_out = "Not shown everywhere: ours. Use a wider terminal, --csv or --json."
    assert (width == 60) == (left_out in text)


def test_names_that_would_command_a_terminal(local: Directory, tmp_path: Path, run: Run) -> None:
    """A model's name is shown with what a terminal must not get escaped, and breaks no JSON."""
    month = Month(0, gaps=False)
    evil = "gpt\x1b[31m\u202e[bold]"
    month.provider.count(Call(5, evil, "chat.completions", 100, 10))
    record_in(local, month)
    files = write(tmp_path, month)
    for option in ([], ["--csv"], ["--json"]):
        shown = run("reconcile", *files, *option).stdout
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert r"gpt\x1b[31m\u202e[bold]" in run("reconcile", *files).stdout


def test_what_did_not_get_into_the_ledger(
    local: Directory, month: Month, tmp_path: Path, run_json: RunJson
) -> None:
    """Events that were recorded just now, and are in no total, are said."""
    record_in(local, month)
    commands.append(local, month.records[:2])
    _, found = run_json("reconcile", *write(tmp_path, month))
    assert ["Not counted here yet: 2 more events, recorded just now."] == found["notes"]


def test_a_key_of_which_too_little_is_shown(
    local: Directory, tmp_path: Path, run_json: RunJson
) -> None:
    """It cannot be told which one it is, so it is a row of its own on each side, and that is said."""
    month = Month(0, gaps=False)
    month.both(Call(5, MINI, "chat.completions", 100, 10))
    record_in(local, month)
    keys = tmp_path / "keys.json"
    keys.write_text('[{"id": "key_shop", "redacted_value": "sk-...xYZ"}]')
    files = write(tmp_path, month, "api_key_id")
    _, found = run_json("reconcile", *files, "--by", "key", "--keys", str(keys))
    assert ["key_shop", key_hash("wxYZ")] == sorted(
        (row["key"] for row in found["rows"]), reverse=True
    )
    assert [
        "Of 1 key fewer than 4 characters are shown: its usage there is under its id, and here under its hash."
    ] == [note for note in found["notes"] if "key" in note]
