"""
What makes an HTTP response show its body to a call, whoever reads it and however, and tell when it is closed.

It is met wherever a body is read after the SDK's method returned: by the SDK, the application, or another library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import Any, SupportsIndex, cast

from cmdrdata_exporter import faults
from opentelemetry_instrumentation_cmdrdata.call import Call
from opentelemetry_instrumentation_cmdrdata.openai.bodies import Body

_BODY = "_cmdrdata_body"
"""The attribute of a watched response that holds its `Body`."""


def watch(response: Any, call: Call) -> Body:
    """
    Show the body of an HTTP response to `call` while it is read, and when it is closed.

    The response becomes an instance of a subclass of its class until it is closed. Whoever reads a body, with
    whichever method, does it through `iter_raw`, and `iter_bytes` where it is encoded.
    https://github.com/encode/httpx/blob/0.28.1/httpx/_models.py
    """
    body: Body | None = response.__dict__.get(_BODY)
    if body is not None:
        return body
    body = Body(response, call)
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
        return _sized(body.parts(kind.iter_bytes(self)), chunk_size)

    def aiter_bytes(self: Any, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        body = _unread(self)
        if body is None or not body.is_encoded:
            return kind.aiter_bytes(self, chunk_size)
        body.is_decoded = True
        return _asized(body.aparts(kind.aiter_bytes(self)), chunk_size)

    def iter_raw(self: Any, chunk_size: int | None = None) -> Iterator[bytes]:
        body = _unread(self)
        if body is None or not body.as_sent(self):
            return kind.iter_raw(self, chunk_size)
        return _sized(body.parts(kind.iter_raw(self)), chunk_size)

    def aiter_raw(self: Any, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        body = _unread(self)
        if body is None or not body.as_sent(self):
            return kind.aiter_raw(self, chunk_size)
        return _asized(body.aparts(kind.aiter_raw(self)), chunk_size)

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


def _sized(parts: Iterator[bytes], size: int | None) -> Iterator[bytes]:
    """Return the parts of a body, cut into pieces of `size` bytes if need be."""
    return parts if size is None else _pieces(parts, size or 1)


def _asized(parts: AsyncIterator[bytes], size: int | None) -> AsyncIterator[bytes]:
    return parts if size is None else _apieces(parts, size or 1)


def _pieces(parts: Iterator[bytes], size: int) -> Iterator[bytes]:
    buffer = bytearray()
    for part in parts:
        buffer += part
        while len(buffer) >= size:
            yield bytes(buffer[:size])
            del buffer[:size]
    if buffer:
        yield bytes(buffer)


async def _apieces(parts: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for part in parts:
        buffer += part
        while len(buffer) >= size:
            yield bytes(buffer[:size])
            del buffer[:size]
    if buffer:
        yield bytes(buffer)


def _unread(response: Any) -> Body | None:
    """Return what watches a response, None once somebody has begun to read it."""
    return None if response.is_stream_consumed else response.__dict__.get(_BODY)


@faults.guarded
def _unwatch(response: Any) -> None:
    body: Body | None = response.__dict__.pop(_BODY, None)
    if body is not None:
        response.__class__ = type(response).__base__
        body.closed(response)
