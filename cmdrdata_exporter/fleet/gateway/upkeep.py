"""The thread that removes from the ledger what is old. It has a connection of its own, so that nothing waits for it."""

from __future__ import annotations

import threading

from cmdrdata_exporter import processes
from cmdrdata_exporter.fleet.gateway.health import Health
from cmdrdata_exporter.fleet.gateway.ledgers import Ledger, Open
from cmdrdata_exporter.fleet.gateway.watching import Counts

TIDY = 600.0
"""Seconds between two looks for what is old."""


class Upkeep:
    """
    The thread.

    Args:
        open_ledger: opens the ledger.
        counts: where failures are counted.
    """

    def __init__(self, open_ledger: Open, counts: Counts) -> None:
        self._open = open_ledger
        self._health = Health(
            counts,
            "upkeep",
            fault="what is old cannot be removed",
            waits="what is old stays in the ledger for now",
            again="what is old is removed from the ledger again",
        )
        self._stop = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        processes.start_thread(self._run, name="cmdrdata-gateway-upkeep")

    def stop(self, seconds: float) -> bool:
        """End after the part that is being done; say whether it ended in time. Another gateway does the rest."""
        self._stop.set()
        return self._ended.wait(seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            ledger = self._open()
            try:
                self._tidy(ledger)
            finally:
                ledger.close()
            self._stop.wait(TIDY)
        self._ended.set()

    def _tidy(self, ledger: Ledger) -> None:
        try:
            while not self._stop.is_set() and ledger.tidy():
                pass
            self._health.worked()
        except Exception as error:  # noqa: BLE001 - the thread must live
            self._health.failed(error)
