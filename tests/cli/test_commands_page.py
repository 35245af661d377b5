"""The page about the commands: each example in it is run, one after the other, and shows what it prints."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from cmdrdata_exporter.cli import days, terminal
from cmdrdata_exporter.cli.commands import cmdrdata
from cmdrdata_exporter.cli.doctor import environment
from cmdrdata_exporter.cli.usage import command as usage
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.http.answers import Answer
from cmdrdata_exporter.delivery.http.client import Client
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.settings import DEFAULT_ENDPOINT
from tests.cli.conftest import Run
from tests.cli.test_jobs_command import batch, keep
from tests.ledgers import AMBIGUOUS, DELIVERED, KEY, NOW, REFUSED, fill, record

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
JOBS: tuple[dict[str, Any], ...] = (
    {"job_id": "batch_68f0a1c2"},
    {"job_id": "resp_68ea90b7", "endpoint": "responses", "model": "gpt-5-mini"},
    {"job_id": None, "endpoint": "responses", "model": "gpt-5-mini"},
)
SPOOL = "/var/lib/app-usage"
AUDIO: dict[str, int | float] = {"audio_seconds": 93.5}
CACHED = {"input_tokens": 5000, "output_tokens": 90, "total_tokens": 5090}


def examples() -> dict[str, str]:
    """Return what the page says that each command prints."""
    return dict(
        re.findall(
            r"^```console\n\$ cmdrdata ([^\n]*)\n(.*?)^```$",
            PAGE.read_text(),
            re.DOTALL | re.MULTILINE,
        )
    )


def ids(number: int) -> dict[str, object]:
    """Return by what the provider calls an event, and the trace that it is in."""
    return {
        "trace_id": "3defa82929f15b575c9ff5dc68fa4dab",
        "response_id": f"chatcmpl-B9MHDbslfkBeAs8l4b{number}",
        "request_id": f"req_011CVzRkR7Qm{number}",
    }


def always(value: object) -> Callable[..., object]:
    """Return a function that returns a value, whatever it is asked."""
    return lambda *_: value


class Screen(Console):
    """A terminal of 80 columns that shows no colors."""

    def __init__(self) -> None:
        super().__init__(width=80, force_terminal=True, color_system=None, highlight=False)


@pytest.fixture
def example(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledgers of the page, three minutes later; a backend that takes everything stands in for the real one."""
    remote = Directory.prepare(spool, DEFAULT_ENDPOINT, "default")
    fill(
        remote,
        [
            *(record(number, metadata=ids(number)) for number in (1, 2)),
            record(3, "globex", units={**CACHED, "cache_read_input_tokens": 4096}),
            record(4, "globex", model="whisper-1", units=AUDIO),
            *(record(number, day="2026-11-21") for number in (5, 6, 7, 8)),
            record(9, None, model="whisper-1", units=AUDIO),
            record(10, None),
        ],
        [
            *[DELIVERED] * 4,
            REFUSED,
            Outcome(Verdict.REFUSED, "HTTP 413"),
            AMBIGUOUS,
        ],
        facts={
            "pid": 4711,
            "at": NOW,
            "paused": True,
            "probing": True,
            "reason": "HTTP 401",
            "next_attempt": NOW + 240,
        },
        index=1000,
    )
    keep(
        remote,
        *(
            batch(number, since=NOW - 7200 * number, until=NOW - 7100 * number, **job)
            for number, job in enumerate(JOBS, 1)
        ),
    )
    fill(Directory.prepare(spool, None, "default"), [record(11), record(12)], local=True)
    monkeypatch.setenv("CMDRDATA_API_KEY", KEY)
    monkeypatch.setattr(usage, "Terminal", Screen)
    for module in (terminal, days):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: NOW + 180))
    monkeypatch.setattr(environment, "CHECKS", ())
    monkeypatch.setattr(Client, "ask", staticmethod(always(Answer(401, {}, None))))
    monkeypatch.setattr(Directory, "size", always(96 << 10))
    monkeypatch.setattr(Directory, "leader", always(4711))
    monkeypatch.setattr(Client, "post", staticmethod(always(DELIVERED)))


@pytest.mark.usefixtures("example")
def test_examples(run: Run, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page shows is what is printed."""
    expected = examples()
    shown: dict[str, str] = {}
    for command in expected:
        if command.startswith("flush"):
            monkeypatch.setattr(Directory, "leader", always(None))
        done = run(*shlex.split(command))
        assert "" == done.stderr or command.endswith("--csv")
        shown[command] = done.stdout.replace(str(spool), SPOOL).lstrip("\n")
    assert expected == shown


def test_every_command_is_described() -> None:
    """The page has a section of each command, and the table a row."""
    text = PAGE.read_text()
    names = [name for name in cmdrdata.commands if name != "demo"]
    assert names == re.findall(r"^## ([a-z-]+)$", text, re.MULTILINE)
    assert [*names, "demo"] == re.findall(r"^\| \[?`cmdrdata ([a-z-]+)`", text, re.MULTILINE)
