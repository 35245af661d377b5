"""A destination's directory to test in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cmdrdata_exporter import processes
from cmdrdata_exporter.delivery.memory import MemoryDelivery
from cmdrdata_exporter.delivery.spool.directory import Directory


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """What a test has left in memory is sent no more, in the middle of the tests that come later."""
    yield
    for delivery in list(processes._fork_aware):  # pyright: ignore[reportPrivateUsage]
        if isinstance(delivery, MemoryDelivery):
            # Not closed, which writes them to the log.
            with delivery._changed:  # pyright: ignore[reportPrivateUsage]
                delivery._queue.clear()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """An empty directory of a destination."""
    return Directory.prepare(tmp_path / "spool", "https://host/events", "default")
