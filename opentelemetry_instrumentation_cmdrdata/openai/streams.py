"""
What makes an answer observed that arrives after the SDK's method returned.

Three kinds of object are met, and each stays what it is:

- an HTTP response whose body is read later, by the SDK, the application or another library: `watch` shows its bytes to
  the call, and keeps back the one event that has come only because we asked for it, so that whoever parses sees what he
  would see without us;
- a `Stream` that reads such a response: its iterator is replaced by one that tells the call its end (`attach`);
- a raw response whose stream is made later, if at all: `observed_stream_cls` attaches it in that moment.

None of them refers to itself through us, so that an abandoned stream goes, and its call ends, at once.
"""

from __future__ import annotations

import time
import types
import weakref
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import lru_cache
from typing import Any, SupportsIndex, TypeVar, cast, get_args, get_origin

from cmdrdata_exporter import faults
from opentelemetry_instrumentation_cmdrdata import open_calls
from opentelemetry_instrumentation_cmdrdata.call import Call
from opentelemetry_instrumentation_cmdrdata.openai import sse
from opentelemetry_instrumentation_cmdrdata.openai.copies import is_class
from opentelemetry_instrumentation_cmdrdata.openai.usage import get

_T = TypeVar("_T")

_BODY = "_cmdrdata_body"
"""The attribute of a watched response that holds its `_Body`."""

LONGEST_BODY = 64 * 1024 * 1024
"""Bytes of an unparsed JSON answer that are kept for reading its usage."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
"""Has zlib see from the first bytes which of the two it reads."""


@faults.guarded
def attach(stream: Any, call: Call) -> None:
    """
    Have `call` end when an SDK stream ends, breaks or is dropped.

    `stream.__stream__()` is a generator that refers to the stream; a stream that held an iterator over it would be a
    cycle, gone only when the garbage collector passes. So the chunks come from a second stream of the same parts.
    https://github.com/openai/openai-python/blob/v2.54.0/src/openai/_streaming.py
    """
    kind = cast("type[Any]", type(stream))
    source: Any = object.__new__(kind)
    source.__dict__.update(stream.__dict__)
    source.__dict__.pop("_iterator", None)
    chunks: Any = source.__stream__()
    call.chunks = weakref.ref(chunks)
    body = watch(stream.response, call)
    if getattr(stream.response.stream, "_response", None) is stream.response:
        body.release()
    open_calls.keep(call)
    asynchronous = hasattr(kind, "__aiter__")
    stream._iterator = _achunks(chunks, call) if asynchronous else _chunks(chunks, call)  # noqa: SLF001 - see above


def _chunks(source: Generator[Any], call: Call) -> Iterator[Any]:
    call.is_read = True
    try:
        yield from source
        call.end()
    except GeneratorExit:
        # The stream was dropped, perhaps by the garbage collector, in which nothing may be done. The call ends when it
        # is dropped itself.
        raise
    except BaseException as error:
        call.end(error, cut=True)
        raise


async def _achunks(source: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
    handed: list[Any] = []  # A chunk that is handed out is not kept here until the next.
    call.is_read = True
    try:
        async for chunk in source:
            handed.append(chunk)
            del chunk
            yield handed.pop()
        call.end()
    except GeneratorExit:
        raise
    except BaseException as error:
        call.end(error, cut=True)
        raise


def is_stream_class(kind: object) -> bool:
    """Say whether a class is one of the two of the SDK that read a stream."""
    return is_class(kind, "Stream", "AsyncStream")


class _Factory:
    """Makes an SDK stream and attaches it, in place of the stream class that a raw response would call."""

    __slots__ = ("__orig_bases__", "_call", "_stream_cls")

    def __init__(self, stream_cls: Callable[..., Any], call: Call) -> None:
        self._stream_cls = stream_cls
        self._call = call
        # From openai 1.26 on the SDK looks here, where the class is not its own: a base whose argument is a variable
        # sends it on to the argument of the alias.
        # https://github.com/openai/openai-python/blob/v2.54.0/src/openai/_utils/_typing.py
        self.__orig_bases__ = (cast("Any", get_origin(stream_cls))[_T],)

    def __call__(self, **kwargs: Any) -> Any:
        stream = self._stream_cls(**kwargs)
        attach(stream, self._call)
        return stream


@faults.guarded
def observed_stream_cls(stream_cls: Any, call: Call) -> Any:
    """
    Return what to give the SDK as `stream_cls`, so that a stream it makes later is attached.

    The SDK takes the chunk's type from the alias' argument, then calls the alias. (`typing`'s own aliases are cached
    and would keep the call alive.)
    """
    if not is_stream_class(get_origin(stream_cls)):
        return stream_cls  # A class of the application's own: the bytes are watched all the same.
    return types.GenericAlias(cast("type", _Factory(stream_cls, call)), get_args(stream_cls))


class _Resizer:
    """Cuts what a reader gets into pieces of `size` bytes."""

    __slots__ = ("_buffer", "_size")

    def __init__(self, size: int) -> None:
        self._buffer = bytearray()
        self._size = size

    def pieces(self, shown: bytes) -> Iterator[bytes]:
        """Return the pieces that are whole now."""
        self._buffer += shown
        while len(self._buffer) >= self._size:
            piece = bytes(self._buffer[: self._size])
            del self._buffer[: self._size]
            yield piece

    def rest(self, shown: bytes) -> bytes:
        """Return the last piece."""
        return bytes(self._buffer + shown)


class _Body:
    """
    What is read of a body by whoever reads it: shown to a call, but for what came only because we asked.

    It keeps the call while somebody has the response. A response of httpx and its byte stream refer to each other, so
    only the garbage collector frees them: there a stream of chunks keeps the call, if there is one.
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
        self.is_encoded = response.headers.get("content-encoding", "identity") != "identity"
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

    def parts(self, source: Iterator[bytes], size: int | None) -> Iterator[bytes]:
        """Return what a reader gets of the parts of a body, in pieces of `size` if need be."""
        reader, step = self._reader(), self._step()
        resizer = None if size is None else _Resizer(size or 1)
        self._source, is_whole = weakref.ref(source), False
        try:
            for part in source:
                shown = step(part)
                if resizer is None:
                    if shown:
                        yield shown
                else:
                    yield from resizer.pieces(shown)
            rest = self._rest()
            if last := rest if resizer is None else resizer.rest(rest):
                yield last
            is_whole = True
            self._ended()
        except GeneratorExit:
            self._left()
            raise
        except BaseException as error:
            self._ended(error, is_whole=is_whole)
            raise
        del reader

    async def aparts(self, source: AsyncIterator[bytes], size: int | None) -> AsyncIterator[bytes]:
        """Return what a reader gets of the parts of a body, in pieces of `size` if need be."""
        reader, step = self._reader(), self._step()
        resizer = None if size is None else _Resizer(size or 1)
        self._source, is_whole = weakref.ref(source), False
        try:
            async for part in source:
                shown = step(part)
                if resizer is None:
                    if shown:
                        yield shown
                else:
                    for piece in resizer.pieces(shown):
                        yield piece
            rest = self._rest()
            if last := rest if resizer is None else resizer.rest(rest):
                yield last
            is_whole = True
            self._ended()
        except GeneratorExit:
            self._left()
            raise
        except BaseException as error:
            self._ended(error, is_whole=is_whole)
            raise
        del reader

    def _step(self) -> Callable[[bytes], bytes]:
        """
        Return what is called with each part, and returns what the reader gets of it.

        Most parts of a stream bring one more piece of text and nothing else. They begin and end as the one before.
        """
        reference, unfinished, pieces = self._reference, self._events.unfinished, self._pieces
        beginning, ending, data = pieces.beginning, pieces.ending, pieces.data
        measured = (observed := reference()) is not None and observed.measures_chunks

        def step(part: bytes) -> bytes:
            nonlocal beginning, ending, data
            if not unfinished and (
                (
                    part.startswith(beginning)
                    and part.endswith(ending)
                    and part.find(b"\n", data) == len(part) - 2
                )
                or pieces.is_another(part)
            ):
                if (call := reference()) is None:
                    pass
                elif measured:
                    call.arrived()
                else:
                    call.last_chunk = time.perf_counter_ns()
                return part
            read = self._shown(part)
            beginning, ending, data = pieces.beginning, pieces.ending, pieces.data
            return read

        return step

    def whole(self, content: bytes) -> bytes:
        """Return what a reader gets of a body that has been read."""
        return self._shown(content) + self._rest()

    def _reader(self) -> Call | None:
        """Return the call if the application reads the bytes itself, perhaps without the stream that keeps it."""
        call = self._reference()
        return None if call is None or is_running(call.chunks) else call

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
        if self._are_events and not self._seen and part.lstrip().startswith(b"{"):
            self._are_events = False  # One answer, though a stream was asked for.
        self._seen = True
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


def watch(response: Any, call: Call) -> _Body:
    """
    Show the body of an HTTP response to `call` while it is read, and when it is closed.

    The response becomes an instance of a subclass of its class until it is closed. Whoever reads a body, with
    whichever method, does it through `iter_raw`, and `iter_bytes` where it is encoded.
    https://github.com/encode/httpx/blob/0.28.1/httpx/_models.py
    """
    body: _Body | None = response.__dict__.get(_BODY)
    if body is not None:
        return body
    body = _Body(response, call)
    if response.is_closed:
        # All of it has been read, by a hook for instance.
        response._content = body.whole(response.content)  # noqa: SLF001 - where it is kept
        response.__dict__.pop("_text", None)
        return body
    kind = cast("type[Any]", type(response))
    response.__class__ = _watched(kind)
    response.__dict__[_BODY] = body
    return body


@lru_cache(maxsize=32)
def _watched(kind: type[Any]) -> type[Any]:
    """Return the subclass of a response class that tells of what is read."""

    def iter_bytes(self: Any, chunk_size: int | None = None) -> Iterator[bytes]:
        body = _unread(self)
        if body is None or not body.is_encoded:
            return kind.iter_bytes(self, chunk_size)
        body.is_decoded = True
        return body.parts(kind.iter_bytes(self), chunk_size)

    def aiter_bytes(self: Any, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        body = _unread(self)
        if body is None or not body.is_encoded:
            return kind.aiter_bytes(self, chunk_size)
        body.is_decoded = True
        return body.aparts(kind.aiter_bytes(self), chunk_size)

    def iter_raw(self: Any, chunk_size: int | None = None) -> Iterator[bytes]:
        body = _unread(self)
        if body is None or not body.as_sent(self):
            return kind.iter_raw(self, chunk_size)
        return body.parts(kind.iter_raw(self), chunk_size)

    def aiter_raw(self: Any, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        body = _unread(self)
        if body is None or not body.as_sent(self):
            return kind.aiter_raw(self, chunk_size)
        return body.aparts(kind.aiter_raw(self), chunk_size)

    def reduce(self: Any, _: SupportsIndex) -> Any:
        # As an instance of its own class: the subclass cannot be imported.
        state = self.__getstate__()
        return object.__new__, (kind,), {k: v for k, v in state.items() if k != _BODY}

    def close(self: Any) -> None:
        try:
            kind.close(self)
        finally:
            _unwatch(self)

    async def aclose(self: Any) -> None:
        try:
            await kind.aclose(self)
        finally:
            _unwatch(self)

    namespace = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__reduce_ex__": reduce,
        "aclose": aclose,
        "aiter_bytes": aiter_bytes,
        "aiter_raw": aiter_raw,
        "close": close,
        "iter_bytes": iter_bytes,
        "iter_raw": iter_raw,
    }
    return type(kind.__name__, (kind,), namespace)


def _unread(response: Any) -> _Body | None:
    """Return what watches a response, None once somebody has begun to read it."""
    return None if response.is_stream_consumed else response.__dict__.get(_BODY)


@faults.guarded
def _unwatch(response: Any) -> None:
    body: _Body | None = response.__dict__.pop(_BODY, None)
    if body is not None:
        response.__class__ = type(response).__base__
        body.closed(response)
