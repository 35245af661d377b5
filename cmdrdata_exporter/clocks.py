"""
The clocks that deliveries go by, which stand still or jump for nobody.

freezegun and its like replace the functions of `time`, wherever a module holds them, but not these.
What is said of a call, when it began and how long it took, is told by the application's clock, as in its spans.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

monotonic: Callable[[], float] = time.monotonic
"""Returns monotonic seconds."""
wall: Callable[[], float] = time.time
"""Returns Unix seconds."""

if hasattr(time, "clock_gettime"):  # not on Windows
    monotonic = functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    wall = functools.partial(time.clock_gettime, time.CLOCK_REALTIME)
