"""Every fault is met by a host of its own, whose account is checked after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.application import Application
from tests.faults.hosts import Host, Zygote
from tests.faults.oracle import Oracle


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the long forms an hour."""
    for item in items:
        if item.get_closest_marker("long") and config.pluginmanager.hasplugin("timeout"):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """The parent of all processes. It keeps nothing of them."""
    with Zygote() as forking:
        yield forking


@pytest.fixture
def host(tmp_path: Path, zygote: Zygote) -> Iterator[Host]:
    """A host. Whatever happened on it, in the end everything is delivered and accounted for."""
    met = Host(tmp_path, zygote)
    try:
        yield met
        met.settle()
    finally:
        met.close()


@pytest.fixture
def oracle(tmp_path: Path) -> Iterator[Oracle]:
    """A backend that takes everything, until it is told otherwise."""
    with Oracle(tmp_path / "accepted") as running:
        yield running


@pytest.fixture
def application(tmp_path: Path, oracle: Oracle) -> Iterator[Application]:
    """An application in this process that delivers to it."""
    with Application(tmp_path / "spool", oracle.url) as running:
        yield running
