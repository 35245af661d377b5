"""The events that are in a ledger, found by their keys, their numbers, or by what is in their records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.spool.records import intact
from cmdrdata_exporter.delivery.spool.schema import STATES

PART = 500
"""How many events are read at once."""


class Kept(NamedTuple):
    """An event that is in a ledger."""

    key: bytes
    state: str
    since: float
    """Unix seconds since when it is in that state; of a pending one, when it may be sent."""
    recorded: float
    attempts: int
    reason: str | None
    event: Event | None
    """None where its record is damaged."""


class KeptEvents:
    """
    The events of a ledger.

    Args:
        query: asks its database; there is nothing where the ledger is not there yet.
    """

    def __init__(self, query: Callable[..., Iterator[tuple[Any, ...]]]) -> None:
        self._query = query

    def with_keys(self, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        """Return those of some events that are here, by their keys; without their records."""
        found: dict[bytes, Kept] = {}
        for start in range(0, len(keys), PART):
            part = keys[start : start + PART]
            marks = ", ".join("?" * len(part))
            rows = self._query(
                f"SELECT key, state, due, recorded, attempts, reason FROM events WHERE key IN ({marks})",  # noqa: S608 - question marks
                part,
            )
            for key, state, due, recorded, attempts, reason in rows:
                found[key] = Kept(key, _state(state), due, recorded, attempts, reason, None)
        return found

    def latest(
        self,
        state: str | None = None,
        *,
        after: int = 0,
        before: int | None = None,
        holding: bytes = b"",
    ) -> Iterator[tuple[int, Kept]]:
        """
        Yield events and their numbers, the one that was imported last first.

        Args:
            state: in which they are; None: in any.
            after: the number after which they come.
            before: the number before which they come.
            holding: what is somewhere in their records.
        """
        # By an index that has all of it: the records may be large.
        condition, given = ("state = ? AND ", [STATES.index(state)]) if state else ("", [])
        numbers = sorted(
            (
                seq
                for (seq,) in self._query(
                    f"SELECT seq FROM events INDEXED BY by_state WHERE {condition}seq > ? AND seq < ?",  # noqa: S608 - see above
                    (*given, after, 1 << 62 if before is None else before),
                )
            ),
            reverse=True,
        )
        for start in range(0, len(numbers), PART):
            part = numbers[start : start + PART]
            yield from self._numbered(
                f"seq IN ({', '.join('?' * len(part))}) AND instr(record, ?) ORDER BY seq DESC",
                (*part, holding),
            )

    def beginning_with(self, low: bytes, high: bytes, limit: int) -> list[tuple[int, Kept]]:
        """Return events whose keys lie between two, both included, with their numbers."""
        return list(self._numbered("key BETWEEN ? AND ? LIMIT ?", (low, high, limit)))

    def _numbered(self, condition: str, values: Sequence[object]) -> Iterator[tuple[int, Kept]]:
        for seq, key, state, due, recorded, attempts, reason, crc, record in self._query(
            "SELECT seq, key, state, due, recorded, attempts, reason, crc, record FROM events"  # noqa: S608 - texts of this class
            f" WHERE {condition}",
            values,
        ):
            event = intact(key, crc, record)
            yield seq, Kept(key, _state(state), due, recorded, attempts, reason, event)


def _state(state: object) -> str:
    """Return the name of a state; where damage has made another one of it, nothing will be done with the event."""
    return STATES[state] if isinstance(state, int) and 0 <= state < len(STATES) else "dead"
