"""Events that are kept nowhere any more go to the log, each on a line from which it can be recovered."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.spool.records import line
from cmdrdata_exporter.wording import plural

LogLine: TypeAlias = "tuple[object, ...]"
"""A message of the log, with its arguments."""

NOTHING_KEPT = "this process ends and keeps nothing on disk"
"""Why events go to the log at the end of a process."""


def log_lines(events: Sequence[Event], reason: str, state: str = "undelivered") -> list[LogLine]:
    """Return a line that says how many events there are and why, and one for each, whose `"event"` is its body."""
    title = f"%s {'is' if len(events) == 1 else 'are'} {state} (%s). One line each follows:"
    return [
        (title, plural(len(events), "usage event"), reason),
        *(("%s", line(state, event.id, event.body)) for event in events),
    ]


def say_all(lines: Iterable[LogLine]) -> None:
    """Log lines as errors. Called without a lock: a handler may wait."""
    for message, *arguments in lines:
        faults.say(logging.ERROR, str(message), *arguments)
