"""Requests of OTLP, as clients send them."""

from __future__ import annotations

import hashlib
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SECOND = 1_000_000_000
BEGAN = 1_790_000_000 * SECOND
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-5",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 5,
    "cmdrdata.customer.id": "acme",
}


def trace_of(number: int) -> bytes:
    """Return the id of a trace."""
    return hashlib.sha256(str(number).encode()).digest()[:16]


def span_of(number: int) -> bytes:
    """Return the id of a span."""
    return number.to_bytes(8, "big")


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=value)


def _pairs(values: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def request(*spans: tuple[str, Span], host: str = "web-1") -> ExportTraceServiceRequest:
    """Return a request with spans, each with the name of its scope."""
    message = ExportTraceServiceRequest()
    batch = message.resource_spans.add()
    batch.resource.attributes.extend(_pairs({"host.name": host, "service.name": "shop"}))
    for scope, span in spans:
        group = batch.scope_spans.add()
        group.scope.name = scope
        group.spans.append(span)
    return message


def span(
    trace: int,
    number: int,
    *,
    parent: int | None = None,
    at: tuple[float, float] = (0.0, 1.0),
    attributes: dict[str, Any] | None = None,
) -> Span:
    """Return a span, of a call unless other attributes are given; `at`: when it begins and ends, in seconds."""
    return Span(
        trace_id=trace_of(trace),
        span_id=span_of(number),
        parent_span_id=b"" if parent is None else span_of(parent),
        name="chat gpt-5",
        start_time_unix_nano=BEGAN + int(at[0] * SECOND),
        end_time_unix_nano=BEGAN + int(at[1] * SECOND),
        attributes=_pairs(CHAT if attributes is None else attributes),
    )
