"""
Server-sent events in the parts of a body, which may begin and end anywhere.

Pure: bytes in, bytes out.
https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, cast

LONGEST = 64 * 1024 * 1024
"""Bytes of one event that are kept until its end: what is longer goes by unread."""

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
"""What ends an event: an empty line, with the ends of lines that the standard allows."""
_LONGEST_END = 4

_UNFINISHED = b'"finish_reason":null'
_CHOICE = re.compile(rb'"choices"\s*:\s*\[\s*[^\s\]]')
_DATA = re.compile(rb"(?:^|[\r\n])data:\s*(\S)")


def data(event: bytes) -> bytes | None:
    """Return the data of an event, None where it has none: a comment, for instance."""
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def json_of(event: bytes) -> Any:
    """Return the JSON of an event, None where it has none: `[DONE]`, or garbage."""
    return parsed(data(event) or b"")


def parsed(found: bytes) -> Any:
    """Return the JSON that is the data of an event, None where it is none."""
    try:
        return json.loads(found)
    except ValueError:
        return None


Known = tuple[bytes, int, bytes, int, Callable[[bytes, int], object]]
"""
By what a part of a body is known as one event that brings one more piece of text, and nothing else.

It begins with the first of these, which has the second for its length. What stands from so many bytes (the fourth)
before its first end of a line is the third; or else all that follows its beginning is such as the fifth likes. So
whoever compares need call nothing but methods of `bytes`, of most parts.
"""


def _unlike(_: bytes, __: int) -> None:
    """Return what says that an event is not known."""


UNKNOWN: Known = (b"\0", 0, b"", 0, _unlike)
"""Nothing is known so: no bytes are these."""

_NO_ENDING = b"\0\0\0"
"""Follows no end of a line."""
_GOES_ON = re.compile(rb'[^\n]*"finish_reason":null[^{\n]*\n\n').fullmatch
"""Of what follows the beginning: the choice is unfinished, and nothing comes after it. Usage and errors are objects."""


class Pieces:
    """
    Knows an event that brings one more piece of what the model writes, and nothing else, without parsing it.

    Most do, and they begin as the one before did, up to that piece.

    Args:
        of_choices: whether the events are the chunks of a chat or completion.
    """

    __slots__ = ("_of_choices", "known")

    def __init__(self, *, of_choices: bool) -> None:
        self._of_choices = of_choices
        self.known = UNKNOWN

    def is_another(self, event: bytes) -> bool:
        """Say whether `event` is certainly one, and whole; False where that would have to be parsed."""
        beginning, begins, ending, ends, goes_on = self.known
        return event[:begins] == beginning and (
            event[event.find(b"\n", begins) - ends :] == ending
            or goes_on(event, begins) is not None
        )

    def learn(self, event: bytes, chunk: Any) -> None:
        """Learn from an event that was parsed how the next one may begin and end."""
        beginning = _of_choice(event) if self._of_choices else _of_delta(event, chunk)
        if beginning is None:
            return
        begins = len(beginning)
        if not self._of_choices:
            self.known = beginning, begins, b"\n\n", 0, _unlike
            return
        # Of one that goes on the end suffices, if the next one has it, too.
        ending = event[event.rfind(_UNFINISHED) :] if _GOES_ON(event, begins) else _NO_ENDING
        self.known = beginning, begins, ending, len(ending) - 2, _GOES_ON


def _of_choice(event: bytes) -> bytes | None:
    beginning, delta, _ = event.partition(b'"delta":')
    first = b'"choices":[{' in beginning and b'"index":0' in beginning and delta
    return beginning if first and b'"usage"' not in beginning else None


def _of_delta(event: bytes, chunk: Any) -> bytes | None:
    kind: Any = cast("dict[str, Any]", chunk).get("type") if isinstance(chunk, dict) else None
    if not isinstance(kind, str) or not kind.endswith((".delta", ".partial_image")):
        return None
    name = kind.encode()
    return event[: event.find(name) + len(name) + 1]


class Events:
    """
    The events of one body.

    Args:
        keep_back: whether the reader does not get the events for which `show` is true. Held up is nothing but an
            unfinished event that may be one of them: a chunk of a chat that tells nothing but usage.
    """

    __slots__ = ("_handed", "_keep_back", "unfinished")

    def __init__(self, *, keep_back: bool) -> None:
        self._keep_back = keep_back
        self.unfinished = bytearray()
        """The event whose end has not come."""
        self._handed = 0
        """How many bytes of the unfinished event the reader has."""

    def feed(self, part: bytes, show: Callable[[bytes], object]) -> bytes:
        """Call `show` with each event that `part` finishes; return what the reader is to get now."""
        unfinished = self.unfinished
        if not unfinished and part.find(b"\n\n") == len(part) - 2 > 0 and b"\r" not in part:
            # One event, and whole, as most parts are.
            return b"" if show(part) and self._keep_back else part
        looked_at = max(0, len(unfinished) - _LONGEST_END + 1)
        unfinished += part
        begin, out = 0, bytearray()
        for end in _END.finditer(unfinished, looked_at):
            out += self._finished(bytes(unfinished[begin : end.end()]), show)
            begin = end.end()
        # What is left of an empty line belongs to no event.
        blank = len(unfinished) - len(unfinished[begin:].lstrip(b"\r\n"))
        out += unfinished[begin:blank]
        del unfinished[:blank]
        if not self._keep_back:
            out = part
        elif self._handed or not _may_tell_usage_alone(unfinished):
            out += unfinished[self._handed :]
            self._handed = len(unfinished)
        if len(unfinished) > LONGEST:
            del unfinished[: 1 - _LONGEST_END]
            self._handed = min(self._handed, len(unfinished))
        return bytes(out)

    def finish(self, show: Callable[[bytes], object]) -> bytes:
        """Return what the reader is to get at the end of the body."""
        out = self._finished(bytes(self.unfinished), show) if self.unfinished else b""
        self.unfinished.clear()
        return out if self._keep_back else b""

    def _finished(self, event: bytes, show: Callable[[bytes], object]) -> bytes:
        handed, self._handed = self._handed, 0
        return b"" if show(event) and not handed else event[handed:]


def _may_tell_usage_alone(unfinished: bytearray) -> bool:
    """Say whether an unfinished event may turn out to be a chunk without choices."""
    if not unfinished:
        return False
    begun = _DATA.search(unfinished)
    return (begun is None or begun[1] == b"{") and _CHOICE.search(unfinished) is None
