"""A program that meters, makes a call, becomes a daemon as python-daemon does it, and makes more calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import daemon
import openai

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor


def ask(number: int) -> None:
    """Ask once."""
    with openai.OpenAI(max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        client.chat.completions.create(model=f"gpt-{number}", messages=messages)


_, detach, calls, files = sys.argv
exporter = CmdrDataSpanExporter()
CmdrDataInstrumentor().instrument(exporter=exporter)
ask(0)
# So that the connection to the backend is open, too.
exporter.force_flush(20_000)
# All other descriptors are closed, also those that this program has not opened.
with daemon.DaemonContext(detach_process=detach == "detach", stderr=sys.stderr):
    # They take the numbers that have become free.
    own = [Path(files, str(number)).open("wb") for number in range(64)]  # noqa: SIM115
    for number in range(1, int(calls)):
        ask(number)
    for file in own:
        file.write(b"its own")
        file.close()
