"""What an exception of the SDK, or of the application, says about a call. Pure."""

from __future__ import annotations

import re

LONGEST_MESSAGE = 500
"""Characters of a message that are kept."""

_KEY_LIKE = re.compile(r"\b(?:sk|tk|pk|rk|gsk|xai|key)-[\w*\-]{4,}|\bBearer \S+|\b[\w\-]{40,}")


def scrubbed(message: str) -> str:
    """Return a message without anything that looks like a key, cut to 500 characters."""
    # Cut twice: a key may lie across the end, and nobody needs a megabyte searched.
    return _KEY_LIKE.sub("[scrubbed]", message[: 4 * LONGEST_MESSAGE])[:LONGEST_MESSAGE]


def qualified_name(error: BaseException) -> str:
    """Return the name of the exception's class with its module, as `error.type` has it."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def code(error: BaseException) -> str | None:
    """Return the HTTP status of an error as a string, else the provider's code."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return str(status)
    provider_code = getattr(error, "code", None)
    return provider_code if isinstance(provider_code, str) else None
