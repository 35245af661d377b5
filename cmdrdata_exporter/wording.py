"""How numbers of things are written, in logs and by the commands. Pure."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return a number of things: `1 usage event`, `1,234 usage events`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
