"""Libraries that stop the time for a test: an application's tests are metered, and nothing hangs in them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import freezegun
import pytest
import time_machine

from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.http.client import Client
from cmdrdata_exporter.delivery.memory import MemoryDelivery
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.delivery.samples import event_id, header
from tests.faults.oracle import ACCEPTED, SILENCE, Oracle

THEN = dt.datetime(2021, 1, 1, tzinfo=dt.timezone.utc)

Stop = Callable[[], AbstractContextManager[Any]]


@pytest.fixture
def oracle(tmp_path: Path) -> Iterator[Oracle]:
    """A backend."""
    with Oracle(tmp_path / "accepted") as running:
        yield running


def deliveries(oracle: Oracle, tmp_path: Path) -> list[DurableDelivery | MemoryDelivery]:
    """Return a delivery of each kind that sends."""
    post = Client(oracle.url, lambda: "key", "test", connections=4, clock=lambda: 0.0).post
    directory = Directory.prepare(tmp_path / "spool", oracle.url, "default")
    return [DurableDelivery(directory, Options(post)), MemoryDelivery(Options(post))]


@pytest.mark.parametrize(
    "stop",
    [lambda: freezegun.freeze_time(THEN), lambda: time_machine.travel(THEN, tick=False)],
    ids=["freezegun", "time-machine"],
)
def test_a_flush(stop: Stop, oracle: Oracle, tmp_path: Path) -> None:
    """What is recorded while the time stands still is delivered, and a flush in vain ends when it was told to."""
    with stop():
        for number, delivery in enumerate(deliveries(oracle, tmp_path)):
            delivery.record(event_id(2 * number), header(), b"{}")
            assert delivery.flush(30)
            oracle.answer = lambda _: SILENCE
            delivery.record(event_id(2 * number + 1), header(), b"{}")
            assert not delivery.flush(0.3)
            delivery.close(0.1)
            oracle.answer = lambda _: ACCEPTED
    assert {event_id(0), event_id(2)} <= oracle.keys
