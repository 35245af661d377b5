"""Messages of errors, without what must not be kept. Pure."""

from __future__ import annotations

import re

LONGEST_MESSAGE = 500
"""Characters of a message that are kept."""

_KEY_LIKE = re.compile(r"\b(?:sk|tk|pk|rk|gsk|xai|key)-[\w*\-]{4,}|\bBearer \S+|\b[\w\-]{40,}")


def scrubbed(message: str) -> str:
    """Return a message without anything that looks like a key, cut to 500 characters."""
    # Cut twice: a key may lie across the end, and nobody needs a megabyte searched.
    return _KEY_LIKE.sub("[scrubbed]", message[: 4 * LONGEST_MESSAGE])[:LONGEST_MESSAGE]
