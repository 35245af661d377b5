"""Facts in a ledger: what the process that drains has written down of itself, for commands and for those after it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from typing import Any, cast

PRESENT, BREAKS = "present", "breaks"
"""When a process was there last, and when none was."""
TOTAL_BY, FULL_LABELS = "total_by", "full_labels"
"""By which of the user's metadata keys usage is summed, and which of them have had too many values."""
FOLDED = "folded"
"""The last month of which only the sum of its usage is kept, and the last such day."""


def write_facts(db: sqlite3.Connection, facts: Mapping[str, Any]) -> None:
    """Write down what commands, and later leaders, should know of the process that drains."""
    db.executemany(
        "INSERT OR REPLACE INTO facts VALUES (?, ?)",
        [(name, json.dumps(value)) for name, value in facts.items()],
    )


def read_names(db: sqlite3.Connection, fact: str) -> list[str]:
    """Return the texts in a fact that is a list; none where it is not there."""
    rows = db.execute("SELECT value FROM facts WHERE name = ?", (fact,))
    return [name for (value,) in rows for name in names_in(value)]


def names_in(value: str) -> list[str]:
    """Return the texts in the value of such a fact; none where it is damaged."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        return [name for name in cast("list[object]", json.loads(value)) if isinstance(name, str)]
    return []
