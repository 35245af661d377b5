"""
What happens when something of ours goes wrong: counted, logged once per kind, never raised.

Metering runs inside other people's applications, so no failure of it may reach them, and none may stay unseen.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

_logger = logging.getLogger("cmdrdata")

counts: Counter[str] = Counter()
"""How often each kind of fault was met in this process."""


def report(kind: str, message: str, *args: object, exc_info: bool = False) -> None:
    """Count a fault of this `kind`, and log `message` for the first of them."""
    counts[kind] += 1
    if counts[kind] == 1:
        message = f"{message} (further ones of this kind are only counted)"
        say(logging.WARNING, message, *args, exc_info=exc_info)


def say(level: int, message: str, *args: object, exc_info: bool = False) -> None:
    """Log `message`, whatever the application's filters and handlers do: an exception of theirs is counted."""
    try:
        _logger.log(level, message, *args, exc_info=exc_info)
    except Exception:  # noqa: BLE001 - it could only be logged, which has just failed
        counts["logging"] += 1


def guarded(function: Callable[_P, _R]) -> Callable[_P, _R | None]:
    """
    Make `function` harmless to its caller: an `Exception` is reported and None returned.

    `BaseException` (KeyboardInterrupt, cancellation) is the application's and goes through.
    """
    kind = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def harmless(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return function(*args, **kwargs)
        except Exception:  # noqa: BLE001 - whatever it is, it is ours and not the application's
            report(kind, "CmdrData failed in %s; the application goes on", kind, exc_info=True)
            return None

    return harmless
