"""How long to wait before something that has failed is tried again: every number by which delivery is paced."""

from __future__ import annotations

import random

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 60.0
"""Seconds, at most, after the first failure and after many."""
PROBE_AFTER = 5
"""So many events fail in a row before the backend is taken to be in trouble, and one attempt at a time is made."""
PROBE_INTERVAL = 60.0
LONGEST_PAUSE = 300.0
"""Seconds, by default, until the first attempt while the backend does not accept the key, and between later ones."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds. A backend that asks for more waits no longer than this."""

# Not by the functions of `random`: an application that seeds those gets the same numbers each time, and clients that
# are seeded alike would return in step.
uniform = random.SystemRandom().uniform


def backoff(failures: int) -> float:
    """
    Return the seconds to wait after one failure and `failures` more: twice as many with each, at most a minute.

    Full jitter, so that the clients of a backend that was down do not return in step:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    longest = min(FIRST_BACKOFF * 2 ** min(failures, 16), LONGEST_BACKOFF)
    return uniform(0, longest)
