"""
The content of calls, where it is asked for: what reads it, who may change it, and where it goes.

Nothing of it is ever logged: of what fails here only the type of the exception is said, since its message may quote a
prompt. What an application's `content_hook` raises drops the content, never the span.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, cast

from opentelemetry import trace
from opentelemetry._logs import LoggerProvider
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from cmdrdata_exporter import faults
from cmdrdata_exporter.settings import CAPTURE_CONTENT, Settings
from opentelemetry_instrumentation_cmdrdata import details, semconv, spans
from opentelemetry_instrumentation_cmdrdata.bounds import Bounds, bounded
from opentelemetry_instrumentation_cmdrdata.content import Content, written
from opentelemetry_instrumentation_cmdrdata.openai.content.reading import Reader
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes

_P = ParamSpec("_P")

Hook = Callable[[Content, Mapping[str, Any]], Content | None]
"""
Changes the content of a call before it goes anywhere, or returns None to drop it.

Its second argument are the attributes of the call's span. It is called once, in the thread in which the call ends.
"""

MODES = {
    "NO_CONTENT": (False, False),
    "SPAN_ONLY": (True, False),
    "EVENT_ONLY": (False, True),
    "SPAN_AND_EVENT": (True, True),
}
"""Whether content goes on spans, and into events, by what the environment says."""


def _guarded(function: Callable[_P, None]) -> Callable[_P, None]:
    """Guard as `faults.guarded` does, without logging what may be content."""
    kind = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def harmless(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is
            _absorb(error, kind)

    return harmless


def _absorb(error: Exception, kind: str) -> None:
    if faults.is_interruption(error):
        raise  # noqa: PLE0704 - the one that is being handled
    [*_, (frame, line)] = traceback.walk_tb(error.__traceback__)
    place = f"{frame.f_code.co_filename}:{line}"
    message = (
        "CmdrData failed in %s: %s at %s; content is missing, the call is metered all the same"
    )
    faults.report(kind, message, kind, type(error).__name__, place)


def told(observer: Callable[[Any], object], finished: object) -> None:
    """Call the observer of a call."""
    try:
        observer(finished)
    except Exception as error:
        if faults.is_interruption(error):
            raise
        faults.report(
            "observer",
            "the observer of a call raised %s; the call is metered all the same",
            type(error).__name__,
        )


class Capture:
    """
    Whether the content of calls is recorded, and how.

    Args:
        settings: what the environment says. A value for the content that is none of `MODES` is logged.
        hook: see `Hook`.
        logger_provider: takes the events. Default: the global one.
    """

    def __init__(
        self,
        settings: Settings,
        hook: Hook | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        mode = MODES.get(settings.content)
        if mode is None:
            faults.say(
                30,
                "%s is %r, so no content is recorded; expected is one of: %s",
                CAPTURE_CONTENT,
                settings.content,
                ", ".join(MODES),
            )
            mode = MODES["NO_CONTENT"]
        self.on_spans, self.in_events = mode
        self.is_on = any(mode)
        """Whether it is of all calls."""
        self.hook = hook
        self.bounds = Bounds(settings.content_max_length, settings.content_max_total)
        self.events = details.DetailsEvents(logger_provider)


class CallContent:
    """
    What is read of the content of one call, and what becomes of it at the call's end.

    Args:
        capture: how content is recorded.
        endpoint: what is called.
        reader: reads the content.
        attributes: those with which the call's span starts.
        on_span: whether the span is to have the content.
        in_event: whether there is to be an event.
    """

    __slots__ = (
        "_answer",
        "_attributes",
        "_capture",
        "_endpoint",
        "_has_ended",
        "_in_event",
        "_on_span",
        "_reader",
    )

    def __init__(
        self,
        capture: Capture,
        endpoint: Endpoint,
        reader: Reader,
        attributes: Attributes,
        *,
        on_span: bool,
        in_event: bool,
    ) -> None:
        self._capture = capture
        self._endpoint = endpoint
        self._reader = reader
        self._attributes = attributes
        self._on_span = on_span
        self._in_event = in_event
        self._answer: Content | None = None
        self._has_ended = False

    @_guarded
    def answer(self, body: object) -> None:
        """Read a whole answer."""
        self._reader.answer(body)

    @_guarded
    def chunk(self, chunk: object) -> None:
        """Read a chunk of a stream."""
        self._reader.chunk(chunk)

    def end(self, span: trace.Span | None, facts: Attributes, end_time: int) -> Content | None:
        """Record the content of a call that ends, once; return it whole, None where it was dropped."""
        if not self._has_ended:
            self._has_ended = True
            self._record(span, facts, end_time)
        return self._answer

    @_guarded
    def _record(self, span: trace.Span | None, facts: Attributes, end_time: int) -> None:
        attributes = {**self._attributes, **spans.answer_attributes(self._endpoint, facts)}
        reader = self._reader
        self._answer, shown = self._passed(
            Content(
                reader.system_instructions,
                reader.input_messages,
                reader.output(facts.get(semconv.FINISH_REASONS, ())),
                reader.tool_definitions,
            ),
            attributes,
        )
        if self._on_span and span is not None:
            span.set_attributes({name: written(value) for name, value in shown.items()})
        if self._in_event:
            self._capture.events.emit(span, attributes, shown, end_time)

    def _passed(self, content: Content, attributes: Attributes) -> tuple[Content | None, _Shown]:
        """Return what the application's hook leaves of the content, and what is shown of that."""
        hook, bounds = self._capture.hook, self._capture.bounds
        if hook is None:
            return content, _named(bounded(content, bounds))
        try:
            passed = cast("object", hook(content, attributes.copy()))
            if passed is None:
                return None, {}
            if not isinstance(passed, Content):
                raise TypeError  # noqa: TRY301 - as where its messages are none
            return passed, _named(bounded(passed, bounds))
        except Exception as error:
            if faults.is_interruption(error):
                raise
            faults.report(
                "content_hook",
                "the content_hook raised %s, or returned what is no Content; the content is dropped, not the span",
                type(error).__name__,
            )
            return None, {}


_Shown = dict[str, list[dict[str, Any]]]
"""Content within its bounds, by the names of the attributes."""


def _named(content: Content) -> _Shown:
    """Return content by the names of the attributes, without what does not occur."""
    named = {
        semconv.SYSTEM_INSTRUCTIONS: content.system_instructions,
        semconv.INPUT_MESSAGES: content.input_messages,
        semconv.OUTPUT_MESSAGES: content.output_messages,
        semconv.TOOL_DEFINITIONS: content.tool_definitions,
    }
    return {name: value for name, value in named.items() if value}


def begin(
    capture: Capture,
    endpoint: Endpoint,
    body: Mapping[str, Any],
    attributes: Attributes,
    *,
    asked: bool,
    is_observed: bool,
    is_recording: bool,
) -> CallContent | None:
    """
    Return what reads the content of a call, None where nobody would get it.

    Args:
        capture: how content is recorded.
        endpoint: what is called.
        body: of the request.
        attributes: those with which the call's span starts.
        asked: whether the call's client asks for its content.
        is_observed: whether somebody is told of the call.
        is_recording: whether it has a span that takes attributes.
    """
    if endpoint.content is None:
        return None
    on_span = is_recording and (asked or capture.on_spans)
    in_event = capture.in_events and is_instrumentation_enabled() and capture.events.are_taken()
    if not (on_span or in_event or (asked and is_observed)):
        return None
    try:
        reader = endpoint.content(body)
    except Exception as error:  # noqa: BLE001 - whatever it is
        _absorb(error, "the content of a request")
        return None
    return CallContent(capture, endpoint, reader, attributes, on_span=on_span, in_event=in_event)
