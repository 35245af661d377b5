"""
What the body of an event says beyond the line of its record: by what usage is summed and events are found.

It is read where a journal is imported, not where a call is made: a call pays for none of it, records stay as they were,
and what an earlier version recorded has it too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from cmdrdata_exporter.quick_json import read_json

LADDER = (32_000, 100_000, 128_000, 199_999, 200_000, 256_000, 272_000, 512_000, 524_288)
"""Input tokens beyond which providers charge a call by another price, as price tables have them."""
_EXCEEDED = ("0", *map(str, LADDER))
LONGEST = 200
"""Characters of a value by which usage is summed, or an event is found."""
IDS = (
    "response_id",
    "job_id",
    "run_id",
    "turn_id",
    "item_id",
    "session_id",
)
"""The metadata keys that hold what the provider calls an event, the first that is there counts."""


class Details(NamedTuple):
    """What a body says. A text is empty where it says nothing."""

    at: int
    """When the call ended, in Unix seconds."""
    provider: str = ""
    host: str = ""
    """`metadata.server_address`."""
    request_model: str = ""
    service_tier: str = ""
    context: str = ""
    """The largest number of `LADDER` that its input tokens exceed, `0` where there is none."""
    organization: str = ""
    """`metadata.openai_organization`, likewise the two below."""
    project: str = ""
    key: str = ""
    """`metadata.openai_key_hash`."""
    labels: Mapping[str, str] = {}
    """The user's metadata that was asked for: those that are there."""
    trace_id: str = ""
    response_id: str = ""
    """What the provider calls it: see `IDS`."""
    request_id: str = ""
    """What the provider calls the HTTP request, `metadata.request_id`."""


def details(body: bytes, labels: Sequence[str] = ()) -> Details | None:
    """
    Read a body.

    Args:
        body: the event as it is sent.
        labels: the user's metadata keys by which usage is summed.

    Returns:
        what it says; None where it is no event.
    """
    try:
        event = read_json(body)
        get = cast("dict[str, Any]", event["metadata"]).get
        at, tokens = int(event["timestamp"]), event["input_tokens"]
        # In the order of the fields: naming them would take as long as all the rest.
        return Details(
            at,
            _text(event["provider"]),
            _text(get("server_address")),
            _text(get("request_model")),
            _text(get("service_tier")),
            context(tokens),
            _text(get("openai_organization")),
            _text(get("openai_project")),
            _text(get("openai_key_hash")),
            {name: _text(get(name)) for name in labels if get(name) is not None} if labels else {},
            _text(get("trace_id")),
            next((_text(found) for found in map(get, IDS) if found), ""),
            _text(get("request_id")),
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def context(tokens: float) -> str:
    """Return the largest number of `LADDER` that a number of input tokens exceeds, as text; `0` where there is none."""
    return _EXCEEDED[bisect_left(LADDER, tokens)]


def _text(value: object) -> str:
    """Return a value as text of a bounded length, the empty one where there is none."""
    if isinstance(value, str):
        return value[:LONGEST]
    if value is None:
        return ""
    return (str(value).lower() if isinstance(value, bool) else str(value))[:LONGEST]
