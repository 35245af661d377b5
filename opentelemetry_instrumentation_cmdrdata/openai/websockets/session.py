"""
One connection, from the moment it is made to its one end, and what is charged in it: its parts.

The connection is a call, whose span is the parent of those of its parts, and each part is a call: a response, a
transcript, a Live session. What others may see of the same part, in this process or elsewhere, is one call here and
one event everywhere: see `shared`.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan

from cmdrdata_exporter import faults
from cmdrdata_exporter.customer import current
from opentelemetry_instrumentation_cmdrdata import open_calls, semconv, shared
from opentelemetry_instrumentation_cmdrdata.call import Call, Recorder
from opentelemetry_instrumentation_cmdrdata.ended import CallAttribution
from opentelemetry_instrumentation_cmdrdata.openai.answers import read_error
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.providers import Server
from opentelemetry_instrumentation_cmdrdata.openai.websockets import charged
from opentelemetry_instrumentation_cmdrdata.openai.websockets.connections import Connection
from opentelemetry_instrumentation_cmdrdata.openai.websockets.requests import Request, Requests

_Key = tuple[str, str | None]
"""The endpoint of a part, and the provider's id of it."""

MOST_ENDED = 1024
"""Parts of a connection that are known to have ended: a frame that comes twice bills nothing again."""

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Early(NamedTuple):
    """A frame that was to be sent before there was a connection."""

    frame: object
    payer: Mapping[str, Any] | None


class Session:
    """
    A connection that is metered.

    Args:
        recorder: where its calls go.
        row: what is to be known of such connections.
        server: where it leads.
        attribution: who pays, where a request in another context says nothing else.
        model: that was asked for when it was made.
        session_id: of the session that it joins.
        own: attributes that all that is charged has, whoever pays.
    """

    __slots__ = (
        "__weakref__",
        "_attribution",
        "_context_payer",
        "_ended",
        "_lanes",
        "_own",
        "_parts",
        "_recorder",
        "_server",
        "account",
        "call",
        "frames",
        "id",
        "model",
        "requested_model",
        "requests",
        "row",
        "transcription_model",
    )

    def __init__(  # noqa: PLR0917 - all that is known when a connection is made
        self,
        recorder: Recorder,
        row: Connection,
        server: Server,
        attribution: CallAttribution,
        model: str | None = None,
        session_id: str | None = None,
        own: Mapping[str, Any] | None = None,
    ) -> None:
        self.row = row
        self.frames = row.frames
        self.requests = Requests()
        self.id = session_id
        """The provider's id of the session, where it has told one."""
        self.requested_model = model
        self.model: str | None = None
        """As the provider has told it."""
        self.transcription_model: str | None = None
        self.account: Mapping[str, Any] = {}
        """Who is charged at OpenAI, by the names of attributes; known once there is a connection."""
        self._recorder = recorder
        self._server = server
        self._attribution = attribution
        self._context_payer = context_payer()
        self._own = own or {}
        self._parts: dict[_Key, Call] = {}
        self._lanes: dict[str | None, Call] = {}
        self._ended: dict[_Key, None] = {}
        self.call = Call(
            recorder, row.endpoint, {"model": model}, server, attribution, streaming=False
        )
        self.call.begin()
        open_calls.keep(self.call)
        _sessions.add(self)

    # --- What is told

    def observe(self, kind: str, frame: object) -> None:
        """Observe a frame of a `kind` that tells something."""
        try:
            self._observe(kind, frame)
        except BaseException as error:
            if faults.is_interruption(error):
                self._observe(kind, frame)
            raise

    @faults.guarded
    def _observe(self, kind: str, frame: object) -> None:
        self.frames[kind](self, frame)

    @faults.guarded
    def requested(
        self, frame: object, lane: str | None = None, early: Early | None = None
    ) -> Request | None:
        """Note what the application is about to ask for, or asked for `early`, and in which customer's context."""
        payer = context_payer() if early is None else early.payer
        if payer == self._context_payer:
            payer = None
        return self.requests.add(frame, payer, lane)

    def began(self, session_id: str | None) -> None:
        """Note which session this is; one of another id, after the SDK has connected anew, is another one."""
        if self.id is not None and session_id is not None and session_id != self.id:
            self.cut()
        self.id = session_id or self.id

    # --- What is charged

    def part(
        self,
        endpoint: Endpoint,
        part_id: str | None,
        model: str | None = None,
        kind: str | None = None,
        *,
        of: object = None,
        lane: str | None = None,
    ) -> Call | None:
        """
        Return the call of a part, which begins if it is new; None where it has ended.

        Args:
            endpoint: what it is.
            part_id: the provider's id of it.
            model: that was asked for, where that is not the session's.
            kind: of the request that it answers.
            of: what is told of it, for finding that request.
            lane: in which it is, where there are lanes.
        """
        key = endpoint.name, part_id
        if (call := self._parts.get(key)) is not None or key in self._ended:
            return call
        identity = None
        if endpoint is not charged.RESPONSES and part_id is not None:
            identity = shared.Identity(self._server.address, endpoint.name, part_id)
            call = shared.parts.join(identity)
        if call is None:
            request = None if kind is None else self.requests.answered(kind, of, lane)
            asked = model or self.requested_model or self.model
            call = self._begin(endpoint, asked, request)
            call.reading.shared = identity
            if self.id is not None:
                call.reading.attributes[semconv.SESSION_ID] = self.id
            if identity is not None:
                shared.parts.begin(identity, call)
        self._parts[key] = call
        if endpoint is charged.RESPONSES:
            if (before := self._lanes.get(lane)) is not None:
                # A lane has one response at a time: the end of this one was lost with its connection.
                self.end(before, cut=True)
            self._lanes[lane] = call
        return call

    def _begin(
        self,
        endpoint: Endpoint,
        model: str | None,
        request: Request | None,
        *,
        refused: bool = False,
    ) -> Call:
        """Begin a call below the connection's."""
        attribution = self._attribution
        parameters: Mapping[str, Any] = {"model": model}
        began = None
        if request is not None:
            parameters, began = {"model": model, **request.parameters}, request.began
            if request.payer is not None:
                attribution = attribution._replace(attributes={**request.payer, **self._own})
        with self._as_parent():
            call = Call(
                self._recorder,
                endpoint,
                parameters,
                self._server,
                attribution,
                streaming=not refused,
                began=began,
            )
        call.begin()
        call.exchange.account = {**self.account}
        if not refused:
            call.exchange.is_answered = True
            if request is not None:
                call.arrived()
                call.last_chunk = None  # Not every part of it is noted.
            open_calls.keep(call)
        return call

    @contextmanager
    def _as_parent(self) -> Generator[None]:
        span = NonRecordingSpan(self.call.span_context)
        token = otel_context.attach(trace.set_span_in_context(span))
        try:
            yield
        finally:
            token.var.reset(token)

    def refuse(self, endpoint: Endpoint, request: Request, error: object) -> None:
        """Record a request that the provider has refused."""
        asked = self.requested_model or self.model
        call = self._begin(endpoint, asked, request, refused=True)
        read_error(call.reading, error)
        call.end()

    def in_lane(self, lane: str | None) -> Call | None:
        """Return the response that is under way in a lane."""
        return self._lanes.get(lane)

    # --- The end

    def end(self, call: Call, *, cut: bool = False, error: BaseException | None = None) -> None:
        """End a part, unless others still see it."""
        for key in [key for key, part in list(self._parts.items()) if part is call]:
            self._ended[key] = None
            self._parts.pop(key, None)
            if len(self._ended) > MOST_ENDED:
                del self._ended[next(iter(self._ended))]
        for lane in [lane for lane, one in list(self._lanes.items()) if one is call]:
            self._lanes.pop(lane, None)
        identity = call.reading.shared
        if identity is None or not shared.parts.leave(identity, call, is_whole=not cut):
            call.end(error, cut=cut)

    @faults.guarded
    def cut(self, error: BaseException | None = None) -> None:
        """End all parts: what is still to come of them will not come here."""
        for call in list(self._parts.values()):
            self.end(call, cut=True, error=error)

    def close(self, error: BaseException | None = None) -> None:
        """End the connection, with all that is in it."""
        self.cut(error)
        self.call.end(error, cut=True)


def context_payer() -> Mapping[str, Any] | None:
    """Return the attributes of the customer of this context, None where there is none."""
    customer = current()
    return None if customer is None else customer.attributes()


def close_all() -> None:
    """End all connections that are open: they are no longer observed."""
    for session in list(_sessions):
        session.close()
