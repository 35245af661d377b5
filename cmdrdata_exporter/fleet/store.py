"""
The ledger of a fleet: a PostgreSQL database that knows each event of many hosts once.

| state | an event comes into it by | and leaves it by |
|---|---|---|
| local | `store`, where nothing is forwarded; `assign` there | final |
| pending | `store`, where events are forwarded; `assign`, `replay`, a failed attempt | `claim` → in flight; `tidy` |
| in flight | `claim` | an outcome → delivered, pending, dead; `recover` |
| held | `store`, where it has no customer | `assign` → pending, local |
| dead | a refusal; 30 days in vain | `replay` → pending; `drop` → dropped |
| delivered | acceptance | final |
| dropped | a person who gave it up | final |

recorded = delivered + local + pending + in flight + held + dead + dropped, at any instant.
An event's id is in `fleet_keys` from the moment it is counted on, and nothing is counted whose id is there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery import KEPT_DAYS, Handed, Outcome
from cmdrdata_exporter.delivery.spool.facts import TOTAL_BY
from cmdrdata_exporter.delivery.spool.schema import LOCAL, PENDING
from cmdrdata_exporter.fleet import decisions, hosts, incoming, positions, retention, sending
from cmdrdata_exporter.fleet.arrivals import Arrival, HostReport, Position
from cmdrdata_exporter.fleet.changes import Change
from cmdrdata_exporter.fleet.connection import Connected, Connection
from cmdrdata_exporter.fleet.days import Days
from cmdrdata_exporter.fleet.migrations import LOCKS, TIDY, migrate
from cmdrdata_exporter.fleet.positions import Beginning, Bounds
from cmdrdata_exporter.fleet.retention import KEYS_FOR
from cmdrdata_exporter.fleet.totals import Totals


class FleetLedger(Connected):
    """
    The ledger of a fleet, for one that writes it. Any number of processes may; each method is one transaction.

    The tables are made, or brought up to date, when the first connection is made.
    What raises `psycopg.Error` has changed nothing, or all of it, where the connection was lost at the end.

    Args:
        url: of the database, `postgresql://…`; what it does not say is taken from the environment, as by psql.
        forwards: whether events are sent on to CmdrData.
        total_by: the user's metadata keys by which usage is summed; None: as the last one did that knew.
        keep_events: days after which what is settled is forgotten, but for its usage.
        clock: returns Unix seconds.

    Raises:
        UnusableUrlError: it is no URL of a database.
    """

    def __init__(
        self,
        url: str,
        *,
        forwards: bool = False,
        total_by: Sequence[str] | None = None,
        keep_events: int = KEPT_DAYS,
        clock: Callable[[], float] = clocks.wall,
    ) -> None:
        super().__init__(url)
        self._arrival = PENDING if forwards else LOCAL
        self._total_by = total_by
        self._keep = keep_events
        self._clock = clock
        self._totals = Totals(total_by or ())
        self._days = Days()

    def _prepare(self, connection: Connection) -> None:
        migrate(connection)
        self._days.clear()
        self._totals.clear()
        facts: dict[str, object] = {"forwards": self._arrival == PENDING}
        if self._total_by is not None:
            facts[TOTAL_BY] = self._total_by
        else:
            for (value,) in connection.execute(
                "SELECT value FROM fleet_facts WHERE name = %s", (TOTAL_BY,)
            ):
                self._totals.total_by = tuple(json.loads(value))
        Change(connection, self._totals, self._clock()).note(facts)

    @contextlib.contextmanager
    def _change(self) -> Generator[Change]:
        """Make what is done inside one transaction, with what it adds to the totals."""
        with self._lock:
            try:
                with self._transaction() as connection:
                    yield Change(connection, self._totals, self._clock())
                    self._totals.write(connection)
            except BaseException:
                self._totals.clear()
                raise
            self._totals.written()

    def connect(self) -> None:
        """
        Make the connection and the tables, where they are not there.

        Raises:
            psycopg.Error: they cannot be made.
            UnknownVersionError: a later version wrote the tables.
        """
        with self._transaction():
            pass

    # Events come

    def store(self, arrivals: Sequence[Arrival], reached: Sequence[Position] = ()) -> int:
        """
        Store events, and note how far a group has read, in one transaction. What is known already changes nothing.

        What cannot be read as an event, or is of a day so old that nobody knows whether it was counted, is set aside
        whole in `fleet_set_aside`, counted as `damaged` or `late`, and shown by `cmdrdata status`.

        Returns:
            How many events were new.

        Raises:
            psycopg.Error: to do it again is always right.
            UnknownVersionError: a later version wrote the tables.
        """
        with self._change() as change:
            new = 0
            if arrivals:
                new = incoming.store(
                    change,
                    arrivals,
                    state=self._arrival,
                    days=self._days,
                    # Of a call that an earlier span reported its other spans are known for as long as events are.
                    earliest={
                        "event": change.day(KEYS_FOR),
                        "span": change.day(min(KEYS_FOR, self._keep)),
                    },
                )
            positions.store(change.connection, reached)
            return new

    def begin(
        self, group: str, topic: str, topic_id: str, bounds: Mapping[int, Bounds]
    ) -> Beginning:
        """
        Return where a group reads on, and note it. See `positions.begin`.

        Raises:
            psycopg.Error: nothing is known.
        """
        with self._change() as change:
            return positions.begin(change.connection, group, topic, topic_id, bounds)

    def report(self, report: HostReport) -> None:
        """
        Note how a host says that it is, unless it has said something later.

        Raises:
            psycopg.Error: it cannot be noted.
        """
        with self._change() as change:
            hosts.note(change, report)

    # Delivery

    def claim(self, limit: int) -> list[Handed]:
        """
        Move due events into flight, those due longest first, and return them. Others get other ones.

        Raises:
            psycopg.Error: none was moved, as far as is known; `recover` takes back what was.
        """
        with self._change() as change:
            return sending.claim(change, limit)

    def record_outcomes(self, outcomes: Sequence[tuple[Handed, Outcome | None]]) -> int:
        """
        Move events that were in flight by the backend's verdicts; None: it was not sent after all.

        Returns:
            How many outcomes came too late to move one: it was taken back meanwhile.

        Raises:
            psycopg.Error: none was moved; `recover` takes them back.
        """
        with self._change() as change:
            return sending.record_outcomes(change, outcomes)

    def recover(self) -> int:
        """
        Take back what has been in flight for so long that whoever had it has died; return how many.

        Raises:
            psycopg.Error: none was.
        """
        with self._change() as change:
            return sending.recover(change)

    # Decisions and time

    def apply(self, action: str, keys: Sequence[bytes], customer: str | None = None) -> int:
        """
        Do with events what a person asks, where it makes sense; return with how many it was done.

        Args:
            action: `assign` a customer to held events, `replay` or `drop` dead ones.
            keys: those of the events.
            customer: of `assign`.

        Raises:
            psycopg.Error: nothing was changed.
        """
        with self._change() as change:
            if action == "assign":
                return decisions.assign(change, keys, customer or "", self._arrival)
            return {"replay": decisions.replay, "drop": decisions.drop}[action](change, keys)

    def tidy(self) -> bool:
        """
        Do the next part of what time does to events; say whether there is more. See `retention`.

        Any process may, now and then: while one does it the others go on.

        Raises:
            psycopg.Error: it is not done; the next time does it.
        """
        with self._change() as change:
            [(alone,)] = change.connection.execute(
                "SELECT pg_try_advisory_xact_lock(%s, %s)", (LOCKS, TIDY)
            )
            return alone and retention.tidy(change, self._keep)
