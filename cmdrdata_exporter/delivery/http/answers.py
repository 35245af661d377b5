"""An answer of the backend: where it ends in what has arrived, and what it means. Pure functions."""

from __future__ import annotations

import email.utils
import functools
import http.client
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from urllib3.exceptions import HTTPError

from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.backoff import LONGEST_RETRY_AFTER
from cmdrdata_exporter.scrubbing import scrubbed

LONGEST_BODY = 65536
"""Bytes of an answer's body that are read."""
LONGEST_HEAD = 4096
"""Bytes that come before a body of the common kind."""
LONGEST_ANSWER = 300
"""Characters of it that are kept as the reason for a refusal."""

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([2-5][0-9][0-9])(?: .*)?")

_EXISTS = ("already exists", "already recorded", "already_exists", "duplicate event")
_FIRST_WORDS = (b"already", b"duplicate")
"""How each of those begins."""


class Answer(NamedTuple):
    """An answer, as far as it has arrived."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes | None
    """Its beginning, None where it is cut off."""
    complete: bool = True
    """Whether as much of the body has arrived as is read."""
    keep_alive: bool = True
    """Whether the connection can carry another request."""


def read_answer(data: bytes, *, ended: bool = False) -> Answer | None:
    """
    Read the answer in what a connection has received since the request.

    Args:
        data: all of it.
        ended: whether nothing more will come.

    Returns:
        The answer, None where more must come before the status is known.

    Raises:
        HTTPException: this is no answer.
    """
    # http.client costs several times as much. What it alone reads: chunks, interim answers, bodies without a length.
    return _read_plain(data) or _read_any(data, ended)


def _read_plain(data: bytes) -> Answer | None:
    """Read a complete answer of the common kind, None where it is not one."""
    text, end, body = data.partition(b"\r\n\r\n")
    head = _head(text) if end and len(text) <= LONGEST_HEAD else None
    if head is None or len(body) != head.length:
        return None
    return Answer(head.status, head.headers, body, keep_alive=head.keep_alive)


class _Head(NamedTuple):
    """What comes before the body of an answer of the common kind."""

    status: int
    headers: Mapping[str, str]
    length: int
    keep_alive: bool


# A backend answers many events of a second with the same bytes.
@functools.lru_cache(maxsize=32)
def _head(text: bytes) -> _Head | None:
    """Read the beginning of an answer, None where it is not of the common kind."""
    first, *lines = text.decode("latin-1").split("\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    length = headers.get("content-length", "")
    if (
        status_line is None
        or text.count(b"\n") != len(lines)
        # Whatever is odd: a line without a name, one that continues another, a header that stands twice.
        or len(headers) != len(lines)
        or any(not name or " " in name or "\t" in name for name in headers)
        or "transfer-encoding" in headers
        or not length.isdecimal()
        or len(length) > 5
        or status_line[1] in ("204", "304")
    ):
        return None
    keep_alive = "close" not in headers.get("connection", "").lower()
    return _Head(int(status_line[1]), headers, int(length), keep_alive)


class _Received(io.BytesIO):
    """What http.client reads instead of a socket, which notes when it would have waited for more."""

    lacks_more = False

    def makefile(self, _: str) -> _Received:
        return self

    def close(self) -> None:
        """Stay open: http.client closes what it reads at the end of each answer, also of an interim one."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.lacks_more = self.lacks_more or not (line.endswith(b"\n") or len(line) == size)
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.lacks_more = self.lacks_more or len(data) != size
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self.lacks_more = self.lacks_more or count < len(buffer)
        return count


def _read_any(data: bytes, ended: bool) -> Answer | None:
    """Read an answer of any kind, as far as it goes."""
    received: Any = _Received(data)
    response = http.client.HTTPResponse(received, method="POST")
    try:
        response.begin()
        # http.client passes over 100 alone. https://www.rfc-editor.org/rfc/rfc9110#section-15.2
        while 100 <= response.status < 200 and response.status != http.client.SWITCHING_PROTOCOLS:
            response = http.client.HTTPResponse(received, method="POST")
            response.begin()
    except http.client.HTTPException:
        if received.lacks_more and not ended:
            return None
        raise
    if received.lacks_more and not ended:
        return None
    headers = {name.lower(): value for name, value in reversed(response.headers.items())}
    try:
        body = response.read(LONGEST_BODY)
    except http.client.HTTPException:
        body = None
    cut_off = body is None or (received.lacks_more and response.length not in (None, 0))
    return Answer(
        response.status,
        headers,
        None if cut_off or (received.lacks_more and not ended) else body,
        complete=ended or not received.lacks_more,
        keep_alive=not (
            response.will_close
            or response.status == http.client.SWITCHING_PROTOCOLS
            or received.lacks_more
            or received.tell() < len(data)
            or body is None
            or len(body or b"") == LONGEST_BODY
        ),
    )


def classify(
    status: int, headers: Mapping[str, str], body: str | None, now: float, event: bytes = b"{}"
) -> Outcome:
    """
    Read the backend's answer.

    Args:
        status: the HTTP status.
        headers: looked up by lower-case name.
        body: the beginning of the answer's body, None where it could not be read.
        now: Unix seconds, to which a date in `Retry-After` is compared.
        event: the body of the request.
    """
    if 200 <= status < 300:
        if status == 204 or not _is_page(headers.get("content-type", ""), body):
            return _delivered(status)
        return Outcome(Verdict.MISCONFIGURED, f"HTTP {status} with a web page", answer=_line(body))
    reason = f"HTTP {status}"
    if status == 409 or (status == 422 and _says_it_exists(body, event)):
        return Outcome(Verdict.DUPLICATE, reason)
    return Outcome(
        _verdict(status),
        reason,
        ambiguous=status == 408 or (status >= 500 and status != 503),
        retry_after=_retry_after(headers.get("retry-after"), now),
        answer=_line(body),
    )


@functools.cache
def _delivered(status: int) -> Outcome:
    """Return the outcome of nearly all attempts, which is made once."""
    return Outcome(Verdict.DELIVERED, f"HTTP {status}")


def _verdict(status: int) -> Verdict:
    if status in (400, 413, 422):
        return Verdict.REFUSED
    # A firewall that dislikes an event's words answers so, and so does a backend that dislikes its account.
    if status in (403, 406, 431, 451):
        return Verdict.FORBIDDEN
    if status in (408, 425, 429) or status >= 500:
        return Verdict.RETRY
    # 401, 404, 405 and redirects; also whatever else says that we talk to the wrong place, so that nothing is given
    # up that a mended setting would deliver.
    return Verdict.MISCONFIGURED


def _is_page(content_type: str, body: str | None) -> bool:
    """Say whether an answer is a page for people: of a proxy, a portal, a login."""
    if content_type.strip().lower().startswith(("text/html", "application/xhtml")):
        # Some servers call an empty answer HTML; one that breaks off was not empty.
        return body is None or body.strip() != ""
    return body is not None and body.lstrip("\ufeff \t\r\n")[:14].lower().startswith(
        ("<!doctype html", "<html")
    )


def _says_it_exists(body: str | None, event: bytes) -> bool:
    """
    Say whether an answer says, in a place of its own and in words of its own, that the event is there already.

    A backend that validates repeats what it dislikes, and a user's own words may be these. In doubt it does not say
    so: a dead letter can be replayed, a lost event cannot.
    """
    # Repeated words may be cut or quoted, so that they cannot be found: an event that has them is never believed.
    if any(word in event.lower() for word in _FIRST_WORDS):
        return False
    answer = _object(body)
    inner: Any = answer.get("error")
    places = [answer, cast("dict[str, Any]", inner)] if isinstance(inner, dict) else [answer]
    texts = [place.get(name) for place in places for name in ("code", "error", "message", "detail")]
    sent = _object(event)
    request: Any = sent.get("request")
    own_id: Any = cast("dict[str, Any]", request).get("id") if isinstance(request, dict) else None
    values = {value for value in _strings(sent) if value and value != own_id}
    return any(
        phrase in text.lower() and not _repeats(text, values)
        for text in texts
        if isinstance(text, str)
        for phrase in _EXISTS
    )


def _object(text: str | bytes | None) -> dict[str, Any]:
    """Return a JSON object, empty where it is none."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in cast("dict[str, Any]", value).values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _strings(each)


def _repeats(text: str, values: set[str]) -> bool:
    """Say whether one of the values stands in a text as a word or more."""
    return any(
        value in text and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) for value in values
    )


def _line(body: str | None) -> str:
    """Return how an answer begins, on one line and without what must not be kept."""
    text = (body or "")[: 4 * LONGEST_ANSWER]
    shown = "".join(character if character.isprintable() else " " for character in text)
    return scrubbed(" ".join(shown.split()))[:LONGEST_ANSWER]


def classify_failure(error: Exception, *, sent: bool) -> Outcome:
    """
    Read a failure to get an answer.

    Args:
        error: what was raised.
        sent: whether any of the event may have left, so that it may have been accepted.
    """
    unreachable = not sent and isinstance(error, HTTPError | OSError)
    return Outcome(Verdict.RETRY, type(error).__name__, ambiguous=sent, unreachable=unreachable)


def _retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that `Retry-After` asks for, within 0 and an hour; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = int(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return float(min(max(seconds, 0.0), LONGEST_RETRY_AFTER))
