"""How far groups have read the partitions of topics, and what was gone before they did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cmdrdata_exporter.fleet.arrivals import Position
from cmdrdata_exporter.fleet.connection import Connection
from cmdrdata_exporter.fleet.totals import count

LOST, RENEWED = "records_lost", "partitions_renewed"
"""The counters of records that were gone before they were read, and of partitions that have begun anew."""


class Bounds(NamedTuple):
    """What a partition has."""

    first: int
    """Its earliest record."""
    end: int
    """Where the next one will be."""


class Beginning(NamedTuple):
    """Where to read on, and what was found by that for the first time in the fleet."""

    offsets: dict[int, int]
    lost: dict[int, int]
    """By partition, how many records the broker has removed before they were read, at most: some may be no records."""
    renewed: list[int]
    """Partitions that are not those that were read before: their topic was made anew, or their end was lost."""


def store(connection: Connection, positions: Iterable[Position]) -> None:
    """Note how far groups have read. A member that slept while its partitions moved on knows an old position."""
    connection.cursor().executemany(
        'INSERT INTO fleet_positions AS known ("group", topic, topic_id, partition, next) VALUES (%s, %s, %s, %s, %s)'
        ' ON CONFLICT ("group", topic, topic_id, partition) DO UPDATE'
        " SET next = greatest(known.next, excluded.next)",
        # In one order, so that no two wait for each other.
        sorted((each.group, each.topic, each.topic_id, *each[2:4]) for each in positions),
    )


def begin(
    connection: Connection, group: str, topic: str, topic_id: str, bounds: Mapping[int, Bounds]
) -> Beginning:
    """
    Return where a group reads on, and note it. In a transaction.

    A partition that was never read, or is not the one that was, begins at its earliest record.

    Args:
        connection: to the ledger.
        group: which.
        topic: its name.
        topic_id: its id; empty where the broker tells none.
        bounds: what the partitions have that are to be read.
    """
    found = Beginning({}, {}, [])
    rows = connection.execute(
        "SELECT partition, max(next) FILTER (WHERE topic_id = %s) FROM fleet_positions"
        ' WHERE "group" = %s AND topic = %s GROUP BY partition',
        (topic_id, group, topic),
    )
    known: dict[int, int | None] = dict(rows.fetchall())
    for partition, (first, end) in sorted(bounds.items()):
        following = known.get(partition)
        is_there = following is not None and first <= following <= end
        found.offsets[partition] = following if following is not None and is_there else first
        if is_there:
            continue
        # Of several that find the same one says so.
        changed = connection.execute(
            "INSERT INTO fleet_positions AS known VALUES (%s, %s, %s, %s, %s)"
            ' ON CONFLICT ("group", topic, topic_id, partition) DO UPDATE'
            " SET next = excluded.next WHERE known.next = %s",
            (group, topic, topic_id, partition, first, following),
        ).rowcount
        if following is not None and following < first:
            found.lost.update({partition: first - following} if changed else {})
        elif partition in known and changed:
            found.renewed.append(partition)
    count(connection, {LOST: sum(found.lost.values()), RENEWED: len(found.renewed)})
    return found
