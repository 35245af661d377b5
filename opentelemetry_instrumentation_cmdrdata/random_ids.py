"""
Random ids, from the operating system and not from `random`, which programs seed.

They are fetched in batches, since each fetch is a system call. A forked child must not go on with its parent's batch:
whoever takes an id says in which process.
"""

from __future__ import annotations

import os
from collections import deque

BATCH = 64
"""Ids that are fetched at a time."""
_DIGITS = 32


class RandomIds:
    """Ids of 128 bits, as 32 hexadecimal digits. Safe to use from several threads, and from signal handlers."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._ids: deque[str] = deque()

    def take(self, pid: int) -> str:
        """
        Return an id that no other call gets.

        Args:
            pid: of the process that asks, also one that was forked by something other than Python.
        """
        if pid != self._pid:
            # In this order: another thread that finds the new number must find the new ids.
            self._ids = deque()
            self._pid = pid
        try:
            # In one step of the interpreter, so that nobody else gets it too.
            return self._ids.popleft()
        except IndexError:
            digits = os.urandom(BATCH * _DIGITS // 2).hex()
        self._ids.extend([digits[i : i + _DIGITS] for i in range(0, len(digits), _DIGITS)])
        return self.take(pid)


random_ids = RandomIds()
"""The ids of this process."""
