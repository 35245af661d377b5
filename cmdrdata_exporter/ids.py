"""What may name a customer or an account."""

from __future__ import annotations

from uuid import UUID

LONGEST = 256
"""The most characters an id may have."""


def refusal(value: object) -> str | None:
    """Return what keeps `value` from being an id, None where nothing does: text without control characters is one."""
    if not isinstance(value, str):
        return "not a string"
    if not value:
        return "empty"
    if len(value) > LONGEST:
        return f"longer than {LONGEST} characters"
    # The common case in one C call; otherwise any character but these, so that spaces and unicode pass.
    if value.isprintable():
        return None
    codes = [ord(character) for character in value]
    if any(code < 32 or 127 <= code < 160 for code in codes):
        return "holds control characters"
    if any(0xD800 <= code < 0xE000 for code in codes):
        return "holds surrogates, which are no characters"
    return None


def as_written(value: object) -> str:
    """
    Return what was named in place of an id, for people to tell it by: a text quoted and cut to what an id may have.

    Of an object that is neither text, number nor UUID only the type: it may hold anything.
    """
    if isinstance(value, str):
        return repr(value[:LONGEST]) + ("…" if len(value) > LONGEST else "")
    if value is None or isinstance(value, (bool, float, UUID)):
        return str(value)
    # An integer of more digits than this is no id, and Python may refuse to write it.
    if isinstance(value, int) and value.bit_length() < LONGEST:
        return int.__repr__(value)
    return f"<{type(value).__name__}>"
