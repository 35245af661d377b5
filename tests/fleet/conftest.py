"""Engines for all tests, and others for those that kill them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.engines.brokers import broker as broker  # noqa: PLC0414 - pytest finds fixtures here
from tests.engines.brokers import mortal as mortal  # noqa: PLC0414
from tests.engines.postgres import Postgres


@contextmanager
def _running(*, outlives_host: bool) -> Generator[Postgres]:
    """Run a server. Not below the directory of all runs of pytest, which each of them closes to other users."""
    with TemporaryDirectory(prefix="postgres-") as directory:
        server = Postgres(Path(directory), outlives_host=outlives_host)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server that runs all the time; the host outlives all tests, so it need not sync."""
    with _running(outlives_host=False) as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database."""
    url = postgres.database()
    yield url
    postgres.remove(url)


@pytest.fixture
def mortal_postgres() -> Iterator[Postgres]:
    """A server of one's own."""
    with _running(outlives_host=True) as server:
        yield server
