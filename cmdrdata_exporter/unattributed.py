"""Events that name no customer: counted, and logged with the code that makes them."""

from __future__ import annotations

import logging

from cmdrdata_exporter import call_sites, clocks
from cmdrdata_exporter.wording import plural

INTERVAL = 60.0
"""Seconds between two messages, at least."""

_logger = logging.getLogger("cmdrdata")


class Unattributed:
    """The events of this process that name no customer. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.count = 0
        self._last_count = 0
        self._next = 0.0

    def note(self, *, held: bool, site: object = None, now: float | None = None) -> None:
        """
        Count an event, and log it unless one was logged in the last minute.

        Args:
            held: whether it is kept until someone says who pays.
            site: the line of the application that made its call; where it is not known, this thread is looked at.
            now: by the monotonic clock.
        """
        self.count += 1
        now = clocks.monotonic() if now is None else now
        if now < self._next:
            return
        self._next = now + INTERVAL
        new, self._last_count = self.count - self._last_count, self.count
        _logger.warning(
            "%s without a customer%s, %s. This one is from %s. "
            "Say who pays with customer_context(...), customer_id=... or CMDRDATA_CUSTOMER_ID",
            plural(self.count, "usage event"),
            "" if new == self.count else f", {new:,} of them new",
            "held" if held else "sent with customer_id null",
            site or call_sites.find() or "a call that ended in a thread of ours",
        )
