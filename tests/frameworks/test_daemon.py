"""python-daemon: the application closes every descriptor, ours too, and opens files of its own in their place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from tests.faults.hosts import Host, Zygote
from tests.frameworks.conftest import MeetingProvider

CALLS = 5
FILES = 64
PROGRAM = Path(__file__).with_name("daemon_app.py")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host whose backend is there all the time."""
    with Zygote() as zygote:
        host = Host(tmp_path, zygote)
    yield host
    host.close()


def run(detach: str, environment: dict[str, str], files: Path) -> None:
    """Run the program to its end: a daemon has the pipe still when the process that was started has ended."""
    files.mkdir()
    done = subprocess.run(
        [sys.executable, PROGRAM, detach, str(CALLS), files],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stdout), done.stderr
    assert "Traceback" not in done.stderr
    assert [b"its own"] * FILES == [path.read_bytes() for path in files.iterdir()]


@pytest.mark.parametrize("detach", ["stay", "detach"])
def test_delivered(detach: str, host: Host, provider: MeetingProvider, tmp_path: Path) -> None:
    """Each call is billed once, and the program's own files hold nothing but what it has written."""
    run(detach, host.environment, tmp_path / "files")
    host.settle()
    assert (CALLS, CALLS, CALLS, 0, 0) == (
        len(provider.requests),
        host.counts["recorded"],
        host.counts["delivered"],
        host.counts["dead"],
        host.oracle.duplicates,
    )


@pytest.mark.parametrize("detach", ["stay", "detach"])
def test_local(detach: str, provider: MeetingProvider, tmp_path: Path) -> None:
    """So it is where the events stay on the machine."""
    spool = tmp_path / "spool"
    environment = {"CMDRDATA_SPOOL_DIR": str(spool), "CMDRDATA_CUSTOMER_ID": "acme"}
    run(detach, environment, tmp_path / "files")
    with LedgerReader(Directory(spool / "local")) as ledger:
        counts = ledger.counts()
    assert (CALLS, CALLS, CALLS) == (len(provider.requests), counts["recorded"], counts["local"])
