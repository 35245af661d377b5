"""The examples of docs/migration.md for SDKs of other providers: each call is one event, with its tokens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.billed import Billed, billed
from tests.standins import (
    MESSAGES_USAGE,
    Answer,
    AnthropicStandIn,
    CmdrDataStandIn,
    Request,
    StandIn,
)
from tests.test_docs import ELSEWHERE, examples

GEMINI_USAGE = {
    "promptTokenCount": 7,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 2,
    "cachedContentTokenCount": 4,
    "totalTokenCount": 12,
}


def answer_as_gemini(request: Request) -> Answer:
    """Answer as generativelanguage.googleapis.com does."""
    if "mbed" in request.path:
        return Answer(
            {"embeddings": [{"values": [0.5, 0.25]}], "usageMetadata": {"promptTokenCount": 5}}
        )
    answer: dict[str, Any] = {
        "responseId": f"response_{request.number}",
        "modelVersion": "gemini-2.5-flash-001",
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP"}
        ],
        "usageMetadata": GEMINI_USAGE,
    }
    if "stream" in request.path:
        return Answer(events=[(None, answer)])
    return Answer(answer)


def run(section: str, home: Path, backend: CmdrDataStandIn, **environment: str) -> None:
    """Run the examples of a section of the page as a program."""
    program = home / "program.py"
    program.write_text(examples(section), encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, program],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
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


@pytest.mark.parametrize("itself", ["true", "false"])
def test_anthropic(itself: str, tmp_path: Path) -> None:
    """A message and a stream are one event each, whether or not the SDK makes spans by itself."""
    with AnthropicStandIn() as anthropic, CmdrDataStandIn() as backend:
        run(
            "docs/migration.md#from-cmdrdata-anthropic",
            tmp_path,
            backend,
            ANTHROPIC_API_KEY="sk-standin",
            ANTHROPIC_BASE_URL=anthropic.origin,
            ANTHROPIC_OPEN_TELEMETRY=itself,
        )
        events = backend.events
        assert [("customer-123", "chat")] * 2 == [
            (event["customer_id"], event["metadata"]["feature"]) for event in events
        ]
        assert len(billed(backend)) == 2
        assert MESSAGES_USAGE["input_tokens"] <= min(event["input_tokens"] for event in events)
        assert {"anthropic"} == {event["provider"] for event in events}


def test_gemini(tmp_path: Path) -> None:
    """Content, a stream of it and embeddings are one event each."""
    with StandIn(answer_as_gemini) as gemini, CmdrDataStandIn() as backend:
        run(
            "docs/migration.md#from-cmdrdata-gemini",
            tmp_path,
            backend,
            GEMINI_API_KEY="standin",
            GOOGLE_GEMINI_BASE_URL=gemini.origin,
        )
        content: dict[str, Any] = {
            "endpoint": "generate_content",
            "model": "gemini-2.5-flash-001",
            "input_tokens": 7,
            "output_tokens": 5,
            "total_tokens": 12,
            "customer_id": "customer-123",
            "provider": "gemini",
        }
        embeddings: dict[str, Any] = {
            **content,
            "endpoint": "embeddings",
            "model": "gemini-embedding-001",
            "input_tokens": 5,
            "output_tokens": 0,
            "total_tokens": 5,
        }
        assert sorted(billed(backend), key=lambda event: (event.endpoint, event.streaming)) == [
            Billed(**embeddings),
            Billed(**content),
            Billed(**content, streaming=True),
        ]
        breakdowns: dict[str, int] = {"cache_read_input_tokens": 4, "reasoning_output_tokens": 2}
        assert [breakdowns, breakdowns] == [
            {name: event["metadata"]["usage"][name] for name in breakdowns}
            for event in backend.events
            if event["metadata"]["endpoint"] == "generate_content"
        ]


def test_no_section_is_forgotten() -> None:
    """Each section that is not run with the other examples is run here."""
    here = Path(__file__).read_text(encoding="utf-8")
    assert [] == [section for section in ELSEWHERE if f'"{section}"' not in here]
