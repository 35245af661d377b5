"""What is done when a call ends, and for the jobs that its stream shows before."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from cmdrdata_exporter import faults
from cmdrdata_exporter.deduplication import own_calls
from cmdrdata_exporter.scrubbing import scrubbed
from opentelemetry_instrumentation_cmdrdata import capture, charges, semconv, spans
from opentelemetry_instrumentation_cmdrdata.ended import EndedCall, Failure, FinishedCall
from opentelemetry_instrumentation_cmdrdata.openai import failures
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes

if TYPE_CHECKING:
    from opentelemetry_instrumentation_cmdrdata.call import Call

_NO_REASON: dict[int, str | None] = {0: None}


class Ending:
    """An attempt to end a call, the first of which counts; the same one where that was interrupted and begins anew."""

    __slots__ = ("cut", "ended", "error", "is_told", "recorded")

    def __init__(self, error: BaseException | None, cut: bool) -> None:
        self.error = error
        self.cut = cut
        self.recorded: charges.Recorded = defaultdict(list)
        self.ended: EndedCall | None = None
        """What was billed, once that has begun."""
        self.is_told = False
        """Whether the call's observer was told."""

    def end(self, call: Call) -> None:
        """Do all that is to be done once, and what was begun of it again where it was interrupted."""
        error, now = self.error, time.perf_counter_ns()
        try:
            # Also where the call makes no event, as others may report it all the same. What failed without a word
            # from the model is no call that others report: they report the next attempt.
            passed = call.metered(call.start_time + now - call.began)
            if call.endpoint.is_charged and (error is None or passed.response_id is not None):
                own_calls.metered(passed)
        except Exception as fault:  # noqa: BLE001 - the call is billed all the same
            faults.absorb(fault, "the note of a call")
        cut = (self.cut or error is not None) and not call.is_complete
        # What ends a stream in order, or leaves it, comes when the application gets to it, at any time after the
        # last chunk; the provider's work ended with that chunk.
        last = call.last_chunk if error is None and call.last_chunk is not None else now
        end_time = call.start_time + last - call.began
        is_whole = error is None and call.reading.error is None
        failure = None if is_whole else _failure(call, error)
        facts = _facts(call, error, failure, cut=cut)
        usage_status = charges.usage_status(
            call.endpoint, call.reading, call.exchange, error, cut=cut, streaming=call.streaming
        )
        try:
            exporter = call.exporter
            self.ended = call.ended(exporter, failure, end_time)
            for event, kept in charges.charges(
                self.ended, call.reading, facts, usage_status, self.recorded
            ):
                exporter.charge(event, kept)
        except Exception as fault:  # noqa: BLE001 - the span ends all the same
            faults.absorb(fault, "the charge of a call")
        if usage_status == "missing" and failure is None:
            _report_silent(call)
        if error is None and call.endpoint.polls:
            # That the job failed is not a failure of asking for it.
            facts.pop(semconv.ERROR_TYPE, None)
            failure = None
        if call.is_measured:
            call.is_measured = False  # Once, also where this is interrupted and begins anew.
            call.recorder.metrics.record(
                call.endpoint,
                call.server,
                call.request_model,
                facts,
                (end_time - call.start_time) / 1e9,
                call.attribution.attributes,
                lambda: call.exporter,
            )
        content = None if call.said is None else call.said.end(call.span, facts, end_time)
        if call.span is not None:
            _end_span(call.span, call.endpoint, facts, failure, end_time)
        if call.attribution.observer is not None and not self.is_told:
            self.is_told = True
            ended = self.ended or call.ended(None, failure, end_time)
            capture.told(call.attribution.observer, FinishedCall(ended, facts, content))


def _failure(call: Call, error: BaseException | None) -> Failure | None:
    """Return how the call failed, None if it did not."""
    if error is not None:
        call.exchange.call_failed(error)
        return Failure(failures.qualified_name(error), _code(error), _message(error))
    if call.reading.error is not None:
        code, message = call.reading.error
        return Failure(code, code, scrubbed(message))
    return None


def _facts(
    call: Call, error: BaseException | None, failure: Failure | None, *, cut: bool
) -> Attributes:
    """Return what was read of the answer, and what is known of it only now that the call ends."""
    reading = call.reading
    facts = {**call.details, **call.exchange.account, **reading.attributes}
    if call.first_chunk is not None and call.streaming:
        facts[semconv.TIME_TO_FIRST_CHUNK] = (call.first_chunk - call.began) / 1e9
    if failure is not None:
        facts[semconv.ERROR_TYPE] = failure.type
        if error is not None and not reading.has_usage:
            facts.pop(semconv.CHARACTERS, None)  # They were offered, not spoken.
    reasons = reading.finish_reasons or (_NO_REASON if call.endpoint.has_choices else {})
    if reasons and (cut or failure is not None or any(reasons.values())):
        facts[semconv.FINISH_REASONS] = tuple(
            [reasons[index] or "error" for index in sorted(reasons)]
        )
    return facts


def _report_silent(call: Call) -> None:
    """Say that a whole stream told no usage, where that is up to who asks for it."""
    if call.streaming and call.endpoint.tells_usage_if_asked and call.attribution.tracked:
        call.recorder.report_silent(
            call.server.address, asked=call.asked_for_usage or call.asks_for_usage
        )


def _end_span(
    span: trace.Span, endpoint: Endpoint, facts: Attributes, failure: Failure | None, end_time: int
) -> None:
    if span.is_recording():
        span.set_attributes(spans.answer_attributes(endpoint, facts))
        if failure is not None:
            span.set_status(Status(StatusCode.ERROR, failure.message))
    span.end(end_time)


def tell_jobs(call: Call) -> None:
    """Bill what a stream has shown to have ended, and have the job kept that it is about, before its own end."""
    recorded: charges.Recorded = defaultdict(list)
    try:
        _bill_jobs(call, recorded)
    except BaseException:
        # From the beginning: what was recorded of it is recorded once.
        _bill_jobs(call, recorded)
        raise


@faults.guarded
def _bill_jobs(call: Call, recorded: charges.Recorded) -> None:
    reading, exporter = call.reading, call.exporter
    now = call.start_time + time.perf_counter_ns() - call.began
    ended = call.ended(exporter, None, now)
    for event, kept in charges.of_jobs(ended, reading, reading.attributes, recorded):
        exporter.charge(event, kept)
    reading.listed = ()
    reading.is_news = False


_message = faults.guarded(failures.message)
_code = faults.guarded(failures.code)
