"""What stands for a key of the provider's: a hash of its last four characters, which the provider shows itself."""

from __future__ import annotations

import functools
import hashlib

SHOWN = 4
"""Characters at the end of a key that OpenAI shows of it, in its admin API and on its pages."""


@functools.lru_cache(maxsize=256)
def key_hash(shown: str) -> str:
    """
    Return the hash of what is shown of a key; the same text always gives the same hash, in every release.

    It groups and finds keys, and protects nothing: four characters are soon found by trying.

    Args:
        shown: the last `SHOWN` characters of the key, never the key.
    """
    return hashlib.sha256(shown.encode("utf-8", "replace")).hexdigest()[:8]
