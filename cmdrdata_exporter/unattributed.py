"""Events that name no customer: counted, and logged with the code that makes them."""

from __future__ import annotations

import inspect
import logging

from cmdrdata_exporter import clocks
from cmdrdata_exporter.wording import plural

INTERVAL = 60.0
"""Seconds between two messages, at least."""

_logger = logging.getLogger("cmdrdata")

_FOREIGN = (
    "asyncio",
    "cmdrdata_exporter",
    "concurrent",
    "contextlib",
    "functools",
    "openai",
    "threading",
)
_FOREIGN_PREFIXES = ("opentelemetry", "openinference")


class Unattributed:
    """The events of this process that name no customer. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.count = 0
        self._last_count = 0
        self._next = 0.0

    def note(self, *, held: bool, now: float | None = None) -> None:
        """Count an event, and log it unless one was logged in the last minute."""
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
            location(),
        )


def location() -> str:
    """Return the file and line of the application that is being run, as far as this thread knows it."""
    frame = inspect.currentframe()
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _FOREIGN and not package.startswith(_FOREIGN_PREFIXES):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "a call that ended in a thread of ours"
