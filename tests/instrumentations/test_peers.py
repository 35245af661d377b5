"""Beside every library that wraps the openai SDK the application gets what it gets without us, and is billed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.clients.billed import Billed, billed
from tests.instrumentations.peers import PEERS
from tests.standins import CmdrDataStandIn, OpenAIStandIn

PROGRAM = Path(__file__).with_name("peers.py")
NOWHERE = "http://127.0.0.1:1"
"""Where the backends of the peers are: none is reached."""

STREAMED = ("streamed", "raw", "bytes of a stream", "bytes of a raw response")
EVENTS = sorted(
    (
        Billed(endpoint="chat.completions", customer_id=call, streaming=not call.endswith("plain"))
        for call in (
            "plain",
            "async plain",
            *STREAMED,
            *(f"async {call}" for call in STREAMED),
            "with",
        )
    ),
    key=lambda event: event.customer_id,
)


def run(peer: str, order: str | None, home: Path) -> tuple[dict[str, Any], list[Billed]]:
    """Run the program; return what it printed, and what was billed."""
    with OpenAIStandIn() as openai, CmdrDataStandIn() as backend:
        asked = {"peer": peer, "order": order, "base_url": openai.url}
        finished = subprocess.run(
            [sys.executable, PROGRAM, json.dumps(asked)],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "HTTPS_PROXY": NOWHERE,
                "CMDRDATA_API_KEY": "tk-0123456789abcdefghij",
                "CMDRDATA_ENDPOINT": backend.url,
                "CMDRDATA_STREAM_USAGE": "always",
                "BRAINTRUST_API_KEY": "standin",
                "BRAINTRUST_APP_URL": NOWHERE,
                "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
                "DD_REMOTE_CONFIGURATION_ENABLED": "false",
                "DD_TRACE_AGENT_URL": NOWHERE,
                "LANGFUSE_HOST": NOWHERE,
                "LANGFUSE_PUBLIC_KEY": "pk-standin",
                "LANGFUSE_SECRET_KEY": "sk-standin",
                "LANGSMITH_API_KEY": "standin",
                "LANGSMITH_ENDPOINT": NOWHERE,
                "LANGSMITH_TRACING": "true",
            },
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return (
            json.loads(finished.stdout.splitlines()[-1]),
            sorted(billed(backend), key=lambda event: event.customer_id),
        )


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that returns what a peer's program prints without us."""

    @cache
    def outcome(peer: str) -> dict[str, Any]:
        return run(peer, None, tmp_path_factory.mktemp("bare"))[0]

    return outcome


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("peer", PEERS)
def test_beside_a_peer(peer: str, order: str, bare: Any, tmp_path: Path) -> None:
    """Whichever came first: the same answers and exceptions, the same spans of the peer, and one event per call."""
    outcome, events = run(peer, order, tmp_path)
    assert bare(peer) == outcome
    assert EVENTS == events
