"""Events that could not be written to the disk: they go to the log, and the ledger counts them once it can."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.records import Command, encode_command, line


class Unspooled:
    """
    Those of one process.

    Args:
        directory: where they should have been.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.counts: Counter[str] = Counter()
        """How many there are, by the reason."""
        self._reported = 0
        """How many of them the ledger has counted."""
        self._report_at = 1
        """How many they are when it counts them while nothing can be recorded: after each doubling."""
        self._reporting = threading.Lock()

    def forked(self) -> None:
        """Leave what was counted before a fork to the parent."""
        self._reported = self.counts.total()
        self._report_at = self._reported + 1
        self._reporting = threading.Lock()

    def log(self, event: Event, error: OSError) -> None:
        """Write an event to the log, as one line of JSON."""
        reason = error.strerror or str(error)
        self.counts[reason] += 1
        if self.counts[reason] == 1:
            faults.say(
                logging.ERROR,
                "usage events cannot be written to %s (%s); one line of JSON each follows instead",
                self._directory.path,
                reason,
            )
        faults.say(logging.ERROR, "%s", line("unspooled", event.id, event.body))

    def report(self) -> None:
        """Have the ledger count the events that are in the log."""
        # Who finds another one at it leaves the rest to the next event, or to the end.
        if not self._reporting.acquire(blocking=False):
            return
        try:
            total = self.counts.total()
            if total != self._reported:
                command = Command("unspooled", (), number=total - self._reported)
                commands.append(self._directory, [encode_command(command)])
                self._reported = total
        except OSError as error:
            if faults.is_interruption(error):
                raise
            # The next time.
        finally:
            self._reporting.release()

    def report_if_doubled(self) -> None:
        """Have the ledger count them now and then, also while nothing can be recorded."""
        total = self.counts.total()
        if total >= self._report_at:
            # A command is small, and may use the room that events leave free.
            self._report_at = 2 * total
            self.report()
