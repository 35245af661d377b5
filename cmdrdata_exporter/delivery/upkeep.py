"""What a leader does for its ledger now and then, a little at a time: what has expired, old totals, room, facts."""

from __future__ import annotations

import contextlib
import time

from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.options import Options
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.facts import FULL_LABELS, TOTAL_BY
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.totals import HOURS_FOR
from cmdrdata_exporter.delivery.status_log import StatusLog

INTERVAL = 10.0
"""Seconds between two rounds."""
REPORT_INTERVAL = 60.0
"""Seconds between two reports to where events go."""
EXPIRY_INTERVAL = 600.0
"""Seconds between two looks at what has expired and at all totals."""
DAYS = 8
"""Of how many days the totals are looked at in a round."""
BODIES = 10_000
"""How many bodies of local events go in a round where room is needed."""


class Upkeep:
    """
    The upkeep of one ledger.

    Args:
        directory: where it is.
        options: how it is drained.
        log: says whether room is needed, and what commands should know.
        gate: what the backend's state is.
    """

    def __init__(self, directory: Directory, options: Options, log: StatusLog, gate: Gate) -> None:
        self._directory = directory
        self._options = options
        self._log = log
        self._gate = gate
        self._next_expiry = self._next_report = 0.0
        self._reported: dict[str, int] | None = None
        """What is to be reported once the round is in the ledger."""
        self._bucket = 0
        """Which part of the tombstones comes next."""
        self._last_day: str | None = None
        """How far the totals were looked at; None: to their end."""
        self._totals_size = 0
        """How many bytes they take, up to there."""
        self.next = 0.0
        """When the next round begins, in monotonic seconds."""
        self.may_shrink = False
        """Whether a round has been since the ledger was made smaller last."""

    def restart(self) -> None:
        """Begin again, with another ledger or since commands should know something at once."""
        self.next = self._next_expiry = self._next_report = 0.0

    def round(self, ledger: Ledger, now: float, clock: float) -> int:
        """Make a round; return how many events were given up. In a transaction."""
        expired = 0
        ledger.retention.prune_tombstones(self._bucket, clock)
        self._bucket = (self._bucket + 1) % 256
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRY_INTERVAL
            expired = ledger.retention.expire(clock)
            self._last_day, self._totals_size = "", 0
        self._tidy_totals(ledger, clock)
        ledger.index.tidy(ledger.before, ledger.last(), clock)
        if self._options.post is None and self._log.nearly_full:
            ledger.retention.shrink_local(BODIES)
        if self._options.report is not None and now >= self._next_report:
            self._reported = ledger.counted()
        full = ledger.totals.labels.full()
        self._log.full_labels(full)
        ledger.note(
            self._log.facts(self._gate, clock)
            | {TOTAL_BY: self._options.total_by, FULL_LABELS: full}
        )
        return expired

    def _tidy_totals(self, ledger: Ledger, clock: float) -> None:
        """Compact old totals, and measure all, a few days at a time."""
        first = clock - self._options.totals_by_day_for * 86400
        month = time.strftime("%Y-%m", time.gmtime(first))
        first_day = time.strftime("%Y-%m-%d", time.gmtime(clock - HOURS_FOR * 86400))
        for _ in range(DAYS):
            if self._last_day is None:
                return
            day, size = ledger.totals.tidy(self._last_day, month, first_day)
            self._totals_size += size
            self._last_day = day or None
            if not day:
                # On a full disk it is an old number.
                with contextlib.suppress(OSError):
                    self._directory.note_totals(self._totals_size)

    def committed(self, now: float) -> None:
        """Take note that a round is in the ledger."""
        reported, self._reported = self._reported, None
        if reported is not None and self._options.report is not None:
            self._next_report = now + REPORT_INTERVAL
            self._options.report(reported)
        self.next = now + INTERVAL
        self.may_shrink = True
