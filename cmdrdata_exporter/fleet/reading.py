"""What the body of an event says that has come: all that a ledger must know of it. Pure."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any, NamedTuple, cast

from cmdrdata_exporter.delivery import Event, Header
from cmdrdata_exporter.delivery.spool.details import Details, details
from cmdrdata_exporter.events import customer_place
from cmdrdata_exporter.fleet.arrivals import Arrival

_UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, OSError, RecursionError),
)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Read(NamedTuple):
    """An event that was read."""

    event: Event
    details: Details
    """With no labels but those that were asked for."""


def read(arrival: Arrival, labels: tuple[str, ...] = ()) -> Read | None:
    """
    Read an event.

    Args:
        arrival: as it came.
        labels: the user's metadata keys by which usage is summed.

    Returns:
        What it says; None where it is no event as they are sent to CmdrData.
    """
    said = details(arrival.body, labels)
    if said is None:
        return None
    try:
        sent = cast("dict[str, Any]", json.loads(arrival.body))
        metadata = cast("dict[str, Any]", sent["metadata"])
        units: dict[str, Any] = {
            **{name: sent[name] for name in ("input_tokens", "output_tokens", "total_tokens")},
            **(metadata.get("usage") or {}),
        }
        customer: object = sent["customer_id"]
        texts: list[Any] = [sent["model"], metadata["endpoint"], metadata["usage_status"]]
        day = dt.datetime.fromtimestamp(said.at, dt.timezone.utc).date().isoformat()
    except _UNREADABLE:
        return None
    if not (
        all(isinstance(text, str) for text in texts)
        and (customer is None or (isinstance(customer, str) and customer))
        and all(_is_amount(value) for value in units.values())
    ):
        return None
    model, endpoint, status = map(storable_text, texts)
    header = Header(
        customer=None if customer is None else storable_text(customer),
        model=model,
        endpoint=endpoint,
        status=status,
        units={storable_text(unit): amount for unit, amount in units.items()},
        day=day,
        customer_at=customer_place(arrival.body) if customer is None else None,
    )
    return Read(Event(arrival.id, header, arrival.body), _storable(said))


def _storable(said: Details) -> Details:
    labels = {name: storable_text(value) for name, value in said.labels.items()}
    texts = {
        name: storable_text(value)
        for name, value in said._asdict().items()
        if isinstance(value, str)
    }
    return said._replace(**texts, labels=labels)


def _is_amount(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def storable_text(text: str) -> str:
    """Return a text as PostgreSQL can store it, which has neither halves of surrogate pairs nor NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", _REPLACEMENT)
