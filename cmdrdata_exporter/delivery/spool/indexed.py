"""What is known of an event, wherever that was read, and which events are wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.spool.details import Details, details
from cmdrdata_exporter.delivery.spool.kept import Kept
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import UnknownRecordError, decode, is_event

WITHOUT_USAGE = ("missing", "partial")
"""What is known of the usage of an event of which some, or all, is not known."""


class IndexedEvent(NamedTuple):
    """An event, and what became of it so far."""

    number: int | None
    """That of the ledger: what is imported later has a larger one. None: it is in a journal only."""
    key: bytes
    id: str
    at: int
    """When the call ended, in Unix seconds."""
    customer: str | None
    model: str | None
    """None, as endpoint and usage status: its record is damaged."""
    endpoint: str | None
    usage_status: str | None
    units: Mapping[str, int | float]
    trace_id: str
    """Empty where it has none, as the two below."""
    response_id: str
    request_id: str
    state: str
    reason: str | None = None
    """Why it is in its state, where that has a reason."""
    since: float | None = None
    """Unix seconds since when it is in it; of a pending one, when it may be sent. None: not known."""
    attempts: int | None = None
    """How often it was tried in vain; None: not known any more."""

    @property
    def known_units(self) -> Mapping[str, int | float]:
        """What was used, without the zeros that a body has for what is not known."""
        if self.usage_status not in WITHOUT_USAGE:
            return self.units
        return {unit: amount for unit, amount in self.units.items() if amount}


class Wanted(NamedTuple):
    """Which events are wanted; None: whatever it is."""

    state: str | None = None
    customer: str | None = None
    """The empty string is nobody."""
    model: str | None = None
    endpoint: str | None = None
    since: int | None = None
    """Unix seconds."""
    until: int | None = None
    """The second before which the call ended."""
    no_usage: bool = False

    def fits(self, event: IndexedEvent) -> bool:
        """Say whether an event is one."""
        return (
            self.state in (None, event.state)
            and self.customer in (None, event.customer or "")
            and self.model in (None, event.model)
            and self.endpoint in (None, event.endpoint)
            and (self.since is None or event.at >= self.since)
            and (self.until is None or event.at < self.until)
            and (not self.no_usage or event.usage_status in WITHOUT_USAGE)
        )

    def condition(self) -> tuple[str, list[object]]:
        """Return the same as SQL has it, the state left out, and its values."""
        given: dict[str, object] = {
            "coalesce(customer, '') = ?": self.customer,
            "model = ?": self.model,
            "endpoint = ?": self.endpoint,
            "at >= ?": self.since,
            "at < ?": self.until,
        }
        texts = [text for text, value in given.items() if value is not None]
        if self.no_usage:
            texts.append(f"status IN ({', '.join(map(repr, WITHOUT_USAGE))})")
        values = [value for value in given.values() if value is not None]
        return " AND ".join(texts) or "1", values


ANY = Wanted()


def of_record(
    number: int | None, key: bytes, event: Event | None, kept: Kept | None
) -> IndexedEvent:
    """
    Return an event of which there is the record.

    Args:
        number: that of the ledger.
        key: what stands for its id.
        event: None where the record is damaged.
        kept: what the ledger has of it; None: it is in a journal only.
    """
    header = None if event is None else event.header
    said = None if event is None else details(event.body)
    recorded = 0 if kept is None else int(kept.recorded)
    said = said or Details(recorded)
    return IndexedEvent(
        number=number,
        key=key,
        id=key.hex() if event is None else event.id,
        at=said.at,
        customer=header and header.customer,
        model=header and header.model,
        endpoint=header and header.endpoint,
        usage_status=header and header.status,
        units={} if header is None else header.units,
        trace_id=said.trace_id,
        response_id=said.response_id,
        request_id=said.request_id,
        state="pending" if kept is None else kept.state,
        reason=kept and kept.reason,
        since=kept and kept.since,
        attempts=0 if kept is None else kept.attempts,
    )


def new_events(ledger: LedgerReader) -> Iterator[Event]:
    """Yield the events that are in journals only."""
    for record in ledger.new_records():
        if is_event(record):
            with contextlib.suppress(UnknownRecordError):
                event = decode(record)
                if isinstance(event, Event):
                    yield event
