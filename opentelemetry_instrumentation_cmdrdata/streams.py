"""
What makes an answer observed that arrives after the SDK's method returned.

Three kinds of object are met, and each stays what it is:

- a `Stream` of parsed chunks: its iterator is replaced by one that shows each chunk to the call (`attach`);
- a raw response whose stream is parsed later, if at all: `observed_stream_cls` attaches it in that moment;
- an HTTP response whose body is read later, by the SDK or the application: `watch` shows the decoded bytes to the call.

None of them refers to itself through us, so that an abandoned stream goes, and its call ends, at once.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache
from typing import Any, SupportsIndex, TypeVar, cast, get_args, get_origin

from openai import AsyncStream, Stream

from cmdrdata_exporter import faults
from opentelemetry_instrumentation_cmdrdata import open_calls
from opentelemetry_instrumentation_cmdrdata.calls import Call
from opentelemetry_instrumentation_cmdrdata.usage import get

_T = TypeVar("_T")

_BODY = "_cmdrdata_body"
"""The attribute of a watched response that holds its `_Body`."""

LONGEST_BODY = 64 * 1024 * 1024
"""Bytes of an unparsed JSON answer that are kept for reading its usage."""


@faults.guarded
def attach(stream: Any, call: Call) -> None:
    """
    Show every chunk of an SDK stream to `call`, and its end.

    `stream.__stream__()` is a generator that refers to the stream; a stream that held an iterator over it would be a
    cycle, gone only when the garbage collector passes. So the chunks come from a second stream of the same parts.
    https://github.com/openai/openai-python/blob/v2.54.0/src/openai/_streaming.py
    """
    kind = cast("type[Any]", type(stream))
    source: Any = object.__new__(kind)
    source.__dict__.update(stream.__dict__)
    source.__dict__.pop("_iterator", None)
    chunks: Any = source.__stream__()
    call.attached = True
    # So that a close is seen however it comes: the SDK's stream helpers close the response, not the stream.
    watch(stream.response, call)
    open_calls.keep(call)
    asynchronous = issubclass(kind, AsyncStream)
    stream._iterator = _achunks(chunks, call) if asynchronous else _chunks(chunks, call)  # noqa: SLF001 - see above


def _chunks(source: Iterator[Any], call: Call) -> Iterator[Any]:
    handed: list[Any] = []  # A chunk that is handed out is not kept here until the next.
    call.pulling = True
    try:
        for chunk in source:
            call.chunk(chunk)
            if call.asked_for_usage and _is_usage_alone(chunk):
                continue
            handed.append(chunk)
            del chunk
            call.pulling = False
            yield handed.pop()
            call.pulling = True
        call.end()
    except GeneratorExit:
        # The stream was dropped, perhaps by the garbage collector, in which nothing may be done: the SDK is about to
        # close the response, which shall not end the call. It ends when it is dropped itself.
        call.pulling = True
        raise
    except BaseException as error:
        call.end(error)
        raise


async def _achunks(source: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
    handed: list[Any] = []
    call.pulling = True
    try:
        async for chunk in source:
            call.chunk(chunk)
            if call.asked_for_usage and _is_usage_alone(chunk):
                continue
            handed.append(chunk)
            del chunk
            call.pulling = False
            yield handed.pop()
            call.pulling = True
        call.end()
    except GeneratorExit:
        call.pulling = True
        raise
    except BaseException as error:
        call.end(error)
        raise


def _is_usage_alone(chunk: Any) -> bool:
    """Say whether a chunk has come only because usage was asked for."""
    return get(chunk, "usage") is not None and get(chunk, "choices") == []


_BASES = (Stream[_T], AsyncStream[_T])  # pyright: ignore[reportGeneralTypeIssues]


class _Factory:
    """Makes an SDK stream and attaches it, in place of the stream class that a raw response would call."""

    __slots__ = ("_call", "_stream_cls")

    # From openai 1.26 on the SDK looks here, where the class is not its own: a base whose argument is a variable sends
    # it on to the argument of the alias.
    # https://github.com/openai/openai-python/blob/v2.54.0/src/openai/_utils/_typing.py
    __orig_bases__ = _BASES

    def __init__(self, stream_cls: Callable[..., Any], call: Call) -> None:
        self._stream_cls = stream_cls
        self._call = call

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
    if get_origin(stream_cls) not in (Stream, AsyncStream):
        return stream_cls  # A class of the application's own: the bytes are watched all the same.
    return types.GenericAlias(cast("type", _Factory(stream_cls, call)), get_args(stream_cls))


class _Body:
    """
    What is read of a body by whoever reads it, passed on to a call.

    An HTTP response and its stream refer to each other, so only the garbage collector frees them. Hence a body does
    not keep a call that a stream of chunks keeps.
    """

    __slots__ = ("_call", "_events", "_kept", "_line", "_parts", "_reference", "_seen")

    def __init__(self, call: Call, *, events: bool) -> None:
        self._reference = weakref.ref(call)
        self._call = None if call.attached else call
        self._events = events
        self._seen = False
        self._line = bytearray()
        self._parts: list[bytes] = []
        self._kept = 0

    def release(self) -> None:
        """Keep the call no longer: a stream of chunks does."""
        self._call = None

    def chunks(self, source: Iterator[bytes]) -> Iterator[bytes]:
        """Return the parts of a body, each observed when it arrives; as they are where parsed chunks are observed."""
        call = self._reference()
        return source if call is None or call.attached else self._observed(source, call)

    def achunks(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return the parts of a body, each observed when it arrives; as they are where parsed chunks are observed."""
        call = self._reference()
        return source if call is None or call.attached else self._aobserved(source, call)

    def _observed(self, source: Iterator[bytes], call: Call) -> Iterator[bytes]:
        whole = False
        call.pulling = True
        try:
            for part in source:
                self._observe(call, part)
                call.pulling = False
                yield part
                call.pulling = True
            whole = True
            self._end(call)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._end(call, error, whole=whole)
            raise

    async def _aobserved(self, source: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        whole = False
        call.pulling = True
        try:
            async for part in source:
                self._observe(call, part)
                call.pulling = False
                yield part
                call.pulling = True
            whole = True
            self._end(call)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._end(call, error, whole=whole)
            raise

    def closed(self, response: Any) -> None:
        """End the call if the body is closed by the application, not by the one who reads it to its end."""
        call = self._reference()
        if call is not None and not call.pulling:
            # Bytes that were read undecoded: perhaps all of them, but none of them was seen.
            unseen = response.is_stream_consumed and not (self._seen or call.attached)
            call.end(cut=not unseen)

    @faults.guarded
    def _observe(self, call: Call, part: bytes) -> None:
        self._seen = True
        call.arrived()
        if self._events:
            if b"\n" not in part:
                if len(self._line) <= LONGEST_BODY:
                    self._line += part
                return
            first, *lines = part.split(b"\n")
            call.line(bytes(self._line + first))
            self._line = bytearray(lines.pop())
            for line in lines:
                call.line(line)
        elif not call.endpoint.binary and self._kept <= LONGEST_BODY:
            self._kept += len(part)
            self._parts.append(part)

    @faults.guarded
    def _end(self, call: Call, error: BaseException | None = None, *, whole: bool = True) -> None:
        """End the call; a body that is there as a whole is read, also where a signal handler raised at its end."""
        if whole and self._events:
            call.line(bytes(self._line))
        elif whole and self._kept <= LONGEST_BODY:
            call.content(b"".join(self._parts), events=False)
        call.end(error)
        self._parts = []


def is_event_stream(response: Any) -> bool:
    """Say whether the body of an HTTP response is server-sent events."""
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


@faults.guarded
def watch(response: Any, call: Call) -> bool:
    """
    Show the body of an HTTP response to `call` while it is read, and when it is closed; True once that is so.

    The response becomes an instance of a subclass of its class until it is closed. Whoever reads a body, with
    whichever method, does it through `iter_bytes`, except for the undecoded bytes of `iter_raw`.
    https://github.com/encode/httpx/blob/0.28.1/httpx/_models.py
    """
    body: _Body | None = response.__dict__.get(_BODY)
    if body is not None:
        body.release()
        return True
    kind = cast("type[Any]", type(response))
    response.__class__ = _watched(kind)
    events = is_event_stream(response)
    response.__dict__[_BODY] = _Body(call, events=events)
    if call.endpoint.binary and not events:
        call.body(None)  # That it is answered is all that will be known.
    open_calls.keep(call)
    return True


@lru_cache(maxsize=32)
def _watched(kind: type[Any]) -> type[Any]:
    """Return the subclass of a response class that tells of what is read."""

    def iter_bytes(self: Any, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        parts = kind.iter_bytes(self, *args, **kwargs)
        body = _body(self)
        return parts if body is None else body.chunks(parts)

    def aiter_bytes(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
        parts = kind.aiter_bytes(self, *args, **kwargs)
        body = _body(self)
        return parts if body is None else body.achunks(parts)

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
        "close": close,
        "iter_bytes": iter_bytes,
    }
    return type(kind.__name__, (kind,), namespace)


def _body(response: Any) -> _Body | None:
    return response.__dict__.get(_BODY)


@faults.guarded
def _unwatch(response: Any) -> None:
    body: _Body | None = response.__dict__.pop(_BODY, None)
    if body is not None:
        response.__class__ = type(response).__base__
        body.closed(response)
