"""`cmdrdata usage --html`: the report as a file; tests/browser has what it looks like."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.cli.dashboard.report import MOST_DAYS
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.cli.conftest import Run
from tests.ledgers import DELIVERED, KEY, fill, record
from tests.used import HOSTILE, SHOWN


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of the report."""
    return tmp_path / "usage.html"


def rows(html: str) -> list[list[str]]:
    """Return the text of each cell of the table in a report."""
    return [
        [
            re.sub(r"<[^>]*>", "", cell)
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        ]
        for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    ]


def data(html: str) -> str:
    """Return the data of a report, as it is written."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return found[1]


def plots(html: str) -> list[Any]:
    """Return what is plotted in a report."""
    return json.loads(data(html))


def test_the_report(remote: Directory, run: Run, file: Path) -> None:
    """The table is that of the command, with every unit; the plot is of the same days; what is in it is said."""
    fill(
        remote,
        [
            record(1),
            record(2, "globex", model="whisper-1", day="2026-11-18", units={"audio_seconds": 2.5}),
            record(3, None, status="missing", units={}),
        ],
        [DELIVERED],
    )
    done = run("usage", "--html", str(file), "--by", "customer,model", "--since", "2026-11")
    assert (0, f"Written to {file}.\n", "") == (done.returncode, done.stdout, done.stderr)
    html = file.read_text(encoding="utf-8")
    assert [
        [
            "customer",
            "model",
            "events",
            "input tokens",
            "output tokens",
            "total tokens",
            "audio seconds",
        ],
        ["acme", "gpt-5-mini", "1", "1,000", "20", "1,020", "0"],
        ["globex", "whisper-1", "1", "0", "0", "0", "2.5"],
        ["no customer", "gpt-5-mini", "1", "0", "0", "0", "0"],
        ["Total", "", "3", "1,000", "20", "1,020", "2.5"],
    ] == rows(html)
    assert "<title>Usage by customer and model</title>" in html
    assert f"Since 2026-11-01; {remote.path.name}." in html
    assert [
        "3 events = 1 delivered + 1 pending + 1 held. Delivered alone: --only billed",
        "Totals are too low: 1 call reported no usage. To see which: --by endpoint,model,status",
    ] == re.findall("<li>(.*?)</li>", html)
    days = ["2026-11-18", "2026-11-19", "2026-11-20"]
    audio = {"names": ["globex", "whisper-1"], "amounts": [2.5, 0, 0]}
    assert {"unit": "audio_seconds", "periods": days, "series": [audio]} == plots(html)[-1]


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (["2026-11-20", "2026-08-21"], 92),
        (["2026-11-20", "2026-08-20"], ["2026-08", "2026-09", "2026-10", "2026-11"]),
        (["2026-01-01", "2025-12-31"], ["2025-12-31", "2026-01-01"]),
    ],
)
def test_periods(
    days: list[str], expected: int | list[str], remote: Directory, run: Run, file: Path
) -> None:
    """So many days are plotted one by one, and more by month, without a gap."""
    fill(remote, [record(number, day=day) for number, day in enumerate(days)])
    run("usage", "--html", str(file), "--by", "day,model")
    (events, *_) = plots(file.read_text(encoding="utf-8"))
    assert ("events", [["gpt-5-mini"]]) == (
        events["unit"],
        [one["names"] for one in events["series"]],
    )
    assert MOST_DAYS == 92
    assert expected == (len(events["periods"]) if expected == 92 else events["periods"])
    assert 2 == sum(events["series"][0]["amounts"])


def test_nothing_from_elsewhere(
    remote: Directory, run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in the report is loaded, no key is in it, and names are text wherever they stand."""
    fill(remote, [record(1, HOSTILE, model=HOSTILE)])
    run("usage", "--html", str(file), "--by", "customer,model")
    html = file.read_text(encoding="utf-8")
    assert [] == re.findall(r"<link|<img|\ssrc=|@import|url\(|<script>window", html)
    assert "default-src 'none'" in html
    assert KEY not in html
    assert "<" not in data(html)
    assert SHOWN == plots(html)[0]["series"][0]["names"][0]
    assert "Copyright (c) 2022 Leon Sorokin" in html
    assert html.count("</script>") == html.count("<script")


def test_no_usage(remote: Directory, run: Run, file: Path) -> None:
    """Of nothing there is a table without rows, and no plot."""
    fill(remote, [record(1)])
    run("usage", "--html", str(file), "--customer", "globex")
    html = file.read_text(encoding="utf-8")
    assert ([["customer", "events"], ["Total", "0"]], []) == (rows(html), plots(html))


def test_a_file_that_cannot_be_written(remote: Directory, run: Run, tmp_path: Path) -> None:
    """Status 1, and why."""
    fill(remote, [record(1)])
    done = run("usage", "--html", str(tmp_path / "none" / "usage.html"))
    assert (1, True) == (done.returncode, "No such file or directory" in done.stderr)


def test_one_form(remote: Directory, run: Run, file: Path) -> None:
    """A report is not what a script reads."""
    done = run("usage", "--html", str(file), "--json")
    assert (2, True) == (
        done.returncode,
        "--csv, --focus, --html and --json exclude each other" in done.stderr,
    )
