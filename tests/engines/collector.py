"""
A real OpenTelemetry Collector, built from the Go module proxy as `examples/fleet/build.yaml` says.

    python -m tests.engines.collector           builds it, where it is not there yet
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from tests.engines.kafka import CACHE, free_ports

EXAMPLES = Path(__file__).parents[2] / "examples" / "fleet"
CONFIGURATION = EXAMPLES / "collector.yaml"
BUILD = EXAMPLES / "build.yaml"
BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.165.0"
STARTED = 60.0
"""Seconds that a Collector may take to start, with what its queue has kept."""


def binary() -> Path:
    """
    Return the Collector's program, built where it is not there yet: minutes without Go's caches, seconds with them.

    What is built is kept by what it is built from. Only one process builds at a time.
    """
    key = hashlib.sha256(BUILD.read_bytes() + BUILDER.encode()).hexdigest()[:16]
    folder = CACHE / f"otelcol-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "otelcol"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(folder, program)
    return program


def _build(folder: Path, program: Path) -> None:
    if shutil.which("go") is None:
        raise AssertionError(
            "go is missing, which builds the Collector: install Go 1.26 or newer, or one from 1.21 on, "
            "which fetches the newer by itself (GOTOOLCHAIN=auto)"
        )
    environ = os.environ | {"GOBIN": str(folder), "GOFLAGS": "-buildvcs=false"}
    sources, unfinished = folder / "dist", folder / "unfinished"
    for command, directory in (
        (["go", "install", BUILDER], folder),
        ([str(folder / "builder"), "--skip-compilation", "--config", str(BUILD)], folder),
        (
            # Two at a time: some of its packages take a gigabyte to compile.
            ["go", "build", "-p", "2", "-trimpath", "-ldflags=-s -w", "-o", str(unfinished), "."],
            sources,
        ),
    ):
        done = subprocess.run(
            command, cwd=directory, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[:2]} failed:\n{done.stdout}{done.stderr}"
    shutil.rmtree(sources)
    (folder / "builder").unlink()
    unfinished.replace(program)


class Collector:
    """
    A Collector with the configuration of the example, stopped until `start`.

    Args:
        directory: where its queue and its log are.
        brokers: where the topic is, as `host:port`, with commas between several.
        topic: what spans go to.
        configuration: a file to use instead of the example's.
    """

    def __init__(
        self, directory: Path, brokers: str, topic: str, configuration: Path = CONFIGURATION
    ) -> None:
        self.brokers, self.topic = brokers, topic
        self._program = binary()
        self._configuration = configuration
        http, grpc, health, metrics = free_ports(4)
        self.url, self.grpc = f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}"
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        self._health = f"http://127.0.0.1:{health}/"
        self._log = directory / "collector.log"
        self._environ = {
            "QUEUE_DIRECTORY": str(directory / "queue"),
            "KAFKA_BROKERS": brokers,
            "SPANS_TOPIC": topic,
            "OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http}",
            "OTLP_GRPC_ENDPOINT": self.grpc,
            "HEALTH_ENDPOINT": f"127.0.0.1:{health}",
            "METRICS_PORT": str(metrics),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes spans."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), "--config", str(self._configuration)],
                env=self._environ,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + STARTED
        while not self._is_ready():
            assert time.monotonic() < deadline, "the Collector has not started:\n" + self.log()
            with suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"it has ended ({self._process.wait(0.05)}):\n{self.log()}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._health, timeout=2) as answer:  # noqa: S310 - loopback
                return answer.status == 200
        except OSError:
            return False

    def log(self) -> str:
        """Return what it has said."""
        return self._log.read_text()

    def kill(self) -> None:
        """Kill it, as `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it, as a rolling restart does."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


if __name__ == "__main__":
    # Before the tests, whose time is limited.
    binary()
