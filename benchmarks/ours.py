"""
What the benchmark needs of this package beside its public names, in one place.

Where the package changes inside, this file changes, and `spool.py` and `reading.py`, which fill ledgers and read them.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from cmdrdata_exporter import CmdrDataSpanExporter, quick_json
from cmdrdata_exporter.delivery import Delivery, drainer
from cmdrdata_exporter.delivery.spool.directory import Directory

KEY = "tk-0123456789abcdefghij"
ACCOUNT = "benchmark"
DEAD = "http://127.0.0.1:9/events"
"""Where nobody listens."""
ELSEWHERE = "http://127.0.0.1/events"
"""The endpoint of a process that does not drain: another process would, if there was one."""


def exporter(
    spool: Path | str,
    endpoint: str,
    *,
    account: str = ACCOUNT,
    drains: bool = True,
    fsync: bool = False,
) -> CmdrDataSpanExporter:
    """
    Return an exporter as an application has it; it begins to drain at once.

    Args:
        spool: where events are kept.
        endpoint: where they are posted.
        account: names the destination's directory, with the endpoint.
        drains: False: this process never drains, as one beside `cmdrdata drain`.
        fsync: whether an event is on the disk itself when it is recorded.
    """
    os.environ["CMDRDATA_DURABILITY"] = "fsync" if fsync else "process"
    if not drains:
        os.environ["CMDRDATA_DRAIN"] = "none"
        # A version without that setting drains unless another process has the lock, which is held until the end here.
        Directory.prepare(Path(spool), endpoint, account).try_to_lead()
    return CmdrDataSpanExporter(
        api_key=KEY, endpoint=endpoint, account=account, spool_dir=spool, of_process=False
    )


def without_orjson() -> None:
    """Have events written by `json`, as where orjson is not installed."""
    inside: Any = quick_json
    inside.orjson = None


def without_drainer() -> None:
    """
    Have the thread that syncs and delivers stand still.

    It turns by the clock, so that on a slow processor it would turn for each call, not for hundreds.
    """

    def stand_still(_: object) -> None:
        threading.Event().wait()

    inside: Any = drainer.Drainer
    inside._turn = stand_still  # noqa: SLF001 - there is no public way


def delivery(of: CmdrDataSpanExporter) -> Delivery:
    """Return the delivery of an exporter."""
    inside: Any = of
    return inside._delivery  # noqa: SLF001 - there is no public way to what only takes bytes


def recorded(of: CmdrDataSpanExporter) -> int:
    """Return how many events an exporter has recorded."""
    inside: Any = delivery(of)
    return inside.outcomes()["recorded"]
