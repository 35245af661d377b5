"""
One call to the provider, from its start to its one end.

`Recorder.start` makes a `Call`; the call is told what happens to it (`event`, `body`, `end`) and ends exactly once,
whichever exit the application takes. At its end the same facts go two ways: to the exporter, which bills them, and to
the span on the application's TracerProvider, which may be sampled, limited or missing.
"""

from __future__ import annotations

import json
import logging
import os
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from cmdrdata_exporter import CmdrDataSpanExporter, faults
from cmdrdata_exporter.attributes import OUR_SCOPE
from cmdrdata_exporter.deduplication import Metered, own_calls
from cmdrdata_exporter.exporter import Charge
from cmdrdata_exporter.scrubbing import scrubbed
from opentelemetry_instrumentation_cmdrdata import jobs, open_calls, semconv
from opentelemetry_instrumentation_cmdrdata.openai import failures, sse
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint, find
from opentelemetry_instrumentation_cmdrdata.openai.parameters import (
    CONVENTIONAL,
    request_attributes,
    request_details,
)
from opentelemetry_instrumentation_cmdrdata.openai.providers import Server
from opentelemetry_instrumentation_cmdrdata.openai.unbilled import is_unbilled
from opentelemetry_instrumentation_cmdrdata.openai.usage import BREAKDOWNS, Attributes, Reading, get

SCOPE = OUR_SCOPE
"""The instrumentation scope of our spans, by which the exporter knows them."""

MOST_SILENT_HOSTS = 20
"""Hosts that are named in the log because their streams tell no usage."""

_RESOURCE = Resource({})
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status()
_NO_REASON: dict[int, str | None] = {0: None}
_Kept = defaultdict[tuple[str, str], list[object]]


class Said(NamedTuple):
    """What is said of who pays for a call, settled when it starts: where a stream of it is read says nothing."""

    attributes: Mapping[str, Any]
    """The span attributes of the customer and of the user's metadata."""
    tracked: bool = True
    """Whether the call makes an event."""
    exporter: CmdrDataSpanExporter | None = None
    """Meters the call, where another than the process's own is to."""


class Exchange:
    """
    What the SDK tells of the HTTP exchange behind a call.

    Apart from the call, because a context is copied into whatever is started in it, a connection that is kept alive
    for instance: what lies in a context lives on, and a call must go when its stream goes.
    """

    __slots__ = ("asked", "has_left", "is_answered", "request_id", "response", "retry_count")

    def __init__(self) -> None:
        self.asked: weakref.ref[Call] | None = None
        """The call, if it is one whose usage was asked for by us: what comes of that is to be kept back."""
        self.is_answered = False
        self.has_left = False
        """Whether an attempt that failed may have reached the provider."""
        self.request_id: str | None = None
        self.retry_count = 0
        self.response: Any = None
        """The answer, until the SDK's method returns: what it reports counts also where the SDK cannot parse it."""

    @faults.guarded
    def failed(self, error: BaseException | None) -> None:
        """Note what an attempt failed with that the SDK makes again."""
        self.has_left = self.has_left or not failures.never_left(error)

    @faults.guarded
    def answered(self, response: Any, retries_taken: Any) -> None:
        """Note an answer, and how many attempts failed before it (None where the SDK does not tell)."""
        self.response = response
        self.is_answered = True
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
        exporter: returns what bills calls that have no exporter of their own; asked late, when the application has had
            time to build one.
    """

    def __init__(
        self, tracer: trace.Tracer, version: str, exporter: Callable[[], CmdrDataSpanExporter]
    ) -> None:
        self.tracer = tracer
        self.scope = InstrumentationScope(SCOPE, version)
        self.exporter = exporter
        self._silent_hosts: set[str] = set()

    @faults.guarded
    def report_silent(self, host: str, *, asked: bool) -> None:
        """Tell the operator, once per host, that its streams tell no usage and what can be done about it."""
        silent = self._silent_hosts
        if host in silent or len(silent) >= MOST_SILENT_HOSTS:
            return
        silent.add(host)
        advice = (
            " although it was asked for"
            if asked
            else ". Set CMDRDATA_STREAM_USAGE=always to ask every host for it, "
            "or pass stream_options={'include_usage': True}"
        )
        faults.say(
            logging.WARNING,
            "a stream of %s told no usage%s; such calls are recorded with usage_status missing, without tokens%s",
            host,
            advice,
            " (further hosts are not named)" if len(silent) == MOST_SILENT_HOSTS else "",
        )

    @faults.guarded
    def start(
        self, options: Any, path: str, server: Callable[[], Server], said: Said, *, streaming: bool
    ) -> Call | None:
        """
        Start the call of a request for `path`, None where it is not metered.

        Args:
            options: the SDK's, of the request.
            path: what is requested, as the SDK names it.
            server: returns where the request goes.
            said: who pays.
            streaming: whether the SDK is to return a stream. What the body asks for is another matter.
        """
        found = find(options.method, path)
        if found is None:
            if options.method.lower() == "post" and not is_unbilled(path):
                faults.report(
                    "unknown request path",
                    "POST %r is no endpoint of OpenAI that this release knows; if it costs something, it is not "
                    "metered. Look for a newer opentelemetry-instrumentation-cmdrdata",
                    path,
                )
            return None
        endpoint, asked_for = found
        job = asked_for if endpoint.polls and not endpoint.lists else None
        parameters = body_of(options)
        streaming = streaming or parameters.get("stream") is True
        return Call(self, endpoint, parameters, server(), said, job, streaming=streaming)


class Call:
    """One call. Its methods are safe to call from any thread; only the first `end` counts."""

    __slots__ = (
        "__weakref__",
        "_asks_for_usage",
        "_attributes",
        "_begin",
        "_context",
        "_details",
        "_endings",
        "_exchange_token",
        "_first_chunk",
        "_parent",
        "_pid",
        "_reading",
        "_recorder",
        "_said",
        "_span",
        "_span_token",
        "_start_time",
        "asked_for_usage",
        "chunks",
        "endpoint",
        "exchange",
        "is_complete",
        "is_read",
        "last_chunk",
        "streaming",
    )

    def __init__(  # noqa: PLR0917 - all that is known when a call starts
        self,
        recorder: Recorder,
        endpoint: Endpoint,
        parameters: Mapping[str, Any],
        server: Server,
        said: Said,
        job: str | None = None,
        *,
        streaming: bool,
    ) -> None:
        self._said = said
        self._recorder = recorder
        self._start_time = time.time_ns()
        self._begin = time.perf_counter_ns()
        self._first_chunk: int | None = None
        self.last_chunk: int | None = None
        """When the last part of the answer arrived."""
        self._reading = Reading()
        self._reading.job = job
        self.endpoint = endpoint
        self.streaming = streaming
        self.exchange = Exchange()
        self.chunks: weakref.ref[Any] | None = None
        """The SDK's generator of the chunks that a stream hands out."""
        self.is_read = False
        """Whether its stream's chunks are being read, so that their end is its end."""
        self.is_complete = False
        """Whether the provider has said that a stream has come to its end."""
        self.asked_for_usage = False
        """Whether a stream's usage was asked for by us, so that the chunk it comes in is ours too."""
        self._asks_for_usage = (
            streaming and get(parameters.get("stream_options"), "include_usage") is True
        )
        """Whether the application asked for it."""
        attributes: Attributes = {
            semconv.OPERATION: endpoint.span_operation,
            semconv.PROVIDER: server.provider,
            semconv.SERVER_ADDRESS: server.address,
            semconv.SERVER_PORT: server.port,
        }
        if endpoint.api_type is not None:
            attributes[semconv.OPENAI_API_TYPE] = endpoint.api_type
            if job is not None:
                attributes[semconv.RESPONSE_ID] = job
        if streaming:
            attributes[semconv.STREAM] = True
        attributes.update(_request_attributes(endpoint, parameters) or {})
        self._details = (_request_details(endpoint, parameters) or {}) if endpoint.details else {}
        attributes.update(said.attributes)
        if not said.tracked:
            attributes[semconv.TRACKED] = False
        self._attributes = attributes
        self._pid = os.getpid()
        self._parent = trace.get_current_span().get_span_context()
        self._span = self._start_span()
        self._context = self._ids()
        self._exchange_token: Token[Exchange | None] | None = None
        self._span_token: Token[Context] | None = None
        self._endings: list[_Ending] | None = None

    @property
    def exporter(self) -> CmdrDataSpanExporter:
        """What bills the call."""
        own = self._said.exporter
        return self._recorder.exporter() if own is None else own

    @property
    def name(self) -> str:
        """The span's name."""
        model = self._attributes.get(semconv.REQUEST_MODEL)
        operation = self.endpoint.span_operation
        return operation if model is None else f"{operation} {model}"

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

    def attach(self) -> None:
        """
        Make this the call of the context, and its span the parent of spans inside. Undone by `detach`.

        From here on there is a call that must end.
        """
        self._endings = []
        self.__class__ = _Begun  # pyright: ignore[reportAttributeAccessIssue] - of the same layout
        self._exchange_token = running.set(self.exchange)
        self._attach_span()

    @faults.guarded
    def _attach_span(self) -> None:
        if self._span is not None:
            self._span_token = otel_context.attach(trace.set_span_in_context(self._span))

    @faults.guarded
    def detach(self) -> None:
        """Leave the context as it was before `attach`, unless that was done."""
        if self._exchange_token is None:
            return
        if _was_reset(self._exchange_token) and self._span_token is not None:
            _was_reset(self._span_token)
        self._exchange_token = self._span_token = None

    def arrived(self) -> None:
        """Note that a part of the answer arrived."""
        self.last_chunk = now = time.perf_counter_ns()
        if self._first_chunk is None:
            self._first_chunk = now

    def event(self, event: bytes) -> Any:
        """Observe a server-sent event that just arrived; return its JSON, None where it has none."""
        data = sse.data(event)
        if data is None:
            return None
        if data.lstrip().startswith(b"[DONE]"):
            self.is_complete = True
            return None
        self.arrived()
        chunk = sse.json_of(event)
        read = self.endpoint.read_chunk
        if chunk is not None and read is not None:
            try:
                read(self._reading, chunk)
            except BaseException as error:
                if faults.is_interruption(error):
                    # By a signal handler, perhaps in the middle of it: the last value of each field counts.
                    read(self._reading, chunk)
                raise
        return chunk

    @faults.guarded
    def body(self, body: object) -> None:
        """Observe a whole answer."""
        self.endpoint.read(self._reading, body)

    @faults.guarded
    def content(self, content: bytes, *, events: bool) -> None:
        """Observe a whole answer that nobody has parsed: JSON, a text, sound, or a stream of `events`."""
        if events:
            whole = sse.Events(keep_back=False)
            whole.feed(content, self.event)
            whole.finish(self.event)
        elif self.endpoint.binary:
            self.body(None)
        else:
            try:
                parsed: object = json.loads(content)
            except ValueError:
                parsed = None
            text = content.decode("utf-8", "replace")
            self.body(cast("object", parsed) if isinstance(parsed, dict) else text)

    def end(self, error: BaseException | None = None, *, cut: bool = False) -> None:
        """
        End the call, the first time.

        What a signal handler raises in the middle of it goes on to the application when the call has ended.

        Args:
            error: what the application gets instead of an answer, or in the middle of one.
            cut: whether the stream was left before its end.
        """
        ending = _Ending(error, cut)
        try:
            self._end_by(ending)
        except BaseException:
            # From the beginning: what was kept of it is kept once.
            self._end_by(ending)
            raise

    def _end_by(self, ending: _Ending) -> None:
        endings = self._endings
        # A forked child has copies of its parent's calls; who started a call ends it.
        if endings is None or self._pid != os.getpid():
            return
        if ending not in endings:
            endings.append(ending)
        if endings[0] is ending:
            self._tell_seam(ending.error)
            open_calls.forget(self)
            self._end(ending)
            # Its traceback leads here again, by the frames of who calls.
            ending.error = None
            self.__class__ = Call  # pyright: ignore[reportAttributeAccessIssue] - of the same layout

    @property
    def has_ended(self) -> bool:
        """Whether `end` need not be called."""
        return self._endings is None or bool(self._endings)

    def metered(self, end: int | None = None) -> Metered:
        """Return what relates the spans of others to this call, which ended at `end` or has not yet."""
        begun, read = self._attributes, self._reading.attributes
        return Metered(
            begun[semconv.PROVIDER],
            self.endpoint.name,
            read.get(semconv.RESPONSE_ID) or begun.get(semconv.RESPONSE_ID),
            read.get(semconv.INPUT_TOKENS),
            read.get(semconv.OUTPUT_TOKENS),
            self._context.span_id,
            self._start_time,
            end,
        )

    @faults.guarded
    def _tell_seam(self, error: BaseException | None) -> None:
        """Say that the call passed the seam, also where it makes no event, as others may report it all the same."""
        call = self.metered(self._start_time + time.perf_counter_ns() - self._begin)
        # What failed without a word from the model is no call that others report: they report the next attempt.
        if error is None or call.response_id is not None:
            own_calls.metered(call)

    @faults.guarded
    def _end(self, ending: _Ending) -> None:
        error, cut = ending.error, ending.cut
        now = time.perf_counter_ns()
        cut = (cut or error is not None) and not self.is_complete
        # What ends a stream in order, or leaves it, comes when the application gets to it, at any time after the
        # last chunk; the provider's work ended with that chunk.
        last = self.last_chunk if error is None and self.last_chunk is not None else now
        end_time = self._start_time + last - self._begin
        endpoint, reading = self.endpoint, self._reading
        attributes = (
            {**self._details, **reading.attributes} if self._details else reading.attributes
        )
        if self._first_chunk is not None and self.streaming:
            attributes[semconv.TIME_TO_FIRST_CHUNK] = (self._first_chunk - self._begin) / 1e9
        failure = self._failure(error)
        if failure is None:
            outcome = _Outcome(_UNSET, None, end_time)
        else:
            attributes[semconv.ERROR_TYPE], code, message = failure
            outcome = _Outcome(Status(StatusCode.ERROR, message), code, end_time)
            if error is not None and not reading.reported:
                attributes.pop(semconv.CHARACTERS, None)  # They were offered, not spoken.
        reasons = reading.finish_reasons or (_NO_REASON if endpoint.has_choices else {})
        if reasons and (cut or failure is not None or any(reasons.values())):
            attributes[semconv.FINISH_REASONS] = tuple(
                reasons[index] or "error" for index in sorted(reasons)
            )
        usage_status = self._usage_status(error, cut=cut)
        self._bill(attributes, outcome, usage_status, ending.kept)
        if usage_status == "missing" and failure is None:
            self._report_silent()
        if error is None and endpoint.polls:
            # That the job failed is not a failure of asking for it.
            attributes.pop(semconv.ERROR_TYPE, None)
            outcome = _Outcome(_UNSET, None, end_time)
        self._end_span(attributes, outcome)

    def _usage_status(self, error: BaseException | None, *, cut: bool) -> str:
        """Return what is known of the usage: see docs/events.md."""
        reading, exchange = self._reading, self.exchange
        if self.endpoint.is_free:
            return "not_applicable"
        was_cut = cut and self.streaming and exchange.is_answered
        if reading.reported:
            # Some servers tell on each chunk what was used so far: final is what comes once every choice has ended.
            goes_on = was_cut and None in reading.finish_reasons.values()
            return "partial" if goes_on else "reported"
        if error is not None and (
            failures.status_code(error) is not None
            or not (exchange.is_answered or exchange.has_left or not failures.never_left(error))
        ):
            return "not_applicable"  # The provider says that it did nothing, or was asked nothing.
        if (
            reading.error is not None
            and not self.streaming
            and not reading.finish_reasons
            and reading.attributes.keys() <= {semconv.ERROR_TYPE, semconv.FINISH_REASONS}
        ):
            return "not_applicable"  # A refusal as well, but for its status: the answer says nothing else.
        return "partial" if was_cut else "missing"

    def _report_silent(self) -> None:
        """Say that a whole stream told no usage, where that is up to who asks for it."""
        if self.streaming and self.endpoint.tells_usage_if_asked and self._said.tracked:
            self._recorder.report_silent(
                self._attributes[semconv.SERVER_ADDRESS],
                asked=self.asked_for_usage or self._asks_for_usage,
            )

    def _failure(self, error: BaseException | None) -> tuple[str, str | None, str | None] | None:
        """Return what `error.type` says of a failed call, the provider's code, and a message; None of another."""
        if error is not None:
            self._read_failure(error)
            return failures.qualified_name(error), _code(error), _message(error)
        if self._reading.error is not None:
            code, message = self._reading.error
            return code, code, scrubbed(message)
        return None

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
        self, attributes: Attributes, outcome: _Outcome, usage_status: str, kept: _Kept
    ) -> None:
        """Bill the call, or of the jobs it is about what is due and was not billed before."""
        reading = self._reading
        if self.endpoint.lists:
            oldest = time.time() - jobs.LISTED_AGE
            for job in reading.listed:
                self._bill_job(job, job.attributes, outcome, kept, oldest)
        elif reading.job is not None:
            self._bill_job(reading, attributes, outcome, kept)
        elif self._said.tracked:
            event = {semconv.EVENT_ID: os.urandom(16).hex(), semconv.USAGE_STATUS: usage_status}
            self._record({**self._attributes, **attributes, **event}, outcome, kept["", ""])

    def _bill_job(
        self,
        reading: Reading,
        attributes: Attributes,
        outcome: _Outcome,
        kept: _Kept,
        oldest: float = 0.0,
    ) -> None:
        """
        Bill what is due of a job. Who started it pays for it, whoever asks.

        Args:
            reading: of the job.
            attributes: what was read of it, and what is known of the call.
            outcome: how the call ended.
            kept: of each part of each job, not empty once that was recorded.
            oldest: when a job that was not started here must have been created at the earliest.
        """
        if reading.job is None:
            return
        key = jobs.Key(self._attributes[semconv.SERVER_ADDRESS], reading.job)
        if attributes.get(semconv.CREATED, oldest) < oldest and not jobs.known.has_started(key):
            return
        if not self.endpoint.polls:
            started = _kept_of_job({**self._attributes, **attributes})
            jobs.known.start(key, started, tracked=self._said.tracked)
        for part, of_part in reading.charges.items() if self._said.tracked else ():
            job = jobs.known.settle(key, part, kept[reading.job, part])
            if job is None:
                continue
            billed: Attributes = {**self._attributes, **attributes, **of_part}
            if job.started is not None:
                billed = {**job.started, **_without(billed, semconv.ATTRIBUTION_PREFIXES)}
            elif self.endpoint.lists:
                # A page shows the jobs of all customers: whose this one is, the caller has not said.
                billed = _without(billed, semconv.ATTRIBUTION_PREFIXES)
            has_units = any(name.startswith(semconv.UNIT_PREFIX) for name in billed)
            billed.setdefault(
                semconv.USAGE_STATUS, "reported" if reading.reported or has_units else "missing"
            )
            billed[semconv.EVENT_ID] = key.event_id(part)
            billed[semconv.EVENT_REMEMBER] = jobs.REMEMBERED
            self._record(billed, outcome, kept[reading.job, part])

    def _record(self, attributes: Attributes, outcome: _Outcome, kept: list[object]) -> None:
        """Hand a charge to the exporter, as a span that no sampler or limit has touched."""
        attributes[semconv.ENDPOINT] = self.endpoint.name
        attributes[semconv.RETRY_COUNT] = self.exchange.retry_count
        if self.exchange.request_id is not None:
            attributes[semconv.REQUEST_ID] = self.exchange.request_id
        if outcome.code is not None:
            attributes[semconv.ERROR_CODE] = outcome.code
        self.exporter.record(
            Charge(
                kept=kept,
                name=self.name,
                context=self._context,
                parent=self._parent if self._parent.is_valid else None,
                resource=_RESOURCE,
                attributes=attributes,
                kind=SpanKind.CLIENT,
                status=outcome.status,
                start_time=self._start_time,
                end_time=outcome.end_time,
                instrumentation_scope=self._recorder.scope,
            )
        )

    @faults.guarded
    def _end_span(self, attributes: Attributes, outcome: _Outcome) -> None:
        span = self._span
        if span is None:
            return
        if span.is_recording():
            span.set_attributes(_public(self.endpoint, attributes))
            if outcome.status is not _UNSET:
                span.set_status(outcome.status)
        span.end(outcome.end_time)


class _Begun(Call):
    """
    A call that must end, and does if nothing refers to it any more.

    Others are none, since a finalizer takes time, and swallows what a signal handler raises in it.
    """

    __slots__ = ()

    def __del__(self) -> None:
        open_calls.dropped(self)


class _Ending:
    """An attempt to end a call, the first of which counts; the same one where that was interrupted and begins anew."""

    __slots__ = ("cut", "error", "kept")

    def __init__(self, error: BaseException | None, cut: bool) -> None:
        self.error = error
        self.cut = cut
        self.kept: _Kept = defaultdict(list)
        """Of each part of what is billed: not empty once that was recorded, see `Charge`."""


def _open_calls() -> list[Metered]:
    """Return what relates the spans of others to the calls that are open now."""
    return [call.metered() for call in open_calls.still_open() if isinstance(call, Call)]


# Here, since a `TrackedOpenAI` is metered without an instrumentor.
own_calls.open_calls = _open_calls


def _was_reset(token: Token[Any]) -> bool:
    """
    Reset a context variable; say whether it is: a coroutine may be thrown away unfinished in another context.

    Not by `otel_context.detach`, which swallows what a signal handler raises in it.
    """
    try:
        token.var.reset(token)
    except (RuntimeError, ValueError) as error:
        if faults.is_interruption(error):
            raise
        # It was reset already when a signal handler raised, or cannot be here.
        return isinstance(error, RuntimeError)
    return True


class _Outcome(NamedTuple):
    """How a call ended."""

    status: Status
    code: str | None
    """The HTTP status or the provider's code of an error."""
    end_time: int


_request_attributes = faults.guarded(request_attributes)
_request_details = faults.guarded(request_details)


def _without(attributes: Attributes, prefixes: tuple[str, ...]) -> Attributes:
    """Return the attributes whose names begin with none of `prefixes`."""
    return {name: value for name, value in attributes.items() if not name.startswith(prefixes)}


def _public(endpoint: Endpoint, attributes: Attributes) -> Attributes:
    """
    Return what the public span gets of what was read.

    The conventions' own spans get only their attributes; those that we define, the units of usage too.
    """
    if endpoint.polls:
        # Whoever adds up spans shall not count a job as often as it was asked for.
        return _without(attributes, (semconv.BILLING_PREFIX, semconv.USAGE_PREFIX))
    conventional = endpoint.span_operation in CONVENTIONAL
    return {
        name: value
        for name, value in attributes.items()
        if (
            not (value == 0 and name in BREAKDOWNS)
            if not name.startswith(semconv.BILLING_PREFIX)
            else not conventional
            and name.startswith(semconv.UNIT_PREFIX)
            and name != semconv.TOTAL_TOKENS
        )
    }


def _kept_of_job(attributes: Attributes) -> Attributes:
    """Return what the end of a job is billed with, besides what that end says itself."""
    kept = (semconv.REQUEST_MODEL, semconv.RESPONSE_MODEL)
    return {
        name: value
        for name, value in attributes.items()
        if name in kept or name.startswith(semconv.BILLING_PREFIX)
    }


_message = faults.guarded(failures.message)
_code = faults.guarded(failures.code)


def body_of(options: Any) -> Mapping[str, Any]:
    """Return the parameters of a request; those of `extra_body` prevail, as in the SDK."""
    body: Any = options.params if options.json_data is None else options.json_data
    extra: Any = options.extra_json
    parameters = cast("dict[str, Any]", body if isinstance(body, dict) else {})
    return {**parameters, **extra} if isinstance(extra, dict) else parameters
