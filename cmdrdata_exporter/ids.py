"""What may name a customer or an account."""

from __future__ import annotations

from uuid import UUID

LONGEST = 256
"""The most characters an id may have."""


def refusal(value: object) -> str | None:
    """Return why `value` is not a valid id, or None: an id is text of 1 to 256 characters, none a control character."""
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


def complaint(name: str, value: object) -> str | None:
    """Return what is wrong with the setting or option `name` whose value is not a valid id, and what is expected."""
    problem = refusal(value)
    if problem is None:
        return None
    verb = "" if problem.startswith("holds") else "is "
    return f"{name} {verb}{problem}; expected are 1 to {LONGEST} characters, none of them a control character"


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
