"""How much a gateway takes at once. What is more is refused, to come again later, and waits in no memory."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cmdrdata_exporter import clocks
from cmdrdata_exporter.fleet.gateway.answers import FULL, GARBAGE, TOO_LARGE, RefusedError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What each part of the intake may take."""

    request: int = 16 * MIB
    """Bytes of one request, before and after it is decompressed."""
    in_flight: int = 64 * MIB
    """Bytes of all requests that are not answered yet, and of what is made of them."""
    connections: int = 256
    """Of each intake."""
    idle: float = 75.0
    """Seconds that a connection may be open without a request."""
    header: float = 10.0
    """Seconds that a request's header may take, and a handshake."""
    body: float = 30.0
    """Seconds that its body may take."""
    grace: float = 5.0
    """Seconds of these that it may take while others have no room."""


class TooLargeError(RefusedError):
    """A request is larger than one may be."""

    def __init__(self, message: str) -> None:
        super().__init__(TOO_LARGE, f"{message}; send fewer spans at once")


class FullError(RefusedError):
    """So much is under way that there is no room for more now."""

    def __init__(self) -> None:
        super().__init__(FULL, "too much is under way; send it again")


class GzipError(RefusedError):
    """What was said to be gzip is none."""

    def __init__(self) -> None:
        super().__init__(GARBAGE, "the body is said to be gzip, and is none")


class Room:
    """
    The bytes of what is under way. Safe to use from several threads.

    Args:
        size: how many there may be.
        grace: seconds after which who is still sending gives way to others.
    """

    def __init__(self, size: int, grace: float = Limits.grace) -> None:
        self.size = size
        self.used = 0
        self._grace = grace
        self._lock = threading.Lock()
        self._sending: dict[Held, tuple[float, Callable[[], None]]] = {}

    def take(self, number: int) -> None:
        """
        Take room for so many bytes.

        Raises:
            FullError: there is none. Who has been sending for longest will make some, if that is long.
        """
        with self._lock:
            if self.used + number <= self.size:
                self.used += number
                return
            slowest = next(iter(self._sending), None)
            if slowest is not None:
                began, give_way = self._sending[slowest]
                if clocks.monotonic() - began >= self._grace:
                    del self._sending[slowest]
                    give_way()
        raise FullError

    def give_back(self, number: int) -> None:
        """Give it back."""
        with self._lock:
            self.used -= number

    def begin(self, held: Held, give_way: Callable[[], None]) -> None:
        """Note that a body comes. `give_way` may be called, in any thread, and must return at once."""
        with self._lock:
            self._sending[held] = clocks.monotonic(), give_way

    def end(self, held: Held) -> None:
        """Note that it has come."""
        with self._lock:
            self._sending.pop(held, None)


class Held:
    """
    What one request has of the room, given back at its end: `with Held(room, limit) as held`.

    Args:
        room: where it is taken.
        most: bytes that its body may have, as it came and inflated.
    """

    def __init__(self, room: Room, most: int) -> None:
        self.room = room
        self.most = most
        self._parts: dict[str, int] = {}

    def __enter__(self) -> Held:  # noqa: PYI034 - Python 3.10 has no `Self`
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the room back."""
        self.release()

    def release(self) -> None:
        """Give it back."""
        self.room.end(self)
        self.room.give_back(sum(self._parts.values()))
        self._parts.clear()

    def add(self, part: str, number: int) -> None:
        """
        Take room for more bytes of a part of the request.

        Raises:
            TooLargeError: it could not have so much if it were the only one.
            FullError: there is no room now.
        """
        if sum(self._parts.values()) + number > self.room.size:
            raise TooLargeError(
                f"the request takes more than the {self.room.size} bytes that all of them may take"
            )
        self.room.take(number)
        self._parts[part] = self._parts.get(part, 0) + number

    def add_body(self, part: str, number: int) -> None:
        """
        Take room for more of the body.

        Raises:
            TooLargeError: it has more than it may have.
            FullError: there is no room now.
        """
        self.check(self._parts.get(part, 0) + number)
        self.add(part, number)

    def check(self, length: int) -> None:
        """Raise `TooLargeError` if a body has more bytes than it may have."""
        if length > self.most:
            raise TooLargeError(f"a request may have {self.most} bytes, compressed or not")

    def drop(self, part: str) -> None:
        """Give back what a part has."""
        self.room.give_back(self._parts.pop(part, 0))


_STEP = 64 << 10


def joined(chunks: Iterable[bytes]) -> bytearray:
    """Return chunks in one piece. A list of tiny ones would have many times their size."""
    found = bytearray()
    for chunk in chunks:
        found += chunk
    return found


def inflate(chunks: Iterable[bytes | bytearray], held: Held) -> bytearray:
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
            rest: bytes | bytearray = chunk
            while rest and not reader.eof:
                part = reader.decompress(rest, _STEP)
                held.add_body("inflated", len(part))
                found += part
                rest = reader.unconsumed_tail
            if reader.unused_data or (rest and reader.eof):
                raise GzipError
    except zlib.error:
        raise GzipError from None
    if not reader.eof:
        raise GzipError
    return found
