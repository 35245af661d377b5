"""
How an event gets from this process to the backend.

Everything here knows bytes, an id and a small header; nothing here knows a span.
A `Delivery` is all the exporter sees. The one that counts is `durable`, made of parts that can each be read alone:

| part | does | knows |
|---|---|---|
| `journal` | one append-only file per process, which an event is in before `record` returns | bytes |
| `ledger` | a SQLite database that knows where every event is | events by id |
| `drainer` | imports journals, hands due events to senders, commits what became of them | states and times |
| `http` | one POST, and what its answer means | the wire |

`directory` is where their files are, `records` what is in them, `gate` when anything may be sent, `backoff` how long
to wait, `senders` the threads that send, `watch` what looks after destinations with nothing to do, `options` how a
directory is drained, `salvage` and `leaves` what is done with a damaged ledger, `reading` what a command may know of a
ledger, `control` how it has something changed there.
Where nothing can be written, `memory` and `local` keep what they can.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple, Protocol, TypeVar

_T = TypeVar("_T")

FOR_EVER = -1
"""As a number of seconds: always."""


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
    hold: bool = False
    """Keep it until a command assigns a customer."""
    customer_at: int | None = None
    """Where in the body the `null` is in whose place an assigned customer goes."""
    remember: int = 0
    """For how many seconds after its delivery the id may come again and must be known. 0: never."""
    kept: list[object] | None = field(default=None, repr=False, compare=False)
    """
    A list that is not empty once a delivery has the event, and not before.
    A signal handler may raise in the middle of `record`: who calls it again with the same list records it once.
    """


def keep(item: _T, queue: deque[_T], kept: list[object]) -> None:
    """Append an item to a queue and tell so in `kept`, in one step of the interpreter: nothing comes between."""
    queue.extend(compress((item,), map(kept.__iadd__, ((True,),))))


class Event(NamedTuple):
    """An event as a delivery keeps it."""

    id: str
    header: Header
    body: bytes


class Handed(NamedTuple):
    """An event that is handed to a sender."""

    seq: int
    key: bytes
    id: str
    body: bytes
    attempts: int
    remember: int


class Delivery(Protocol):
    """Where an exporter puts its events."""

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """Take responsibility for one event. `event_id` is unique, `body` is what is sent, unchanged."""
        ...

    def flush(self, timeout: float) -> bool:
        """Try to deliver what was recorded so far within `timeout` seconds; say whether nothing is left to send."""
        ...

    def shutdown(self, timeout: float) -> None:
        """Deliver what can be within `timeout` seconds, since the exporter ends. Events may come all the same."""
        ...
