"""The events of a fleet's ledger, to be found by what they are and by their ids."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cmdrdata_exporter.delivery.spool.index_view import MOST, About
from cmdrdata_exporter.delivery.spool.indexed import ANY, WITHOUT_USAGE, IndexedEvent, Wanted
from cmdrdata_exporter.fleet.states import OPEN, STATES
from cmdrdata_exporter.fleet.view import EVENT, FleetReader

if TYPE_CHECKING:
    from typing_extensions import Self

_HEX = re.compile(r"[0-9a-f]{1,32}")


class FleetEvents:
    """
    The events of a fleet's ledger at one instant; use it as a context manager.

    Args:
        url: of the database.

    Raises:
        UnreadableError: it cannot be read.
    """

    def __init__(self, url: str) -> None:
        self.ledger = FleetReader(url)
        self.last = 0
        """See `FleetReader`."""

    def __enter__(self) -> Self:
        self.last = self.ledger.__enter__().last
        return self

    def __exit__(self, *error: object) -> None:
        self.ledger.__exit__(*error)

    def about(self) -> About:
        """Return what is known of the events that can be found."""
        since = self.ledger.facts().get("kept_since")
        begin = since and dt.datetime.fromisoformat(since).replace(tzinfo=dt.timezone.utc)
        return About(
            there=True,
            missing_before=begin.timestamp() if begin else None,
            filling=False,
            reason=None,
        )

    def count(self) -> int:
        """Return how many events can be found."""
        counts = self.ledger.counts()
        return counts["recorded"] - counts.get("forgotten", 0)

    def newest(
        self, limit: int, wanted: Wanted = ANY, *, after: int | None = None
    ) -> list[IndexedEvent]:
        """Return events, the one whose call ended last first. See `IndexReader.newest`."""
        state = wanted.state
        given: dict[str, object] = {
            "state = %s": None if state is None else STATES.index(state),
            "coalesce(customer, '') = %s": wanted.customer,
            "model = %s": wanted.model,
            "endpoint = %s": wanted.endpoint,
            "at >= %s": wanted.since,
            "at < %s": wanted.until,
            "status = ANY (%s)": list(WITHOUT_USAGE) if wanted.no_usage else None,
            "seq > %s": after,
        }
        tests = {test: value for test, value in given.items() if value is not None}
        if state is not None and STATES.index(state) in OPEN:
            tests["state < %s"] = len(OPEN)
        return self._events(
            f"{' AND '.join(tests) or 'true'} ORDER BY at DESC, seq DESC LIMIT %s",
            [*tests.values(), limit],
        )

    def find(self, text: str) -> list[IndexedEvent]:
        """
        Return the events that have a text for their id, response id, request id or trace id, in the order of time.

        Where there is none, those whose ids begin with it.
        """
        text = text.strip()
        if not text or "\0" in text:
            return []
        order = "ORDER BY at, seq LIMIT %s"
        # The empty id is none, as the indexes have it.
        found = self._events(
            "id = %s OR (trace_id = %s AND trace_id <> '') OR (response_id = %s AND response_id <> '')"
            f" OR (request_id = %s AND request_id <> '') {order}",
            [text, text, text, text, MOST],
        )
        if not found and _HEX.fullmatch(text):
            found = self._events(f"id LIKE %s {order}", [f"{text}%", MOST])
        return found

    def _events(self, condition: str, values: Sequence[object]) -> list[IndexedEvent]:
        rows = self.ledger.query(f"SELECT {EVENT} FROM fleet_events WHERE {condition}", values)  # noqa: S608 - texts of this module
        return [_indexed(row) for row in rows]

    def body(self, event: IndexedEvent) -> bytes | None:
        """Return what is sent of an event, or would be; None where it is not here any more."""
        rows = self.ledger.query(
            "SELECT body FROM fleet_events WHERE day = (SELECT day FROM fleet_keys WHERE key = %b) AND key = %b",
            (event.key, event.key),
        )
        return next((body for (body,) in rows), None)

    def bodies(self, states: Iterable[str]) -> Iterator[tuple[IndexedEvent, bytes | None]]:
        """Yield the events in some states whose bodies are here, and these, the oldest first."""
        for state in states:
            for row in self.ledger.stream(
                f"SELECT {EVENT} FROM fleet_events WHERE state = %s AND body IS NOT NULL ORDER BY due, seq",  # noqa: S608 - texts of this module
                (STATES.index(state),),
            ):
                yield _indexed(row), row[-1]


def _indexed(row: tuple[Any, ...]) -> IndexedEvent:
    key, seq, event_id, state, due, _, attempts, reason, customer, *rest = row
    model, endpoint, status, units, at, trace, response, request, _, _ = rest
    return IndexedEvent(
        *(seq, key, event_id, at, customer, model, endpoint, status, json.loads(units)),
        *(trace, response, request, STATES[state], reason, due, attempts),
    )
