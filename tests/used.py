"""A spool directory with some of everything that the dashboard shows, at a time that stands still."""

from __future__ import annotations

import datetime as dt
import json
import random
from pathlib import Path

from cmdrdata_exporter.delivery import Header, Outcome, Verdict
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.index import Index
from cmdrdata_exporter.delivery.spool.records import encode_event
from tests.ledgers import DELIVERED, ENDPOINT, NOW, REFUSED, event_id, fill

HOSTILE = "<script>window.hacked = 1</script>\u202eevil"
"""A customer who would like to be a script, and to be read backwards."""
SHOWN = HOSTILE.replace("\u202e", "\\u202e")
"""How that is shown."""
CUSTOMERS = (
    "acme",
    "globex",
    "initech",
    "umbrella",
    "a-customer-with-a-name-that-is-as-long-as-nobody-would-like-it-to-be-but-some-are",
    HOSTILE,
    "hooli",
    "stark",
    "soylent",
    "wayne",
)
MODELS = ("gpt-5-mini", "gpt-5", "text-embedding-3-small")
EVENTS = 799
RESPONSE, REQUEST, TRACE = "resp_{:04}", "req_{:04}", "{:032x}"
"""The ids of an event by its number; those of traces by the third part of it."""


def record(
    number: int,
    customer: str | None,
    *,
    at: float = NOW,
    model: str = "gpt-5-mini",
    status: str = "reported",
    read: int = 1000,
    written: int = 20,
    cached: int = 0,
    plan: str | None = None,
) -> bytes:
    """Return an event whose body says all that is told of it."""
    units = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    header = Header(
        customer=customer,
        model=model,
        endpoint="chat.completions",
        status=status,
        units=units | ({"cache_read_input_tokens": cached} if cached else {}),
        day=str(dt.datetime.fromtimestamp(at, dt.timezone.utc).date()),
        hold=customer is None,
    )
    body = {
        "customer_id": customer,
        "request": {"id": event_id(number)},
        "timestamp": at,
        "provider": "openai",
        "input_tokens": read,
        "metadata": {
            "response_id": RESPONSE.format(number),
            "request_id": REQUEST.format(number),
            "trace_id": TRACE.format(number // 3 + 1),
            "plan": plan,
        },
    }
    return encode_event(event_id(number), header, json.dumps(body, separators=(",", ":")).encode())


def make(spool: Path) -> Directory:
    """Fill a spool directory, and return the destination with most of it."""
    chance = random.Random(7)
    remote = Directory.prepare(spool, ENDPOINT, "default")
    indexed(remote)
    records = [
        record(
            number,
            None if number % 97 == 0 else chance.choices(CUSTOMERS, range(20, 0, -2))[0],
            # Half of the last two days, the others of the two months before.
            at=NOW - chance.triangular(0, 86400 * (2 if number % 2 else 60), 0),
            model=chance.choices(MODELS, (6, 3, 2))[0],
            status="missing" if number % 131 == 0 else "reported",
            read=(read := chance.randrange(200, 9000)),
            written=chance.randrange(5, 900),
            cached=0 if number % 3 else read // 2,
        )
        for number in range(1, EVENTS + 1)
    ]
    fill(
        remote,
        records,
        [*[DELIVERED] * 700, *[REFUSED] * 2, Outcome(Verdict.REFUSED, "HTTP 413")],
        facts={
            "pid": 4711,
            "at": NOW,
            "paused": True,
            "probing": True,
            "reason": "HTTP 401",
            "next_attempt": NOW + 240,
        },
    )
    fill(
        Directory.prepare(spool, None, "default"),
        [record(number, "acme") for number in (900, 901)],
        local=True,
    )
    return remote


def indexed(directory: Directory) -> None:
    """Begin an index, in which what comes into the ledger is found also when it is delivered."""
    index = Index(directory, 10_000)
    index.open(0, NOW)
    index.close()
