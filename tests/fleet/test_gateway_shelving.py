"""Requests wait for the database for a while, and keep nothing in memory after that."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Sequence

import psycopg
import pytest

from cmdrdata_exporter.fleet.gateway.shelving import AwayError, Shelving
from cmdrdata_exporter.fleet.gateway.spans import SpanRow


class Hanging:
    """A shelf whose database does not answer, or fails."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.goes_on = threading.Event()
        self.fails = False
        self.stored: list[int] = []

    def store(self, rows: Sequence[SpanRow]) -> None:
        """Wait."""
        self.asked.set()
        self.goes_on.wait(20)
        if self.fails:
            raise psycopg.OperationalError("the database is away")
        self.stored.append(len(rows))

    def close(self) -> None:
        """Do nothing."""


class Rows(list[SpanRow]):
    """Rows that can be looked for."""


ROW = SpanRow(bytes(16), bytes(8), "[]")


def test_a_database_that_hangs() -> None:
    """
    Spans that were refused are let go, though the database hangs.

    Whoever watches sees that it does, and that it is back: though no request comes, which nobody sends to what is away.
    """
    shelf = Hanging()
    shelving = Shelving(shelf, patience=0.05)  # pyright: ignore[reportArgumentType] - in its place
    shelving.start()
    with pytest.raises(AwayError):
        shelving.store([ROW])
    assert shelf.asked.wait(20)
    assert not shelving.works
    rows = Rows([ROW, ROW])
    left = weakref.ref(rows)
    with pytest.raises(AwayError):
        shelving.store(rows)
    del rows
    gc.collect()
    assert left() is None
    shelf.goes_on.set()
    deadline = time.monotonic() + 60
    while not shelving.works:
        assert time.monotonic() < deadline
    assert shelving.stop(20)
    assert sum(shelf.stored) == 1


def test_a_database_that_fails_and_returns() -> None:
    """A gateway is ready again once its database is, though no request has come meanwhile."""
    shelf = Hanging()
    shelf.fails = True
    shelf.goes_on.set()
    shelving = Shelving(shelf)  # pyright: ignore[reportArgumentType] - in its place
    shelving.start()
    with pytest.raises(AwayError):
        shelving.store([ROW])
    assert not shelving.works
    shelf.fails = False
    deadline = time.monotonic() + 60
    while not shelving.works:
        assert time.monotonic() < deadline
    assert shelving.stop(20)
    assert sum(shelf.stored) == 0
