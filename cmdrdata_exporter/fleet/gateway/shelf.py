"""
The shelf: where spans are from the moment they are acknowledged until their calls are settled, and a while longer.

It is two tables of the ledger's database, which all gateways of a fleet share. So it does not matter which of them gets
which span of a call, nor which of them dies. What becomes of a span, step by step, each of which is committed:

    waiting ─decide─▶ a charge ─the ledger has its event─▶ done ─forget─▶ gone
                 └──▶ no charge ───────────────────────────▶ done

A decision is on the disk before an event leaves: spans that come later never change what was billed.
Traces are in buckets. One gateway at a time settles a bucket; whichever is first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple

import psycopg

from cmdrdata_exporter.fleet.arrivals import Arrival, Position
from cmdrdata_exporter.fleet.connection import connect
from cmdrdata_exporter.fleet.gateway.settling import settle
from cmdrdata_exporter.fleet.gateway.spans import SpanRow

BUCKETS = 16
_LOCKS = 0x636D6472
"""The first of the two numbers of an advisory lock: those of this program."""
_TABLES_LOCK = BUCKETS
DUE = 1000
"""Of how many traces the calls are settled at once."""
COMPARED = 10_000
"""With how many spans of its trace, the last ones that were decided, a span is compared."""
STORED = 2000
"""How many events go to the ledger at once."""
FORGOTTEN = 5000
COUNTED = 100_000

_TABLES = """
CREATE TABLE IF NOT EXISTS gateway_spans (
    trace bytea NOT NULL,
    span bytea NOT NULL,
    bucket smallint NOT NULL,
    relation text NOT NULL,       -- what relates it to other spans, as JSON
    event text,                   -- the id of its event, null: it makes none
    body bytea,                   -- of the event, until the ledger has it
    host text NOT NULL,
    arrived timestamptz NOT NULL DEFAULT now(),
    decided bigint,               -- in which order it was, null: it waits
    charged boolean,              -- whether its event is to go to the ledger
    PRIMARY KEY (trace, span)
);
CREATE INDEX IF NOT EXISTS gateway_spans_waiting ON gateway_spans (arrived) WHERE decided IS NULL;
CREATE INDEX IF NOT EXISTS gateway_spans_charged ON gateway_spans (bucket) WHERE charged;
CREATE INDEX IF NOT EXISTS gateway_spans_arrived ON gateway_spans (arrived);
CREATE SEQUENCE IF NOT EXISTS gateway_decisions;
CREATE TABLE IF NOT EXISTS gateway_positions (
    "group" text, topic text, partition integer, next bigint NOT NULL,
    PRIMARY KEY ("group", topic, partition)
);
"""

_INSERT = """
INSERT INTO gateway_spans (trace, span, bucket, relation, event, body, host)
SELECT * FROM unnest(%b::bytea[], %b::bytea[], %b::smallint[], %b::text[], %b::text[], %b::bytea[], %b::text[])
    AS new (trace, span, bucket, relation, event, body, host)
"""
_CALLS = f"{_INSERT} ON CONFLICT DO NOTHING"
# Of most traces nothing is ever billed.
_OTHERS = f"""
{_INSERT} WHERE EXISTS (SELECT FROM gateway_spans AS known WHERE known.trace = new.trace)
ON CONFLICT DO NOTHING
"""
# A member that was asleep while its partitions moved on knows an old position.
_POSITION = """
INSERT INTO gateway_positions ("group", topic, partition, next) VALUES (%s, %s, %s, %s)
ON CONFLICT ("group", topic, partition) DO UPDATE SET next = greatest(gateway_positions.next, excluded.next)
"""


class _Connected:
    """
    What has a connection, made anew after an error.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    @contextlib.contextmanager
    def _connected(self) -> Generator[psycopg.Connection[tuple[Any, ...]]]:
        if self._connection is None:
            self._connection = connect(self._url)
        try:
            yield self._connection
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, which gives back its locks."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(psycopg.Error):
                connection.close()


class Shelf(_Connected):
    """Puts spans on the shelf. Used by one thread."""

    def prepare(self) -> None:
        """
        Make the tables where they are not there yet.

        Raises:
            psycopg.Error: they cannot be made.
        """
        with self._connected() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_LOCKS, _TABLES_LOCK))
            connection.execute(_TABLES)

    def store(self, rows: Sequence[SpanRow], positions: Iterable[Position] = ()) -> None:
        """
        Put spans on the shelf, and note positions, in one transaction. A span that is there stays as it is.

        Raises:
            psycopg.Error: nothing was changed, as far as is known.
        """
        # Of one order, so that no two gateways that get the same wait for each other.
        ordered = sorted(rows, key=lambda row: (row.trace, row.span))
        with self._connected() as connection, connection.transaction():
            for statement, chosen in (
                (_CALLS, [row for row in ordered if row.is_call]),
                (_OTHERS, [row for row in ordered if not row.is_call]),
            ):
                if chosen:
                    connection.execute(statement.encode(), _columns(chosen))
            for position in positions:
                connection.execute(_POSITION, position)

    def positions(self, group: str, topic: str) -> dict[int, int]:
        """
        Return which record of each partition is to be read next.

        Raises:
            psycopg.Error: the database cannot be read.
        """
        with self._connected() as connection:
            found = connection.execute(
                'SELECT partition, next FROM gateway_positions WHERE "group" = %s AND topic = %s',
                (group, topic),
            )
            return dict(found.fetchall())


def bucket_of(trace: bytes) -> int:
    """Return the bucket of a trace."""
    # Of the id's end, which is random in all forms of it.
    return trace[-1] % BUCKETS


def _columns(rows: Sequence[SpanRow]) -> tuple[list[Any], ...]:
    return (
        [row.trace for row in rows],
        [row.span for row in rows],
        [bucket_of(row.trace) for row in rows],
        [row.relation for row in rows],
        [row.event for row in rows],
        [row.body for row in rows],
        [row.host for row in rows],
    )


class Settled(NamedTuple):
    """What a round has done."""

    decided: int
    """How many spans were."""
    calls: int
    """How many of them report a call."""
    charges: int
    """How many of those are events: the others report a call that another span reports."""
    stored: int
    """How many events the ledger has got, of these and of others decided before."""
    new: int
    """How many of them are new to it."""

    def __add__(self, other: Any) -> Settled:
        """Return what two rounds have done."""
        return Settled(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


NOTHING = Settled(0, 0, 0, 0, 0)


class Settler(_Connected):
    """
    Settles the calls of the spans on the shelf. Used by one thread; other processes may do the same.

    Args:
        url: of the database.
        store: gives events to the ledger, and returns how many were new.
        window: for how many seconds a span waits for others of its call.
        remember: for how many seconds it is known to those that come late.
    """

    def __init__(
        self,
        url: str,
        store: Callable[[Sequence[Arrival]], int],
        *,
        window: float,
        remember: float,
    ) -> None:
        super().__init__(url)
        self._store = store
        self._window = window
        self._remember = remember

    def round(self) -> Settled:
        """
        Settle what is due.

        Raises:
            psycopg.Error: what is not done is tried again by the next round, here or elsewhere.
        """
        done = NOTHING
        with self._connected() as connection:
            due = connection.execute(
                """
                SELECT bucket FROM (
                    SELECT bucket FROM gateway_spans
                    WHERE decided IS NULL AND arrived <= now() - make_interval(secs => %s)
                    ORDER BY arrived LIMIT %s
                ) AS due
                UNION SELECT DISTINCT bucket FROM gateway_spans WHERE charged
                """,
                (self._window, BUCKETS * DUE),
            ).fetchall()
            for (bucket,) in due:
                done += self._settle(connection, bucket)
        return done

    def _settle(self, connection: psycopg.Connection[Any], bucket: int) -> Settled:
        lock = (_LOCKS, bucket)
        taken = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", lock).fetchone()
        if taken is None or not taken[0]:
            return NOTHING
        done = self._decide(connection, bucket)
        stored, new = self._pass_on(connection, bucket)
        # After an error the connection is closed, and the lock with it.
        connection.execute("SELECT pg_advisory_unlock(%s, %s)", lock)
        return done._replace(stored=stored, new=new)

    def _decide(self, connection: psycopg.Connection[Any], bucket: int) -> Settled:
        traces = connection.execute(
            """
            SELECT DISTINCT trace FROM (
                SELECT trace FROM gateway_spans
                WHERE bucket = %s AND decided IS NULL AND arrived <= now() - make_interval(secs => %s)
                ORDER BY arrived LIMIT %s
            ) AS due
            """,
            (bucket, self._window, DUE),
        ).fetchall()
        if not traces:
            return NOTHING
        order: list[SpanRow] = []
        charges: list[bool] = []
        for waiting, settled in self._read(connection, [trace for (trace,) in traces]):
            decided, charged = settle(settled, waiting)
            order += decided
            charges += [row.span in charged for row in decided]
        with connection.transaction():
            [[first]] = connection.execute("SELECT nextval('gateway_decisions')").fetchall()
            connection.execute(
                """
                UPDATE gateway_spans AS known
                SET decided = new.decided, charged = new.charged, body = CASE WHEN new.charged THEN body END
                FROM unnest(%b::bytea[], %b::bytea[], %b::bigint[], %b::boolean[])
                    AS new (trace, span, decided, charged)
                WHERE known.trace = new.trace AND known.span = new.span
                """,
                (
                    [row.trace for row in order],
                    [row.span for row in order],
                    [(first << 24) + place for place in range(len(order))],
                    charges,
                ),
            )
        calls = sum(row.event is not None for row in order)
        return Settled(len(order), calls, sum(charges), 0, 0)

    def _read(
        self, connection: psycopg.Connection[Any], traces: list[bytes]
    ) -> Iterable[tuple[list[SpanRow], list[SpanRow]]]:
        """Return, by trace, the spans that wait and those they are compared with."""
        waiting: dict[bytes, list[SpanRow]] = {}
        settled: dict[bytes, list[SpanRow]] = {}
        for found, condition in (
            (waiting, "decided IS NULL"),
            (settled, f"decided IS NOT NULL ORDER BY decided DESC LIMIT {COMPARED}"),
        ):
            for trace, span, relation, event in connection.execute(
                f"""
                SELECT due.trace, span, relation, event FROM unnest(%b::bytea[]) AS due (trace)
                CROSS JOIN LATERAL (
                    SELECT span, relation, event, decided FROM gateway_spans
                    WHERE gateway_spans.trace = due.trace AND {condition}
                ) AS theirs ORDER BY decided
                """.encode(),  # noqa: S608 - made of constants
                (traces,),
            ):
                found.setdefault(trace, []).append(SpanRow(trace, span, relation, event=event))
        return ((waiting[trace], settled.get(trace, [])) for trace in waiting)

    def _pass_on(self, connection: psycopg.Connection[Any], bucket: int) -> tuple[int, int]:
        """Give the ledger the events that it does not have; return how many, and how many were new."""
        stored = new = 0
        while found := connection.execute(
            "SELECT trace, span, event, body, host FROM gateway_spans WHERE bucket = %s AND charged LIMIT %s",
            (bucket, STORED),
        ).fetchall():
            new += self._store(
                [Arrival(event, body, host, "span") for _, _, event, body, host in found]
            )
            with connection.transaction():
                connection.execute(
                    """
                    UPDATE gateway_spans AS known SET charged = false, body = NULL
                    FROM unnest(%b::bytea[], %b::bytea[]) AS stored (trace, span)
                    WHERE known.trace = stored.trace AND known.span = stored.span
                    """,
                    ([each[0] for each in found], [each[1] for each in found]),
                )
            stored += len(found)
        return stored, new

    def forget(self) -> int:
        """
        Remove spans that were settled long ago; return how many.

        Raises:
            psycopg.Error: the database cannot be written.
        """
        with self._connected() as connection:
            return connection.execute(
                """
                DELETE FROM gateway_spans WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM gateway_spans
                    WHERE arrived < now() - make_interval(secs => %s) AND decided IS NOT NULL AND NOT charged
                    LIMIT %s
                ))
                """,
                (self._remember, FORGOTTEN),
            ).rowcount

    def waiting(self) -> int:
        """
        Return how many spans wait, or their events do; of many no more are counted than `COUNTED` of each.

        Raises:
            psycopg.Error: the database cannot be read.
        """
        with self._connected() as connection:
            [[number]] = connection.execute(
                """
                SELECT count(*) FROM (
                    (SELECT FROM gateway_spans WHERE decided IS NULL LIMIT %s)
                    UNION ALL (SELECT FROM gateway_spans WHERE charged LIMIT %s)
                ) AS waiting
                """,
                (COUNTED, COUNTED),
            ).fetchall()
            return number
