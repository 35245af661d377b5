"""
Packages whose calls go past the SDK that is observed: what of them is metered comes from spans of their own.

Seen in a process, each is said once in the log. It is only looked for among what is loaded already, at moments that
cost no call anything: when the SDK is instrumented, at the end of the first call, and at the exit.
"""

from __future__ import annotations

import logging
import sys

from cmdrdata_exporter import faults

PACKAGES = {
    "litellm": "calls most providers, and the Responses API, by HTTP of its own; its callback `otel` makes the spans",
    "nemoguardrails": "calls models by HTTP of its own; its tracing, with the adapter OpenTelemetry, makes the spans",
    "portkey_ai": "brings an SDK of its own; opentelemetry-instrumentation-genai-portkey makes the spans of its chats",
}
"""What each does, by the name that is imported. `docs/metering.md` has a row for each."""

_known: set[str] = set()


@faults.guarded
def report() -> None:
    """Say which of the packages are loaded, each once."""
    for name, habit in PACKAGES.items():
        if name in sys.modules and name not in _known:
            _known.add(name)
            faults.say(
                logging.INFO,
                "%s is loaded, whose calls do not all go through the openai SDK: it %s. Those are metered with "
                "OTEL_TRACES_EXPORTER=cmdrdata only; see docs/metering.md, Packages that go past the SDK",
                name,
                habit,
            )
