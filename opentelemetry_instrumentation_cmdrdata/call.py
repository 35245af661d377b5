"""
One call to the provider, from its start to its one end.

A `Call` is told what happens to it (`event`, `body`, `end`) and ends exactly once, whichever exit the application
takes. What was read of its answer then has two products: `charges`, which go to the exporter, and the attributes of
the span (`spans`) on the application's TracerProvider, which may be sampled, limited or missing.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextvars import Token
from typing import Any, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from cmdrdata_exporter import CmdrDataSpanExporter, call_sites, faults
from cmdrdata_exporter.attributes import CUSTOMER_ID, OUR_SCOPE
from cmdrdata_exporter.deduplication import Metered, own_calls
from cmdrdata_exporter.scrubbing import scrubbed
from cmdrdata_exporter.settings import ConfigurationError, Settings
from opentelemetry_instrumentation_cmdrdata import capture, charges, open_calls, semconv, spans
from opentelemetry_instrumentation_cmdrdata.capture import CallContent, Capture
from opentelemetry_instrumentation_cmdrdata.ended import (
    CallAttribution,
    EndedCall,
    Failure,
    FinishedCall,
)
from opentelemetry_instrumentation_cmdrdata.metrics import ChunkTimes, ClientMetrics
from opentelemetry_instrumentation_cmdrdata.openai import failures, sse
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.exchange import Exchange, running
from opentelemetry_instrumentation_cmdrdata.openai.parameters import (
    request_attributes,
    request_details,
)
from opentelemetry_instrumentation_cmdrdata.openai.providers import OPENAI, Server
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes, Reading, get
from opentelemetry_instrumentation_cmdrdata.random_ids import random_ids

SCOPE = OUR_SCOPE
"""The instrumentation scope of our spans, by which the exporter knows them."""

MOST_SILENT_HOSTS = 20
"""Hosts that are named in the log because their streams report no usage."""

_NONE: Mapping[str, Any] = {}
_NO_REASON: dict[int, str | None] = {0: None}


class Recorder:
    """
    Where calls go.

    Args:
        tracer: makes the public spans.
        exporter: returns what bills calls that have no exporter of their own; asked late, when the application has had
            time to build one.
        metrics: what calls are measured by. Default: the global MeterProvider's.
    """

    def __init__(
        self,
        tracer: trace.Tracer,
        exporter: Callable[[], CmdrDataSpanExporter],
        metrics: ClientMetrics | None = None,
    ) -> None:
        self.tracer = tracer
        self.metrics = metrics or ClientMetrics()
        self.exporter = exporter
        self._silent_hosts: set[str] = set()

    @functools.cached_property
    def content(self) -> Capture:
        """How the content of calls is recorded; set where the application says more of it than the environment."""
        try:
            return Capture(Settings.of_content())
        except ConfigurationError as error:
            faults.report("content", "no content is recorded: %s", error)
            return Capture(Settings())

    def is_tracing(self) -> bool:
        """Whether calls are to have spans now, and there may be an SDK that makes them."""
        try:
            tracer = self.tracer
            if isinstance(tracer, trace.NoOpTracer) or (
                # What it stands for until an SDK is set up.
                isinstance(tracer, trace.ProxyTracer)
                and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
            ):
                return False
            return is_instrumentation_enabled()
        except Exception as error:  # noqa: BLE001 - the call is billed all the same
            faults.absorb(error, "the choice whether a call has a span")
            return False

    @faults.guarded
    def report_silent(self, host: str, *, asked: bool) -> None:
        """Tell the operator, once per host, that its streams report no usage and what can be done about it."""
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


class Call:
    """One call. Its methods are safe to call from any thread; only the first `end` counts."""

    __slots__ = (
        "__weakref__",
        "_asks_for_usage",
        "_attribution",
        "_begin",
        "_chunk_times",
        "_details",
        "_endings",
        "_exchange_token",
        "_first_chunk",
        "_is_measured",
        "_pid",
        "_reading",
        "_recorder",
        "_request_model",
        "_response_id",
        "_server",
        "_span",
        "_span_id",
        "_span_token",
        "_start_time",
        "_starts_job",
        "_trace_id",
        "asked_for_usage",
        "chunks",
        "endpoint",
        "exchange",
        "is_complete",
        "is_read",
        "last_chunk",
        "measures_chunks",
        "said",
        "streaming",
    )

    def __init__(  # noqa: PLR0917 - all that is known when a call starts
        self,
        recorder: Recorder,
        endpoint: Endpoint,
        parameters: Mapping[str, Any],
        server: Server,
        attribution: CallAttribution,
        job: str | None = None,
        *,
        streaming: bool,
        began: tuple[int, int] | None = None,
    ) -> None:
        self._attribution = attribution
        self._recorder = recorder
        self._server = server
        self._start_time, self._begin = began or (time.time_ns(), time.perf_counter_ns())
        self._first_chunk: int | None = None
        self.last_chunk: int | None = None
        """When the last part of the answer arrived."""
        self._reading = Reading()
        self._reading.job = job
        self.endpoint = endpoint
        self.streaming = streaming
        self._is_measured = recorder.metrics.measures(endpoint)
        self.measures_chunks = streaming and self._is_measured
        """Whether the time from each chunk to the next is measured."""
        self._chunk_times: ChunkTimes | None = None
        self.exchange = Exchange(reads_account=server.provider == OPENAI)
        self.chunks: weakref.ref[Any] | None = None
        """The SDK's generator of the chunks that a stream hands out."""
        self.said: CallContent | None = None
        """What reads the content, where that is asked for."""
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
        is_traced = recorder.is_tracing()
        requested: Attributes = {}
        try:
            requested = request_attributes(endpoint, parameters, only_model=not is_traced)
        except Exception as error:  # noqa: BLE001 - the call is billed all the same
            faults.absorb(error, "the parameters of a request")
        self._request_model: str | None = requested.get(semconv.REQUEST_MODEL)
        self._starts_job = endpoint.polled_at is not None and endpoint.starts_job(parameters)
        self._details: Mapping[str, Any] = (
            (_request_details(endpoint, parameters) or _NONE) if endpoint.details else _NONE
        )
        if (
            call_sites.of_all is not False
            or attribution.shows_call_site
            or CUSTOMER_ID not in attribution.attributes
        ):
            self._add_call_site(requested)
        self._response_id = None if endpoint.api_type is None else job
        self._pid = os.getpid()
        self._exchange_token: Token[Exchange | None] | None = None
        self._span_token: Token[Context] | None = None
        self._endings: list[_Ending] | None = None
        self._span: trace.Span | None = None
        parent = trace.get_current_span().get_span_context()
        if is_traced:
            try:
                self._start_span(requested, parent.span_id)
            except Exception as error:  # noqa: BLE001 - also of the application's processors
                faults.absorb(error, "the start of a span")
        if self._span is None:
            self._trace_id = parent.trace_id or int(random_ids.take(self._pid), 16)
            self._span_id = int(random_ids.take(self._pid)[:16], 16)

    @faults.guarded
    def _add_call_site(self, requested: Attributes) -> None:
        """Tell which line of the application makes the call, where that is wanted: on its span, in its event."""
        attribution, settings = self._attribution, self.exporter.settings
        everywhere = settings.call_site == "true"
        on_span = everywhere or attribution.shows_call_site
        in_event = attribution.tracked and (
            everywhere or attribution.customer(settings.customer_id) is None
        )
        if settings.call_site == "false" or not (on_span or in_event):
            return
        site = call_sites.find()
        if site is None:
            return
        if in_event:
            self._details = {**self._details, semconv.CALL_SITE: str(site)}
        if on_span:
            requested[semconv.CODE_FILE_PATH] = site.path
            requested[semconv.CODE_LINE_NUMBER] = site.line
            requested[semconv.CODE_FUNCTION_NAME] = site.function

    @faults.guarded
    def capture(self, parameters: Mapping[str, Any]) -> None:
        """Have the content of the call read, where somebody would get it."""
        span, attribution = self._span, self._attribution
        self.said = capture.begin(
            self._recorder.content,
            self.endpoint,
            parameters,
            self._start_attributes(request_attributes(self.endpoint, parameters)),
            asked=attribution.capture,
            is_observed=attribution.observer is not None,
            is_recording=span is not None and span.is_recording(),
        )

    def _start_attributes(self, requested: Attributes) -> Attributes:
        """Return the attributes with which the span starts."""
        attributes = spans.start_attributes(
            self.endpoint,
            self._server,
            requested,
            response_id=self._response_id,
            streaming=self.streaming,
        )
        attributes.update(self._attribution.attributes)
        if not self._attribution.tracked:
            attributes[semconv.TRACKED] = False
        return attributes

    def _start_span(self, requested: Attributes, parent_id: int) -> None:
        """Start the public span, unless no SDK makes one."""
        operation, model = self.endpoint.span_operation, self._request_model
        span = self._recorder.tracer.start_span(
            operation if model is None else f"{operation} {model}",
            kind=SpanKind.CLIENT,
            attributes=self._start_attributes(requested),
            start_time=self._start_time,
        )
        context = span.get_span_context()
        # Without an SDK a tracer returns the parent again, or the invalid span.
        if context.is_valid and context.span_id != parent_id:
            self._trace_id, self._span_id = context.trace_id, context.span_id
            self._span = span

    @property
    def exporter(self) -> CmdrDataSpanExporter:
        """What bills the call."""
        own = self._attribution.exporter
        return self._recorder.exporter() if own is None else own

    @property
    def reading(self) -> Reading:
        """What was read of the answer so far."""
        return self._reading

    @property
    def span_context(self) -> SpanContext:
        """What the spans of calls inside this one have as their parent."""
        if self._span is not None:
            return self._span.get_span_context()
        return SpanContext(
            self._trace_id, self._span_id, is_remote=False, trace_flags=TraceFlags(1)
        )

    def begin(self) -> None:
        """Begin: from here on there is a call that must end."""
        self._endings = []
        self.__class__ = _Begun  # pyright: ignore[reportAttributeAccessIssue] - of the same layout

    def attach(self) -> None:
        """Begin, as the call of the context, whose span is the parent of spans inside. Undone by `detach`."""
        self.begin()
        self._exchange_token = running.set(self.exchange)
        if self._span is None:
            return
        try:
            self._span_token = otel_context.attach(trace.set_span_in_context(self._span))
        except Exception as error:  # noqa: BLE001 - the call is made all the same
            faults.absorb(error, "the context of a span")

    def detach(self) -> None:
        """Leave the context as it was before `attach`, unless that was done."""
        if self._exchange_token is None:
            return
        try:
            if _was_reset(self._exchange_token) and self._span_token is not None:
                _was_reset(self._span_token)
            self._exchange_token = self._span_token = None
        except Exception as error:  # noqa: BLE001 - the call is made all the same
            faults.absorb(error, "the end of a context")

    def arrived(self) -> None:
        """Note that a part of the answer arrived."""
        last, self.last_chunk = self.last_chunk, time.perf_counter_ns()
        if self._first_chunk is None or last is None:
            self._first_chunk = self.last_chunk
        elif self.measures_chunks:
            if self._chunk_times is None:
                self._chunk_times = self._recorder.metrics.chunk_times(
                    self.endpoint, self._server, self._request_model, self._reading.attributes
                )
                self.measures_chunks = self._chunk_times is not None
            if self._chunk_times is not None:
                self._chunk_times.record((self.last_chunk - last) / 1e9)

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
            if self._reading.is_news:
                self._tell_jobs()
        if self.said is not None:
            self.said.chunk(chunk)
        return chunk

    def _tell_jobs(self) -> None:
        """Bill what a stream has shown to have ended, and have the job kept that it is about, before its own end."""
        recorded: charges.Recorded = defaultdict(list)
        try:
            self._bill_jobs(recorded)
        except BaseException:
            # From the beginning: what was recorded of it is recorded once.
            self._bill_jobs(recorded)
            raise

    @faults.guarded
    def _bill_jobs(self, recorded: charges.Recorded) -> None:
        reading, exporter = self._reading, self.exporter
        now = self._start_time + time.perf_counter_ns() - self._begin
        ended = self._ended(exporter, None, now)
        for event, kept in charges.of_jobs(ended, reading, reading.attributes, recorded):
            exporter.charge(event, kept)
        reading.listed = ()
        reading.is_news = False

    def read(self, body: object) -> None:
        """Observe a whole answer, for who guards against what fails in it."""
        if self.said is not None:
            self.said.answer(body)
        self.endpoint.read(self._reading, body)

    def read_part(self, frame: object) -> None:
        """Observe a part of a streamed answer that somebody has parsed, for who guards against what fails in it."""
        read = self.endpoint.read_chunk
        if read is not None:
            read(self._reading, frame)
            if self._reading.is_news:
                self._tell_jobs()

    body = faults.guarded(read)
    """Observe a whole answer."""

    @faults.guarded
    def content(self, content: bytes, *, events: bool) -> None:
        """Observe a whole answer that nobody has parsed: JSON, a text, sound, or a stream of `events`."""
        self.measures_chunks = False  # They arrived before.
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

    # The end

    @property
    def has_begun(self) -> bool:
        """Whether it must end, or has ended."""
        return self._endings is not None

    @property
    def has_ended(self) -> bool:
        """Whether `end` need not be called."""
        return self._endings is None or bool(self._endings)

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
            # From the beginning: what was recorded of it is recorded once.
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
            open_calls.forget(self)
            try:
                self._end(ending)
            except Exception as error:  # noqa: BLE001 - whatever it is
                faults.absorb(error, "the end of a call")
            # Its traceback leads here again, by the frames of who calls.
            ending.error = None
            self.__class__ = Call  # pyright: ignore[reportAttributeAccessIssue] - of the same layout

    def _end(self, ending: _Ending) -> None:
        error, now = ending.error, time.perf_counter_ns()
        try:
            # Also where the call makes no event, as others may report it all the same. What failed without a word
            # from the model is no call that others report: they report the next attempt.
            passed = self.metered(self._start_time + now - self._begin)
            if self.endpoint.is_charged and (error is None or passed.response_id is not None):
                own_calls.metered(passed)
        except Exception as fault:  # noqa: BLE001 - the call is billed all the same
            faults.absorb(fault, "the note of a call")
        cut = (ending.cut or error is not None) and not self.is_complete
        # What ends a stream in order, or leaves it, comes when the application gets to it, at any time after the
        # last chunk; the provider's work ended with that chunk.
        last = self.last_chunk if error is None and self.last_chunk is not None else now
        end_time = self._start_time + last - self._begin
        is_whole = error is None and self._reading.error is None
        failure = None if is_whole else self._failure(error)
        facts = self._facts(error, failure, cut=cut)
        usage_status = charges.usage_status(
            self.endpoint, self._reading, self.exchange, error, cut=cut, streaming=self.streaming
        )
        try:
            exporter = self.exporter
            ending.call = self._ended(exporter, failure, end_time)
            for event, kept in charges.charges(
                ending.call, self._reading, facts, usage_status, ending.recorded
            ):
                exporter.charge(event, kept)
        except Exception as fault:  # noqa: BLE001 - the span ends all the same
            faults.absorb(fault, "the charge of a call")
        if usage_status == "missing" and failure is None:
            self._report_silent()
        if error is None and self.endpoint.polls:
            # That the job failed is not a failure of asking for it.
            facts.pop(semconv.ERROR_TYPE, None)
            failure = None
        if self._is_measured:
            self._is_measured = False  # Once, also where this is interrupted and begins anew.
            self._recorder.metrics.record(
                self.endpoint,
                self._server,
                self._request_model,
                facts,
                (end_time - self._start_time) / 1e9,
                self._attribution.attributes,
                lambda: self.exporter,
            )
        content = None if self.said is None else self.said.end(self._span, facts, end_time)
        if self._span is not None:
            self._end_span(self._span, facts, failure, end_time)
        if self._attribution.observer is not None and not ending.is_told:
            ending.is_told = True
            ended = ending.call or self._ended(None, failure, end_time)
            capture.told(self._attribution.observer, FinishedCall(ended, facts, content))

    def metered(self, end: int | None = None) -> Metered:
        """Return what relates the spans of others to this call, which ended at `end` or has not yet."""
        get = self._reading.attributes.get
        return Metered(
            self._server.provider,
            self.endpoint.name,
            get(semconv.RESPONSE_ID) or self._response_id,
            get(semconv.INPUT_TOKENS),
            get(semconv.OUTPUT_TOKENS),
            self._span_id,
            self._start_time,
            end,
        )

    def _failure(self, error: BaseException | None) -> Failure | None:
        """Return how the call failed, None if it did not."""
        if error is not None:
            self.exchange.call_failed(error)
            return Failure(failures.qualified_name(error), _code(error), _message(error))
        if self._reading.error is not None:
            code, message = self._reading.error
            return Failure(code, code, scrubbed(message))
        return None

    def _facts(
        self, error: BaseException | None, failure: Failure | None, *, cut: bool
    ) -> Attributes:
        """Return what was read of the answer, and what is known of it only now that the call ends."""
        reading = self._reading
        facts = {**self._details, **self.exchange.account, **reading.attributes}
        if self._first_chunk is not None and self.streaming:
            facts[semconv.TIME_TO_FIRST_CHUNK] = (self._first_chunk - self._begin) / 1e9
        if failure is not None:
            facts[semconv.ERROR_TYPE] = failure.type
            if error is not None and not reading.has_usage:
                facts.pop(semconv.CHARACTERS, None)  # They were offered, not spoken.
        reasons = reading.finish_reasons or (_NO_REASON if self.endpoint.has_choices else {})
        if reasons and (cut or failure is not None or any(reasons.values())):
            facts[semconv.FINISH_REASONS] = tuple(
                [reasons[index] or "error" for index in sorted(reasons)]
            )
        return facts

    def _ended(
        self, exporter: CmdrDataSpanExporter | None, failure: Failure | None, end_time: int
    ) -> EndedCall:
        """Return what is known of the call; without an exporter nothing of who pays by default."""
        return EndedCall(
            self.endpoint,
            self._server,
            self._attribution,
            self._request_model,
            self._response_id,
            self._trace_id,
            self._span_id,
            self._start_time,
            end_time,
            self.streaming,
            self.exchange.retry_count,
            self.exchange.request_id,
            failure,
            random_ids.take(self._pid),
            None if exporter is None else exporter.settings.customer_id,
            self._starts_job,
            None if exporter is None else exporter.keeps_jobs,
            self.exchange.account,
        )

    def _report_silent(self) -> None:
        """Say that a whole stream told no usage, where that is up to who asks for it."""
        if self.streaming and self.endpoint.tells_usage_if_asked and self._attribution.tracked:
            self._recorder.report_silent(
                self._server.address, asked=self.asked_for_usage or self._asks_for_usage
            )

    def _end_span(
        self, span: trace.Span, facts: Attributes, failure: Failure | None, end_time: int
    ) -> None:
        if span.is_recording():
            span.set_attributes(spans.answer_attributes(self.endpoint, facts))
            if failure is not None:
                span.set_status(Status(StatusCode.ERROR, failure.message))
        span.end(end_time)


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

    __slots__ = ("call", "cut", "error", "is_told", "recorded")

    def __init__(self, error: BaseException | None, cut: bool) -> None:
        self.error = error
        self.cut = cut
        self.recorded: charges.Recorded = defaultdict(list)
        self.call: EndedCall | None = None
        """What was billed, once that has begun."""
        self.is_told = False
        """Whether the call's observer was told."""


def _open_calls() -> list[Metered]:
    """Return what relates the spans of others to the calls that are open now."""
    calls = [call for call in open_calls.still_open() if isinstance(call, Call)]
    return [call.metered() for call in calls if call.endpoint.is_charged]


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


_request_details = faults.guarded(request_details)
_message = faults.guarded(failures.message)
_code = faults.guarded(failures.code)
