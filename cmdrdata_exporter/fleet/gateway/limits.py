"""How much a gateway takes at once. What is more is refused, to come again later, and waits in no memory."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 1 << 20
AGAIN = 1
"""Seconds after which what was refused may come again."""


@dataclass(frozen=True)
class Limits:
    """What each part of the intake may take."""

    request: int = 16 * MIB
    """Bytes of one request, before and after it is decompressed."""
    in_flight: int = 64 * MIB
    """Bytes of all requests that are not answered yet."""
    connections: int = 256
    idle: float = 75.0
    """Seconds that a connection may be open without a request."""
    header: float = 10.0
    """Seconds that a request's header may take, and a handshake."""
    body: float = 30.0
    """Seconds that its body may take."""


class TooLargeError(Exception):
    """A request is larger than one may be."""


class FullError(Exception):
    """So much is under way that there is no room for more now."""


class GzipError(ValueError):
    """What was said to be gzip is none."""


class Room:
    """
    The bytes of what is under way. Safe to use from several threads.

    Args:
        size: how many there may be.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self.used = 0

    def take(self, number: int) -> None:
        """
        Take room for so many bytes.

        Raises:
            FullError: there is none.
        """
        with self._lock:
            if self.used + number > self._size:
                raise FullError
            self.used += number

    def give_back(self, number: int) -> None:
        """Give it back."""
        with self._lock:
            self.used -= number


class Held:
    """
    What one request has of the room, given back at its end: `with Held(room, limit) as held`.

    Args:
        room: where it is taken.
        most: bytes that one request may have.
    """

    def __init__(self, room: Room, most: int) -> None:
        self._room = room
        self._most = most
        self._parts: dict[str, int] = {}

    def __enter__(self) -> Held:  # noqa: PYI034 - Python 3.10 has no `Self`
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the room back."""
        self._room.give_back(sum(self._parts.values()))
        self._parts.clear()

    def add(self, part: str, number: int) -> None:
        """
        Take room for more bytes of a part of the request.

        Raises:
            TooLargeError: the part has more than it may have.
            FullError: there is no room now.
        """
        if self._parts.get(part, 0) + number > self._most:
            raise TooLargeError
        self._room.take(number)
        self._parts[part] = self._parts.get(part, 0) + number


_STEP = 64 << 10


def joined(chunks: Iterable[bytes]) -> bytes:
    """Return chunks in one piece. A list of tiny ones would have many times their size."""
    found = bytearray()
    for chunk in chunks:
        found += chunk
    return bytes(found)


def inflate(chunks: Iterable[bytes], held: Held) -> bytes:
    """
    Return what is in gzip, read as it comes: of what is too large no more than is allowed.

    Raises:
        GzipError: it is none.
        TooLargeError: there is more in it than may be.
        FullError: there is no room now.
    """
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    found = bytearray()
    try:
        for chunk in chunks:
            rest = chunk
            while rest and not reader.eof:
                part = reader.decompress(rest, _STEP)
                held.add("inflated", len(part))
                found += part
                rest = reader.unconsumed_tail
            if reader.unused_data or (rest and reader.eof):
                raise GzipError
    except zlib.error:
        raise GzipError from None
    if not reader.eof:
        raise GzipError
    return bytes(found)
