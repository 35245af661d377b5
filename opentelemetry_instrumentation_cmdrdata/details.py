"""
The event `gen_ai.client.inference.operation.details` of a call, on the application's LoggerProvider.

OpenTelemetry's API of log records has changed: since 1.35 a record has the name of an event, and its attributes may be
structured. Before, an event had a logger of its own, and its attributes were those of a span.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber, get_logger_provider
from opentelemetry.attributes import BoundedAttributes

from cmdrdata_exporter.attributes import OUR_SCOPE
from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.content import written
from opentelemetry_instrumentation_cmdrdata.version import __version__

_HAS_EVENTS = "event_name" in inspect.signature(LogRecord.__init__).parameters
_IS_STRUCTURED = "extended_attributes" in inspect.signature(BoundedAttributes.__init__).parameters


class DetailsEvents:
    """
    Where the events of calls go.

    Args:
        provider: takes them. Default: the global one, which the application may set at any time.
    """

    def __init__(self, provider: LoggerProvider | None = None) -> None:
        self._own = provider

    @property
    def _provider(self) -> LoggerProvider:
        return get_logger_provider() if self._own is None else self._own

    def are_taken(self) -> bool:
        """Say whether the application has a LoggerProvider: those of the API stand for one that is not there."""
        return not type(self._provider).__module__.startswith("opentelemetry._logs")

    def emit(
        self,
        span: trace.Span | None,
        attributes: Mapping[str, Any],
        content: Mapping[str, Any],
        timestamp: int,
    ) -> None:
        """
        Emit the event of a call.

        Args:
            span: of the call, if it has one.
            attributes: all of the call's span.
            content: of the call, by the names of attributes.
            timestamp: when the call ended, in nanoseconds since 1970.
        """
        said = {
            name: _encodable(value) if _IS_STRUCTURED else written(value)
            for name, value in content.items()
        }
        logger = _logger(self._provider)
        given: dict[str, Any] = {
            "timestamp": timestamp,
            "severity_number": SeverityNumber.DEBUG,
            "attributes": {**attributes, **said},
        }
        if _HAS_EVENTS:
            # Not the span that is current here: a stream may end anywhere.
            context = trace.set_span_in_context(span or trace.INVALID_SPAN)
            logger.emit(
                LogRecord(
                    context=context,
                    severity_text="DEBUG",
                    event_name=semconv.DETAILS_EVENT,
                    **given,
                )
            )
            return
        of = trace.INVALID_SPAN_CONTEXT if span is None else span.get_span_context()
        event = importlib.import_module("opentelemetry._events").Event
        ids = {"trace_id": of.trace_id, "span_id": of.span_id, "trace_flags": of.trace_flags}
        logger.emit(event(semconv.DETAILS_EVENT, **ids, **given))


@functools.lru_cache(maxsize=4)
def _logger(provider: LoggerProvider) -> Any:
    """Return what takes the events of our scope."""
    if _HAS_EVENTS:
        return provider.get_logger(OUR_SCOPE, __version__)
    events: Any = importlib.import_module("opentelemetry.sdk._events")
    return events.EventLoggerProvider(provider).get_event_logger(OUR_SCOPE, __version__)


def _encodable(value: Any) -> Any:
    """Return content without halves of surrogate pairs, which no exporter could encode."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        entries: Any = value.items()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return {_encodable(key): _encodable(one) for key, one in entries}
    if isinstance(value, list):
        return [_encodable(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    return value
