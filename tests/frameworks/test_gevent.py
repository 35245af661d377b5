"""gevent: our threads are greenlets, or were threads before it patched anything; neither loses an event."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.hosts import Host, Zygote
from tests.frameworks.conftest import MeetingProvider

CALLS = 5
HERE = Path(__file__).parent


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host whose backend has a name, which is looked up."""
    with Zygote() as zygote:
        host = Host(tmp_path, zygote)
    host.environment["CMDRDATA_ENDPOINT"] = host.oracle.url
    yield host
    host.close()


def environment(host: Host) -> dict[str, str]:
    """Return the environment of a program that meters."""
    return {**os.environ, **host.environment, "OTEL_TRACES_EXPORTER": "none"}


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "gevent_app.py", str(CALLS)],
        [
            *(str(Path(sys.executable).with_name("opentelemetry-instrument")),),
            *("--metrics_exporter", "none", "--logs_exporter", "none"),
            *(sys.executable, "gevent_app.py", str(CALLS), "--bare"),
        ],
    ],
    ids=["in code", "zero-code"],
)
def test_the_exit(command: list[str], host: Host, provider: MeetingProvider) -> None:
    """What waits at the exit is delivered there, though the interpreter starts no thread any more."""
    subprocess.run(command, cwd=HERE, env=environment(host), check=True, timeout=60)
    assert (CALLS, CALLS) == (len(provider.requests), len(host.oracle.keys))
    host.settle()
    assert (CALLS, 0, 0, 0) == (
        host.counts["delivered"],
        host.counts["dead"],
        host.counts["ambiguous"],
        host.oracle.duplicates,
    )


def test_gunicorn(host: Host, provider: MeetingProvider) -> None:
    """Each worker's calls are billed once, whichever of them drains, and whenever it ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--worker-class", "gevent", "--workers", "2"),
            *("--bind", f"127.0.0.1:{port}", "--log-level", "error", "gevent_app:application"),
        ],
        cwd=HERE,
        env=environment(host),
    )
    try:
        until = time.monotonic() + 30
        answers: list[int] = []
        while len(answers) < CALLS and time.monotonic() < until:
            # It refuses connections until it has begun.
            with (
                contextlib.suppress(ConnectionError, urllib.error.URLError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer,
            ):
                answers.append(answer.status)
        assert [200] * CALLS == answers
        server.send_signal(signal.SIGTERM)
        assert 0 == server.wait(30)
    finally:
        server.kill()
        server.wait()
    host.settle()
    assert (CALLS, 0, 0) == (
        host.counts["delivered"],
        host.counts["dead"],
        host.oracle.duplicates,
    )
