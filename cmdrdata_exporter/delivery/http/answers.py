"""What an answer of the backend means, or the failure to get one: pure functions."""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.backoff import LONGEST_RETRY_AFTER
from cmdrdata_exporter.delivery.http.connections import NoConnectionError
from cmdrdata_exporter.scrubbing import scrubbed

LONGEST_ANSWER = 300
"""Characters of it that are kept as the reason for a refusal."""

_EXISTS = ("already exists", "already recorded", "already_exists", "duplicate event")
_FIRST_WORDS = (b"already", b"duplicate")
"""How each of those begins."""


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
    reason = f"HTTP {status}"
    if 200 <= status < 300:
        if status == 204 or not _is_page(headers.get("content-type", ""), body):
            return Outcome(Verdict.DELIVERED, reason)
        return Outcome(Verdict.MISCONFIGURED, f"{reason} with a web page", answer=_line(body))
    if status == 409 or (status == 422 and _says_it_exists(body, event)):
        return Outcome(Verdict.DUPLICATE, reason)
    return Outcome(
        _verdict(status),
        reason,
        ambiguous=status == 408 or (status >= 500 and status != 503),
        retry_after=_retry_after(headers.get("retry-after"), now),
        answer=_line(body),
    )


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
    first = error.__cause__ if isinstance(error, NoConnectionError) else error
    return Outcome(Verdict.RETRY, type(first).__name__, ambiguous=sent)


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
