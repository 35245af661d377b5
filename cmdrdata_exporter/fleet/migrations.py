"""
The tables of a fleet's ledger, and how those of an earlier version get them.

`fleet_migrations` has a row for each migration that was applied. Any gateway applies those that are missing, in one
transaction and under a lock: of several that start at once one does it, and the others find it done.
A migration that has been released is never changed. All tables are in the first schema of the `search_path`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

from cmdrdata_exporter.delivery.groups import Group
from cmdrdata_exporter.delivery.spool.schema import UnknownVersionError

LOCKS = 0x666C_6565
"""The first of the two numbers of an advisory lock: those of a fleet's ledger."""
MIGRATE, TIDY, DAYS = range(3)
"""What there is a lock for."""

_GROUP = ", ".join(f"{name} text NOT NULL" for name in Group._fields)


class Migration(NamedTuple):
    """One change of the tables."""

    name: str
    statements: tuple[str, ...]


MIGRATIONS = (
    Migration(
        "tables",
        (
            # Each id that was ever counted, for longer than its event is here: this is the exactly-once. An id may come
            # again with another day, so the events, which have a table for each day, cannot tell.
            "CREATE TABLE fleet_keys (key bytea PRIMARY KEY, day date NOT NULL)",
            # Keys come in the order of days, more or less.
            "CREATE INDEX fleet_keys_day ON fleet_keys USING brin (day)",
            "CREATE SEQUENCE fleet_seq",
            "CREATE SEQUENCE fleet_leases",
            """
            CREATE TABLE fleet_events (
                key bytea NOT NULL,          -- 16 bytes that stand for the id
                day date NOT NULL,
                seq bigint NOT NULL DEFAULT nextval('fleet_seq'),
                id text NOT NULL,
                state smallint NOT NULL,     -- see `states.STATES`
                due double precision NOT NULL,       -- when it may be sent; of other states, since when it is in it
                recorded double precision NOT NULL,  -- when it came
                attempts integer NOT NULL DEFAULT 0,
                lease bigint,                -- which claim it was moved into flight by last
                reason text,                 -- why it is held, dead or pending still
                host text NOT NULL,          -- who recorded or sent it
                source text NOT NULL,        -- 'event' or 'span'
                customer text,
                model text NOT NULL,
                endpoint text NOT NULL,
                status text NOT NULL,
                units text NOT NULL,         -- as JSON
                at bigint NOT NULL,          -- when the call ended, in Unix seconds
                group_number bigint NOT NULL,
                trace_id text NOT NULL,
                response_id text NOT NULL,
                request_id text NOT NULL,
                body bytea,                  -- as it is sent; null once it was delivered
                PRIMARY KEY (day, key)
            ) PARTITION BY RANGE (day)
            """,
            # For days that are yet to come by more than clocks differ.
            "CREATE TABLE fleet_events_other PARTITION OF fleet_events DEFAULT",
            "CREATE INDEX fleet_events_open ON fleet_events (state, due, seq) WHERE state < 4",
            "CREATE INDEX fleet_events_at ON fleet_events (at, seq)",
            "CREATE INDEX fleet_events_seq ON fleet_events (seq)",
            "CREATE INDEX fleet_events_id ON fleet_events (id text_pattern_ops)",
            "CREATE INDEX fleet_events_trace ON fleet_events (trace_id) WHERE trace_id <> ''",
            "CREATE INDEX fleet_events_response ON fleet_events (response_id) WHERE response_id <> ''",
            "CREATE INDEX fleet_events_request ON fleet_events (request_id) WHERE request_id <> ''",
            f"CREATE TABLE fleet_groups (number bigint PRIMARY KEY, {_GROUP})",
            """
            CREATE TABLE fleet_totals (
                day date, group_number bigint, unit text, amount numeric NOT NULL,
                PRIMARY KEY (day, group_number, unit)
            )
            """,
            # What most questions do not need, in a table of its own: it has many times the rows of the other.
            """
            CREATE TABLE fleet_totals_by_hour (
                time text COLLATE "C",       -- the UTC hour, 2026-11-29T16; once that is old, its day
                source_host text, group_number bigint, unit text, amount numeric NOT NULL,
                PRIMARY KEY (time, source_host, group_number, unit)
            )
            """,
            # What is still to become days.
            "CREATE INDEX fleet_totals_hours ON fleet_totals_by_hour (time) WHERE length(time) > 10",
            # In slots, so that gateways do not wait for each other; the sum counts.
            "CREATE TABLE fleet_counters (name text, slot smallint, value bigint NOT NULL, PRIMARY KEY (name, slot))",
            """
            CREATE TABLE fleet_positions (
                "group" text, topic text,
                topic_id text,               -- another one where a topic was made anew; empty: the broker tells none
                partition integer, next bigint NOT NULL,
                PRIMARY KEY ("group", topic, topic_id, partition)
            )
            """,
            """
            CREATE TABLE fleet_hosts (
                host text PRIMARY KEY, version text NOT NULL, at double precision NOT NULL,
                seen double precision NOT NULL,      -- when its report came, by the gateway's clock
                recorded bigint NOT NULL, pending bigint NOT NULL, held bigint NOT NULL, dead bigint NOT NULL,
                unspooled bigint NOT NULL
            )
            """,
            # What cannot be counted, and is not lost either.
            """
            CREATE TABLE fleet_set_aside (
                key bytea PRIMARY KEY, id text NOT NULL, arrived double precision NOT NULL, host text NOT NULL,
                source text NOT NULL, reason text NOT NULL, body bytea NOT NULL
            )
            """,
            "CREATE TABLE fleet_facts (name text PRIMARY KEY, value text NOT NULL)",
        ),
    ),
    # See `gateway.shelf`.
    Migration(
        "shelf",
        (
            """
            CREATE TABLE gateway_spans (
                trace bytea NOT NULL,
                span bytea NOT NULL,
                bucket smallint NOT NULL,
                relation text NOT NULL,      -- what relates it to other spans, as JSON
                event text,                  -- the id of its event, null: it makes none
                body bytea,                  -- of the event, until the ledger has it
                host text NOT NULL,
                arrived timestamptz NOT NULL DEFAULT now(),
                latest timestamptz NOT NULL, -- when it came or, by a clock that is ahead, ended
                decided bigint,              -- in which order it was, null: it waits
                charged boolean,             -- whether its event is to go to the ledger
                PRIMARY KEY (trace, span)
            )
            """,
            "CREATE INDEX gateway_spans_waiting ON gateway_spans (arrived) WHERE decided IS NULL",
            "CREATE INDEX gateway_spans_charged ON gateway_spans (bucket) WHERE charged",
            "CREATE INDEX gateway_spans_latest ON gateway_spans (latest)",
            "CREATE SEQUENCE gateway_decisions",
        ),
    ),
)
"""In order; the first one makes version 1."""


def migrate(connection: psycopg.Connection[Any]) -> None:
    """
    Bring the tables up to date, all or nothing.

    Raises:
        psycopg.Error: they cannot be made.
        UnknownVersionError: a later version wrote them.
    """
    there = connection.execute("SELECT to_regclass('fleet_migrations')").fetchone() != (None,)
    # Whoever may not make tables may write those that are as they should be.
    if there and require_known(version_of(connection)) == len(MIGRATIONS):
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, MIGRATE))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS fleet_migrations"
            " (version integer PRIMARY KEY, name text NOT NULL, applied timestamptz NOT NULL DEFAULT now())"
        )
        applied = require_known(version_of(connection))
        for number, migration in enumerate(MIGRATIONS[applied:], applied + 1):
            for statement in migration.statements:
                connection.execute(statement.encode())
            connection.execute(
                "INSERT INTO fleet_migrations (version, name) VALUES (%s, %s)",
                (number, migration.name),
            )


def version_of(connection: psycopg.Connection[Any]) -> int:
    """Return how many migrations were applied."""
    [(version,)] = connection.execute("SELECT coalesce(max(version), 0) FROM fleet_migrations")
    return version


def require_known(version: int) -> int:
    """Return a version; raise `UnknownVersionError` where it is later than this release knows."""
    if version > len(MIGRATIONS):
        raise UnknownVersionError(
            f"the fleet's ledger is of version {version}, and this release knows version {len(MIGRATIONS)}"
        )
    return version
