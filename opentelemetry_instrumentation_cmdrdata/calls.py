"""
One call to the provider, from its start to its one end.

`Recorder.start` makes a `Call`; the call is told what happens to it (`chunk`, `body`, `end`) and ends exactly once,
whichever exit the application takes. At its end the same facts go two ways: to the exporter, which bills them, and to
the span on the application's TracerProvider, which may be sampled, limited or missing.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from cmdrdata_exporter import customer, faults
from opentelemetry_instrumentation_cmdrdata import failures, open_calls, semconv
from opentelemetry_instrumentation_cmdrdata.endpoints import Endpoint, find
from opentelemetry_instrumentation_cmdrdata.providers import Server
from opentelemetry_instrumentation_cmdrdata.usage import (
    BREAKDOWNS,
    Attributes,
    Reading,
    request_attributes,
)

SCOPE = "opentelemetry_instrumentation_cmdrdata"
"""The instrumentation scope of our spans."""

_RESOURCE = Resource({})
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status()
_Tokens = tuple[Token["Exchange | None"], "Token[Context] | None"]


class Exchange:
    """
    What the SDK tells of the HTTP exchange behind a call.

    Apart from the call, because a context is copied into whatever is started in it, a connection that is kept alive
    for instance: what lies in a context lives on, and a call must go when its stream goes.
    """

    __slots__ = ("request_id", "retry_count")

    def __init__(self) -> None:
        self.request_id: str | None = None
        self.retry_count = 0

    @faults.guarded
    def answered(self, response: Any, retries_taken: Any) -> None:
        """Note the head of an answer, and how many attempts failed before it (None where the SDK does not tell)."""
        request_id = response.headers.get("x-request-id")
        self.request_id = request_id if isinstance(request_id, str) else None
        if isinstance(retries_taken, int):
            self.retry_count = retries_taken


running: ContextVar[Exchange | None] = ContextVar("cmdrdata_exchange", default=None)
"""The exchange of the request that is under way in this context."""


class Recorder:
    """
    Makes calls and says where they go.

    Args:
        tracer: makes the public spans.
        version: of our instrumentation scope.
        record: bills a finished call; looked up at its end, when the application has had time to build an exporter.
    """

    def __init__(
        self, tracer: trace.Tracer, version: str, record: Callable[[ReadableSpan], None]
    ) -> None:
        self.tracer = tracer
        self.scope = InstrumentationScope(SCOPE, version)
        self.record = record

    @faults.guarded
    def start(self, options: Any, server: Callable[[], Server], *, streaming: bool) -> Call | None:
        """Start the call of a request, None where it is not metered."""
        endpoint = find(options.method, options.url)
        if endpoint is None:
            return None
        return Call(self, endpoint, _parameters(options), server(), streaming=streaming)


class Call:
    """One call. Its methods are safe to call from any thread; only the first `end` counts."""

    __slots__ = (
        "__weakref__",
        "_attributes",
        "_begin",
        "_context",
        "_first_chunk",
        "_last_chunk",
        "_once",
        "_parent",
        "_pid",
        "_reading",
        "_recorder",
        "_span",
        "_start_time",
        "attached",
        "endpoint",
        "exchange",
        "pulling",
        "streaming",
    )

    def __init__(
        self,
        recorder: Recorder,
        endpoint: Endpoint,
        parameters: Mapping[str, Any],
        server: Server,
        *,
        streaming: bool,
    ) -> None:
        self._recorder = recorder
        self._start_time = time.time_ns()
        self._begin = time.perf_counter_ns()
        self._first_chunk: int | None = None
        self._last_chunk: int | None = None
        self._reading = Reading()
        self.endpoint = endpoint
        self.streaming = streaming
        self.exchange = Exchange()
        self.attached = False
        """Whether the SDK's parsed chunks are observed, so that the bytes they come from need not be."""
        self.pulling = False
        """Whether the next chunk is being waited for: a close in that time is the SDK's own, at the end."""
        attributes: Attributes = {
            semconv.OPERATION: endpoint.operation,
            semconv.PROVIDER: server.provider,
            semconv.SERVER_ADDRESS: server.address,
            semconv.SERVER_PORT: server.port,
        }
        if endpoint.api_type is not None:
            attributes[semconv.OPENAI_API_TYPE] = endpoint.api_type
        if streaming:
            attributes[semconv.STREAM] = True
        attributes.update(_request_attributes(parameters) or {})
        # Who pays is settled now; where a stream of this call is read says nothing.
        payer = customer.current()
        if payer is not None and payer.is_usable:
            attributes.update(payer.attributes())
        self._attributes = attributes
        self._pid = os.getpid()
        self._parent = trace.get_current_span().get_span_context()
        self._span = self._start_span()
        self._context = self._ids()
        # Last: from here on there is a call that must end.
        self._once = threading.Lock()

    @property
    def name(self) -> str:
        """The span's name."""
        model = self._attributes.get(semconv.REQUEST_MODEL)
        return self.endpoint.operation if model is None else f"{self.endpoint.operation} {model}"

    @faults.guarded
    def _start_span(self) -> trace.Span | None:
        """Start the public span; None where there is to be none, or no SDK makes one."""
        if not is_instrumentation_enabled():
            return None
        span = self._recorder.tracer.start_span(
            self.name,
            kind=SpanKind.CLIENT,
            attributes=self._attributes,
            start_time=self._start_time,
        )
        context = span.get_span_context()
        # Without an SDK a tracer returns the parent again, or the invalid span.
        return span if context.is_valid and context.span_id != self._parent.span_id else None

    def _ids(self) -> SpanContext:
        """Return the ids of the public span, or ids of our own; in any case marked as sampled."""
        if self._span is not None:
            public = self._span.get_span_context()
            return SpanContext(public.trace_id, public.span_id, False, _SAMPLED)
        # Not from `random`, which programs seed.
        trace_id = self._parent.trace_id or int.from_bytes(os.urandom(16), "big")
        return SpanContext(trace_id, int.from_bytes(os.urandom(8), "big"), False, _SAMPLED)

    def attach(self) -> _Tokens:
        """Make this the call of the context, and its span the parent of spans inside. Undone by `detach`."""
        return running.set(self.exchange), self._attach_span()

    @faults.guarded
    def _attach_span(self) -> Token[Context] | None:
        return (
            None
            if self._span is None
            else otel_context.attach(trace.set_span_in_context(self._span))
        )

    @faults.guarded
    def detach(self, tokens: _Tokens) -> None:
        """Leave the context as it was before `attach`."""
        exchange, span = tokens
        running.reset(exchange)
        if span is not None:
            otel_context.detach(span)

    def arrived(self) -> None:
        """Note that a part of the answer arrived."""
        self._last_chunk = now = time.perf_counter_ns()
        if self._first_chunk is None:
            self._first_chunk = now

    def chunk(self, chunk: object) -> None:
        """Observe a chunk of a stream that just arrived. It is read, and nothing of it is kept."""
        self.arrived()
        self.read_chunk(chunk)

    @faults.guarded
    def read_chunk(self, chunk: object) -> None:
        """Read a chunk of a stream."""
        if self.endpoint.read_chunk is not None:
            self.endpoint.read_chunk(self._reading, chunk)

    @faults.guarded
    def body(self, body: object) -> None:
        """Observe a whole answer."""
        self.endpoint.read(self._reading, body)

    def content(self, content: bytes) -> None:
        """Observe a whole answer that nobody has parsed."""
        try:
            parsed: object = json.loads(content)
        except ValueError:
            return  # Not what the endpoint answers, so it reports no usage.
        self.body(parsed)

    def end(self, error: BaseException | None = None, *, cut: bool = False) -> None:
        """
        End the call, the first time.

        Args:
            error: what the application gets instead of an answer, or in the middle of one.
            cut: whether the stream was left before its end.
        """
        # A forked child has copies of its parent's calls; who started a call ends it.
        if self._once.acquire(blocking=False) and self._pid == os.getpid():
            self._end(error, cut)

    @faults.guarded
    def _end(self, error: BaseException | None, cut: bool) -> None:
        now = time.perf_counter_ns()
        # What ends a stream in order, or leaves it, comes when the application gets to it, at any time after the
        # last chunk; the provider's work ended with that chunk.
        last = self._last_chunk if error is None and self._last_chunk is not None else now
        end_time = self._start_time + last - self._begin
        reading = self._reading
        attributes = reading.attributes
        if self._first_chunk is not None and self.streaming:
            attributes[semconv.TIME_TO_FIRST_CHUNK] = (self._first_chunk - self._begin) / 1e9
        status = _UNSET
        code = None
        if error is not None:
            attributes[semconv.ERROR_TYPE] = failures.qualified_name(error)
            status = Status(StatusCode.ERROR, _message(error))
            code = failures.code(error)
            self._read_failure(error)
        elif reading.error is not None:
            code, message = reading.error
            attributes[semconv.ERROR_TYPE] = code
            status = Status(StatusCode.ERROR, failures.scrubbed(message))
        if self.endpoint.has_choices:
            failed = cut or status is not _UNSET
            reasons = reading.finish_reasons or {0: None}
            if failed or any(reasons.values()):
                attributes[semconv.FINISH_REASONS] = tuple(
                    reasons[index] or "error" for index in sorted(reasons)
                )
        self._bill(
            attributes,
            _usage_status(reading, error, cut and self.streaming),
            code,
            status,
            end_time,
        )
        self._end_span(attributes, status, end_time)
        open_calls.forget(self)

    @faults.guarded
    def _read_failure(self, error: BaseException) -> None:
        """Note what a failed exchange says of itself."""
        request = getattr(error, "request", None)
        retries = request.headers.get("x-stainless-retry-count") if request is not None else None
        if isinstance(retries, str) and retries.isdecimal():
            self.exchange.retry_count = int(retries)
        response = getattr(error, "response", None)
        if response is not None:
            self.exchange.request_id = (
                response.headers.get("x-request-id") or self.exchange.request_id
            )

    @faults.guarded
    def _bill(
        self,
        attributes: Attributes,
        usage_status: str,
        code: str | None,
        status: Status,
        end_time: int,
    ) -> None:
        """Hand the call to the exporter, as a span that no sampler or limit has touched."""
        billed = {
            **self._attributes,
            **attributes,
            semconv.ENDPOINT: self.endpoint.name,
            semconv.EVENT_ID: os.urandom(16).hex(),
            semconv.USAGE_STATUS: usage_status,
            semconv.RETRY_COUNT: self.exchange.retry_count,
        }
        if self.exchange.request_id is not None:
            billed[semconv.REQUEST_ID] = self.exchange.request_id
        if code is not None:
            billed[semconv.ERROR_CODE] = code
        self._recorder.record(
            ReadableSpan(
                name=self.name,
                context=self._context,
                parent=self._parent if self._parent.is_valid else None,
                resource=_RESOURCE,
                attributes=billed,
                kind=SpanKind.CLIENT,
                status=status,
                start_time=self._start_time,
                end_time=end_time,
                instrumentation_scope=self._recorder.scope,
            )
        )

    @faults.guarded
    def _end_span(self, attributes: Attributes, status: Status, end_time: int) -> None:
        span = self._span
        if span is None:
            return
        if span.is_recording():
            span.set_attributes(
                {
                    name: value
                    for name, value in attributes.items()
                    if not name.startswith(semconv.BILLING_PREFIX)
                    and not (value == 0 and name in BREAKDOWNS)
                }
            )
            if status is not _UNSET:
                span.set_status(status)
        span.end(end_time)

    def __del__(self) -> None:
        once = getattr(self, "_once", None)
        if once is not None and not once.locked():
            open_calls.dropped(self)


_request_attributes = faults.guarded(request_attributes)


@faults.guarded
def _message(error: BaseException) -> str:
    return failures.scrubbed(str(error))


def _parameters(options: Any) -> Mapping[str, Any]:
    """Return the parameters of a request; those of `extra_body` prevail, as in the SDK."""
    body: Any = options.json_data
    extra: Any = options.extra_json
    parameters = cast("dict[str, Any]", body if isinstance(body, dict) else {})
    return {**parameters, **extra} if extra else parameters


def _usage_status(reading: Reading, error: BaseException | None, cut: bool) -> str:
    if reading.reported:
        return "reported"
    if isinstance(getattr(error, "status_code", None), int):
        return "not_applicable"  # The provider answered that it did nothing.
    return "partial" if cut else "missing"
