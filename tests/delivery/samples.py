"""What the tests of the delivery have in common: an event, a clock, a directory's counts."""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmdrdata_exporter.delivery import Header, Outcome, Verdict
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import encode_event

DAY = "2026-11-21"
NOW = 1_800_000_000.0

DELIVERED = Outcome(Verdict.DELIVERED, "HTTP 200")
DUPLICATE = Outcome(Verdict.DUPLICATE, "HTTP 409")
REFUSED = Outcome(Verdict.REFUSED, "HTTP 400", answer="no such model")
UNAUTHORIZED = Outcome(Verdict.MISCONFIGURED, "HTTP 401")
FORBIDDEN = Outcome(Verdict.FORBIDDEN, "HTTP 403", answer="blocked")
UNAVAILABLE = Outcome(Verdict.RETRY, "HTTP 503")
BROKEN = Outcome(Verdict.RETRY, "HTTP 500", ambiguous=True)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def event_id(number: int) -> str:
    """Return the id of one of our own events."""
    return f"{number:032x}"


def header(customer: str | None = "acme", **changes: Any) -> Header:
    """Return what is known of an event."""
    known: dict[str, Any] = {
        "model": "m",
        "endpoint": "chat.completions",
        "status": "reported",
        "units": {"input_tokens": 1},
        "day": DAY,
    }
    return Header(customer, **known | changes)


def record(number: int, customer: str | None = "acme", **changes: Any) -> bytes:
    """Return the record of an event."""
    name = b"null" if customer is None else b'"%s"' % customer.encode()
    body = b'{"customer_id":%s,"n":%d}' % (name, number)
    return encode_event(event_id(number), header(customer, **changes), body)


def told(
    number: int, customer: str | None = "acme", *, hour: str = "10", tokens: int = 1, **changes: Any
) -> bytes:
    """
    Return the record of an event whose body tells by what usage is summed.

    Args:
        number: of the event.
        customer: who pays; an event of nobody is held.
        hour: in which its call ended, of its day.
        tokens: how many input tokens it used.
        changes: of its header, and of its body's `metadata`, where a name is that of a field.
    """
    fields = {"model", "endpoint", "status", "units", "day", "remember"}
    line = {name: value for name, value in changes.items() if name in fields}
    line = {"units": {"input_tokens": tokens}, "hold": customer is None} | line
    moment = time.strptime(f"{line.get('day', DAY)} {hour}", "%Y-%m-%d %H")
    event = {
        "customer_id": customer,
        "input_tokens": tokens,
        "provider": changes.get("provider", "openai"),
        "metadata": {name: value for name, value in changes.items() if name not in fields},
        "timestamp": calendar.timegm(moment) + number % 3600,
    }
    body = json.dumps(event)
    at = body.index("null") if customer is None else None
    known = header(customer, customer_at=at, **line)
    return encode_event(event_id(number), known, body.encode())


def held(number: int, **changes: Any) -> bytes:
    """Return the record of an event that waits for its customer."""
    return record(number, None, hold=True, **changes)


STATES = ("delivered", "local", "pending", "in_flight", "held", "dead", "dropped")


def counts(directory: Directory) -> dict[str, int]:
    """Return what a directory counts and is not zero, having checked that every event is in one state."""
    with LedgerReader(directory) as ledger:
        found = ledger.counts()
    assert found["recorded"] == sum(found[state] for state in STATES)
    return {name: number for name, number in found.items() if number}


def open_files(directory: Directory) -> int:
    """Return how many files of a directory this process has open."""
    there = {(found.st_dev, found.st_ino) for found in map(Path.stat, directory.path.iterdir())}
    opened: list[tuple[int, int]] = []
    for path in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):
            found = os.fstat(int(path.name))
            opened.append((found.st_dev, found.st_ino))
    return sum(file in there for file in opened)


def wait_for(condition: Callable[[], object], *, timeout: float = 10) -> None:
    """Wait until something is true of a thread, which tells nobody."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
