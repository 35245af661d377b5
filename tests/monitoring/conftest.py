"""A real Prometheus, which scrapes a real application and tells a stand-in for Alertmanager."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import pytest
import urllib3
from urllib3.exceptions import HTTPError

from tests.standins import Answer, CmdrDataStandIn, OpenAIStandIn, StandIn

EXAMPLES = Path(__file__).parents[2] / "examples" / "monitoring"
APPLICATION = Path(__file__).parent / "application.py"
PATIENCE = 120.0
"""Seconds that anything here may take."""

Json = dict[str, Any]


def tool(name: str) -> str:
    """Return the path of a program of Prometheus; without it nothing of this can be known."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(
            f"{name} is not installed; on Debian and Ubuntu: apt-get install prometheus",
            pytrace=False,
        )
    return found


def promtool(*arguments: str | Path) -> None:
    """Run promtool, which must find nothing."""
    done = subprocess.run(
        [tool("promtool"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout


def wait_for(look: Callable[[], Any]) -> Any:
    """Look until there is something, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"nothing after {PATIENCE:.0f} seconds"
        time.sleep(0.1)
    return found


@dataclass
class Prometheus:
    """One that runs."""

    origin: str
    told: StandIn
    """What it tells of alerts."""
    application: str
    """The URL of the metrics that it scrapes."""
    spool: Path

    def get(self, path: str, **query: str) -> Any:
        """Ask its API, and return what it answers."""
        address = f"{self.origin}/api/v1/{path}?{urlencode(query)}"
        found = urllib3.request("GET", address).json()
        assert "success" == found["status"]
        return found["data"]

    def query(self, expression: str) -> list[Json]:
        """Return what an expression gives now."""
        return self.get("query", query=expression)["result"]

    def alerts(self, name: str) -> list[Json]:
        """Return what it has told Alertmanager of an alert, the last first."""
        return [
            alert
            for request in reversed(self.told.requests)
            for alert in cast("list[Json]", request.body)
            if name == alert["labels"]["alertname"]
        ]


def free_address() -> str:
    """Return an address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@contextmanager
def running(
    *command: str | Path, env: dict[str, str] | None = None, stderr: int | None = None
) -> Generator[Any]:
    """Run a program until the end of the block."""
    with subprocess.Popen(
        list(map(str, command)),
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _is_ready(origin: str) -> bool:
    try:
        return urllib3.request("GET", f"{origin}/-/ready", retries=False).status == 200
    except HTTPError:
        return False


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the files of `examples/monitoring`, but in seconds where they have minutes."""
    program = tool("prometheus")
    directory = tmp_path_factory.mktemp("prometheus")
    with (
        OpenAIStandIn() as openai,
        CmdrDataStandIn() as backend,
        StandIn(lambda _: Answer({})) as alertmanager,
    ):
        variables = {
            **os.environ,
            "CMDRDATA_SPOOL_DIR": str(directory / "spool"),
            "CMDRDATA_API_KEY": "tk-0123456789abcdefghij",
            "CMDRDATA_ENDPOINT": backend.url,
        }
        with running(sys.executable, APPLICATION, openai.url, env=variables) as application:
            port = application.stdout.readline().strip()
            assert port.isdigit(), "the application has ended"
            rules = (EXAMPLES / "rules.yml").read_text()
            (directory / "rules.yml").write_text(re.sub(r"\bfor: \w+", "for: 1s", rules))
            configuration = (EXAMPLES / "prometheus.yml").read_text()
            for here, there in (
                ("15s", "1s"),
                ("localhost:9464", f"127.0.0.1:{port}"),
                ("localhost:9093", alertmanager.origin.removeprefix("http://")),
            ):
                assert here in configuration
                configuration = configuration.replace(here, there)
            (directory / "prometheus.yml").write_text(configuration)
            address = free_address()
            with running(
                program,
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ):
                found = Prometheus(
                    f"http://{address}",
                    alertmanager,
                    f"http://127.0.0.1:{port}/metrics",
                    directory / "spool",
                )
                wait_for(lambda: _is_ready(found.origin))
                # A rate needs two.
                wait_for(lambda: found.query("count_over_time(cmdrdata_events_held[1m]) > 2"))
                yield found
