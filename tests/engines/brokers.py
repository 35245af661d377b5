"""The fixtures of brokers: one for all tests, and others for those that kill them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engines.kafka import Broker


@contextmanager
def _running(directory: Path) -> Generator[Broker]:
    """Run a broker."""
    broker = Broker(directory)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that runs all the time."""
    with _running(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Broker]:
    """A broker of one's own."""
    directory = tmp_path / "broker"
    directory.mkdir()
    with _running(directory) as broker:
        yield broker
