"""What the process that drains says of its ledger to where events go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery import Header, Outcome, Verdict
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.options import Options
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.delivery.samples import wait_for


def header(customer: str | None) -> Header:
    """Return the header of an event."""
    units = {"input_tokens": 1}
    hold = customer is None
    return Header(customer, "m", "chat.completions", "reported", units, "2026-11-21", hold=hold)


def refuse_some(event_id: str, body: bytes, timeout: float) -> Outcome:
    """Take events, but for one."""
    refused = event_id == f"{2:032x}"
    return Outcome(Verdict.REFUSED if refused else Verdict.DELIVERED, "200")


def test_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader says at once, and then each minute, what its ledger counts; it stays awake for that."""
    said: list[Mapping[str, int]] = []
    directory = Directory.prepare(tmp_path, "https://backend.example/", "default")
    delivery = DurableDelivery(directory, Options(post=refuse_some, report=said.append))
    delivery.start()
    wait_for(lambda: len(said) == 1)
    assert said[0] == {"recorded": 0, "unspooled": 0, "pending": 0, "held": 0, "dead": 0}
    for number, customer in enumerate(("acme", "acme", "acme", None, None)):
        delivery.record(f"{number:032x}", header(customer), b"{}")
    assert delivery.flush(10)
    upkeep = delivery.drainer.relay.upkeep
    assert upkeep._next_report > clocks.monotonic() + 30
    upkeep._next_report = 0.0
    upkeep.next = 0.0
    delivery.drainer.wake()
    wait_for(lambda: len(said) == 2)
    assert said[1] == {"recorded": 5, "unspooled": 0, "pending": 0, "held": 2, "dead": 1}
    monkeypatch.setattr(delivery.drainer.relay, "active", -1e9)
    assert not delivery.drainer._may_rest()
    delivery.close(5)


def test_who_does_not_want_to_know(tmp_path: Path) -> None:
    """Where nobody wants to know, nothing is counted, and the destination comes to rest."""
    directory = Directory.prepare(tmp_path, "https://backend.example/", "default")
    delivery = DurableDelivery(directory, Options(post=refuse_some))
    delivery.start()
    wait_for(lambda: delivery.drainer.leads)
    upkeep = delivery.drainer.relay.upkeep
    wait_for(lambda: upkeep.next > 0)
    assert upkeep._next_report == 0.0
    delivery.close(5)
