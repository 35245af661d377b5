"""
The shelf: where spans are from the moment they are acknowledged, for as long as events are kept.

It is a table of the ledger's database, which all gateways of a fleet share. So it does not matter which of them gets
which span of a call, nor which of them dies. What becomes of a span, step by step, each of which is committed:

    waiting ─decide─▶ a charge ─the ledger has its event─▶ done ─tidy─▶ gone
                 └──▶ no charge ───────────────────────────▶ done

A decision is on the disk before an event leaves: spans that come later, or again, never change what was billed.
An event of a span that is older than any that are kept is set aside by the ledger: nobody knows whether its call is
billed.
Traces are in buckets. One gateway at a time settles a bucket; whichever is first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from cmdrdata_exporter.fleet import positions
from cmdrdata_exporter.fleet.arrivals import Arrival, Position
from cmdrdata_exporter.fleet.connection import Connected, Connection
from cmdrdata_exporter.fleet.gateway.settling import settle
from cmdrdata_exporter.fleet.gateway.spans import SpanRow, relation_of

BUCKETS = 16
_LOCKS = 0x636D6472
"""The first of the two numbers of an advisory lock: those of buckets."""
DUE = 1000
"""Of how many traces the calls are settled at once."""
TOGETHER = 50
"""Of how many of them the spans are in memory."""
COMPARED = 10_000
"""
How many spans of a trace are settled at once, those that came first, and with how many they are compared that were
decided before, the last ones.
"""
STORED = 2000
"""How many events go to the ledger at once."""
COUNTED = 100_000

_INSERT = """
INSERT INTO gateway_spans (trace, span, bucket, relation, event, body, host, latest)
SELECT trace, span, bucket, relation, event, body, host, greatest(now(), to_timestamp(ended))
FROM unnest(%b::bytea[], %b::bytea[], %b::smallint[], %b::text[], %b::text[], %b::bytea[], %b::text[], %b::float8[])
    AS new (trace, span, bucket, relation, event, body, host, ended)
"""
_CALLS = f"{_INSERT} ON CONFLICT DO NOTHING"
# Of most traces nothing is ever billed.
_OTHERS = f"""
{_INSERT} WHERE EXISTS (SELECT FROM gateway_spans AS known WHERE known.trace = new.trace)
ON CONFLICT DO NOTHING
"""


class Shelf(Connected):
    """Puts spans on the shelf. Used by one thread. The tables must be there."""

    def store(self, rows: Sequence[SpanRow], reached: Iterable[Position] = ()) -> None:
        """
        Put spans on the shelf, and note positions, in one transaction. A span that is there stays as it is.

        Raises:
            psycopg.Error: nothing was changed, as far as is known.
        """
        # Of one order, so that no two gateways that get the same wait for each other.
        ordered = sorted(rows, key=lambda row: (row.trace, row.span))
        with self._transaction() as connection:
            for statement, chosen in (
                (_CALLS, [row for row in ordered if row.is_call]),
                (_OTHERS, [row for row in ordered if not row.is_call]),
            ):
                if chosen:
                    connection.execute(statement.encode(), _columns(chosen))
            positions.store(connection, reached)


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
        [relation_of(row).end / 1e9 for row in rows],
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


class Settler(Connected):
    """
    Settles the calls of the spans on the shelf. Used by one thread; other processes may do the same.

    Args:
        url: of the database.
        store: gives events to the ledger, and returns how many were new.
        window: for how many seconds a span waits for others of its call.
    """

    def __init__(
        self,
        url: str,
        store: Callable[[Sequence[Arrival]], int],
        *,
        window: float,
    ) -> None:
        super().__init__(url)
        self._store = store
        self._window = window

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

    def _settle(self, connection: Connection, bucket: int) -> Settled:
        lock = (_LOCKS, bucket)
        taken = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", lock).fetchone()
        if taken is None or not taken[0]:
            return NOTHING
        done = self._decide(connection, bucket)
        stored, new = self._pass_on(connection, bucket)
        # After an error the connection is closed, and the lock with it.
        connection.execute("SELECT pg_advisory_unlock(%s, %s)", lock)
        return done._replace(stored=stored, new=new)

    def _decide(self, connection: Connection, bucket: int) -> Settled:
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
        done = NOTHING
        for begin in range(0, len(traces), TOGETHER):
            some = [trace for (trace,) in traces[begin : begin + TOGETHER]]
            done += self._decide_some(connection, some)
        return done

    def _decide_some(self, connection: Connection, traces: list[bytes]) -> Settled:
        order: list[SpanRow] = []
        charges: list[bool] = []
        for waiting, settled in self._read(connection, traces):
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
        self, connection: Connection, traces: list[bytes]
    ) -> Iterator[tuple[list[SpanRow], list[SpanRow]]]:
        """Return, by trace, the spans that wait and those they are compared with."""
        waiting: dict[bytes, list[SpanRow]] = {}
        settled: dict[bytes, list[SpanRow]] = {}
        for found, condition in (
            (waiting, "decided IS NULL ORDER BY arrived, span"),
            (settled, "decided IS NOT NULL ORDER BY decided DESC"),
        ):
            for trace, span, relation, event in connection.execute(
                f"""
                SELECT due.trace, span, relation, event FROM unnest(%b::bytea[]) AS due (trace)
                CROSS JOIN LATERAL (
                    SELECT span, relation, event, decided FROM gateway_spans
                    WHERE gateway_spans.trace = due.trace AND {condition} LIMIT {COMPARED}
                ) AS theirs ORDER BY decided
                """.encode(),  # noqa: S608 - made of constants
                (traces,),
            ):
                found.setdefault(trace, []).append(SpanRow(trace, span, relation, event=event))
        return ((waiting[trace], settled.get(trace, [])) for trace in waiting)

    def _pass_on(self, connection: Connection, bucket: int) -> tuple[int, int]:
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
