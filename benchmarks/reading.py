"""The process of a command that reads a ledger."""

from __future__ import annotations

import time
from pathlib import Path

import spool

from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.usage import Question


class Reading:
    """A command that reads a ledger; worker of a `Process`."""

    def __init__(self, path: str) -> None:
        self._directory = spool.directory(Path(path))

    def counts(self) -> float:
        """Return the seconds that the counts of all states take, as `cmdrdata status` asks for them."""
        began = time.perf_counter()
        with LedgerReader(self._directory) as ledger:
            ledger.counts()
            ledger.oldest_pending()
        return time.perf_counter() - began

    def report(self, by: tuple[str, ...], since: str | None) -> tuple[float, int]:
        """Return the seconds that a usage report takes, and how many rows it has."""
        began = time.perf_counter()
        with LedgerReader(self._directory) as ledger:
            rows = sum(1 for _ in ledger.usage.totals(by, Question(since)))
        return time.perf_counter() - began, rows
