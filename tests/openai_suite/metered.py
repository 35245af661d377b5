"""
A pytest plugin: the instrumentor is at work while somebody else's tests run.

    pytest -p metered --metered-counts=FOLDER

Each process that ran tests leaves a file in the folder: the events that it recorded, and the faults of ours, which are
caught and logged where none of these tests would see them.
It is loaded by its bare name, since the tests it runs with are a package `tests` of their own.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from opentelemetry.sdk.trace import TracerProvider

from cmdrdata_exporter import CmdrDataSpanExporter, faults
from cmdrdata_exporter.delivery import Header
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor


@dataclass
class CountedEvents:
    """A `Delivery` that keeps of each event only what it is counted by."""

    kinds: dict[str, str] = field(default_factory=dict[str, str])
    """By the event's id, its endpoint and what it says of its usage."""

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """Count an event; the same id twice is a charge made twice, and becomes a fault."""
        assert event_id not in self.kinds, f"event {event_id} was recorded twice"
        self.kinds[event_id] = f"{header.endpoint}, usage {header.status}"

    def flush(self, timeout: float) -> bool:
        """Nothing ever waits here."""
        return True

    def shutdown(self, timeout: float) -> None:
        """Nothing ever waits here."""


events = CountedEvents()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Ask where the counts go."""
    parser.addoption("--metered-counts", type=Path, help="the folder that the counts are put into")


def pytest_configure(config: pytest.Config) -> None:
    """Instrument before any of the tests is imported."""
    # With an SDK's provider, so that spans are really made and attached to the context, as in an application.
    CmdrDataInstrumentor().instrument(
        tracer_provider=TracerProvider(), exporter=CmdrDataSpanExporter(delivery=events)
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the counts of this process."""
    folder = cast("Path", config.getoption("--metered-counts"))
    counts = {"events": Counter(events.kinds.values()), "faults": faults.counts}
    (folder / f"{os.getpid()}.json").write_text(json.dumps(counts), encoding="utf-8")
