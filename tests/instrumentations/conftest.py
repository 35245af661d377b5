"""Run `program.py` with stand-ins for the providers and for CmdrData, and check what holds for every run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.clients.billed import Billed, billed
from tests.standins import AnthropicStandIn, CmdrDataStandIn, OpenAIStandIn

PROGRAM = Path(__file__).with_name("program.py")
OPENTELEMETRY_INSTRUMENT = Path(sysconfig.get_path("scripts"), "opentelemetry-instrument")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What LangChain numbers its messages with."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    events: list[Billed]
    results: dict[str, Any]
    scopes: set[str]
    passed_over: dict[str, int]

    def tokens(self) -> list[tuple[str, int, int, int]]:
        """Return who pays for which tokens; here a customer is a call."""
        return sorted(
            (event.customer_id, event.input_tokens, event.output_tokens, event.total_tokens)
            for event in self.events
        )


class Run(Protocol):
    """Run the program to its end."""

    def __call__(
        self,
        family: str,
        instrumentors: Iterable[str] = (),
        processor: str | None = "simple",
        **environment: str,
    ) -> Outcome:
        """Run it, and return what came of it."""
        ...


def run_program(
    home: Path,
    family: str,
    instrumentors: Iterable[str] = (),
    processor: str | None = "simple",
    **environment: str,
) -> Outcome:
    """Run the program, without a processor under `opentelemetry-instrument`."""
    with OpenAIStandIn() as openai, AnthropicStandIn() as anthropic, CmdrDataStandIn() as backend:
        asked = {
            "family": family,
            "instrumentors": list(instrumentors),
            "processor": processor,
            "base_url": anthropic.origin if family == "anthropic" else openai.url,
        }
        finished = subprocess.run(
            [
                *(() if processor else (OPENTELEMETRY_INSTRUMENT,)),
                sys.executable,
                PROGRAM,
                json.dumps(asked),
            ],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "HTTPS_PROXY": "http://127.0.0.1:1",
                "CMDRDATA_API_KEY": "tk-0123456789abcdefghij",
                "CMDRDATA_ENDPOINT": backend.url,
                **environment,
            },
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        said = json.loads(UUID.sub("uuid", finished.stdout))
        assert said["faults"] == {}
        return Outcome(
            sorted(billed(backend), key=lambda event: event.customer_id),
            said["results"],
            set(said["scopes"]),
            said["passed_over"],
        )


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return what the calls of each family return where nothing observes them."""
    home = tmp_path_factory.mktemp("bare")
    return {
        family: run_program(home, family).results
        for family in ("openai", "langchain", "compatible", "anthropic")
    }


@pytest.fixture
def run(tmp_path: Path, bare: dict[str, dict[str, Any]]) -> Run:
    """Return what runs the program, and checks that the results are those of a bare run."""

    def run(
        family: str,
        instrumentors: Iterable[str] = (),
        processor: str | None = "simple",
        **environment: str,
    ) -> Outcome:
        outcome = run_program(tmp_path, family, instrumentors, processor, **environment)
        assert bare[family] == outcome.results
        return outcome

    return run
