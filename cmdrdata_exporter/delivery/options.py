"""How a directory is drained. Without SQLite, which a Python may lack that keeps its events in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery import Transport
from cmdrdata_exporter.delivery.backoff import PROBE_INTERVAL

SENDERS = 32
"""How many events are sent at once, at most."""
LARGEST = 1 << 30
"""Bytes that a directory may have."""
INDEX_EVENTS = 1_000_000
"""How many events the index of a destination has, at most."""


@dataclass(frozen=True)
class Options:
    """How a directory is drained."""

    post: Transport | None
    """None for the destination `local`, where nothing is sent."""
    reset: Callable[[], None] = lambda: None
    """What a forked child does before it sends."""
    report: Callable[[Mapping[str, int]], None] | None = None
    """Is told now and then, by the process that drains, what the ledger counts. It neither raises nor waits."""
    hold_ambiguous: bool = False
    probe_interval: float = PROBE_INTERVAL
    totals_by_day_for: int = 92
    """Days after which usage totals are kept by the month, once the whole month is as old."""
    total_by: tuple[str, ...] = ()
    """The user's metadata keys by which usage is summed."""
    largest: int = LARGEST
    """Bytes that the directory may have."""
    index_events: int = INDEX_EVENTS
    """How many events its index may have; 0: there is none."""
    drains: bool = True
    """Whether this process may drain it; otherwise it only records, and another process drains."""
    stays: bool = False
    """Whether it is drained until it is told to stop, also while there is nothing to do."""
    clock: Callable[[], float] = clocks.wall
    """Returns Unix seconds."""
