"""
What happens when something of ours goes wrong: counted, logged once per kind, never raised.

Metering runs inside other people's applications, so no failure of it may reach them, and none may stay unseen.
What the application itself raises in the middle of our code, by a signal handler, is no failure of ours: it goes on to
the application.
"""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import logging
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
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
    """
    Log `message`, whatever the application's filters and handlers do: an exception of theirs is counted.

    An error is said also where logging was set up in a way that would keep it back, as `logging.config.dictConfig`
    disables each logger that it does not name: it may be the last that is left of an event.
    """
    try:
        if level < logging.ERROR or _is_heard(level):
            _logger.log(level, message, *args, exc_info=exc_info)
        else:
            _say_all_the_same(level, message, args)
    except Exception as error:  # it could only be logged, which has just failed
        if is_interruption(error):
            raise
        counts["logging"] += 1


def _is_heard(level: int) -> bool:
    """Say whether what is logged now gets to a handler that does something with it, or to none, which is stderr."""
    return _logger.isEnabledFor(level) and (not _logger.hasHandlers() or bool(handlers(level)))


def handlers(level: int) -> list[logging.Handler]:
    """Return the handlers that do something with what our logger says on a level."""
    found: list[logging.Handler] = []
    logger: logging.Logger | None = _logger
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return [
        handler
        for handler in found
        if handler.level <= level and not isinstance(handler, logging.NullHandler)
    ]


def _say_all_the_same(level: int, message: str, args: tuple[object, ...]) -> None:
    """Hand a message to the application's handlers, or write it to stderr where there are none."""
    record = _logger.makeRecord(_logger.name, level, __file__, 0, message, args, None)
    listening = handlers(level)
    for handler in listening:
        handler.handle(record)
    if not listening and sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - pythonw has none
        sys.stderr.write(f"{record.getMessage()}\n")


def guarded(function: Callable[_P, _R]) -> Callable[_P, _R | None]:
    """
    Make `function` harmless to its caller: an `Exception` is reported and None returned.

    `BaseException` (KeyboardInterrupt, cancellation) is the application's and goes through, and so does what a signal
    handler raised.
    """
    kind = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def harmless(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is
            absorb(error, kind)
            return None

    return harmless


def absorb(error: Exception, kind: str) -> None:
    """
    Report the exception that is being handled, as `guarded` does: for what is done too often to be called through it.

    Raises:
        Exception: it is the application's.
    """
    if is_interruption(error):
        raise  # noqa: PLE0704 - the one that is being handled
    report(kind, "CmdrData failed in %s; the application goes on", kind, exc_info=True)


def is_interruption(error: BaseException) -> bool:
    """
    Say whether the application raised `error` in the middle of our code: by a signal handler, or in this thread.

    A signal handler is called with the signal's number and the frame that it interrupts. So in the traceback it
    follows the frame that it was given.
    `PyThreadState_SetAsyncExc` leaves less to be seen: an exception in a frame of ours where nothing raised it. It is
    recognized where the interrupted instruction raises nothing, or where the class is not of the standard library.
    """
    if not isinstance(error, Exception):
        return True
    entry = error.__traceback__
    if entry is None:
        return False
    while (following := entry.tb_next) is not None:
        if _was_given(following.tb_frame, entry.tb_frame):
            return True
        entry = following
    code = entry.tb_frame.f_code
    return code.co_filename.startswith(_OURS) and _came_from_outside(error, code, entry.tb_lasti)


_OURS = tuple(
    str(Path(__file__).parents[1] / package)
    for package in ("cmdrdata_exporter", "opentelemetry_instrumentation_cmdrdata")
)
"""How the file names of our code begin."""
_IDLE = frozenset({"RESUME", "NOP", "JUMP_BACKWARD", "JUMP_ABSOLUTE"})
"""Instructions that raise nothing themselves."""
_RAISING = frozenset({"RAISE_VARARGS", "RERAISE"})


def _was_given(handler: FrameType, interrupted: FrameType) -> bool:
    """Say whether a frame was called as a signal handler is, with a number and the frame that it interrupts."""
    code = handler.f_code
    values = handler.f_locals
    named = code.co_varnames[: code.co_argcount]
    arguments = [values.get(name) for name in named]
    if code.co_flags & inspect.CO_VARARGS:
        arguments += values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
    return any(
        isinstance(number, int) and frame is interrupted
        for number, frame in itertools.pairwise(arguments)
    )


def _came_from_outside(error: Exception, code: CodeType, position: int) -> bool:
    """Say whether nothing that is executed at `position` can have raised `error`."""
    if not 0 <= position < len(code.co_code):
        return False
    instruction = dis.opname[code.co_code[position]]
    module = type(error).__module__.partition(".")[0]
    ours = module in sys.stdlib_module_names or module in sys.builtin_module_names
    return instruction in _IDLE or not (ours or instruction in _RAISING)
