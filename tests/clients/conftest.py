"""
Run programs that others wrote, as their users do: as a child under `opentelemetry-instrument`.

A program gets a stand-in OpenAI and a stand-in CmdrData on loopback, a home of its own, and an
environment that holds nothing else; any HTTPS request of its own is refused by a closed proxy.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.metering import complaints
from tests.standins import CmdrDataStandIn, OpenAIStandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.billed import Run

PROGRAMS = Path(__file__).with_name("programs")
SCRIPTS = Path(sysconfig.get_path("scripts"))
KEY = "tk-0123456789abcdefghij"


@pytest.fixture
def openai_server() -> Iterator[OpenAIStandIn]:
    """Start an OpenAI on loopback."""
    with OpenAIStandIn() as server:
        yield server


@pytest.fixture
def backend() -> Iterator[CmdrDataStandIn]:
    """Start a CmdrData on loopback."""
    with CmdrDataStandIn() as server:
        yield server


@pytest.fixture
def environment(
    tmp_path: Path, openai_server: OpenAIStandIn, backend: CmdrDataStandIn
) -> dict[str, str]:
    """Return the program's whole environment."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "OPENAI_API_KEY": "sk-standin",
        "OPENAI_BASE_URL": openai_server.url,
        "CMDRDATA_API_KEY": KEY,
        "CMDRDATA_ENDPOINT": backend.url,
        "CMDRDATA_CUSTOMER_ID": "acme",
        # Loopback is no host that is known to tell the usage of a stream if asked.
        "CMDRDATA_STREAM_USAGE": "always",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        # What LiteLLM would download, and where openai-agents would send its own traces.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }


@pytest.fixture
def run(
    environment: dict[str, str],
    openai_server: OpenAIStandIn,
    backend: CmdrDataStandIn,
    tmp_path: Path,
) -> Run:
    """
    Return what runs a program under `opentelemetry-instrument`, unless it switches metering on in its code.

    It checks what holds for every program: nothing of ours is printed, nothing of ours reaches the
    provider, and each request has its event at the backend when the program has ended.
    """

    def run(command: str, *arguments: str, in_code: bool = False) -> str:
        starter = () if in_code else (SCRIPTS / "opentelemetry-instrument",)
        program = ["python", str(PROGRAMS / command)] if command.endswith(".py") else [command]
        finished = subprocess.run(
            [*starter, SCRIPTS / program[0], *program[1:], *arguments],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (0, "") == (finished.returncode, complaints(finished.stderr))
        assert "acme" not in str(openai_server.requests)
        assert len(openai_server.requests) == len(backend.events)
        return finished.stdout

    return run
