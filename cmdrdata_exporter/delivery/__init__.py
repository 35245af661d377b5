"""
How an event gets from this process to the backend.

Everything here knows bytes, an id and a small header; nothing here knows a span.
A `Delivery` is all the exporter sees: two methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Header:
    """What may be known of an event without reading its body: enough to hold, assign and total it."""

    customer: str | None
    model: str
    endpoint: str
    status: str
    """`usage_status` of the event."""
    units: Mapping[str, int | float]
    """What was used: `input_tokens`, `output_tokens` and the other units of the event."""
    day: str
    """The UTC day of the event, `2026-11-21`."""


class Event(NamedTuple):
    """An event as a delivery keeps it."""

    id: str
    header: Header
    body: bytes


class Delivery(Protocol):
    """Where an exporter puts its events."""

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """Take responsibility for one event. `event_id` is unique, `body` is what is sent, unchanged."""
        ...

    def flush(self, timeout: float) -> bool:
        """Try to deliver what was recorded so far within `timeout` seconds; say whether nothing is left to send."""
        ...
