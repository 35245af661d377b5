"""The body of an event, with no more metadata than a request may carry. Pure."""

from __future__ import annotations

from cmdrdata_exporter.events import UsageEvent, encode

LARGEST_BODY = 256 << 10
"""Bytes above which metadata are cut."""
_METADATA = 32 << 10
"""Characters that they have afterwards, in all, at most."""
_VALUE, _KEY = 1000, 200
"""Characters that stay of a value that is cut, and that its key may have."""
_SHOWN = 10
"""How many of the keys are named."""


def written(event: UsageEvent) -> tuple[UsageEvent, bytes, list[str]]:
    """
    Return an event as it is sent, and its bytes.

    Returns:
        The event, with less metadata where they were too large; its body; the first keys of those that were cut or left
        out, as they are shown.
    """
    body = encode(event)
    if len(body) <= LARGEST_BODY:
        return event, body, []
    event, cut = _bounded(event)
    return event, encode(event), [repr(key[:_KEY]) for key in cut[:_SHOWN]]


def _bounded(event: UsageEvent) -> tuple[UsageEvent, list[str]]:
    """Return an event with less metadata, the largest cut or left out, and their keys. Nothing else is changed."""
    metadata = dict(event.metadata)
    sizes = {key: len(key) + len(_shown(value)) for key, value in metadata.items()}
    cut: list[str] = []
    left = sum(sizes.values())
    for key in sorted(sizes, key=lambda key: sizes[key], reverse=True):
        if left <= _METADATA:
            break
        value = _shown(metadata.pop(key))
        left -= sizes[key]
        cut.append(key)
        if len(value) > _VALUE and len(key) <= _KEY:
            metadata[key] = f"{value[:_VALUE]}\u2026"
            left += len(key) + _VALUE
    # In the order that they had.
    ordered = {key: metadata[key] for key in event.metadata if key in metadata}
    return event._replace(metadata=ordered), cut


def _shown(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # an integer with thousands of digits
        return "a number"
