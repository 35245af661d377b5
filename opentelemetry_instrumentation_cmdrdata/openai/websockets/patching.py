"""
What is replaced of the SDK's connections: `connect` of the resources, and of the classes that it leads to.

The classes are met when a connection is made: that of the manager which `connect` returns, and that of the connection
which the manager makes. Every frame becomes an event in one method of theirs, `parse_event`, whoever receives it.
https://github.com/openai/openai-python/blob/v2.54.0/src/openai/resources/realtime/realtime.py
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from cmdrdata_exporter import faults
from cmdrdata_exporter.customer import metadata_attributes
from opentelemetry_instrumentation_cmdrdata.openai import keywords, observation
from opentelemetry_instrumentation_cmdrdata.openai.account import account
from opentelemetry_instrumentation_cmdrdata.openai.providers import Server, provider_of
from opentelemetry_instrumentation_cmdrdata.openai.replacing import (
    Around,
    Method,
    Replaced,
    bound,
    observing,
    replace,
    restore,
)
from opentelemetry_instrumentation_cmdrdata.openai.usage import get, string
from opentelemetry_instrumentation_cmdrdata.openai.websockets.connections import (
    BY_NAME,
    Connection,
)
from opentelemetry_instrumentation_cmdrdata.openai.websockets.requests import Context, Early
from opentelemetry_instrumentation_cmdrdata.openai.websockets.session import Session, close_all
from opentelemetry_instrumentation_cmdrdata.recorder import Recorder

_SESSION = "_cmdrdata_session"
"""Where a connection keeps its session."""
_OPENING = "_cmdrdata_opening"
"""Where a manager keeps what is known of the connection that it is to make."""


class _Opening(NamedTuple):
    """What `connect` was called with."""

    recorder: Recorder
    row: Connection
    client: Any
    said: keywords.Attribution | None
    arguments: Mapping[str, Any]
    early: list[Early]
    """What is to be sent once there is a connection."""


def row_of(resource: type[Any]) -> Connection | None:
    """Return the row of a resource of the SDK, None where it makes no connection that is metered."""
    return BY_NAME.get(keywords.path(resource)) if "connect" in vars(resource) else None


def connecting(
    original: Any, row: Connection, recorder_of: Callable[[Any], Recorder | None]
) -> Method:
    """Return the `connect` of a resource, of which the connections are metered, and which takes our keywords."""

    @functools.wraps(original)
    def connect(self: Any, *args: Any, **kwargs: Any) -> Any:
        client = self._client
        recorder = recorder_of(client)
        if recorder is None:
            return bound(original, self)(*args, **kwargs)
        said, kwargs = keywords.taken(kwargs)
        manager = bound(original, self)(*args, **kwargs)
        _prepare(manager, original, (self, *args), kwargs, recorder, row, client, said)
        return manager

    return connect


@faults.guarded
def _prepare(  # noqa: PLR0917 - all that is known of the connection
    manager: Any,
    connect: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    recorder: Recorder,
    row: Connection,
    client: Any,
    said: keywords.Attribution | None,
) -> None:
    """See to it that the connection which a manager makes is metered."""
    arguments = inspect.signature(connect).bind(*args, **kwargs).arguments
    _replace_all(manager, _MANAGER)
    manager.__dict__[_OPENING] = _Opening(recorder, row, client, said, arguments, [])
    if row.name.endswith("responses"):
        _replace_lanes()


# --- What is replaced -------------------------------------------------------------------------

_replaced: dict[tuple[type[Any], str], Replaced] = {}


def undo() -> None:
    """Put back all methods of managers and connections. What is open ends: its frames are seen no longer."""
    while _replaced:
        restore(_replaced.popitem()[1])
    close_all()


def _replace_all(thing: Any, methods: Mapping[str, Callable[..., Method]]) -> None:
    """Replace methods of the class of a thing, unless it is no class of the SDK."""
    kind = cast("type[Any]", type(thing))
    if kind.__module__.partition(".")[0] == "openai":
        _replace_methods(kind, methods)


def _replace_methods(kind: type[Any], methods: Mapping[str, Callable[..., Method]]) -> None:
    for name, wrapping in methods.items():
        found, known = getattr(kind, name, None), _replaced.get((kind, name))
        # Somebody may have put another method in the place of ours.
        if found is None or (known is not None and vars(kind).get(name) is known.replacement):
            continue
        asynchronous = inspect.iscoroutinefunction(found)
        make = functools.partial(wrapping, asynchronous=asynchronous)
        _replaced[kind, name] = replace(kind, name, found, make)


def _replace_lanes() -> None:
    """
    Observe what the lanes of a session of the Responses API send: they go past their connection.

    https://github.com/openai/openai-python/tree/main/src/openai/lib/responses_websocket
    """
    try:
        lanes = importlib.import_module("openai.lib.responses_websocket._session")
    except ImportError:
        return  # Of an older version.
    for name in ("ResponsesWebSocketLane", "AsyncResponsesWebSocketLane"):
        _replace_methods(getattr(lanes, name), {"send": observing(_send_in_lane)})


# --- A connection is made ---------------------------------------------------------------------


def _enter(manager: Any) -> Around:
    session = _open(manager)
    if session is None:
        return Around()

    def returned(connection: Any) -> None:
        _attach(connection, session)

    def failed(error: BaseException) -> None:
        # One that is thrown away unfinished, perhaps by the garbage collector: its call is then dropped, too.
        if not isinstance(error, GeneratorExit):
            session.close(error)

    return Around(returned, failed)


@faults.guarded
def _open(manager: Any) -> Session | None:
    """Return the session of the connection that a manager is about to make."""
    opening: _Opening | None = manager.__dict__.get(_OPENING)
    if opening is None:
        return None
    recorder, row, client, said, arguments, early = opening
    model = string(arguments.get("model")) or string(get(arguments.get("extra_query"), "model"))
    session = Session(
        recorder,
        row,
        _server(client),
        observation.attribution(said, keywords.of_client(client)),
        model,
        string(arguments.get(row.joins)) if row.joins is not None else None,
        None if said is None else metadata_attributes(said.usage_metadata),
    )
    for one in early:
        session.requested(one.frame, early=one)
    early.clear()
    return session


@faults.guarded
def _attach(connection: Any, session: Session) -> None:
    _replace_all(connection, _CONNECTION)
    connection.__dict__[_SESSION] = session
    if session.call.exchange.reads_account:
        socket = connection._connection  # noqa: SLF001 - the SDK shows it nowhere else
        session.account = account(
            _headers(getattr(socket, "request", None)), _headers(getattr(socket, "response", None))
        )


def _headers(message: Any) -> Any:
    """Return the headers of one side's part of a handshake, None where it is not known."""
    return getattr(message, "headers", None)


def _server(client: Any) -> Server:
    """Return where a client's connections go."""
    url = getattr(client, "websocket_base_url", None)
    server = observation.server(client)
    if url is None:
        return server
    parts = urlsplit(str(url))
    port = parts.port or (80 if parts.scheme in ("ws", "http") else 443)
    address = parts.hostname or server.address
    azure = server.provider == "azure.ai.openai"
    return Server(provider_of(address, azure=azure), address, port)


# --- What happens on it -----------------------------------------------------------------------


def parsing(original: Method, **_: bool) -> Method:
    """Return `parse_event` that shows what it returns, and costs next to nothing where that tells nothing new."""

    def parse_event(self: Any, data: Any) -> Any:
        try:
            frame = original(self, data)
            _show(self, frame)
        except BaseException as error:
            if faults.is_interruption(error):
                # The frame has left the connection, and comes no second time.
                _show(self, original(self, data), again=True)
            raise
        return frame

    return parse_event


def _show(connection: Any, frame: Any, *, again: bool = False) -> None:
    """Show a frame to the session of a connection."""
    session: Session | None = connection.__dict__.get(_SESSION)
    if session is not None:
        try:
            kind: object = frame.type
        except AttributeError:
            kind = get(frame, "type")
        if type(kind) is str and kind in session.frames:
            session.observe(kind, frame, again=again)


def _send(connection: Any, event: object, lane: str | None = None) -> Around:
    """Note what is about to be sent; should that fail, it is taken back."""
    session: Session | None = getattr(connection, _SESSION, None)
    request = None if session is None else session.requested(event, lane)

    def failed(_: BaseException) -> None:
        if session is not None and request is not None:
            session.requests.discard(request)

    return Around(failed=failed)


def _send_in_lane(lane: Any, event: object) -> Around:
    try:
        connection, name = lane._session.connection, lane._state.stream_id  # noqa: SLF001 - see _replace_lanes
    except AttributeError as error:
        faults.absorb(error, "the lane of a request")
        connection = name = None
    return _send(connection, event, name)


def _sending_early(original: Method, **_: bool) -> Method:
    """Return `send` of a manager, which keeps what it is given until there is a connection."""

    def send(self: Any, event: Any) -> Any:
        sent = original(self, event)
        _note_early(self, event)
        return sent

    return send


@faults.guarded
def _note_early(manager: Any, event: object) -> None:
    opening: _Opening | None = manager.__dict__.get(_OPENING)
    if opening is not None:
        opening.early.append(Early(event, Context.of_now()))


def _close(connection: Any, *_: Any, **__: Any) -> Around:
    session: Session | None = connection.__dict__.get(_SESSION)
    if session is None:
        return Around()
    lost = _loss(sys.exc_info()[1])

    def returned(_: object) -> None:
        session.close(lost)

    def failed(error: BaseException) -> None:
        session.close(None if isinstance(error, GeneratorExit) else lost)

    return Around(returned, failed)


def _reconnect(connection: Any, exc: Exception) -> Around:
    """Observe what the SDK calls when a connection is lost, and that says whether there is another one now."""
    session: Session | None = connection.__dict__.get(_SESSION)
    if session is None:
        return Around()
    lost = time.perf_counter_ns()

    def returned(goes_on: object) -> None:
        if goes_on:
            session.goes_on(lost)
        else:
            session.close(_loss(exc))

    return Around(returned)


def _loss(error: BaseException | None) -> BaseException | None:
    """Return the error that says how a connection was lost, None where it was closed in order."""
    if error is None or type(error).__name__ != "ConnectionClosedError":
        return None
    code = getattr(getattr(error, "rcvd", None), "code", None)
    return None if code in (1000, 1001) else error


_MANAGER: Mapping[str, Any] = {
    "__enter__": observing(_enter),
    "__aenter__": observing(_enter),
    "enter": observing(_enter),
    "send": _sending_early,
}
_CONNECTION: Mapping[str, Any] = {
    "parse_event": parsing,
    "send": observing(_send),
    "close": observing(_close),
    "_reconnect": observing(_reconnect),
}
