"""What the records of a topic of events are: an event, or what a host says of itself. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from cmdrdata_exporter.delivery.kafka.headers import HOST, KEY, REPORT
from cmdrdata_exporter.fleet.arrivals import Arrival, HostReport
from cmdrdata_exporter.fleet.gateway.pieces import LONGEST_HOST, GarbageError

_NUMBERS = ("recorded", "pending", "held", "dead", "unspooled")


def read(
    value: bytes | None, headers: Iterable[tuple[str, bytes | None]] | None, place: str
) -> Arrival | HostReport:
    """
    Return what a record says. What is no event is given to the ledger all the same, which sets it aside.

    Args:
        value: of the record.
        headers: of the record.
        place: where it is, a name for what has none.

    Raises:
        GarbageError: it is said to be the report of a host, and is none.
    """
    known = {name: (content or b"").decode("utf-8", "replace") for name, content in headers or ()}
    document = _document(value)
    if REPORT in known:
        return _report(document)
    request = document.get("request")
    event_id = cast("dict[str, Any]", request).get("id") if isinstance(request, dict) else None
    if not isinstance(event_id, str) or not event_id:
        event_id = known.get(KEY) or place
    return Arrival(event_id, value or b"", known.get(HOST, "")[:LONGEST_HOST], "event")


def _document(value: bytes | None) -> dict[str, Any]:
    try:
        document: Any = json.loads(value or b"")
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", document) if isinstance(document, dict) else {}


def _report(said: dict[str, Any]) -> HostReport:
    host, version, at = said.get("host"), said.get("version"), said.get("at")
    numbers = [said.get(name) for name in _NUMBERS]
    if (
        not isinstance(host, str)
        or not 0 < len(host) <= LONGEST_HOST
        or not isinstance(version, str)
        or not isinstance(at, (int, float))
        or not 0 <= at < 2**33
        or not all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    ):
        raise GarbageError("expected is the report of a host, as JSON")
    return HostReport(host, version[:100], float(at), *cast("list[int]", numbers))
