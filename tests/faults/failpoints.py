"""
Failpoints: named functions that kill their process, fail or stall, at the call that is asked for.

The production code knows nothing of them; a process of the fault tests wraps the functions before anything runs.
The variable `FAILPOINTS` holds them, separated by semicolons:

    before:cmdrdata_exporter.delivery.spool.ledger.Ledger.record_outcomes:3=kill
    after:cmdrdata_exporter.delivery.spool.journal.os.write:2=ENOSPC
    before:cmdrdata_exporter.delivery.spool.journal.os.write:5+=sleep 0.5

`before` or `after` the real function; at its third call, or from the fifth on; `kill`, `sleep` so many seconds,
`sqlite` for an error of the database, or the name of an error of the operating system.
A function of another module, such as `os`, is wrapped for the module alone that is named before it.
"""

from __future__ import annotations

import errno
import functools
import inspect
import itertools
import os
import pkgutil
import signal
import sqlite3
import threading
import time
import types
from collections.abc import Callable
from typing import Any

VARIABLE = "FAILPOINTS"


def install(failpoints: str) -> None:
    """Wrap the functions that are named."""
    for failpoint in filter(None, failpoints.split(";")):
        point, _, action = failpoint.partition("=")
        when, path, number = point.split(":")
        owner_path, _, name = path.rpartition(".")
        owner: Any = pkgutil.resolve_name(owner_path)
        if inspect.ismodule(owner) and owner.__name__ != owner_path:
            owner = _view(owner_path, owner)
        bound = isinstance(inspect.getattr_static(owner, name), classmethod | staticmethod)
        wrapped = _wrapped(getattr(owner, name), when, number, action)
        setattr(owner, name, staticmethod(wrapped) if bound else wrapped)


def _view(path: str, module: types.ModuleType) -> types.ModuleType:
    """Give the module that uses another one a copy of its own, in which a function can be another."""
    view = types.ModuleType(module.__name__)
    vars(view).update(vars(module))
    user, _, name = path.rpartition(".")
    setattr(pkgutil.resolve_name(user), name, view)
    # So that a second failpoint finds it.
    view.__name__ = path
    return view


def _wrapped(real: Callable[..., Any], when: str, number: str, action: str) -> Callable[..., Any]:
    calls = itertools.count(1)
    counting = threading.Lock()
    first = int(number.removesuffix("+"))

    def pass_by() -> None:
        with counting:
            call = next(calls)
        if call == first or (number.endswith("+") and call > first):
            act(action)

    @functools.wraps(real)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            pass_by()
            return real(*args, **kwargs)
        result = real(*args, **kwargs)
        pass_by()
        return result

    return wrapper


def act(action: str) -> None:
    """Do what a failpoint does."""
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action.startswith("sleep "):
        time.sleep(float(action.removeprefix("sleep ")))
    elif action == "sqlite":
        raise sqlite3.OperationalError("disk I/O error")
    else:
        number: int = getattr(errno, action)
        raise OSError(number, os.strerror(number))
