"""The labels of usage: the user's metadata keys by which it is summed, each with so many values and no more."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from cmdrdata_exporter.delivery.groups import MOST_VALUES, OTHER, as_labels, labels_of


class Labels:
    """
    The labels of a ledger, and the values that each has there.

    Args:
        db: the ledger's database.
        total_by: the user's metadata keys by which usage is summed.
    """

    def __init__(self, db: sqlite3.Connection, total_by: Sequence[str]) -> None:
        self._db = db
        self._total_by = total_by
        self._values: dict[str, set[str]] | None = None
        """The values that each label has; None: not read yet."""
        self._full: set[str] = set()

    def told(self, given: Mapping[str, str]) -> str:
        """
        Return the labels of an event as a group has them.

        Where one has too many values already, a new one is counted as `OTHER`.
        """
        if not given:
            return ""
        values = self._known()
        labels: dict[str, str] = {}
        for name, text in given.items():
            value, there = stored_text(text), values.setdefault(name, set())
            if value and value not in there:
                if len(there) >= MOST_VALUES:
                    value = OTHER
                    self._full.add(name)
                else:
                    there.add(value)
            if value:
                labels[name] = value
        return as_labels(labels)

    def full(self) -> list[str]:
        """Return the labels that have had more values than are told apart."""
        self._known()
        return sorted(self._full)

    def clear(self) -> None:
        """Read again which values there are."""
        self._values = None

    def _known(self) -> dict[str, set[str]]:
        if self._values is None:
            self._values = {name: set() for name in self._total_by}
            # Without labels there is nothing to be read.
            groups = "SELECT DISTINCT labels FROM groups"
            for (text,) in self._db.execute(groups) if self._total_by else ():
                for name, value in labels_of(text).items():
                    if value == OTHER and name in self._values:
                        self._full.add(name)
                    elif name in self._values:
                        self._values[name].add(value)
        return self._values


def stored_text(text: str) -> str:
    """Return a text as SQLite can store it: half of a surrogate pair becomes a question mark, as in the body."""
    return text.encode("utf-8", "replace").decode()
