"""What the ledger of a directory tells that is measured, as far as this process is the one to tell it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery.drainer import Drainer
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, ask

if TYPE_CHECKING:
    from typing_extensions import Self

GAUGE_WAIT = 0.5
"""Seconds that a measurement waits for whoever uses the database: a disk may have stalled."""


class _Found(NamedTuple):
    """What a ledger tells that is measured; times in Unix seconds."""

    pending: int
    held: int
    dead: int
    oldest: float | None
    jobs: int
    oldest_job: float | None

    @classmethod
    def of(cls, ledger: LedgerReader) -> Self:
        """Read a ledger."""
        counts = ledger.counts()
        return cls(
            counts["pending"] + counts["in_flight"],
            counts["held"],
            counts["dead"],
            ledger.oldest_pending(),
            *ledger.count_open_jobs(),
        )

    def gauges(self) -> dict[str, float]:
        """Return the values of gauges."""
        return {
            "events.pending": self.pending,
            "events.oldest_pending": _age(self.oldest),
            "events.held": self.held,
            "events.dead": self.dead,
            "jobs.open": self.jobs,
            "jobs.oldest_open": _age(self.oldest_job),
        }


class LedgerGauges:
    """
    The gauges of a directory.

    Args:
        directory: whose.
        drainer: that of this process.
    """

    def __init__(self, directory: Directory, drainer: Drainer) -> None:
        self._directory = directory
        self._drainer = drainer
        self._looked: tuple[int | None, _Found | None] = None, None
        """What was in the ledger at the last look, and when that was changed last."""

    def forget(self) -> None:
        """Forget the last look, which was another process's."""
        self._looked = None, None

    def values(self) -> dict[str, float]:
        """
        Return the current values, none where another process tells them.

        Where nobody drains the directory, since there is nothing to do, the one that did last knows them still.
        """
        leads = self._drainer.leads
        if not leads and (not self._drainer.rests or self._directory.leader() is not None):
            return {}
        found = self._look(leads=leads)
        if found is None and not leads:
            return {}
        return {
            "delivery.paused": int(self._drainer.gate.paused),
            "spool.size": self._directory.size(),
            **({} if found is None else found.gauges()),
        }

    def _look(self, *, leads: bool) -> _Found | None:
        """Return what is in the ledger; None where that cannot be known now, or is for another process to tell."""
        modified = None if leads else self._modified()
        if modified is not None and modified == self._looked[0]:
            return self._looked[1]

        def read(ledger: LedgerReader) -> tuple[_Found | None]:
            is_ours = leads or ledger.facts().get("pid") == os.getpid()
            return (_Found.of(ledger) if is_ours else None,)

        # Who measures must not wait for a disk that has stalled, nor for what a signal handler has interrupted.
        answer = ask(self._directory, self._drainer.database, GAUGE_WAIT, read)
        if answer is None:
            return None
        [found] = answer
        self._looked = modified, found
        return found

    def _modified(self) -> int | None:
        """Return when the ledger was changed last, None where its log has more. There may be hundreds at rest."""
        path = self._directory.path
        try:
            with contextlib.suppress(FileNotFoundError):
                if (path / f"{LEDGER}-wal").stat().st_size:
                    return None
            return (path / LEDGER).stat().st_mtime_ns
        except OSError:
            return None


def _age(since: float | None) -> float:
    """Return for how many seconds something waits, 0 where nothing does."""
    return 0.0 if since is None else max(0.0, clocks.wall() - since)
