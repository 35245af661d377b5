"""Programs as the users of the predecessors have them, run whole: what they print, write, send and trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from tests.files import contents
from tests.metering import complaints
from tests.provider import Provider

ROOT = Path(__file__).parents[2]
KEY = "tk-0123456789abcdefghij"
INSTRUMENTED = (
    "import runpy, sys; from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor; "
    "CmdrDataInstrumentor().instrument(); sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@dataclass
class Ran:
    """What a program has left."""

    printed: Any
    """What it printed itself, from JSON."""
    events: list[dict[str, Any]]
    """In the order in which the calls ended."""
    spans: list[tuple[str, dict[str, Any], float]]
    """Id, attributes and seconds of each."""


Run = Callable[..., Ran]


@pytest.fixture
def run(provider: Provider, tmp_path: Path, httpserver: HTTPServer) -> Run:
    """Run a program; whatever it prints, writes into its directory or sends besides what it shall is a failure."""
    httpserver.expect_request("/api/events", method="POST").respond_with_data(status=202)

    def run_page(page: str, *, instrumented: bool = False, **environ: str) -> Ran:
        work, spool, spans = tmp_path / "work", tmp_path / "spool", tmp_path / "spans"
        work.mkdir()
        starting = [sys.executable, *(["-c", INSTRUMENTED] if instrumented else [])]
        done = subprocess.run(
            [*starting, str(Path(__file__).with_name(page)), provider.url, str(spans)],
            env={
                **{
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith(("OTEL_", "CMDRDATA_"))
                },
                "PYTHONPATH": str(ROOT),
                "CMDRDATA_API_KEY": KEY,
                "CMDRDATA_ENDPOINT": httpserver.url_for("/api/events"),
                "CMDRDATA_SPOOL_DIR": str(spool),
                "CMDRDATA_CUSTOMER_ID": "acme",
                **environ,
            },
            cwd=work,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert (0, "") == (done.returncode, complaints(done.stderr))
        assert [] == list(work.iterdir())
        posted = [request.get_data() for request, _ in httpserver.log]
        for kept in (*posted, *contents(spool).values()):
            assert b"prompt: " not in kept
            assert b"hello" not in kept
            assert b"your-" not in kept.replace(b"your-trace-id", b"")
        assert "prompt: " not in done.stderr
        lines = [json.loads(line) for line in spans.read_text().splitlines()]
        order = [span_id for span_id, *_ in lines]
        events: list[dict[str, Any]] = [json.loads(body) for body in posted]
        events.sort(key=lambda event: order.index(event["metadata"]["span_id"]))
        return Ran(json.loads(done.stdout), events, lines)

    return run_page
