"""
The seam: every HTTP call of the SDK passes `OpenAI.request` or `AsyncOpenAI.request`, and there it is observed.

Both are inherited methods, so a patch is an attribute set on the class, and undoing it deletes the attribute again.
https://github.com/openai/openai-python/blob/v2.54.0/src/openai/_base_client.py
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai._resource import AsyncAPIResource, SyncAPIResource
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from cmdrdata_exporter import current_exporter, faults
from cmdrdata_exporter.identity import seam
from opentelemetry_instrumentation_cmdrdata import attribution
from opentelemetry_instrumentation_cmdrdata.calls import SCOPE, Recorder
from opentelemetry_instrumentation_cmdrdata.observation import (
    answered,
    asking,
    fail,
    observe,
    start,
)
from opentelemetry_instrumentation_cmdrdata.open_calls import dropped, start_reaper
from opentelemetry_instrumentation_cmdrdata.version import __version__

_Method = Callable[..., Any]


def _request(original: _Method, recorder: Recorder) -> _Method:
    """Return `request` that observes the call it makes."""
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def arequest(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            call = start(recorder, self, options, kwargs)
            if call is None:
                return await original(self, cast_to, options, *args, **kwargs)
            options = asking(recorder, self, options, call) or options
            start_reaper()
            try:
                try:
                    call.attach()
                    result = await original(self, cast_to, options, *args, **kwargs)
                except GeneratorExit as error:
                    # Thrown away unfinished, perhaps by the garbage collector, in which nothing may be done.
                    call.detach()
                    dropped(call, error.with_traceback(None))
                    raise
                except BaseException as error:
                    call.detach()
                    fail(call, error)
                    raise
                call.detach()
                if not observe(result, call):
                    call.end()
            except GeneratorExit:
                raise
            except BaseException as error:
                call.detach()
                fail(call, error)
                raise
            return result

        return arequest

    @functools.wraps(original)
    def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        call = start(recorder, self, options, kwargs)
        if call is None:
            return original(self, cast_to, options, *args, **kwargs)
        options = asking(recorder, self, options, call) or options
        # Twice: a signal handler may raise outside of what the SDK does, and in the middle of noting how that failed.
        try:
            try:
                call.attach()
                result = original(self, cast_to, options, *args, **kwargs)
            except BaseException as error:
                call.detach()
                fail(call, error)
                raise
            call.detach()
            if not observe(result, call):
                call.end()
        except BaseException as error:
            call.detach()
            fail(call, error)
            raise
        return result

    return request


def _process_response(original: _Method, _: Recorder) -> _Method:
    """Return `_process_response` that tells how often the SDK tried: a success itself does not."""
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def aprocess_response(self: Any, *args: Any, **kwargs: Any) -> Any:
            answered(kwargs)
            return await original(self, *args, **kwargs)

        return aprocess_response

    @functools.wraps(original)
    def process_response(self: Any, *args: Any, **kwargs: Any) -> Any:
        answered(kwargs)
        return original(self, *args, **kwargs)

    return process_response


PATCHES: tuple[tuple[type[Any], str, Callable[[_Method, Recorder], _Method]], ...] = (
    (OpenAI, "request", _request),
    (AsyncOpenAI, "request", _request),
    (OpenAI, "_process_response", _process_response),
    (AsyncOpenAI, "_process_response", _process_response),
)
"""What is patched of the clients: the class, its method, and what makes the method that replaces it."""

RESOURCES = (SyncAPIResource, AsyncAPIResource)
"""The classes below which the SDK's resources are; of later ones `__init_subclass__` tells."""

_replaced: dict[tuple[type[Any], str], Any] = {}
"""The methods of resources that were replaced, by their class and name."""
_tracked_clients = False
"""Whether there is a client that takes our keywords also while nothing is patched."""


def patch(recorder: Recorder) -> None:
    """Observe every client of the SDK, whenever it was made, and let the methods that are metered take our keywords."""
    for owner, name, wrapping in PATCHES:
        original = getattr(owner, name, None)
        if original is not None:
            setattr(owner, name, wrapping(original, recorder))
    _take_keywords()


def unpatch() -> None:
    """Undo `patch`: the clients have their inherited methods again, the resources their own."""
    for owner, name, _ in PATCHES:
        if name in vars(owner):
            delattr(owner, name)
    if _tracked_clients:
        return  # Their keywords go on; those of other clients are the SDK's to refuse.
    for base in RESOURCES:
        if "__init_subclass__" in vars(base):
            del base.__init_subclass__
    while _replaced:
        (resource, name), original = _replaced.popitem()
        setattr(resource, name, original)


def take_keywords_of_tracked_clients() -> None:
    """Let the methods of tracked clients take our keywords from now on, whether or not anything is patched."""
    global _tracked_clients
    if not _tracked_clients:
        _tracked_clients = True
        _take_keywords()


def _take_keywords() -> None:
    for base in RESOURCES:
        for resource in base.__subclasses__():
            _take_keywords_of(resource)
        base.__init_subclass__ = classmethod(_loaded)  # pyright: ignore[reportAttributeAccessIssue]


def _loaded(resource: type[Any], **_: Any) -> None:
    """Treat a resource that the SDK loads now as those that it had loaded before."""
    _take_keywords_of(resource)


@faults.guarded
def _take_keywords_of(resource: type[Any]) -> None:
    for name in attribution.methods_of(resource):
        if (resource, name) not in _replaced:
            original = _replaced[resource, name] = vars(resource)[name]
            setattr(resource, name, attribution.taking_keywords(original))


def observed(owner: type[Any]) -> _Method:
    """Return a `request` for a subclass of `owner` that is observed whether or not `owner` is patched, but once."""
    if owner is AsyncOpenAI:

        async def arequest(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await owner.request(self, *args, **kwargs)

        alone = _request(arequest, _own_recorder())

        async def aobserved(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await (arequest if seam.active else alone)(self, *args, **kwargs)

        return aobserved

    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        return owner.request(self, *args, **kwargs)

    alone = _request(request, _own_recorder())

    def observed_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (request if seam.active else alone)(self, *args, **kwargs)

    return observed_request


def answering(owner: type[Any]) -> _Method:
    """Return a `_process_response` for a subclass of `owner` that tells how often the SDK tried."""

    # Not a coroutine function, but of an async client it returns a coroutine all the same.
    def process_response(self: Any, *args: Any, **kwargs: Any) -> Any:
        answered(kwargs)
        return owner._process_response(self, *args, **kwargs)  # noqa: SLF001 - see the module

    return process_response


def _own_recorder() -> Recorder:
    """Return what records the calls of tracked clients while nothing is patched."""

    def record(span: ReadableSpan) -> None:
        current_exporter().record(span)

    return Recorder(trace.get_tracer(SCOPE, __version__), __version__, record)
