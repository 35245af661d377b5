"""What comes to the ledger of a fleet. Without the database's library, which only the ledger needs."""

from __future__ import annotations

from typing import NamedTuple


class Arrival(NamedTuple):
    """An event that has come."""

    id: str
    """The event's id."""
    body: bytes
    """As it is sent to CmdrData."""
    host: str
    """Who recorded or sent it; empty where that is not known."""
    source: str
    """`event`: a topic of events; `span`: OTLP."""


class Position(NamedTuple):
    """How far a group has read a partition."""

    group: str
    topic: str
    partition: int
    offset: int
    """The next one to read."""
    topic_id: str = ""
    """The broker's id of the topic, another one where it was made anew; empty: the broker tells none."""


class HostReport(NamedTuple):
    """What a host says of itself."""

    host: str
    version: str
    """Of this distribution."""
    at: float
    """When it said so, in Unix seconds, by its own clock."""
    recorded: int
    """How many events it has recorded in all."""
    pending: int
    held: int
    dead: int
    unspooled: int
    """How many it could not write to its disk: they are in the log of the application."""
