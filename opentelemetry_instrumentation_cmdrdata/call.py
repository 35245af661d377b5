"""
One call to the provider, from its start to its one end.

A `Call` is told what happens to it (`event`, `body`, `end`) and ends exactly once, whichever exit the application
takes. What was read of its answer then has two products: `charges`, which go to the exporter, and the attributes of
the span (`spans`) on the application's TracerProvider, which may be sampled, limited or missing.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Mapping
from contextvars import Token
from typing import Any, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from cmdrdata_exporter import CmdrDataSpanExporter, call_sites, faults
from cmdrdata_exporter.attributes import CUSTOMER_ID
from cmdrdata_exporter.deduplication import Metered, own_calls
from opentelemetry_instrumentation_cmdrdata import capture, open_calls, semconv, spans
from opentelemetry_instrumentation_cmdrdata.capture import CallContent
from opentelemetry_instrumentation_cmdrdata.ended import (
    CallAttribution,
    EndedCall,
    Failure,
)
from opentelemetry_instrumentation_cmdrdata.ending import Ending, tell_jobs
from opentelemetry_instrumentation_cmdrdata.metrics import ChunkTimes
from opentelemetry_instrumentation_cmdrdata.openai import sse
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.exchange import Exchange, running
from opentelemetry_instrumentation_cmdrdata.openai.parameters import (
    request_attributes,
    request_details,
)
from opentelemetry_instrumentation_cmdrdata.openai.providers import OPENAI, Server
from opentelemetry_instrumentation_cmdrdata.openai.usage import NOTHING, Attributes, Reading, get
from opentelemetry_instrumentation_cmdrdata.random_ids import random_ids
from opentelemetry_instrumentation_cmdrdata.recorder import Recorder

_SPAN_ID = 2**64 - 1
"""The bits of a random id that a span's takes."""


class Call:
    """One call. Its methods are safe to call from any thread; only the first `end` counts."""

    __slots__ = (
        "__weakref__",
        "_chunk_times",
        "_endings",
        "_exchange_token",
        "_pid",
        "_span_token",
        "asked_for_usage",
        "asks_for_usage",
        "attribution",
        "began",
        "chunks",
        "details",
        "endpoint",
        "exchange",
        "first_chunk",
        "is_complete",
        "is_measured",
        "is_read",
        "last_chunk",
        "measures_chunks",
        "reading",
        "recorder",
        "request_model",
        "response_id",
        "said",
        "server",
        "span",
        "span_id",
        "start_time",
        "starts_job",
        "streaming",
        "trace_id",
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
        self.attribution = attribution
        self.recorder = recorder
        self.server = server
        self.start_time, self.began = began or (time.time_ns(), time.perf_counter_ns())
        self.first_chunk: int | None = None
        self.last_chunk: int | None = None
        """When the last part of the answer arrived."""
        self.reading = Reading()
        self.reading.job = job
        self.endpoint = endpoint
        self.streaming = streaming
        self.is_measured = recorder.metrics.measures(endpoint)
        self.measures_chunks = streaming and self.is_measured
        """Whether the time from each chunk to the next is measured."""
        self._chunk_times: ChunkTimes | None = None
        self.exchange = Exchange()
        if server.provider == OPENAI:
            self.exchange.reads_account = True
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
        self.asks_for_usage = (
            streaming and get(parameters.get("stream_options"), "include_usage") is True
        )
        """Whether the application asked for it."""
        is_traced = recorder.is_tracing()
        requested: Attributes = {}
        try:
            requested = request_attributes(endpoint, parameters, only_model=not is_traced)
        except Exception as error:  # noqa: BLE001 - the call is billed all the same
            faults.absorb(error, "the parameters of a request")
        self.request_model: str | None = requested.get(semconv.REQUEST_MODEL)
        self.starts_job = endpoint.polled_at is not None and endpoint.starts_job(parameters)
        self.details: Mapping[str, Any] = (
            (_request_details(endpoint, parameters) or NOTHING) if endpoint.details else NOTHING
        )
        if (
            call_sites.of_all is not False
            or attribution.shows_call_site
            or CUSTOMER_ID not in attribution.attributes
        ):
            self._add_call_site(requested)
        self.response_id = None if endpoint.api_type is None else job
        self._pid = os.getpid()
        self._exchange_token: Token[Exchange | None] | None = None
        self._span_token: Token[Context] | None = None
        self._endings: list[Ending] | None = None
        self.span: trace.Span | None = None
        parent = trace.get_current_span().get_span_context()
        if is_traced:
            try:
                self._start_span(requested, parent.span_id)
            except Exception as error:  # noqa: BLE001 - also of the application's processors
                faults.absorb(error, "the start of a span")
        if self.span is None:
            own_id = int(random_ids.take(self._pid), 16)
            self.trace_id = parent.trace_id or own_id
            self.span_id = own_id & _SPAN_ID

    @faults.guarded
    def _add_call_site(self, requested: Attributes) -> None:
        """Tell which line of the application makes the call, where that is wanted: on its span, in its event."""
        attribution, settings = self.attribution, self.exporter.settings
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
            self.details = {**self.details, semconv.CALL_SITE: str(site)}
        if on_span:
            requested[semconv.CODE_FILE_PATH] = site.path
            requested[semconv.CODE_LINE_NUMBER] = site.line
            requested[semconv.CODE_FUNCTION_NAME] = site.function

    @faults.guarded
    def capture(self, parameters: Mapping[str, Any]) -> None:
        """Have the content of the call read, where somebody would get it."""
        span, attribution = self.span, self.attribution
        self.said = capture.begin(
            self.recorder.content,
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
            self.server,
            requested,
            response_id=self.response_id,
            streaming=self.streaming,
        )
        attributes.update(self.attribution.attributes)
        if not self.attribution.tracked:
            attributes[semconv.TRACKED] = False
        return attributes

    def _start_span(self, requested: Attributes, parent_id: int) -> None:
        """Start the public span, unless no SDK makes one."""
        operation, model = self.endpoint.span_operation, self.request_model
        span = self.recorder.tracer.start_span(
            operation if model is None else f"{operation} {model}",
            kind=SpanKind.CLIENT,
            attributes=self._start_attributes(requested),
            start_time=self.start_time,
        )
        context = span.get_span_context()
        # Without an SDK a tracer returns the parent again, or the invalid span.
        if context.is_valid and context.span_id != parent_id:
            self.trace_id, self.span_id = context.trace_id, context.span_id
            self.span = span

    @property
    def exporter(self) -> CmdrDataSpanExporter:
        """What bills the call."""
        own = self.attribution.exporter
        return self.recorder.exporter() if own is None else own

    def begin(self) -> None:
        """Begin: from here on there is a call that must end."""
        self._endings = []
        self.__class__ = _Begun  # pyright: ignore[reportAttributeAccessIssue] - of the same layout

    def attach(self) -> None:
        """Begin, as the call of the context, whose span is the parent of spans inside. Undone by `detach`."""
        self.begin()
        self._exchange_token = running.set(self.exchange)
        if self.span is None:
            return
        try:
            self._span_token = otel_context.attach(trace.set_span_in_context(self.span))
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
        if self.first_chunk is None or last is None:
            self.first_chunk = self.last_chunk
        elif self.measures_chunks:
            if self._chunk_times is None:
                self._chunk_times = self.recorder.metrics.chunk_times(
                    self.endpoint, self.server, self.request_model, self.reading.attributes
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
        chunk = sse.parsed(data)
        read = self.endpoint.read_chunk
        if chunk is not None and read is not None:
            try:
                read(self.reading, chunk)
            except BaseException as error:
                if faults.is_interruption(error):
                    # By a signal handler, perhaps in the middle of it: the last value of each field counts.
                    read(self.reading, chunk)
                raise
            if self.reading.is_news:
                tell_jobs(self)
        if self.said is not None:
            self.said.chunk(chunk)
        return chunk

    def read(self, body: object) -> None:
        """Observe a whole answer, for who guards against what fails in it."""
        if self.said is not None:
            self.said.answer(body)
        self.endpoint.read(self.reading, body)

    def read_part(self, frame: object) -> None:
        """Observe a part of a streamed answer that somebody has parsed, for who guards against what fails in it."""
        read = self.endpoint.read_chunk
        if read is not None:
            read(self.reading, frame)
            if self.reading.is_news:
                tell_jobs(self)

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
        ending = Ending(error, cut)
        try:
            self._end_by(ending)
        except BaseException:
            # From the beginning: what was recorded of it is recorded once.
            self._end_by(ending)
            raise

    def _end_by(self, ending: Ending) -> None:
        endings = self._endings
        # A forked child has copies of its parent's calls; who started a call ends it.
        if endings is None or self._pid != os.getpid():
            return
        if ending not in endings:
            endings.append(ending)
        if endings[0] is ending:
            open_calls.forget(self)
            try:
                ending.end(self)
            except Exception as error:  # noqa: BLE001 - whatever it is
                faults.absorb(error, "the end of a call")
            # Its traceback leads here again, by the frames of who calls.
            ending.error = None
            self.__class__ = Call  # pyright: ignore[reportAttributeAccessIssue] - of the same layout

    def metered(self, end: int | None = None) -> Metered:
        """Return what relates the spans of others to this call, which ended at `end` or has not yet."""
        get = self.reading.attributes.get
        return Metered(
            self.server.provider,
            self.endpoint.name,
            get(semconv.RESPONSE_ID) or self.response_id,
            get(semconv.INPUT_TOKENS),
            get(semconv.OUTPUT_TOKENS),
            self.span_id,
            self.start_time,
            end,
        )

    def ended(
        self, exporter: CmdrDataSpanExporter | None, failure: Failure | None, end_time: int
    ) -> EndedCall:
        """Return what is known of the call; without an exporter nothing of who pays by default."""
        return EndedCall(
            self.endpoint,
            self.server,
            self.attribution,
            self.request_model,
            self.response_id,
            self.trace_id,
            self.span_id,
            self.start_time,
            end_time,
            self.streaming,
            self.exchange.retry_count,
            self.exchange.request_id,
            failure,
            random_ids.take(self._pid),
            None if exporter is None else exporter.settings.customer_id,
            self.starts_job,
            None if exporter is None else exporter.keeps_jobs,
            self.exchange.account,
        )


class _Begun(Call):
    """
    A call that must end, and does if nothing refers to it any more.

    Others are none, since a finalizer takes time, and swallows what a signal handler raises in it.
    """

    __slots__ = ()

    def __del__(self) -> None:
        open_calls.dropped(self)


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
