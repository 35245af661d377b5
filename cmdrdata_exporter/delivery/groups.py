"""
By what usage is summed: events that are alike in all of it are a group, for which a ledger has one number and one row.

Without SQLite: the settings know from here what a metadata key may not be called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

DROPPED = "dropped"
"""The fate of the usage of events that a person gave up."""
OTHER = "(other)"
"""What counts as the value of a label that has too many."""
MOST_VALUES = 1000
"""How many values a label has in a ledger, at most."""
MOST_LABELS = 8
"""By how many of the user's metadata keys usage is summed, at most."""


class Group(NamedTuple):
    """What events have in common whose usage is summed. A text is empty where there is none, or it is unknown."""

    customer: str
    model: str
    endpoint: str
    status: str
    provider: str = ""
    host: str = ""
    request_model: str = ""
    service_tier: str = ""
    context: str = ""
    """See `details.LADDER`."""
    organization: str = ""
    project: str = ""
    key: str = ""
    labels: str = ""
    """The values of the user's metadata keys by which usage is summed, as JSON."""
    fate: str = ""
    """`DROPPED`, or empty."""

    @property
    def number(self) -> int:
        """
        The number of the group, the same in every ledger: a row that damage took is written again with the next event.

        It has 63 bits: two of a million groups have the same with a chance of one in ten millions. How it is made can
        never change, since totals and events refer to it.
        """
        digest = hashlib.sha256(json.dumps(self).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


TIMES = ("hour", "day", "month")
"""How usage may be grouped by time. What is known of a whole day or month only has that for its hour."""
COLUMNS = (*TIMES, *Group._fields[:-2])
"""What usage may be grouped by, in this order; beside these by each label."""


def as_labels(values: Mapping[str, str]) -> str:
    """Return the labels of a group as they are stored."""
    return json.dumps(values, sort_keys=True, separators=(",", ":")) if values else ""


def labels_of(text: object) -> dict[str, str]:
    """Return the labels that were stored so; none where the text was damaged."""
    try:
        read: object = json.loads(cast("str", text)) if text else {}
    except (ValueError, TypeError, RecursionError):
        return {}
    found = cast("dict[str, Any]", read) if isinstance(read, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, str)}
