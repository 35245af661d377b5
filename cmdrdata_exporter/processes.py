"""
How processes begin and end, where that concerns what lives in them.

A forked child has its parent's objects, but none of its threads, and locks that one of those may have held.
The end of a process is told by `atexit`, except in a child of `multiprocessing`, which ends in `os._exit` after
finalizers of its own.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util
import os
import weakref
from collections.abc import Callable
from typing import Protocol


class Renewable(Protocol):
    """What starts anew in a forked child."""

    def forked(self) -> None:
        """Forget the parent's state, and replace locks that a thread of the parent may have held."""
        ...


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()
_at_exit: dict[Callable[[], None], int] = {}


def renew_after_fork(renewable: Renewable) -> None:
    """Have `renewable.forked()` called in each forked child, for as long as it lives."""
    _renewables.add(renewable)


def at_exit(function: Callable[[], None], priority: int) -> None:
    """
    Have `function` called when this process, or a child that inherits it, ends; twice is once.

    Args:
        function: what is to be done; where two finalizers exist it may be called again.
        priority: among the finalizers of a child of `multiprocessing`, the highest comes first.
    """
    _at_exit[function] = priority
    atexit.unregister(function)
    atexit.register(function)
    if multiprocessing.parent_process() is not None:
        multiprocessing.util.Finalize(None, function, exitpriority=priority)


def _finalize_in_child(_: object) -> None:
    for function, priority in _at_exit.items():
        multiprocessing.util.Finalize(None, function, exitpriority=priority)


def _after_fork_in_child() -> None:
    for renewable in list(_renewables):
        renewable.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
# A child forgets the finalizers of its parent, then calls this, then runs.
# https://github.com/python/cpython/blob/v3.12.1/Lib/multiprocessing/process.py#L296-L347
multiprocessing.util.register_after_fork(at_exit, _finalize_in_child)
