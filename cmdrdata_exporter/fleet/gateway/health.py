"""Whether a part of a gateway works, and what is said when that changes."""

from __future__ import annotations

import logging

import psycopg

from cmdrdata_exporter import faults
from cmdrdata_exporter.fleet.gateway.shelving import plain_error
from cmdrdata_exporter.fleet.gateway.watching import Counts


class Health:
    """
    Whether the last turn of a thread worked. It says once that one has not, and once that the next one has.

    Args:
        counts: where failures are counted.
        part: what the counters call it.
        fault: what is said of an error that is not the database's.
        waits: what is said of one that is, before the error.
        again: what is said when it works again.
    """

    def __init__(self, counts: Counts, part: str, *, fault: str, waits: str, again: str) -> None:
        self._counts = counts
        self._part = part
        self._fault = fault
        self._waits = waits
        self._again = again
        self.works = True

    def worked(self) -> None:
        """Note that a turn has worked."""
        if not self.works:
            faults.say(logging.WARNING, self._again)
        self.works = True

    def failed(self, error: Exception) -> None:
        """Note that one has not; called while the error is handled."""
        self._counts.add("failures", part=self._part)
        if not isinstance(error, psycopg.Error):
            faults.report(self._part, self._fault, exc_info=True)
        elif self.works:
            faults.say(logging.WARNING, "%s: %s", self._waits, plain_error(error))
        self.works = False
