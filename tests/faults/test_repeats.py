"""One event, however often it is reported, whatever the clock says, and each under the key of its own account."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery import Header, Outcome, Verdict
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from tests.faults.hosts import Host
from tests.faults.oracle import ACCEPTED, Reply, Request

DAY = 86400.0
HEADER = Header(
    "acme",
    "m",
    "chat.completions",
    "reported",
    {"total_tokens": 7},
    "2026-11-21",
    remember=int(DAY),
)


def test_two_processors(host: Host) -> None:
    """A span that passes two processors is one event."""
    host.start("in_two_processors", count=50).wait()
    host.settle()
    assert (50, 0) == (len(host.oracle.keys), host.oracle.duplicates)
    assert (50, 50) == (host.counts["delivered"], host.counts["repeated"])


def test_two_processes(host: Host) -> None:
    """A span that comes again in another process, after it was delivered, is one event."""
    for _ in range(2):
        assert 0 == host.start("export_at", trace_id=7, ended=1_800_000_000).wait()
    assert [host.ids[0]] * 2 == host.ids
    host.settle()
    assert (1, 1) == (host.oracle.received, host.counts["repeated"])


@dataclass
class Backend:
    """The host's backend without a wire, which can be up or not, and a clock that can be set."""

    host: Host
    now: float = 1_800_000_000.0
    up: bool = True

    def post(self, event_id: str, body: bytes, timeout: float) -> Outcome:
        """Take an event."""
        if not self.up:
            return Outcome(Verdict.RETRY, "HTTP 503", retry_after=0.0)
        self.host.oracle.accepted.append((event_id, hashlib.sha256(body).hexdigest()))
        return Outcome(Verdict.DELIVERED, "HTTP 202")

    def delivery(self) -> DurableDelivery:
        """Return the delivery of the next process."""
        return DurableDelivery(self.host.directory, Options(self.post, clock=lambda: self.now))


def test_an_hour_later(host: Host) -> None:
    """A span that comes again an hour after its delivery, in whatever process, makes nothing."""
    backend = Backend(host)
    for hours in (0, 1, 23):
        backend.now = 1_800_000_000 + hours * 3600
        delivery = backend.delivery()
        delivery.record("1" * 32, HEADER, b"{}")
        assert delivery.flush(10)
        delivery.close(10)
    assert ["1" * 32] == [key for key, _ in host.oracle.accepted]
    assert 2 == host.count()["repeated"]


@pytest.mark.parametrize("days", [-1, 1])
def test_clock(host: Host, days: int) -> None:
    """Whether the clock was set back or forward a day, an event that waits is sent by the next process at once."""
    backend = Backend(host, up=False)
    delivery = backend.delivery()
    delivery.record("1" * 32, HEADER, b"{}")
    delivery.close(0.3)
    assert 1 == host.count()["pending"]
    backend.up = True
    backend.now += days * DAY
    began = time.monotonic()
    delivery = backend.delivery()
    delivery.start()
    delivery.close(10)
    assert ["1" * 32] == [key for key, _ in host.oracle.accepted]
    assert 5 > time.monotonic() - began


@pytest.mark.parametrize(
    ("ended", "day"),
    [
        # 23:30 on the last day of the month in Los Angeles.
        (1_796_110_200, "2026-12-01"),
        # The hour that Los Angeles has twice.
        (1_793_523_600, "2026-11-01"),
        (1_793_527_200, "2026-11-01"),
    ],
)
def test_time_zone(host: Host, ended: int, day: str) -> None:
    """Times are those of UTC, to the second, wherever the host is."""
    bodies: list[bytes] = []

    def answer(request: Request) -> Reply:
        bodies.append(request.body)
        return ACCEPTED

    host.oracle.answer = answer
    host.start("export_at", {"TZ": "America/Los_Angeles"}, trace_id=7, ended=ended).wait()
    assert [ended] == [json.loads(body)["timestamp"] for body in bodies]
    with LedgerReader(host.directory) as ledger:
        assert {day} == {total.group[0] for total in ledger.usage.totals(["day"])}


def test_two_accounts(host: Host, tmp_path: Path) -> None:
    """Accounts of one process have directories of their own, and no event goes under another account's key."""
    keys = {"one": "tk-one-one-one-one-one", "two": "tk-two-two-two-two-two"}
    host.accounts = list(keys)
    process = host.start("in_two_accounts", keys=keys, count=50)
    assert 0 == process.wait()
    accounts = {words[1]: words[2] for words in process.notes if words[0] == "account"}
    sent = {request.key: request.headers["authorization"] for request in host.oracle.requests}
    assert {event_id: f"Bearer {keys[account]}" for event_id, account in accounts.items()} == sent
    assert 100 == len(sent)
    for directory in host.directories:
        with LedgerReader(directory) as ledger:
            assert 50 == ledger.counts()["delivered"]
