"""
What is kept of a span until its call is settled. Pure.

A span that is a charge is made an event at once: of all else that it says, of content above all, nothing is kept. With
it goes what relates it to other spans of the same call.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode

from cmdrdata_exporter import attributes as names
from cmdrdata_exporter import faults
from cmdrdata_exporter.attributes import OUR_SCOPE
from cmdrdata_exporter.bodies import written
from cmdrdata_exporter.deduplication import Report
from cmdrdata_exporter.events import UsageEvent
from cmdrdata_exporter.foreign import event_from_span, is_without_usage

_READ = frozenset(
    chain(
        *names.FIELDS.values(),
        *names.BREAKDOWNS.values(),
        (
            names.OPERATION,
            names.OPENINFERENCE_KIND,
            names.OPENLLMETRY_REQUEST_TYPE,
            names.OPENAI_API_TYPE,
            names.CACHE_HIT,
        ),
    )
)
"""The attributes that are read, beside our own. No others are looked at: they may be prompts of megabytes."""
_NO_RESOURCE = Resource({})
"""Of spans whose resource nobody asks for: otherwise each looks for one of this process, a thousand times as long."""
_SOURCE = "source"
"""`metadata.source` says that an event was made of a span."""
_HOST = ("host.name", "service.instance.id", "service.name")
"""The attributes of a resource that name who sent it, the best one first."""
LONGEST_HOST = 256
_LONGEST_SCOPE = 256
"""Characters that are kept of a scope's name. It comes once for many spans, and is kept with each."""


class GarbageError(ValueError):
    """What came is no OTLP. The message says what is wrong, and repeats nothing of it."""


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


def take(batches: Iterable[Any]) -> Taken:
    """Return what is kept of the spans of `ResourceSpans`."""
    rows: list[SpanRow] = []
    spans = refused = without_usage = 0
    for span, scope, host in _each(batches):
        spans += 1
        if len(span.trace_id) != 16 or len(span.span_id) != 8 or not any(span.trace_id):
            refused += 1
            continue
        try:
            row, tells_nothing = _row(span, scope, host)
            rows.append(row)
            without_usage += tells_nothing
        except (ValueError, TypeError, OverflowError) as error:
            # No value that is known does this. One span shall not keep others from being billed.
            faults.report(
                "span", "a span cannot be read (%s) and makes no event", type(error).__name__
            )
            refused += 1
    return Taken(rows, spans, refused, without_usage)


def _each(batches: Iterable[Any]) -> Iterator[tuple[Span, str, str]]:
    """Yield each span, the name of its scope, and who sent it."""
    for batch in batches:
        host = host_of(batch.resource.attributes)
        for group in batch.scope_spans:
            scope = group.scope.name[:_LONGEST_SCOPE]
            for span in group.spans:
                yield span, scope, host


def _row(span: Span, scope: str, host: str) -> tuple[SpanRow, bool]:
    """Return what is kept of a span, and whether it is of a model call that tells no usage."""
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
        if pair.key in _READ or pair.key.startswith(names.OWN_PREFIX)
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


def host_of(resource: Iterable[KeyValue]) -> str:
    """Return who sent a span, by the attributes of its resource; empty where none of them tells."""
    known = {pair.key: pair.value.string_value for pair in resource if pair.key in _HOST}
    host = next((known[name] for name in _HOST if known.get(name)), "")
    return host.replace("\0", "")[:LONGEST_HOST]


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
    """Return what a span tells of its call, for `deduplication`."""
    return Report.of(
        span,
        provider=relation.provider or "",
        endpoint=relation.endpoint,
        response_id=relation.response_id,
        tokens=relation.tokens,
    )


# The wire


def read_protobuf(body: bytes) -> Any:
    """
    Return the `ResourceSpans` of a request.

    Raises:
        GarbageError: it is none.
    """
    return _parsed(ExportTraceServiceRequest(), body)


def read_record(body: bytes) -> Any:
    """
    Return the `ResourceSpans` of a record of a topic, as the Collector's exporter writes it with `otlp_proto`.

    Raises:
        GarbageError: it has none.
    """
    return _parsed(TracesData(), body)


def _parsed(message: Any, body: bytes) -> Any:
    try:
        message.ParseFromString(body)
    except (DecodeError, ValueError):
        raise GarbageError(
            "expected is a message of OTLP traces, as protobuf; these bytes are none"
        ) from None
    return message.resource_spans


def read_json(body: bytes) -> Any:
    """
    Return the `ResourceSpans` of a request in JSON.

    Raises:
        GarbageError: it is none.
    """
    message = ExportTraceServiceRequest()
    try:
        json_format.Parse(body, message, ignore_unknown_fields=True)
        for span, _, _ in _each(message.resource_spans):
            span.trace_id = _from_hexadecimal(span.trace_id)
            span.span_id = _from_hexadecimal(span.span_id)
            span.parent_span_id = _from_hexadecimal(span.parent_span_id)
    except (json_format.ParseError, ValueError, RecursionError):
        raise GarbageError(
            "expected is a message of OTLP traces, as JSON; this is none, or its ids are no hexadecimal digits"
        ) from None
    return message.resource_spans


def _from_hexadecimal(read: bytes) -> bytes:
    """
    Return an id.

    OTLP writes ids in hexadecimal digits where protobuf's JSON has base64, whose digits they are, too:
    https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
    """
    return bytes.fromhex(base64.b64encode(read).decode())
