"""
What is written to disk, as bytes: an event, or a command about events that are in the ledger.

A record is one line of JSON, which says all that must be known, and the body of an event after it, as it is sent.
What a later version adds to the line is kept; a record of a kind that this version does not know is set aside.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from operator import itemgetter
from typing import Any, NamedTuple, TypeGuard, cast

from cmdrdata_exporter.delivery import FOR_EVER, Event, Header
from cmdrdata_exporter.delivery.open_jobs import OpenJob, from_json, to_json
from cmdrdata_exporter.quick_json import quick_json, read_json

LONGEST_MEMORY = 100 * 366 * 86400
"""Seconds for which an id is remembered at most, if not for ever."""

_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=True, allow_nan=False, check_circular=False
).encode

ACTIONS = ("assign", "replay", "drop", "unspooled", "job", "job_ended")


class Command(NamedTuple):
    """What a person asks of the events in a ledger, or what is to be counted there."""

    action: str
    """`assign` a customer to held events, `replay` dead or held ones, `drop` dead ones; `unspooled` only counts.
    `job` keeps a job of the provider whose end was not seen, `job_ended` forgets it."""
    keys: tuple[bytes, ...]
    """The keys of the events; those for which it makes no sense are left alone."""
    customer: str | None = None
    number: int = 0
    """How many events are counted that are not here."""
    job: OpenJob | None = None
    at: float = 0.0
    """When a job was seen to end, in Unix seconds."""


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
    # An id may hold half of a surrogate pair, as any string from JSON.
    return hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).digest()[:16]


_BEGINNING = b'{"id":'
"""How the record of an event begins, and no other."""


def is_event(record: bytes) -> bool:
    """Say whether a record is that of an event, without reading it: where many are only counted."""
    return record.startswith(_BEGINNING)


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
    if header.customer_at is not None:
        line["customer_at"] = header.customer_at
    if header.remember:
        line["remember"] = header.remember
    first = quick_json(line, header.units.values())
    # `json` escapes all other characters: it is the same line without orjson.
    if first is None or not first.isascii() or b"\x7f" in first:
        first = _encode(line).encode()
    return b"\n".join((first, body))


def encode_command(command: Command) -> bytes:
    """Return the record of a command."""
    line: dict[str, Any] = {
        "command": command.action,
        "keys": [key.hex() for key in command.keys],
        "customer": command.customer,
    }
    if command.number:
        line["number"] = command.number
    if command.at:
        line["at"] = command.at
    if command.job is not None:
        line["job"] = to_json(command.job)
    return _encode(line).encode() + b"\n"


def decode(record: bytes) -> Event | Command:
    """
    Read a record.

    Raises:
        UnknownRecordError: it is neither an event nor a command as this version writes them.
    """
    try:
        first, _, body = record.partition(b"\n")
        line = read_json(first)
        read = _command(line) if "command" in line else _event(line, first, body)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UnknownRecordError(type(error).__name__) from None
    if read is None:
        raise UnknownRecordError("a value that this version does not know")
    return read


def _command(line: Any) -> Command | None:
    action, customer, number = line["command"], line["customer"], line.get("number", 0)
    if (
        action not in ACTIONS
        or not isinstance(customer, str | None)
        or not (isinstance(number, int) and 0 <= number < 2**31)
    ):
        return None
    keys: tuple[bytes, ...] = tuple(map(bytes.fromhex, line["keys"]))
    job = from_json(keys[0], line["job"]) if action == "job" else None
    return Command(action, keys, customer, number, job, float(line.get("at", 0.0)))


_EVENT = itemgetter("id", "model", "endpoint", "status", "day")
_TEXTS = frozenset({str})
_WHOLE = frozenset({int})


def _event(line: Any, first: bytes, body: bytes) -> Event | None:
    texts, customer, units = _EVENT(line), line["customer"], line["units"]
    hold, remember = line.get("hold", False), line.get("remember", 0)
    customer_at = line.get("customer_at")
    if not _WHOLE.issuperset(map(type, units.values())):
        # Where one comes as a float it may be a whole number that is larger than `read_json` has them.
        units = json.loads(first)["units"]
        if not all(map(_is_amount, units.values())):
            return None
    # What is of another type could not be stored, and everything behind it would wait.
    if not (
        _TEXTS.issuperset(map(type, texts))
        and (customer is None or isinstance(customer, str))
        and isinstance(hold, bool)
        and is_duration(remember)
        and (customer_at is None or isinstance(customer_at, int))
    ):
        return None
    event_id, model, endpoint, status, day = texts
    header = Header(customer, model, endpoint, status, units, day, hold, customer_at, remember)
    return Event(event_id, header, body)


def _is_amount(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def is_duration(seconds: object) -> TypeGuard[int]:
    """Return whether a number of seconds is one for which an id may be remembered."""
    return isinstance(seconds, int) and FOR_EVER <= seconds <= LONGEST_MEMORY


_UNASSIGNED = b'{"customer_id":null,'
"""How a body without a customer begins that was recorded before records said where the customer goes."""


def assigned(record: bytes, customer: str) -> bytes | None:
    """Return `record` with `customer` filled in; None if it has one already or its body has no place for it."""
    first, _, body = record.partition(b"\n")
    line = cast("dict[str, Any]", json.loads(first))
    at = line.pop("customer_at", _UNASSIGNED.index(b"null") if body.startswith(_UNASSIGNED) else -1)
    if line["customer"] is not None or at < 0 or body[at : at + 4] != b"null":
        return None
    line["customer"] = customer
    line.pop("hold", None)
    # As the rest of the body is encoded.
    name = json.dumps(customer, ensure_ascii=False).encode("utf-8", "replace")
    return b"%b\n%b%b%b" % (_encode(line).encode(), body[:at], name, body[at + 4 :])


def intact(key: bytes, crc: int, record: bytes) -> Event | None:
    """Return the event of a ledger's row; None where a bit of it has changed."""
    if not isinstance(record, bytes) or zlib.crc32(record) != crc:  # pyright: ignore[reportUnnecessaryIsInstance] - a damaged row may hold any type
        return None
    try:
        event = decode(record)
    except UnknownRecordError:
        return None
    return event if isinstance(event, Event) and key_of(event.id) == key else None


def line(state: str, event_id: str, body: bytes) -> str:
    """Return an event as one line of JSON for the log: `"event"` is exactly what would have been sent."""
    return f'{{"cmdrdata": "{state}", "id": {json.dumps(event_id)}, "event": {body.decode("utf-8", "replace")}}}'
