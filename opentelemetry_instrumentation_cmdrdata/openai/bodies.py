"""
What a call is shown of the body of its HTTP response, while somebody reads it.

The one event that has come only because we asked for it is kept back, so that whoever parses sees what he would see
without us.
"""

from __future__ import annotations

import time
import weakref
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from cmdrdata_exporter import faults
from opentelemetry_instrumentation_cmdrdata import open_calls
from opentelemetry_instrumentation_cmdrdata.call import Call
from opentelemetry_instrumentation_cmdrdata.openai import sse
from opentelemetry_instrumentation_cmdrdata.openai.usage import get

LONGEST_BODY = 64 * 1024 * 1024
"""Bytes of an unparsed JSON answer that are kept for reading its usage."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
"""Has zlib see from the first bytes which of the two it reads."""


class Body:
    """
    What is read of a body by whoever reads it: shown to a call, but for what came only because we asked.

    It keeps the call while somebody has the response. A response of httpx and its byte stream refer to each other, so
    only the garbage collector frees them: there whoever reads keeps the call.
    https://github.com/encode/httpx/blob/0.28.1/httpx/_client.py#L139
    """

    __slots__ = (
        "_are_events",
        "_call",
        "_events",
        "_inflater",
        "_is_binary",
        "_kept",
        "_parts",
        "_pieces",
        "_reference",
        "_seen",
        "_source",
        "is_decoded",
        "is_encoded",
    )

    def __init__(self, response: Any, call: Call) -> None:
        self._reference = weakref.ref(call)
        self._call: Call | None = call
        self._are_events = call.streaming or is_event_stream(response)
        self._events = sse.Events(keep_back=call.asked_for_usage)
        self._pieces = sse.Pieces(of_choices=call.endpoint.tells_usage_if_asked)
        self._seen = False
        self._is_binary = call.endpoint.binary
        self._parts: list[bytes] = []
        self._kept = 0
        self._source: weakref.ref[Any] | None = None
        """The response's generator of the parts: what it closes itself, at the end, is no close by the application."""
        headers = response.headers
        self.is_encoded = (
            "content-encoding" in headers and headers["content-encoding"] != "identity"
        )
        """Whether the parts show what they say only once they are decoded."""
        self.is_decoded = False
        """Whether the reader gets them decoded; the response reads them undecoded for that itself."""
        self._inflater: Any = None
        """What reads parts that the application gets undecoded; they stay as they are."""

    def as_sent(self, response: Any) -> bool:
        """Say whether parts can be read as they were sent: compressed ones are inflated for the call alone."""
        if self.is_encoded:
            if self.is_decoded or response.headers["content-encoding"] not in ("gzip", "deflate"):
                return False
            self._inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
        return True

    def release(self) -> None:
        """Keep the call no longer: a stream of chunks does."""
        self._call = None

    def parts(self, source: Iterator[bytes]) -> Iterator[bytes]:
        """
        Return what a reader gets of the parts of a body.

        Of a part that brings one more piece of text, as most do, only the time is noted; and that in place, since the
        cost of a stream is what is done here.
        """
        call, now = cast("Call", self._reference()), time.perf_counter_ns
        beginning, begins, ending, ends, goes_on = sse.UNKNOWN
        self._source, is_whole = weakref.ref(source), False
        try:
            for part in source:
                if part[:begins] == beginning and (
                    part[part.find(b"\n", begins) - ends :] == ending or goes_on(part, begins)
                ):
                    call.last_chunk = now()
                    yield part
                    continue
                if shown := self._shown(part):
                    yield shown
                beginning, begins, ending, ends, goes_on = self._known()
            if rest := self._rest():
                yield rest
            is_whole = True
            self._ended()
        except GeneratorExit:
            self._left()
            raise
        except BaseException as error:
            self._ended(error, is_whole=is_whole)
            raise

    async def aparts(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return what an asynchronous reader gets of the parts of a body, see `parts`."""
        call, now = cast("Call", self._reference()), time.perf_counter_ns
        beginning, begins, ending, ends, goes_on = sse.UNKNOWN
        self._source, is_whole = weakref.ref(source), False
        try:
            async for part in source:
                if part[:begins] == beginning and (
                    part[part.find(b"\n", begins) - ends :] == ending or goes_on(part, begins)
                ):
                    call.last_chunk = now()
                    yield part
                    continue
                if shown := self._shown(part):
                    yield shown
                beginning, begins, ending, ends, goes_on = self._known()
            if rest := self._rest():
                yield rest
            is_whole = True
            self._ended()
        except GeneratorExit:
            self._left()
            raise
        except BaseException as error:
            self._ended(error, is_whole=is_whole)
            raise

    def whole(self, content: bytes) -> bytes:
        """Return what a reader gets of a body that has been read."""
        return self._shown(content) + self._rest()

    def _known(self) -> sse.Known:
        """Return by what the next part is known as one more piece of text, of which nothing but the time is noted."""
        call = self._reference()
        if call is None or call.measures_chunks or self._events.unfinished or self._inflater:
            return sse.UNKNOWN
        return self._pieces.known

    def _shown(self, part: bytes) -> bytes:
        if self._inflater is None:
            return self._read(part)
        self._read(self._inflated(part))
        return part

    def _inflated(self, part: bytes) -> bytes:
        try:
            inflated: bytes = self._inflater.decompress(part)
        except zlib.error:
            return b""
        return inflated

    def _read(self, part: bytes) -> bytes:
        if not self._seen:
            self._seen = True
            if self._are_events and part.lstrip().startswith(b"{"):
                self._are_events = False  # One answer, though a stream was asked for.
        if self._are_events:
            return self._events.feed(part, self._show)
        self._arrived()
        if self._kept <= LONGEST_BODY and not self._is_binary:
            self._kept += len(part)
            self._parts.append(part)
        return part

    def _arrived(self) -> None:
        call = self._reference()
        if call is not None:
            call.arrived()

    @faults.guarded
    def _show(self, event: bytes) -> bool:
        """Show an event to the call; say whether it is there to tell usage, and for nothing else."""
        if self._pieces.is_another(event):
            self._arrived()
            return False
        call = self._reference()
        chunk = sse.json_of(event) if call is None else call.event(event)
        if get(chunk, "usage") is None:
            # Where content is captured, no event goes by unread.
            if call is None or call.said is None:
                self._pieces.learn(event, chunk)
            return False
        return get(chunk, "choices") == []

    def _rest(self) -> bytes:
        rest = self._events.finish(self._show) if self._are_events else b""
        return rest if self._inflater is None else b""

    def _left(self) -> None:
        """Have the call ended, whose reader was dropped; perhaps in a finalizer, see `open_calls`."""
        call = self._reference()
        # The SDK leaves its reader once a stream has said that it is done, before the stream itself ends.
        if call is not None and not call.is_read:
            open_calls.dropped(call)

    @faults.guarded
    def _ended(self, error: BaseException | None = None, *, is_whole: bool = True) -> None:
        """End the call; a body that is there as a whole is read, also where a signal handler raised at its end."""
        call = self._reference()
        if call is None:
            return
        if is_whole and not self._are_events and self._kept <= LONGEST_BODY:
            call.content(b"".join(self._parts), events=False)
        if not is_running(call.chunks):
            call.end(error, cut=not is_whole)
        self._parts = []

    def closed(self, response: Any) -> None:
        """End the call if the body is closed by the application, not by the one who reads it to its end."""
        call = self._reference()
        if call is not None and not (is_running(call.chunks) or is_running(self._source)):
            # Bytes that were read undecoded: perhaps all of them, but none of them was seen.
            unseen = response.is_stream_consumed and not self._seen
            call.end(cut=not unseen)


def is_running(generator: weakref.ref[Any] | None) -> bool:
    """Say whether a generator, asynchronous or not, is at work."""
    referent = None if generator is None else generator()
    return bool(getattr(referent, "gi_running", False) or getattr(referent, "ag_running", False))


def is_event_stream(response: Any) -> bool:
    """Say whether the body of an HTTP response is server-sent events."""
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")
