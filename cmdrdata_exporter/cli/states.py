"""
The words for what may become of an event: the same in tables, help and messages, in JSON with `_` for a blank.

docs/glossary.md and docs/delivery.md have the same words, which a test checks.
"""

from __future__ import annotations

from cmdrdata_exporter.delivery import KEPT_DAYS
from cmdrdata_exporter.delivery.status_log import BACKEND_TROUBLES

STATES = {
    "delivered": "accepted by the backend",
    "local": "kept on this host, without a key and an endpoint",
    "pending": "waits to be sent",
    "in_flight": "being sent now",
    "held": "waits for your decision: it has no customer, or is ambiguous",
    "dead": f"a dead letter: refused, expired after {KEPT_DAYS} days, or damaged",
    "dropped": "given up by cmdrdata dead-letters drop",
}
"""Each state of an event, and what it means. Together they are all events that were recorded."""

UNSENT = ("pending", "in_flight")
"""The states of events that are still to be sent."""

COUNTED = {
    "repeated": "duplicates, recognised and not sent again",
    "ambiguous": "attempts whose answer was lost; each may be billed twice",
    "replayed": "sent again by cmdrdata replay",
    "assigned": "given a customer by cmdrdata assign",
    "expired": f"not delivered within {KEPT_DAYS} days",
    "unspooled": "could not be written to the disk; the application's log has them",
    "damaged": "records that the disk has altered; they are set aside",
    "lost": "events that could not be read from a damaged ledger",
}
"""What else is counted, and what it means."""

SENDING = {
    "open": "events are sent as they come",
    "probing": "one attempt at a time, since the backend is in trouble",
    "paused": BACKEND_TROUBLES["paused"],
}
"""Whether events are sent, and why they are not."""

NEEDS = {
    "quiet": "a host of the fleet has not said how it is for three minutes",
    "paused": "the backend refuses the key or endpoint",
    "late": "the backend cannot be reached, and an event has waited for 15 minutes",
    "nobody_sends": "events are to be sent, and no process is there to send them",
    "no_customer": "events are held, since they have no customer",
    "ambiguous": "events are held, since their delivery was ambiguous",
    "dead": "there are dead letters",
    "set_aside": "what came to the ledger of the fleet cannot be counted, and is set aside",
    "records_lost": "records were gone from a topic before a gateway read them",
    "partitions_renewed": "a topic was made anew, or has lost its end, and is read from its beginning",
    "damaged": "the disk has altered records",
    "lost": "events could not be read from a damaged ledger",
    "unspooled": "events could not be written to the disk",
    "no_usage": "calls of the last seven days reported no usage",
    "disk": "the spool directory is nearly full",
    "unreadable": "the ledger cannot be read, so nothing else is known",
    "gone": "the directory of the destination was removed; nothing else is known",
    "unusable": "the spool directory cannot be used",
}
"""The kinds of what needs a person, in their order, and what each means."""

NO_CUSTOMER = "no customer"
"""How usage is shown that belongs to no customer; also why an event is held."""
DEAD_LETTER, HELD_EVENT = "dead letter", "held event"
"""What an event in such a state is called."""


def word(name: str) -> str:
    """Return the word for a state: the name that JSON has, with blanks."""
    return name.replace("_", " ")
