"""The spans of a request, one at a time: the same as protobuf reads, of whatever comes, and no more than is needed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cmdrdata_exporter import faults
from cmdrdata_exporter.fleet.gateway.answers import RefusedError
from cmdrdata_exporter.fleet.gateway.limits import MIB, Held, Room
from cmdrdata_exporter.fleet.gateway.pieces import (
    GarbageError,
    Piece,
    host_of,
    read_json,
    read_protobuf,
)
from cmdrdata_exporter.fleet.gateway.spans import TOGETHER, batches, take
from tests.fleet.otlp import CHAT, request, span

SDK = "opentelemetry.instrumentation.openai.v1"


def parsed(body: bytes) -> list[tuple[Any, str, str]]:
    """Return the spans of a request with their scopes and hosts, as protobuf reads them."""
    message = ExportTraceServiceRequest.FromString(body)
    return [
        (each, group.scope.name, host_of(batch.resource))
        for batch in message.resource_spans
        for group in batch.scope_spans
        for each in group.spans
    ]


def read(pieces: Iterator[Piece]) -> list[tuple[Any, str, str]]:
    """Return the same of pieces."""
    return [(piece.read(), piece.scope, piece.host) for piece in pieces]


def json_of(message: ExportTraceServiceRequest) -> Any:
    """Return a request as clients write it in JSON."""
    document = json_format.MessageToDict(message)
    spans = [
        each
        for batch in document["resourceSpans"]
        for group in batch["scopeSpans"]
        for each in group["spans"]
    ]
    for each, (original, _, _) in zip(spans, parsed(message.SerializeToString()), strict=True):
        each["traceId"], each["spanId"] = original.trace_id.hex(), original.span_id.hex()
        if original.parent_span_id:
            each["parentSpanId"] = original.parent_span_id.hex()
    return document


def held(size: int = 64 * MIB) -> Held:
    """Return room for a request."""
    return Held(Room(size), size)


def test_both_ways_to_write_a_request() -> None:
    """Protobuf and JSON say the same, which is what protobuf reads."""
    message = request((SDK, span(1, 1)), ("shop", span(1, 2, parent=1)), host="web-7")
    message.resource_spans.extend(request((SDK, span(2, 3)), host="web-8").resource_spans)
    body = message.SerializeToString()
    assert read(read_protobuf(body)) == parsed(body)
    document = json.dumps(json_of(message)).encode()
    assert read(read_json(document, held())) == parsed(body)
    assert read(read_json(document.replace(b"resourceSpans", b"resource_spans"), held())) == parsed(
        body
    )


@pytest.mark.parametrize("document", [b"{}", b'{"resourceSpans":null}', b'{"more":[{"a":1}]}'])
def test_nothing_in_json(document: bytes) -> None:
    """A request without spans is none of garbage."""
    assert read(read_json(document, held())) == []


VALID = request((SDK, span(1, 1)), ("shop", span(1, 2, parent=1))).SerializeToString()
changed = st.tuples(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(VALID)),
)


@given(changed)
def test_whatever_comes(how: tuple[list[tuple[int, int]], int]) -> None:
    """What protobuf reads is read, or refused; what it does not read makes no event, and nothing else is raised."""
    changes, length = how
    body = bytearray(VALID)
    for at, byte in changes:
        body[at] = byte
    del body[length:]
    try:
        expected: Any = parsed(bytes(body))
    except (DecodeError, ValueError):
        expected = None
    try:
        rows = take(read_protobuf(body)).rows
    except GarbageError:
        rows = None
    faults.counts.pop("span", None)
    if expected is not None and rows is not None:
        ids = [each.span_id for each, _, _ in expected]
        assert all(row.span in ids for row in rows)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists))
def test_whatever_comes_in_json(value: Any) -> None:
    """No shape of JSON raises anything but a refusal."""
    for document in (value, {"resourceSpans": value}, {"resourceSpans": [{"scopeSpans": value}]}):
        with contextlib.suppress(RefusedError):
            take(read_json(json.dumps(document).encode(), held()))
    faults.counts.pop("span", None)


def test_a_large_span() -> None:
    """A span with megabytes of content makes the event that it makes without them."""
    plain = span(1, 1)
    large = span(1, 1, attributes=CHAT | {"gen_ai.input.messages": "x" * (3 * MIB)})
    large.events.add(name="y" * MIB)
    found = [
        take(read_protobuf(request((SDK, each)).SerializeToString())).rows
        for each in (plain, large)
    ]
    assert len(found[0]) == 1
    assert found[0] == found[1]


def test_a_span_that_is_too_large() -> None:
    """A span of which megabytes would have to be read is refused, and told of; the others are taken."""
    large = span(1, 1, attributes=CHAT | {"cmdrdata.metadata.text": "x" * (2 * MIB)})
    taken = take(read_protobuf(request((SDK, large), (SDK, span(1, 2))).SerializeToString()))
    assert (taken.spans, taken.refused, len(taken.rows)) == (2, 1, 1)
    assert faults.counts.pop("span") == 1


def test_a_large_resource() -> None:
    """Of a resource with megabytes of attributes the host is read still."""
    message = request((SDK, span(1, 1)), host="web-7")
    message.resource_spans[0].resource.attributes.add(key="text").value.string_value = "x" * (
        2 * MIB
    )
    [(_, _, host)] = read(read_protobuf(message.SerializeToString()))
    assert host == "web-7"


def test_ids_in_json() -> None:
    """A span whose ids are no hexadecimal digits is refused alone."""
    document = json_of(request((SDK, span(1, 1)), (SDK, span(1, 2))))
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] = "zzzz"
    taken = take(read_json(json.dumps(document).encode(), held()))
    assert (taken.spans, taken.refused, len(taken.rows)) == (2, 1, 1)
    assert faults.counts.pop("span") == 1


def test_too_many_fields() -> None:
    """A request of more resources, scopes and spans than may be is refused as too large, before any of it is stored."""
    body = request(*((SDK, span(1, number)) for number in range(1, 20))).SerializeToString()
    assert len(read(read_protobuf(body, most=200))) == 19
    with pytest.raises(RefusedError, match="a request may have 20 resources, scopes and spans"):
        read_protobuf(body, most=20)


def test_what_json_takes() -> None:
    """Room is taken for what JSON takes when it is parsed: none now is no end, more than there is at all is one."""
    document = json.dumps(json_of(request((SDK, span(1, 1))))).encode()
    room = Room(20 * len(document))
    with Held(room, 20 * len(document)) as it:
        read_json(document, it)
        assert 5 * len(document) < room.used < 15 * len(document)
        with Held(room, 20 * len(document)) as other, pytest.raises(RefusedError, match="again"):
            read_json(document, other)
    with pytest.raises(RefusedError, match="fewer spans"):
        read_json(document, held(5 * len(document)))


def test_some_after_another() -> None:
    """The spans of a request are kept in parts, which together are all of them."""
    message = request((SDK, span(1, 1, attributes={})))
    spans = message.resource_spans[0].scope_spans[0].spans
    spans.extend(span(1, number, attributes={}) for number in range(2, 2 * TOGETHER + 2))
    parts = list(batches(read_protobuf(message.SerializeToString())))
    assert [taken.spans for taken in parts] == [TOGETHER, TOGETHER, 1]
    assert len({row.span for taken in parts for row in taken.rows}) == 2 * TOGETHER + 1
