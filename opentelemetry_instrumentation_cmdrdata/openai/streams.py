"""
What makes an SDK stream tell its call when it ends, breaks or is dropped; its bytes are seen in its response.

A stream stays what it is: `attach` replaces its iterator. The stream of a raw response is made later, if at all:
`observed_stream_cls` attaches it in that moment. Neither has the stream refer to itself, so that an abandoned one goes,
and its call ends, at once.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any, TypeVar, cast, get_args, get_origin

from cmdrdata_exporter import faults
from opentelemetry_instrumentation_cmdrdata import open_calls
from opentelemetry_instrumentation_cmdrdata.call import Call
from opentelemetry_instrumentation_cmdrdata.openai.copies import is_class
from opentelemetry_instrumentation_cmdrdata.openai.watching import watch

_T = TypeVar("_T")


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


async def _achunks(source: AsyncGenerator[Any], call: Call) -> AsyncIterator[Any]:
    call.is_read = True
    following = source.__anext__
    try:
        while True:
            # Not by `async for`, whose variable would keep a chunk that is handed out until the next.
            yield await following()
    except StopAsyncIteration:
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
