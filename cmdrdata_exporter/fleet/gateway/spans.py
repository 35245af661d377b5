"""
What is kept of a span until its call is settled. Pure.

A span that is a charge is made an event at once: of all else that it says, of content above all, nothing is kept. With
it goes what relates it to other spans of the same call.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode

from cmdrdata_exporter import faults
from cmdrdata_exporter.attributes import OUR_SCOPE
from cmdrdata_exporter.bodies import written
from cmdrdata_exporter.events import UsageEvent
from cmdrdata_exporter.fleet.gateway.answers import RefusedError
from cmdrdata_exporter.fleet.gateway.pieces import Piece, is_read
from cmdrdata_exporter.foreign import event_from_span, is_without_usage
from cmdrdata_exporter.reports import Report

_SOURCE = "source"
"""`metadata.source` says that an event was made of a span."""
TOGETHER = 1000
"""How many spans of a request are stored at once."""
UNREADABLE = (
    *(ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError),
    *(DecodeError, json_format.ParseError, RefusedError),
)
"""What comes of a span that is none."""

_reading = threading.Lock()
# Without one the SDK asks this process and its host for theirs, in threads, for each span.
_NO_RESOURCE = Resource.get_empty()


class SpanRow(NamedTuple):
    """What is kept of one span."""

    trace: bytes
    span: bytes
    relation: str
    """JSON, see `Relation`."""
    is_call: bool = True
    """Whether it reports a call; the others matter only where they are between two that do."""
    event: str | None = None
    """The id of the event, None: it is no call, or one of our own instrumentation, metered where it was made."""
    body: bytes | None = None
    host: str = ""


class Relation(NamedTuple):
    """What relates a span to others of its trace."""

    start: int
    end: int
    parent: str | None = None
    """The parent's id, in hexadecimal digits."""
    scope: str = ""
    provider: str | None = None
    """None: the span is no model call."""
    endpoint: str = ""
    response_id: str | None = None
    tokens: tuple[int, int] = (0, 0)

    @property
    def is_ours(self) -> bool:
        """Whether our own instrumentation made it."""
        return self.scope == OUR_SCOPE


class Taken(NamedTuple):
    """What came of a batch of spans."""

    rows: list[SpanRow]
    spans: int
    """How many there were."""
    refused: int
    """How many of them cannot be read."""
    without_usage: int
    """How many are of model calls, and tell no usage."""


def take(pieces: Iterable[Piece]) -> Taken:
    """Return what is kept of spans."""
    rows: list[SpanRow] = []
    spans = refused = without_usage = 0
    for piece in pieces:
        spans += 1
        try:
            # One at a time in the whole process: a span may take many times its bytes once it is parsed.
            with _reading:
                row, tells_nothing = _row(piece.read(), piece.scope, piece.host)
        except UNREADABLE as error:
            # One span shall not keep others from being billed.
            faults.report(
                "span", "a span cannot be read (%s) and makes no event", type(error).__name__
            )
            row, tells_nothing = None, False
        if row is None:
            refused += 1
        else:
            rows.append(row)
            without_usage += tells_nothing
    return Taken(rows, spans, refused, without_usage)


def batches(pieces: Iterator[Piece]) -> Iterator[Taken]:
    """Yield what is kept of spans, of some after another, so that it is not all of it in memory."""
    while (taken := take(islice(pieces, TOGETHER))).spans:
        yield taken


def _row(span: Span, scope: str, host: str) -> tuple[SpanRow | None, bool]:
    """Return what is kept of a span, None without valid ids; and whether it is of a model call that tells no usage."""
    if len(span.trace_id) != 16 or len(span.span_id) != 8 or not any(span.trace_id):
        return None, False
    parent = span.parent_span_id.hex() if len(span.parent_span_id) == 8 else None
    relation = Relation(span.start_time_unix_nano, span.end_time_unix_nano, parent, scope)
    read = _attributes(span.attributes)
    readable = _readable(span, scope, read) if read else None
    event = event_from_span(readable) if readable else None
    if event is None:
        row = SpanRow(span.trace_id, span.span_id, _written(relation), is_call=False)
        return row, readable is not None and is_without_usage(readable)
    relation = relation._replace(
        provider=event.provider,
        endpoint=event.endpoint,
        response_id=event.metadata.get("response_id"),
        tokens=(event.input_tokens, event.output_tokens),
    )
    if relation.is_ours:
        return SpanRow(span.trace_id, span.span_id, _written(relation)), False
    event, body, cut = written(_marked(event))
    if cut:
        faults.report(
            "metadata size",
            "the metadata of a span's event were too large; these are cut or left out: %s",
            ", ".join(cut),
        )
    row = SpanRow(
        span.trace_id,
        span.span_id,
        _written(relation),
        event=event.id,
        body=body,
        host=host,
    )
    return row, False


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {
        pair.key: value
        for pair in pairs
        if is_read(pair.key)
        if (value := _value(pair.value)) is not None
    }


def _value(value: AnyValue) -> Any:
    """Return a value as the SDK has it; None for what no attribute that is read can be."""
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bool_value", "int_value", "double_value"):
        return getattr(value, kind)
    if kind == "array_value":
        found = [_value(each) for each in value.array_value.values]
        return tuple(each for each in found if each is not None and not isinstance(each, tuple))
    return None


def _readable(span: Span, scope: str, attributes: Mapping[str, Any]) -> ReadableSpan:
    is_error = span.status.code == 2
    return ReadableSpan(
        name=span.name,
        resource=_NO_RESOURCE,
        context=SpanContext(
            int.from_bytes(span.trace_id, "big"), int.from_bytes(span.span_id, "big"), True
        ),
        attributes=attributes,
        status=Status(
            StatusCode.ERROR if is_error else StatusCode.UNSET,
            span.status.message if is_error else None,
        ),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=InstrumentationScope(scope),
    )


def _marked(event: UsageEvent) -> UsageEvent:
    """Return an event that says where it comes from, so that reports can tell what may be missing of it."""
    metadata = dict(event.metadata)
    if _SOURCE in metadata:
        metadata[f"user_{_SOURCE}"] = metadata[_SOURCE]
    return event._replace(metadata=metadata | {_SOURCE: "span"})


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _written(relation: Relation) -> str:
    return _encode(relation)


def relation_of(row: SpanRow) -> Relation:
    """Return what relates a span to others."""
    start, end, parent, scope, provider, endpoint, response_id, tokens = json.loads(row.relation)
    return Relation(start, end, parent, scope, provider, endpoint, response_id, tuple(tokens))


def span_of(row: SpanRow, relation: Relation) -> ReadableSpan:
    """Return a span with the ids alone."""
    trace = int.from_bytes(row.trace, "big")
    parent = None
    if relation.parent is not None:
        parent = SpanContext(trace, int(relation.parent, 16), True)
    return ReadableSpan(
        name="",
        resource=_NO_RESOURCE,
        context=SpanContext(trace, int.from_bytes(row.span, "big"), True),
        parent=parent,
        start_time=relation.start,
        end_time=relation.end,
        instrumentation_scope=InstrumentationScope(relation.scope),
    )


def report_of(span: ReadableSpan, relation: Relation) -> Report:
    """Return what a span tells of its call, for `reports`."""
    return Report.of(
        span,
        provider=relation.provider or "",
        endpoint=relation.endpoint,
        response_id=relation.response_id,
        tokens=relation.tokens,
    )
