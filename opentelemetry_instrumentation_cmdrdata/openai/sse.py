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
    try:
        return json.loads(data(event) or b"")
    except ValueError:
        return None


class Pieces:
    """
    Knows an event that brings one more piece of what the model writes, and nothing else, without parsing it.

    Most do, and they begin as the one before did, up to that piece.

    Args:
        of_choices: whether the events are the chunks of a chat or completion.
    """

    __slots__ = ("_of_choices", "beginning", "data", "ending")

    def __init__(self, *, of_choices: bool) -> None:
        self._of_choices = of_choices
        self.beginning = b"\0"  # As nothing begins.
        self.ending = b"\n\n\0" if of_choices else b"\n\n"
        """
        An event is certainly one of them that begins and ends so, and is one event: nothing else need be looked at.
        Others are, too: `is_another` tells.
        """
        self.data = 0
        """Where the line of the data begins, which is the last one."""

    def is_another(self, event: bytes) -> bool:
        """Say whether `event` is certainly one, and whole; False where that would have to be parsed."""
        if not (
            event.startswith(self.beginning)
            and event.find(b"\n", self.data) == len(event) - 2
            and event[-1] == 10
        ):
            return False
        if not self._of_choices:
            return True
        reason = event.rfind(_UNFINISHED)
        # Usage is an object, and so is an error.
        return reason > 0 and event.find(b"{", reason) < 0

    def learn(self, event: bytes, chunk: Any) -> None:
        """Learn from an event that was parsed how the next one may begin and end."""
        begins = self._beginning_of_choice(event) if self._of_choices else _of_delta(event, chunk)
        if begins is None:
            return
        self.beginning, self.data = begins, event.rfind(b"\n", 0, -2) + 1
        if self._of_choices:
            # The last part of one that is known to be another; nothing ends like a line that does not end.
            self.ending = event[event.rfind(_UNFINISHED) :] if self.is_another(event) else b"\n\n\0"

    @staticmethod
    def _beginning_of_choice(event: bytes) -> bytes | None:
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
