"""
What is said when metering starts: it reaches a person, whatever logging the application has, or has not yet.

An application may set its logging up later or never, at a level above INFO, or with `disable_existing_loggers`. So a
line goes past the logger's own level to the handlers that are there, and where none of them would show it, to stderr.
`runtime.announce` says each line once in a process.
"""

from __future__ import annotations

import contextlib
import logging
import sys

from cmdrdata_exporter import faults

NOTHING_METERED = "CmdrData: NOTHING WILL BE METERED:"
"""How each message begins that says so."""

_logger = logging.getLogger("cmdrdata")


def show(level: int, message: str, *args: object, aloud: bool = True) -> None:
    """
    Log a message or print it to stderr. Never raises.

    Args:
        level: of the log's record.
        message: with a `%s` for each of `args`.
        aloud: whether it goes to stderr where the log does not show it.
    """
    # Filters and handlers are the application's. Where they fail the line goes to stderr.
    with contextlib.suppress(Exception):
        if not aloud:
            _logger.log(level, message, *args)
            return
        if _is_shown(level):
            _logger.handle(
                _logger.makeRecord(_logger.name, level, __file__, 0, message, args, None)
            )
            return
    # Without a terminal there may be no stderr, or a closed one.
    with contextlib.suppress(Exception):
        print(message % args if args else message, file=sys.stderr, flush=True)  # noqa: T201 - no log would show it


def _is_shown(level: int) -> bool:
    """Say whether any handler shows a record of `level` that the logger gives it."""
    if _logger.disabled or _logger.manager.disable >= level:
        return False
    return bool(faults.handlers(level))
