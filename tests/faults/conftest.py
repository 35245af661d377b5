"""Every fault is met by a host of its own, whose account is checked after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.hosts import Host, Zygote


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
