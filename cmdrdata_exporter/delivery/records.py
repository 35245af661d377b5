"""
What is written to disk, as bytes: an event, or a command about events that are in the ledger.

A record is one line of JSON, which says all that must be known, and the body of an event after it, as it is sent.
What a later version adds to the line is kept; a record of a kind that this version does not know is set aside.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple, cast

from cmdrdata_exporter.delivery import UNASSIGNED, Event, Header

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


class Command(NamedTuple):
    """What a person asks of the events in a ledger."""

    action: str
    """`assign` a customer to held events, `replay` dead or held ones, `drop` dead ones."""
    keys: tuple[bytes, ...]
    """The keys of the events; those for which it makes no sense are left alone."""
    customer: str | None = None


class UnknownRecordError(ValueError):
    """A record that this version cannot read."""


def key_of(event_id: str) -> bytes:
    """Return the 16 bytes that stand for an id wherever it is only compared."""
    if len(event_id) == 32:
        try:
            key = bytes.fromhex(event_id)
            if key.hex() == event_id:
                return key
        except ValueError:
            pass
    return hashlib.sha256(event_id.encode()).digest()[:16]


def encode_event(event_id: str, header: Header, body: bytes) -> bytes:
    """Return the record of an event."""
    line: dict[str, Any] = {
        "id": event_id,
        "customer": header.customer,
        "model": header.model,
        "endpoint": header.endpoint,
        "status": header.status,
        "units": header.units,
        "day": header.day,
    }
    if header.hold:
        line["hold"] = True
    if header.remember:
        line["remember"] = header.remember
    return b"%b\n%b" % (_encode(line).encode(), body)


def encode_command(command: Command) -> bytes:
    """Return the record of a command."""
    line = {
        "command": command.action,
        "keys": [key.hex() for key in command.keys],
        "customer": command.customer,
    }
    return _encode(line).encode() + b"\n"


def decode(record: bytes) -> Event | Command:
    """
    Read a record.

    Raises:
        UnknownRecordError: it is neither an event nor a command as this version writes them.
    """
    first, _, body = record.partition(b"\n")
    try:
        line = json.loads(first)
        if "command" in line:
            return Command(
                line["command"], tuple(map(bytes.fromhex, line["keys"])), line["customer"]
            )
        return Event(
            str(line["id"]),
            Header(
                customer=line["customer"],
                model=line["model"],
                endpoint=line["endpoint"],
                status=line["status"],
                units=line["units"],
                day=line["day"],
                hold=line.get("hold", False),
                remember=line.get("remember", 0),
            ),
            body,
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnknownRecordError(type(error).__name__) from None


def assigned(record: bytes, customer: str) -> bytes | None:
    """Return the record of an event without a customer with one; None where it has one, or its body does not say."""
    first, _, body = record.partition(b"\n")
    line = cast("dict[str, Any]", json.loads(first))
    if line["customer"] is not None or not body.startswith(UNASSIGNED):
        return None
    line["customer"] = customer
    line.pop("hold", None)
    # As the rest of the body is encoded.
    name = json.dumps(customer, ensure_ascii=False).encode("utf-8", "replace")
    return b'%b\n{"customer_id":%b,%b' % (_encode(line).encode(), name, body[len(UNASSIGNED) :])


def line(state: str, event_id: str, body: bytes) -> str:
    """Return an event as one line of JSON for the log: `"event"` is exactly what would have been sent."""
    return f'{{"cmdrdata": "{state}", "id": {json.dumps(event_id)}, "event": {body.decode()}}}'
