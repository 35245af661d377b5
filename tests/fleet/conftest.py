"""Engines for all tests, and others for those that kill them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.kafka import Broker
from tests.engines.postgres import Postgres


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


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that runs all the time."""
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty database."""
    return postgres.database()


@pytest.fixture
def mortal_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A server of one's own."""
    directory = tmp_path / "postgres"
    directory.mkdir()
    server = Postgres(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
