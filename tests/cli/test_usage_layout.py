"""`cmdrdata usage` for a reader: what stands where in a terminal of any width, and in a pipe."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from cmdrdata_exporter.cli import terminal
from cmdrdata_exporter.cli.commands import cmdrdata
from cmdrdata_exporter.cli.terminal import Json
from cmdrdata_exporter.cli.usage import layout, show_usage
from cmdrdata_exporter.cli.usage.layout import blocks
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.cli.conftest import Run
from tests.ledgers import DELIVERED, fill, record

RunJson = Callable[..., tuple[int, Any]]
UNITS: dict[str, int | float] = {
    "input_tokens": 123456,
    "output_tokens": 2345,
    "total_tokens": 125801,
    "audio_input_tokens": 10,
    "audio_output_tokens": 12,
    "audio_seconds": 93.5,
    "cache_read_input_tokens": 4096,
    "cache_write_input_tokens": 5,
    "image_input_tokens": 4,
    "images": 3,
    "reasoning_output_tokens": 77,
    "web_search_calls": 4,
}
LONG = "tenant-7f3c9a51-6c1b-4d7e-9a55-3d1b0c0e8f42-production-eu-west"


@pytest.fixture
def used(remote: Directory) -> Directory:
    """The ledger of a customer with a long name and many units, and of two others; all is delivered."""
    fill(
        remote,
        [
            record(1, LONG, units=UNITS),
            record(2, "acme"),
            record(3, "globex", model="whisper-1", units={"audio_seconds": 1.5}),
        ],
        [DELIVERED] * 3,
    )
    return remote


def at(width: int, found: Json) -> str:
    """Return what a terminal of a width shows; blanks at the ends of lines are cut."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=True, color_system=None, highlight=False
    )
    show_usage(console, found)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def test_a_pipe(used: Directory, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """There every unit stands, at full width, and a note is one line."""
    monkeypatch.setenv("COLUMNS", "20")
    commands.append(used, [record(6), record(7)])
    done = run("usage", "--by", "customer,service_tier", "--customer", "globex")
    assert (
        """\
           Service              Audio
Customer   tier      Events   seconds
─────────────────────────────────────
globex     -              1       1.5

Not counted yet: 2 more events, recorded just now.
"""
        == done.stdout
    )


def test_a_file_has_no_padding(used: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    """A line ends where its text does, and none is wrapped, however many units there are."""
    with pytest.raises(SystemExit):
        cmdrdata(["usage", "--by", "customer,model,endpoint"], prog_name="cmdrdata")
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == lines
    assert [len((LONG, "gpt-5-mini", "chat.completions", "events", *UNITS))] == [
        len(line.split()) for line in lines if line.startswith(LONG)
    ]


def test_names_beside_the_numbers(used: Directory, run_json: RunJson) -> None:
    """Where the names leave room for three units each row is a line, and the units left out are named."""
    assert """\
                               Input   Output     Total
 Endpoint           Events    tokens   tokens    tokens
───────────────────────────────────────────────────────
 chat.completions        3   124,456    2,365   126,821

Not shown: audio input tokens, audio output tokens, audio
seconds, cache read input tokens, cache write input tokens,
image input tokens, images, reasoning output tokens, web
search calls. Use a wider terminal or --json.
""" == at(60, run_json("usage", "--by", "endpoint")[1])


@pytest.mark.parametrize(
    ("width", "tenant"),
    [(80, f" {LONG}   gpt-5-mini\n"), (60, f" {LONG}\n gpt-5-mini\n")],
)
def test_names_above_the_numbers(
    width: int, tenant: str, used: Directory, run_json: RunJson
) -> None:
    """Where they leave less, whole rows are wrapped: no name is broken, and the numbers stand below it."""
    _, found = run_json("usage", "--by", "customer,model")
    shown = at(
        width, {**found, "total": {**found["total"], "units": dict(list(UNITS.items())[:3])}}
    )
    assert (
        f"""\
 Customer   Model
              Input   Output     Total
   Events    tokens   tokens    tokens
──────────────────────────────────────
 acme   gpt-5-mini
        1     1,000       20     1,020
 globex   whisper-1
        1         0        0         0
{tenant}\
        1   123,456    2,345   125,801

 Total
        3   123,456    2,345   125,801
"""
        == shown
    )


@pytest.mark.parametrize("width", range(30, 220, 7))
def test_no_name_is_broken_and_no_number_cut(
    width: int, used: Directory, run_json: RunJson
) -> None:
    """At any width each name stands whole in one line, and a unit is shown in full or named as left out."""
    _, found = run_json("usage", "--by", "customer,model")
    lines = at(width, found).splitlines()
    for name in (LONG, "acme", "globex", "gpt-5-mini", "whisper-1"):
        assert any(name in line.split() for line in lines), name
    table, _, left = "\n".join(lines).partition("Not shown: ")
    named = " ".join(left.split()).partition(". Use")[0]
    hidden = set(filter(None, named.split(", ")))
    numbers = next(line for line in reversed(table.splitlines()) if "124,456" in line).split()
    assert len(UNITS) - len(hidden) == len(numbers) - numbers.index("3") - 1


@pytest.fixture
def two(remote: Directory, run_json: RunJson) -> Json:
    """What two customers used, one of them four times as much."""
    little: dict[str, int | float] = {"input_tokens": 250, "output_tokens": 5, "total_tokens": 255}
    fill(remote, [record(1, "acme"), record(2, "globex", units=little)], [DELIVERED] * 2)
    return run_json("usage")[1]


def test_bars(two: Json) -> None:
    """Where there is room beside all units, bars compare what the rows used."""
    assert """\
                      Input   Output    Total   Total
 Customer   Events   tokens   tokens   tokens   tokens
────────────────────────────────────────────────────────────────────────
 acme            1    1,000       20    1,020   ████████████████████████
 globex          1      250        5      255   ██████

 Total           2    1,250       25    1,275
""" == at(80, two)


def test_no_bars(two: Json, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none where there is no room, nothing to compare, in a pipe, or on a terminal that has no blocks."""
    assert "█" in at(80, two)
    assert "█" not in at(55, two)
    assert "█" not in at(80, {**two, "rows": two["rows"][:1]})
    assert "█" not in run("usage").stdout
    for module in (terminal, layout):
        monkeypatch.setattr(module, "encoding", lambda: "ascii")
    assert at(80, two).isascii()


@pytest.mark.parametrize(
    ("share", "bar"),
    [
        (0, ""),
        (1e-9, "▏"),
        (1 / 16, "▌"),
        (0.5, "████"),
        (0.51, "████▏"),
        (0.99, "███████▉"),
        (1, "████████"),
        (-0.5, ""),
    ],
)
def test_blocks(share: float, bar: str) -> None:
    """A bar is as long as its share, to an eighth of a character; what is not zero is seen."""
    assert bar == blocks(share, 8)
