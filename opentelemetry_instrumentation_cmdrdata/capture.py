"""The content of calls, where it is asked for: what is read of it, and where it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmdrdata_exporter import faults


def told(observer: Callable[[Any], object], finished: object) -> None:
    """Call a function of the application's; what it raises is logged without its message, which may be content."""
    try:
        observer(finished)
    except Exception as error:
        if faults.is_interruption(error):
            raise
        faults.report(
            "observer",
            "the observer of a call raised %s; the call is metered all the same",
            type(error).__name__,
        )
