"""Ledgers for the tests of what reads and changes them: made of literals, at a time that stands still."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from cmdrdata_exporter.delivery import Header, Outcome, Verdict
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.index import Index
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.records import encode_event

NOW = 1795286000.0
"""2026-11-21T18:33:20Z, when everything in these ledgers happened."""
ENDPOINT = "https://cmdrdata.test/api/events"
KEY = "tk-0123456789abcdefghij"
IN_FLIGHT = Outcome(Verdict.RETRY, "no answer yet")
"""Stands for what is not known yet."""
DELIVERED = Outcome(Verdict.DELIVERED, "HTTP 201")
REFUSED = Outcome(Verdict.REFUSED, "HTTP 400")
AMBIGUOUS = Outcome(Verdict.RETRY, "ReadTimeoutError", ambiguous=True)
SEED = "0-0-seed.journal"


def event_id(number: int) -> str:
    """Return the id of an event: it begins with its number."""
    return f"{number:04d}{number:028x}"


def body(
    number: int, customer: str | None = "acme", metadata: dict[str, object] | None = None
) -> dict[str, object]:
    """Return what is sent of an event, as far as a ledger cares."""
    sent: dict[str, object] = {"customer_id": customer, "request": {"id": event_id(number)}}
    if metadata is None:
        return sent
    ended = int(NOW) - 3600 + 60 * number
    return {
        **sent,
        "provider": "openai",
        "input_tokens": 1000,
        "timestamp": ended,
        "metadata": metadata,
    }


def record(
    number: int,
    customer: str | None = "acme",
    *,
    model: str = "gpt-5-mini",
    day: str = "2026-11-20",
    endpoint: str = "chat.completions",
    status: str = "reported",
    units: dict[str, int | float] | None = None,
    metadata: dict[str, object] | None = None,
) -> bytes:
    """Return an event as it is in a journal; one without a customer is held."""
    used = {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020}
    header = Header(
        customer=customer,
        model=model,
        endpoint=endpoint,
        status=status,
        units=used if units is None else units,
        day=day,
        hold=customer is None,
    )
    return encode_event(
        event_id(number),
        header,
        json.dumps(body(number, customer, metadata), separators=(",", ":")).encode(),
    )


def fill(
    directory: Directory,
    records: Sequence[bytes],
    outcomes: Sequence[Outcome] = (),
    *,
    local: bool = False,
    hold_ambiguous: bool = False,
    now: float = NOW,
    facts: Mapping[str, object] | None = None,
    index: int | None = None,
) -> None:
    """
    Put events into a ledger.

    Args:
        directory: whose ledger.
        records: the events.
        outcomes: what comes of sending the first of those that are pending then; `IN_FLIGHT` nothing yet.
        local: whether they stay there.
        hold_ambiguous: whether ambiguous ones are held.
        now: when all of that happens.
        facts: what the process that drains notes of itself.
        index: how many events the index may have; None: as many as it may already, if there is one.
    """
    ledger = Ledger(
        directory, local=local, hold_ambiguous=hold_ambiguous, index=Index(directory, index)
    )
    with ledger.transaction():
        ledger.import_records(SEED, 0, records, [], now)
        ledger.forget_journals([SEED])
    with ledger.transaction():
        handed = ledger.claim(len(outcomes), now)
        ledger.record_outcomes(
            [pair for pair in zip(handed, outcomes, strict=True) if pair[1] is not IN_FLIGHT], now
        )
        ledger.note(dict(facts or {}))
    ledger.close()
