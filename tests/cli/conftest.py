"""Which tests an old openai is spared, and what those of the commands stand on."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.cli.commands import cmdrdata
from cmdrdata_exporter.cli.demo.command import OLDEST_OPENAI
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.ledgers import ENDPOINT, KEY

collect_ignore: list[str] = []
if tuple(map(int, version("openai").split(".")[:2])) < OLDEST_OPENAI:
    # The demo refuses to run with it, which test_extras.py checks.
    collect_ignore += ["test_demo.py", "test_standin.py"]
if sys.version_info < (3, 11):
    # The table of prices needs it; tests/prices has what is said then.
    collect_ignore.append("test_dashboard_cost.py")
if find_spec("openai.resources.admin") is None:
    # It has no usage API.
    collect_ignore += ["test_reconcile_api.py"]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def spool() -> Path:
    """The spool directory of the environment."""
    return Path(os.environ["CMDRDATA_SPOOL_DIR"])


@pytest.fixture
def remote(spool: Path, monkeypatch: pytest.MonkeyPatch) -> Directory:
    """The directory of a destination that is that of the environment."""
    monkeypatch.setenv("CMDRDATA_API_KEY", KEY)
    monkeypatch.setenv("CMDRDATA_ENDPOINT", ENDPOINT)
    return Directory.prepare(spool, ENDPOINT, "default")


@pytest.fixture
def local(spool: Path) -> Directory:
    """The directory of events that stay on this host."""
    return Directory.prepare(spool, None, "default")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command in this process, in a terminal of 80 columns; blanks at the ends of lines are cut."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as end:
            cmdrdata(list(arguments), prog_name="cmdrdata")
        assert isinstance(end.value.code, int)
        out, err = capsys.readouterr()
        shown = "".join(f"{line.rstrip()}\n" for line in out.splitlines())
        return subprocess.CompletedProcess(arguments, end.value.code, shown, err)

    # What a command changes of its process is this one's here.
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    root = logging.getLogger()
    level, logged = root.level, list(root.handlers)
    yield run
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    root.setLevel(level)
    root.handlers[:] = logged


@pytest.fixture
def run_json(run: Run) -> Callable[..., tuple[int, Any]]:
    """Run a command with --json, and return its status and its document."""

    def run_json(*arguments: str) -> tuple[int, Any]:
        done = run(*arguments, "--json")
        assert "" == done.stderr
        return done.returncode, json.loads(done.stdout)

    return run_json
