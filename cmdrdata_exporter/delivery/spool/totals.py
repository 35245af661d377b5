"""What is counted in a ledger: usage totals and counters, added up in memory and written once per transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter

from cmdrdata_exporter.delivery import Header

_LARGEST = 10**100
"""No amount is counted as more than this."""

_Group = tuple[str, str, str, str, str]


class Totals:
    """
    What a transaction adds to the totals and counters of a ledger.

    Args:
        db: the ledger's database.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._groups: dict[_Group, dict[str, int | float]] = {}
        self.counts: Counter[str] = Counter()
        """What is added to the counters, by their names."""

    def add(self, header: Header, sign: int = 1) -> None:
        """Add the usage of an event, or take it off with -1."""
        # No customer has the empty id.
        group = (header.day, header.customer or "", header.model, header.endpoint, header.status)
        amounts = self._groups.setdefault(group, {})
        amounts["events"] = amounts.get("events", 0) + sign
        for unit, amount in header.units.items():
            if not isinstance(amount, bool):
                # A unit may be called `events`, too.
                amounts[unit] = amounts.get(unit, 0) + _storable(amount) * sign

    def write(self) -> None:
        """Write what was added. In a transaction."""
        if self._groups:
            self._db.executemany(
                "INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                [
                    (*map(_text, group), _text(unit), _storable(amount))
                    for group, amounts in self._groups.items()
                    for unit, amount in amounts.items()
                    if amount
                ],
            )
        if self.counts:
            self._db.executemany(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
                [(name, number) for name, number in self.counts.items() if number],
            )
        self.clear()

    def clear(self) -> None:
        """Forget what was added: it is written, or its transaction has failed."""
        self._groups.clear()
        self.counts.clear()

    def tidy(self, after: str, before: str) -> tuple[str, int]:
        """
        Go on to the next day or month of the totals: one that is old becomes a part of its month. In a transaction.

        Args:
            after: the day or month that was the last; the empty string begins.
            before: the first month whose days are kept, `2026-11`.

        Returns:
            which one it was, the empty string where there is none; and about how many bytes its totals take.
        """
        (day,) = self._db.execute("SELECT min(day) FROM totals WHERE day > ?", (after,)).fetchone()
        # A damaged row may hold any type.
        if not isinstance(day, str):
            return "", 0
        if len(day) > len(before) and day < before:
            self._db.execute(
                "INSERT INTO totals SELECT ?, customer, model, endpoint, status, unit, amount FROM totals"
                " WHERE day = ? ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                (day[: len(before)], day),
            )
            self._db.execute("DELETE FROM totals WHERE day = ?", (day,))
        (size,) = self._db.execute(
            "SELECT sum(24 + length(day) + length(customer) + length(model) + length(endpoint) + length(status)"
            " + length(unit)) FROM totals WHERE day = ?",
            (day,),
        ).fetchone()
        return day, size or 0


def _text(text: str) -> str:
    """Return a text as SQLite can store it: half of a surrogate pair becomes a question mark, as in the body."""
    return text.encode("utf-8", "replace").decode()


def _storable(amount: float) -> int | float:
    """Return an amount as SQLite can store it: beyond 63 bits only roughly, and within what a sum of floats can be."""
    if isinstance(amount, int) and -(2**63) <= amount < 2**63:
        return amount
    return float(min(max(amount, -_LARGEST), _LARGEST))
