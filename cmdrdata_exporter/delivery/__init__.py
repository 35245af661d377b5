"""
How an event gets from this process to the backend.

Everything here knows bytes, an id and a small header; nothing here knows a span.
A `Delivery` is all the exporter sees. The one that counts is `durable`, made of parts that can each be read alone:

| part | does | knows |
|---|---|---|
| `spool.journal` | one append-only file per process, which an event is in before `record` returns | bytes |
| `spool.ledger` | a SQLite database that knows where every event is | events by id |
| `leadership` | of all processes that use a directory one has the lock, and the ledger open | the lock |
| `relay` | imports journals, claims what is due for the senders, commits outcomes | states and times |
| `drainer` | the thread that does that, and syncs the journal | when something is to do |
| `http.client` | one POST; `http.answers`: what its answer means | the wire |
| `kafka.client` | one record of a topic, in the place of a POST; `kafka.answers`: what a refusal means | the wire |

In `spool`, `schema`, `totals`, `details`, `facts`, `retention` and `storage` are parts of the ledger, `directory` is
where the files are, `file_systems` says which may hold it, `backlog` what of a journal waits in memory, `records` what
is in them, `journal_reader` how they are imported, `ledger_view` what a command may know of a ledger, `kept` of the
events in it, and `usage_view` of its totals, which `usage` says of every ledger, `commands` how it has something
changed there, `index` finds events that are delivered, `index_rows` what, `index_view` reads it, `salvage` and `leaves`
what is done with a damaged one. `gate` says when anything may be sent, `backoff` how long to wait, `senders` are the
threads that send, `watch` looks after destinations with nothing to do, `options` says how a directory is drained,
`status_log` what the log is told, `gauges` what is measured of a ledger, `unspooled` what becomes of an event that
cannot be written. `destination` says what differs by the kind of a destination, `groups` by what usage
is summed.
Where nothing can be written, `memory`, of which `memory_queue` is a part, and `local` keep what they can.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple, Protocol, TypeVar

_T = TypeVar("_T")

FOR_EVER = -1
"""As a number of seconds: always."""


# Not frozen: setting each field past that would take ten times as long, in each call of an application.
@dataclass(slots=True)
class Header:
    """What may be known of an event without reading its body: enough to hold, assign and total it. Never changed."""

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


KEPT_DAYS = 30
"""Days after which an event that could not be delivered expires, and the body of a local one goes."""
ATTEMPT_TIMEOUT = 10.0
"""Seconds that one attempt may take."""


class Verdict(enum.Enum):
    """What became of one attempt to deliver an event."""

    DELIVERED = "delivered"
    DUPLICATE = "delivered before"
    REFUSED = "refused"
    """This event will never be accepted as it is; others may."""
    MISCONFIGURED = "misconfigured"
    """Nothing will be accepted until key or endpoint are mended."""
    FORBIDDEN = "forbidden"
    """The one or the other: whether another event is accepted will tell."""
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on one attempt and what the next one must know."""

    verdict: Verdict
    reason: str
    """The status or the kind of failure: one of few."""
    ambiguous: bool = False
    """The event may have been accepted all the same: the request went out, no verdict came back."""
    retry_after: float | None = None
    """Seconds in which nothing may be sent."""
    answer: str = ""
    """How the backend's answer begins, where it accepted nothing: one line, without what looks like a key."""
    unreachable: bool = field(default=False, compare=False)
    """There was no connection, which says nothing about the event."""

    @property
    def explanation(self) -> str:
        """The reason for logs and dead letters, with the answer; `cause` takes it off again."""
        return f"{self.reason}: {self.answer}" if self.answer else self.reason


def cause(explanation: str) -> str:
    """Return the `reason` of an `explanation`."""
    return explanation.partition(": ")[0]


Transport = Callable[[str, bytes, float], Outcome]
"""Sends an event's id and body within a number of seconds, as `http.Client.post` does, and never raises."""


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
