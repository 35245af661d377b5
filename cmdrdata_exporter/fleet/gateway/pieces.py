"""
The spans of a request, one at a time.

Parsed as one message, 16 MiB of tiny fields take more than a gigabyte. So of a request in protobuf only the places of
the spans are looked for, and one span is parsed after another, a large one without what nobody reads of it. JSON is
parsed whole: what that takes is counted beforehand.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cmdrdata_exporter import attributes as names
from cmdrdata_exporter.fleet.gateway.answers import GARBAGE, RefusedError
from cmdrdata_exporter.fleet.gateway.limits import Held, TooLargeError

READ = frozenset(
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
HOST = ("host.name", "service.instance.id", "service.name")
"""The attributes of a resource that name who sent it, the best one first."""
LARGEST = 1 << 20
"""Bytes of what is read of one span, or of a resource. One that has more cannot be read."""
FIELD = 64
"""Bytes for which a request may have one field, of those that are looked at: resources, scopes and spans."""
_LONGEST_SCOPE = 256
"""Characters that are kept of a scope's name. It comes once for many spans, and is kept with each."""
LONGEST_HOST = 256


class GarbageError(RefusedError, ValueError):
    """What came is no OTLP. The message says what is wrong, and repeats nothing of it."""

    def __init__(self, message: str) -> None:
        super().__init__(GARBAGE, message)


class Piece(NamedTuple):
    """A span, not parsed yet."""

    read: Callable[[], Span]
    """Parses it, or raises `ValueError`."""
    scope: str
    host: str


def is_read(key: str) -> bool:
    """Say whether an attribute of a span is read."""
    return key in READ or key.startswith(names.OWN_PREFIX)


def host_of(resource: Resource) -> str:
    """Return who sent a span, by the attributes of its resource; empty where none of them tells."""
    known = {pair.key: pair.value.string_value for pair in resource.attributes if pair.key in HOST}
    host = next((known[name] for name in HOST if known.get(name)), "")
    return host.replace("\0", "")[:LONGEST_HOST]


# Protobuf: https://protobuf.dev/programming-guides/encoding/


def read_protobuf(body: bytes | bytearray, most: int = (16 << 20) // FIELD) -> Iterator[Piece]:
    """
    Return the spans of a request, or of a record of a topic, which is written alike.

    Args:
        body: it.
        most: how many resources, scopes and spans it may have, with other fields beside them.

    Raises:
        GarbageError: it is none.
        TooLargeError: it has more.
    """
    try:
        for _ in _pieces(body, most):
            pass
    except (ValueError, LookupError, DecodeError):
        raise GarbageError(
            "expected is a message of OTLP traces, as protobuf; these bytes are none"
        ) from None
    return _pieces(body, most)


def _pieces(body: bytes | bytearray, most: int) -> Iterator[Piece]:
    scan = _Scan(body, most)
    for batch in scan.parts((0, len(body)), 1):
        resource = scan.message(scan.last(batch, 1), 1, HOST.__contains__)
        host = host_of(Resource.FromString(resource))
        for group in scan.parts(batch, 2):
            scope = scan.text(scan.last(scan.last(group, 1), 1), _LONGEST_SCOPE)
            for span in scan.parts(group, 2):
                # It counts the fields of a large span for itself.
                yield Piece(partial(_span, _Scan(body, most), span), scope, host)


def _span(scan: _Scan, within: _Range) -> Span:
    return Span.FromString(scan.message(within, 9, is_read))


_KEPT = (1, 2, 4, 7, 8, 15)
"""The fields of a span that are read, beside its attributes: ids, times and status."""
_Range = tuple[int, int]


class _Field(NamedTuple):
    number: int
    begins: int
    """Where its tag is."""
    at: int
    """Where its value is."""
    end: int
    is_bytes: bool


class _Scan:
    """A message, of which so many fields are looked at, at most. What is none raises `ValueError` or `LookupError`."""

    def __init__(self, body: bytes | bytearray, most: int) -> None:
        self._body = memoryview(body)
        self._most = self._left = most

    def fields(self, within: _Range) -> Iterator[_Field]:
        """Yield the fields of the message between two places."""
        begins, end = within
        while begins < end:
            self._left -= 1
            if self._left < 0:
                raise TooLargeError(f"a request may have {self._most} resources, scopes and spans")
            tag, at = self._number(begins)
            kind, after = tag & 7, at
            if kind == _BYTES:
                size, at = self._number(at)
                after = at + size
            elif kind == _NUMBER:
                _, after = self._number(at)
            else:
                after += _FIXED[kind]
            if after > end or tag < 8:
                raise ValueError
            yield _Field(tag >> 3, begins, at, after, kind == _BYTES)
            begins = after

    def _number(self, at: int) -> tuple[int, int]:
        """Return a number, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self._body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise ValueError

    def parts(self, within: _Range, number: int) -> Iterator[_Range]:
        """Yield where the messages of a field are."""
        for field in self.fields(within):
            if field.number == number and field.is_bytes:
                yield field.at, field.end

    def last(self, within: _Range, number: int) -> _Range:
        """Return where the last one is; an empty place where there is none."""
        found = (0, 0)
        for found in self.parts(within, number):  # noqa: B007 - the last one holds
            pass
        return found

    def text(self, within: _Range, longest: int) -> str:
        """Return the beginning of a text."""
        at, end = within
        cut = self._body[at : min(end, at + 4 * longest)]
        return bytes(cut).decode("utf-8", "ignore")[:longest]

    def message(self, within: _Range, attributes: int, is_wanted: Callable[[str], bool]) -> bytes:
        """Return a message; a large one with those of its attributes that are wanted, and without what nobody reads."""
        at, end = within
        if end - at <= LARGEST:
            return bytes(self._body[at:end])
        found = bytearray()
        for field in self.fields(within):
            if field.number == attributes:
                is_kept = is_wanted(self.text(self.last((field.at, field.end), 1), _LONGEST_KEY))
            else:
                is_kept = field.number in _KEPT
            if is_kept:
                found += self._body[field.begins : field.end]
            if len(found) > LARGEST:
                raise ValueError
        return bytes(found)


_NUMBER, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_LONGEST_KEY = 256

# JSON: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding

_OBJECTS = {b"{": 64, b":": 120, b"[": 96, b",": 64}
"""Bytes that Python's objects take for each of these, at most. Those in texts are counted, too."""


def read_json(body: bytes | bytearray, held: Held) -> Iterator[Piece]:
    """
    Return the spans of a request in JSON.

    Args:
        body: it.
        held: where room is taken for what it takes when it is parsed.

    Raises:
        GarbageError: it is none.
        TooLargeError: it would take more than all requests may.
        FullError: there is no room now.
    """
    # The text, and the texts in it; a character takes four bytes if one of them does.
    texts = 2 * len(body) * (1 if body.isascii() else 4)
    held.add("parsed", texts + sum(body.count(sign) * size for sign, size in _OBJECTS.items()))
    try:
        document = json.loads(body)
        for _ in _json_pieces(document):
            pass
    except (ValueError, TypeError, AttributeError, RecursionError, json_format.ParseError):
        raise GarbageError("expected is a message of OTLP traces, as JSON; this is none") from None
    return _json_pieces(document)


def _json_pieces(document: Any) -> Iterator[Piece]:
    for batch in _value(document, "resourceSpans", "resource_spans") or ():
        resource = _value(batch, "resource")
        host = host_of(_parsed(resource, Resource())) if resource else ""
        for group in _value(batch, "scopeSpans", "scope_spans") or ():
            scope = str(_value(_value(group, "scope") or {}, "name") or "")[:_LONGEST_SCOPE]
            for span in _value(group, "spans") or ():
                yield Piece(partial(_json_span, span), scope, host)


def _value(document: Any, name: str, other: str = "") -> Any:
    return document.get(name) or document.get(other)


def _parsed(document: Any, message: Any) -> Any:
    return json_format.ParseDict(document, message, ignore_unknown_fields=True)


def _json_span(document: Any) -> Span:
    span: Span = _parsed(document, Span())
    span.trace_id = _from_hexadecimal(span.trace_id)
    span.span_id = _from_hexadecimal(span.span_id)
    span.parent_span_id = _from_hexadecimal(span.parent_span_id)
    return span


def _from_hexadecimal(read: bytes) -> bytes:
    """Return an id, which is in hexadecimal digits where protobuf's JSON has base64, whose digits they are, too."""
    return bytes.fromhex(base64.b64encode(read).decode())
