"""What may be known of a fleet's ledger without changing it: the same questions as to the ledger of a host."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery import Event, Header
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.spool.kept import PART, Kept
from cmdrdata_exporter.delivery.spool.schema import STATES as HOST_STATES
from cmdrdata_exporter.delivery.usage import UnreadableError
from cmdrdata_exporter.fleet.connection import Connection, connect, name_of
from cmdrdata_exporter.fleet.migrations import require_known, version_of
from cmdrdata_exporter.fleet.states import STATES
from cmdrdata_exporter.fleet.usage_view import FleetUsage

if TYPE_CHECKING:
    from typing_extensions import Self

SETTLING = 10.0
"""Seconds within which what was given a number earlier may be committed after what was given a later one."""
EVENT = (
    "key, seq, id, state, due, recorded, attempts, reason, customer, model, endpoint, status, units, at,"
    " trace_id, response_id, request_id, day, body"
)
"""The columns of an event."""


class HostState(NamedTuple):
    """What a host has said of itself last."""

    host: str
    version: str
    at: float
    """When it said so, by its own clock, in Unix seconds."""
    seen: float
    """When that came, by the gateway's."""
    recorded: int
    pending: int
    held: int
    dead: int
    unspooled: int


class FleetReader:
    """
    A fleet's ledger at one instant; use it as a context manager.

    Args:
        url: of the database.

    Raises:
        UnreadableError: it cannot be read.
        UnknownVersionError: a later version wrote it.
        UnusableUrlError: it is no URL of a database.
    """

    def __init__(self, url: str) -> None:
        self.name = name_of(url)
        self.last = 0
        """A number up to which all events are here: what comes later has a larger one, or has been shown."""
        with self._reading():
            self._db: Connection = connect(url)

    def __enter__(self) -> Self:
        try:
            with self._reading():
                self._db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                # Sums of a million rows in memory; to compile a query takes longer than it.
                self._db.execute("SET LOCAL work_mem = '128MB'")
                self._db.execute("SET LOCAL jit = off")
                require_known(version_of(self._db))
            [(self.last,)] = self.query(
                "SELECT coalesce(max(seq), 0) FROM fleet_events WHERE recorded < %s",
                (clocks.wall() - SETTLING,),
            )
        except BaseException:
            self._db.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(psycopg.Error):
            self._db.close()

    @contextlib.contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except psycopg.errors.UndefinedTable:
            raise UnreadableError(
                f"there is no ledger of a fleet in {self.name}: cmdrdata gateway makes one"
            ) from None
        except psycopg.Error as error:
            # What it says has no password in it.
            said = " ".join(str(error).split())
            raise UnreadableError(
                f"the fleet's ledger at {self.name} cannot be read: {said}"
            ) from None

    def query(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return rows of the database."""
        with self._reading():
            return self._db.execute(query.encode(), values).fetchall()

    def stream(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield rows without having all of them at once."""
        with self._reading(), self._db.cursor(name="stream") as cursor:
            cursor.itersize = PART
            cursor.execute(query.encode(), values)
            yield from cursor

    def counts(self) -> dict[str, int]:
        """
        Return how many events are in each state, and what else is counted.

        recorded = delivered + local + pending + in_flight + held + dead + dropped.
        """
        names = ("recorded", "delivered", *HOST_STATES, "dropped")
        counts: dict[str, int] = dict.fromkeys((*names, "repeated", "ambiguous", "damaged"), 0)
        counts |= dict(
            self.query("SELECT name, sum(value)::bigint FROM fleet_counters GROUP BY name")
        )
        for state, number in self.query(
            "SELECT state, count(*) FROM fleet_events WHERE state < 4 GROUP BY state"
        ):
            counts[STATES[state]] = number
        # Only the hosts know of them.
        counts |= dict(
            self.query(
                "SELECT 'unspooled', sum(unspooled)::bigint FROM fleet_hosts HAVING sum(unspooled) > 0"
            )
        )
        elsewhere = sum(counts[name] for name in names[1:] if name != "local")
        counts["local"] = counts["recorded"] - elsewhere
        return counts

    def not_imported(self) -> int:
        """Return how many events are in journals only: there are no journals."""
        return 0

    def open_jobs(self) -> list[OpenJob]:
        """Return the jobs of the provider whose end was not seen: the hosts know theirs."""
        return []

    def oldest_pending(self) -> float | None:
        """Return since when, in Unix seconds, the oldest event waits that is to be sent."""
        [(oldest,)] = self.query(
            "SELECT min(recorded) FROM fleet_events WHERE state < 2 AND state < 4"
        )
        return oldest

    def facts(self) -> dict[str, Any]:
        """Return what gateways have written down of themselves."""
        return {
            name: json.loads(value)
            for name, value in self.query("SELECT name, value FROM fleet_facts")
        }

    def reasons(self, state: str) -> dict[str, int]:
        """Return how many events are in a state for each reason, the backend's words left out."""
        rows = self.query(
            "SELECT split_part(coalesce(reason, ''), ': ', 1) COLLATE \"C\" AS cause, count(*)"
            " FROM fleet_events WHERE state = %s AND state < 4 GROUP BY cause ORDER BY cause",
            (STATES.index(state),),
        )
        return dict(rows)

    def hosts(self) -> list[HostState]:
        """Return what each host has said of itself, by name."""
        rows = self.query(
            f'SELECT {", ".join(HostState._fields)} FROM fleet_hosts ORDER BY host COLLATE "C"'  # noqa: S608 - texts of this module
        )
        return [HostState(*row) for row in rows]

    @property
    def usage(self) -> FleetUsage:
        """What was used."""
        return FleetUsage(self.query)

    def kept(self, state: str, limit: int = -1) -> Iterator[Kept]:
        """Yield the events in a state whose bodies are here, the oldest first."""
        rows = self.stream(
            f"SELECT {EVENT} FROM fleet_events WHERE state = %s AND body IS NOT NULL"  # noqa: S608 - texts of this module
            " ORDER BY due, recorded, seq LIMIT %s",
            (STATES.index(state), None if limit < 0 else limit),
        )
        for row in rows:
            yield _kept(row)

    def knows(self, key: bytes, now: float) -> bool:  # noqa: ARG002 - as a host's ledger is asked
        """Return whether a duplicate of this event would be recognised."""
        return bool(self.query("SELECT FROM fleet_keys WHERE key = %b", (key,)))


def _kept(row: tuple[Any, ...]) -> Kept:
    key, _, event_id, state, due, recorded, attempts, reason, customer, *rest = row
    model, endpoint, status, units, _, _, _, _, day, body = rest
    header = Header(customer, model, endpoint, status, json.loads(units), day.isoformat())
    return Kept(
        *(key, STATES[state], due, recorded, attempts, reason), Event(event_id, header, body)
    )
