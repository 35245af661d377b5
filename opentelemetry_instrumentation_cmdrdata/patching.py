"""
The seam: every HTTP call of the SDK passes `OpenAI.request` or `AsyncOpenAI.request`, and there it is observed.

Both are inherited methods, so a patch is an attribute set on the class, and undoing it deletes the attribute again.
https://github.com/openai/openai-python/blob/v2.54.0/src/openai/_base_client.py
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

from openai import (
    AsyncAzureOpenAI,
    AsyncOpenAI,
    AsyncStream,
    AzureOpenAI,
    OpenAI,
    Stream,
)
from openai._resource import AsyncAPIResource, SyncAPIResource
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from pydantic import BaseModel

from cmdrdata_exporter import current_exporter, faults
from cmdrdata_exporter.identity import seam
from opentelemetry_instrumentation_cmdrdata import attribution
from opentelemetry_instrumentation_cmdrdata.calls import SCOPE, Call, Recorder, Said, running
from opentelemetry_instrumentation_cmdrdata.open_calls import dropped, start_reaper
from opentelemetry_instrumentation_cmdrdata.providers import (
    Server,
    provider_of,
    tells_stream_usage,
)
from opentelemetry_instrumentation_cmdrdata.streams import (
    attach,
    is_event_stream,
    observed_stream_cls,
    watch,
)
from opentelemetry_instrumentation_cmdrdata.version import __version__

_Method = Callable[..., Any]

_RAW_RESPONSE = "X-Stainless-Raw-Response"
"""The header by which the SDK marks a request for a raw response: `true`, or `stream` for one with an unread body."""


def _request(original: _Method, recorder: Recorder) -> _Method:
    """Return `request` that observes the call it makes."""
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def arequest(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            call = _start(recorder, self, options, kwargs)
            if call is None:
                return await original(self, cast_to, options, *args, **kwargs)
            options = _asking(recorder, self, options, call) or options
            start_reaper()
            tokens = call.attach()
            try:
                result = await original(self, cast_to, options, *args, **kwargs)
            except GeneratorExit as error:
                # Thrown away unfinished, perhaps by the garbage collector, in which nothing may be done.
                call.detach(tokens)
                dropped(call, error.with_traceback(None))
                raise
            except BaseException as error:
                call.detach(tokens)
                _fail(call, error)
                raise
            call.detach(tokens)
            if not _observe(result, call):
                call.end()
            return result

        return arequest

    @functools.wraps(original)
    def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        call = _start(recorder, self, options, kwargs)
        if call is None:
            return original(self, cast_to, options, *args, **kwargs)
        options = _asking(recorder, self, options, call) or options
        tokens = call.attach()
        try:
            result = original(self, cast_to, options, *args, **kwargs)
        except BaseException as error:
            call.detach(tokens)
            _fail(call, error)
            raise
        call.detach(tokens)
        if not _observe(result, call):
            call.end()
        return result

    return request


def _process_response(original: _Method, _: Recorder) -> _Method:
    """Return `_process_response` that tells how often the SDK tried: a success itself does not."""
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def aprocess_response(self: Any, *args: Any, **kwargs: Any) -> Any:
            _answered(kwargs)
            return await original(self, *args, **kwargs)

        return aprocess_response

    @functools.wraps(original)
    def process_response(self: Any, *args: Any, **kwargs: Any) -> Any:
        _answered(kwargs)
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
        _answered(kwargs)
        return owner._process_response(self, *args, **kwargs)  # noqa: SLF001 - see the module

    return process_response


def _own_recorder() -> Recorder:
    """Return what records the calls of tracked clients while nothing is patched."""

    def record(span: ReadableSpan) -> None:
        current_exporter().record(span)

    return Recorder(trace.get_tracer(SCOPE, __version__), __version__, record)


@faults.guarded
def _start(recorder: Recorder, client: Any, options: Any, kwargs: dict[str, Any]) -> Call | None:
    """Start the call of a request, None where it is not metered; have the SDK's `stream_cls` observed where need be."""
    streaming = kwargs.get("stream") is True
    path = _path(client, options.url)
    server = functools.partial(_server, client)
    call = recorder.start(options, path, server, _said(options, client), streaming=streaming)
    if (
        call is not None
        and streaming
        and _raw_response(options) is not None
        and kwargs.get("stream_cls") is not None
    ):
        kwargs["stream_cls"] = (
            observed_stream_cls(kwargs["stream_cls"], call) or kwargs["stream_cls"]
        )
    return call


@faults.guarded
def _asking(recorder: Recorder, client: Any, options: Any, call: Call) -> Any:
    """
    Return the options of a stream that is to tell its usage, None where that is not asked for.

    What the application asked for, even not to be told, stays as it is; so does a stream whose bytes it reads itself.
    """
    if (
        not (call.streaming and call.endpoint.tells_usage_if_asked)
        or recorder.stream_usage == "never"
        or _raw_response(options) == "stream"
    ):
        return None
    body, extra = options.json_data, options.extra_json
    if not isinstance(body, dict) or (isinstance(extra, dict) and "stream_options" in extra):
        return None
    parameters = cast("dict[str, Any]", body)
    asked: Any = parameters.get("stream_options") or {}
    if not isinstance(asked, dict) or "include_usage" in asked:
        return None
    if recorder.stream_usage == "auto" and not _tells_stream_usage(client):
        return None
    # A copy: options and body may be the application's own.
    options = copy.copy(options)
    options.json_data = {**parameters, "stream_options": {**asked, "include_usage": True}}
    call.asked_for_usage = True
    return options


def _tells_stream_usage(client: Any) -> bool:
    url = client.base_url
    # Where the Azure clients have it too; openai 1.0.0 has no other name for it.
    api_version = client._custom_query.get("api-version")  # noqa: SLF001
    return tells_stream_usage(url.host, url.path, api_version)


@faults.guarded
def _observe(result: Any, call: Call) -> bool:
    """Read what the SDK returned, or see to it that it is read when it arrives; True if the call ends only then."""
    answer, call.exchange.response = call.exchange.response, None
    if type(result) in (Stream, AsyncStream):
        attach(result, call)
        return True
    if isinstance(result, (BaseModel, dict)):
        call.body(cast("object", result))
        return False
    # A raw response, sound or film, a stream class of the application's own, or whatever else an answer was made to.
    response = _http_response(result) or answer
    if response is None:
        call.body(result)
        return False
    if response.is_closed:
        call.content(response.content, events=is_event_stream(response))
        return False
    return watch(response, call) is True


def _fail(call: Call, error: BaseException) -> None:
    """End a call with an error; what the provider reported before it counts."""
    _read_answer(call)
    call.end(error)


@faults.guarded
def _read_answer(call: Call) -> None:
    answer, call.exchange.response = call.exchange.response, None
    if answer is not None and answer.is_closed and answer.status_code < 400:
        call.content(answer.content, events=is_event_stream(answer))


def _http_response(result: Any) -> Any:
    """Return the HTTP response that a result is, or has: of a raw response, or of sound and film."""
    for response in (
        getattr(result, "http_response", None),
        getattr(result, "response", None),
        result,
    ):
        if hasattr(response, "is_closed") and hasattr(response, "iter_bytes"):
            return response
    return None


def _answered(exchange: dict[str, Any]) -> None:
    running_exchange = running.get()
    if running_exchange is not None:
        running_exchange.answered(exchange.get("response"), exchange.get("retries_taken"))


def _raw_response(options: Any) -> str | None:
    headers = options.headers
    return headers.get(_RAW_RESPONSE) if isinstance(headers, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def _said(options: Any, client: Any) -> Said:
    """Return what is said of who pays for a call."""
    of_call, of_client = attribution.of_call(options), attribution.of_client(client)
    said = [one for one in (of_call, of_client) if one is not None]
    return Said(
        _attributes(of_call, of_client) or {},
        all(one.track_usage for one in said),
        next((one.exporter for one in said if one.exporter is not None), None),
    )


_attributes = faults.guarded(attribution.attributes)


def _path(client: Any, url: str) -> str:
    """Return the path of a request; the SDK takes it also without its slash, or with all that is before it."""
    if url.startswith("/"):
        return url
    return "/" + url.removeprefix(str(client.base_url)).lstrip("/")


_servers: WeakKeyDictionary[Any, tuple[Any, Server]] = WeakKeyDictionary()
"""Where each client's requests go, with the base URL that says so: it can be changed."""


def _server(client: Any) -> Server:
    """Return where a client's requests go."""
    url = client.base_url
    known = _servers.get(client)
    if known is None or known[0] is not url:
        known = _servers[client] = url, _server_at(client, url)
    return known[1]


def _server_at(client: Any, url: Any) -> Server:
    host = url.host
    azure = isinstance(client, (AzureOpenAI, AsyncAzureOpenAI))
    return Server(
        provider="azure.ai.openai" if azure else provider_of(host),
        address=host,
        port=url.port or (80 if url.scheme == "http" else 443),
    )
