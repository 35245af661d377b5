"""
One connection, from the moment it is made to its one end, and what is charged in it: its parts.

The connection is a call, whose span is the parent of those of its parts, and each part is a call: a response, a
transcript, a Live session. What others may see of the same part, in this process or elsewhere, is one call here and
one event everywhere: see `shared`.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Mapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from cmdrdata_exporter import faults
from opentelemetry_instrumentation_cmdrdata import open_calls, semconv, shared
from opentelemetry_instrumentation_cmdrdata.call import Call
from opentelemetry_instrumentation_cmdrdata.ended import CallAttribution
from opentelemetry_instrumentation_cmdrdata.openai.answers import read_error
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.providers import Server
from opentelemetry_instrumentation_cmdrdata.openai.usage import get
from opentelemetry_instrumentation_cmdrdata.openai.websockets import charged
from opentelemetry_instrumentation_cmdrdata.openai.websockets.connections import Connection
from opentelemetry_instrumentation_cmdrdata.openai.websockets.requests import (
    Context,
    Early,
    Request,
    Requests,
    now,
)
from opentelemetry_instrumentation_cmdrdata.recorder import Recorder

_Key = tuple[str, str | None]
"""The endpoint of a part, and the provider's id of it."""

MOST_ENDED = 1024
"""Parts of a connection that are known to have ended: a frame that comes twice bills nothing again."""
MOST_OPEN = 1024
"""Parts of a connection that may be open at a time: of more the ends are not told, and the oldest one is cut."""

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


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
        "_context",
        "_ended",
        "_ended_now",
        "_lanes",
        "_own",
        "_parts",
        "_recorder",
        "_server",
        "_starters",
        "_starting",
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
        self._context = Context.of_now()
        self._own = own or {}
        self._parts: dict[_Key, Call] = {}
        self._lanes: dict[str | None, Call] = {}
        self._ended: dict[_Key, None] = {}
        self._ended_now: set[str] = set()
        """The endpoints of parts without an id that the frame which is observed has ended."""
        self._starting: tuple[_Key, Request | None] | None = None
        """The part that the frame which is observed begins, and what it was asked for by."""
        self._starters: dict[str, Request] = {}
        """What the responses of late were asked for by, where somebody else pays than for the connection."""
        self.call = Call(
            recorder, row.endpoint, {"model": model}, server, attribution, streaming=False
        )
        self.call.begin()
        open_calls.keep(self.call)
        _sessions.add(self)

    # --- What is told

    @faults.guarded
    def observe(self, kind: str, frame: object, *, again: bool = False) -> None:
        """Observe a frame of a `kind` that tells something; `again` where that was interrupted."""
        if not again:
            self._ended_now.clear()
            self._starting = None
        self.frames[kind](self, frame)

    @faults.guarded
    def requested(
        self, frame: object, lane: str | None = None, early: Early | None = None
    ) -> Request | None:
        """Note what the application is about to ask for, or asked for `early`, and in which customer's context."""
        return self.requests.add(
            frame, self._payer(Context.of_now() if early is None else early.context), lane
        )

    def _payer(self, context: Context) -> Mapping[str, Any] | None:
        """Return who pays for what is asked for in a context, None where that is who pays for the connection."""
        if context.payer is not None and context.payer != self._context.payer:
            return {**context.payer, **context.metadata, **self._own}
        if context.metadata != self._context.metadata:
            return {**self._attribution.attributes, **context.metadata, **self._own}
        return None

    @faults.guarded
    def goes_on(self, lost: int) -> None:
        """
        Note that the SDK has connected anew.

        Args:
            lost: when the connection was lost, by the performance counter. What was sent before is answered no more,
                unless the session is the same one.
        """
        if self.row.joins is None:
            self.requests.forget(lost)

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
        call = self._parts.get(key)
        # One that has not begun is of an attempt that was interrupted.
        if call.has_begun if call is not None else self._has_ended(key):
            if call is not None and endpoint is charged.RESPONSES:
                self._take_lane(lane, call)  # Where that was interrupted.
            return call

        def begin() -> Call:
            if self._starting is None or self._starting[0] != key:
                asked = None if kind is None else self._request(kind, of, part_id, lane)
                self._starting = key, asked
            request = self._starting[1]
            call = self._made(endpoint, model or self.requested_model or self.model, request)
            call.reading.shared = identity
            if self.id is not None:
                call.reading.attributes[semconv.SESSION_ID] = self.id
            call.exchange.is_answered = True
            if request is not None:
                call.arrived()
                call.last_chunk = None  # Not every part of it is noted.
                self.requests.discard(request)
            open_calls.keep(call)
            # Only what is known here may begin: what begins has an event, also where nobody knows it.
            self._parts[key] = call
            call.begin()
            return call

        identity = None
        if endpoint is not charged.RESPONSES and part_id is not None:
            identity = shared.Identity(self._server.address, endpoint.name, part_id)
            call = self._parts[key] = shared.parts.join(identity, begin)
        else:
            call = begin()
        if len(self._parts) > MOST_OPEN:
            self.end(next(iter(self._parts.values())), cut=True)
        if endpoint is charged.RESPONSES:
            self._take_lane(lane, call)
        return call

    def _take_lane(self, lane: str | None, call: Call) -> None:
        """Note which response is under way in a lane, which has one at a time: the end of another one was lost."""
        before = self._lanes.get(lane)
        if before is not call:
            if before is not None:
                self.end(before, cut=True)
            self._lanes[lane] = call

    def _has_ended(self, key: _Key) -> bool:
        """Say whether a part has ended; of those without an id only whether this very frame has ended it."""
        endpoint, part_id = key
        return key in self._ended if part_id is not None else endpoint in self._ended_now

    def _request(
        self, kind: str, response: object, part_id: str | None, lane: str | None
    ) -> Request | None:
        """Return what a response which begins was asked for by: of one that goes on by itself, what began it."""
        request = self.requests.answered(kind, response, lane)
        if request is None:
            before = self._starters.get(str(get(response, "previous_response_id")))
            # When this one began nobody has said.
            request = None if before is None else before._replace(began=now())
        if request is not None and request.payer is not None and part_id is not None:
            self._starters[part_id] = request
            if len(self._starters) > MOST_ENDED:
                del self._starters[next(iter(self._starters))]
        return request

    def _made(
        self,
        endpoint: Endpoint,
        model: str | None,
        request: Request | None,
        *,
        refused: bool = False,
    ) -> Call:
        """Return a call below the connection's, which has not begun yet."""
        attribution = self._attribution
        parameters: Mapping[str, Any] = {"model": model}
        began = None
        if request is not None:
            parameters, began = {"model": model, **request.parameters}, request.began
            if request.payer is not None:
                attribution = attribution._replace(attributes=request.payer)
        parent = trace.set_span_in_context(NonRecordingSpan(_context_of(self.call)))

        def made() -> Call:
            otel_context.attach(parent)
            return Call(
                self._recorder,
                endpoint,
                parameters,
                self._server,
                attribution,
                streaming=not refused,
                began=began,
            )

        # In a context of its own nothing is to be undone, wherever a signal handler interrupts this.
        call = contextvars.copy_context().run(made)
        call.exchange.account = {**self.account}
        return call

    def refuse(self, request: Request, error: object) -> None:
        """Record a request that the provider has refused."""
        endpoint = self.row.asked.get(request.kind)
        if endpoint is None:
            return  # Of another API.
        asked = self.requested_model or self.model
        call = self._made(endpoint, asked, request, refused=True)
        read_error(call.reading, error)
        call.begin()
        call.end()

    def in_lane(self, lane: str | None) -> Call | None:
        """Return the response that is under way in a lane."""
        return self._lanes.get(lane)

    # --- The end

    def end(self, call: Call, *, cut: bool = False, error: BaseException | None = None) -> None:
        """End a part, unless others still see it."""
        # First, since what is forgotten here does not end where this is interrupted, and begins anew.
        identity = call.reading.shared
        if identity is None or not shared.parts.leave(identity, call, is_whole=not cut):
            call.end(error, cut=cut)
        for key in [key for key, part in list(self._parts.items()) if part is call]:
            if key[1] is None:
                self._ended_now.add(key[0])
            else:
                self._ended[key] = None
            self._parts.pop(key, None)
            if len(self._ended) > MOST_ENDED:
                del self._ended[next(iter(self._ended))]
        for lane in [lane for lane, one in list(self._lanes.items()) if one is call]:
            self._lanes.pop(lane, None)

    @faults.guarded
    def cut(self, error: BaseException | None = None) -> None:
        """End all parts: what is still to come of them will not come here."""
        for call in list(self._parts.values()):
            self.end(call, cut=True, error=error)

    def close(self, error: BaseException | None = None) -> None:
        """End the connection, with all that is in it."""
        self.cut(error)
        self.call.end(error, cut=True)


def close_all() -> None:
    """End all connections that are open: they are no longer observed."""
    for session in list(_sessions):
        session.close()


def _context_of(call: Call) -> SpanContext:
    """Return what the spans of calls inside this one have as their parent, also where it has no span."""
    if call.span is not None:
        return call.span.get_span_context()
    return SpanContext(call.trace_id, call.span_id, is_remote=False, trace_flags=TraceFlags(1))
