"""A broker for all tests, and another one for those that kill it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.kafka import Broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that runs all the time."""
    broker = Broker(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Broker]:
    """A broker of one's own."""
    directory = tmp_path / "broker"
    directory.mkdir()
    broker = Broker(directory)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
