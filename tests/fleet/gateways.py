"""Gateways as processes of their own, as operators run them, and what is in their ledger."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

DEADLINE = 120.0
"""Seconds: an interpreter, a broker and a database start, on a machine that does other things, too."""


def wait_for(condition: Callable[[], object], timeout: float = DEADLINE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it has not come to that"
        time.sleep(0.02)


class GatewayProcess:
    """
    `cmdrdata gateway`, running, with its pages at a port of its own.

    Args:
        database: the ledger's URL.
        log: where its log goes.
        options: of the command.
        program: runs the command in the place of `cmdrdata`.
        environment: more variables.
    """

    def __init__(
        self,
        database: str,
        log: Path,
        *options: str,
        program: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._log = log
        start = [str(program)]
        if program is None:
            start = ["-c", "from cmdrdata_exporter.cli import main; main()"]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *start, "gateway", "--health", "127.0.0.1:0", *options],
                env={**os.environ, "CMDRDATA_LEDGER": database, **(environment or {})},
                stderr=file,
            )

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    def port(self, name: str) -> int:
        """Return the port of one of its parts, once it listens."""
        found: list[str] = []

        def is_known() -> bool:
            assert self.process.poll() is None, self.log
            found[:] = re.findall(rf"{name} at port (\d+)", self.log)
            return bool(found)

        wait_for(is_known)
        return int(found[0])

    def page(self, path: str) -> tuple[int, str]:
        """Return the status and text of a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port("its own pages"), timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        """Wait until it takes all that it was started for."""
        wait_for(lambda: self.page("/readyz")[0] == 200)

    def kill(self) -> None:
        """Kill it, as `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Send SIGTERM; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def post(port: int, body: bytes, timeout: float = 20) -> int | None:
    """Post a request of OTLP; return the status, None where no answer came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def events(database: str) -> list[dict[str, Any]]:
    """Return the events of a ledger."""
    with psycopg.connect(database) as connection:
        if connection.execute("SELECT to_regclass('fleet_events')").fetchone() == (None,):
            return []
        return [json.loads(body) for (body,) in connection.execute("SELECT body FROM fleet_events")]


def recorded(database: str) -> int:
    """Return how many events a ledger has."""
    with psycopg.connect(database) as connection:
        if connection.execute("SELECT to_regclass('fleet_events')").fetchone() == (None,):
            return 0
        [[number]] = connection.execute("SELECT count(*) FROM fleet_events").fetchall()
        return number
