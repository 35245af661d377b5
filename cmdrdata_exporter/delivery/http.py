"""
One POST to the backend, and what its answer means.

`classify` is a pure function of the answer; `Client` makes the attempt.
The key goes into one header, over https or to a loopback host, and never follows a redirect.
No instrumentation sees our requests, and nothing of the caller's context leaves with them.
"""

from __future__ import annotations

import email.utils
import enum
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import urllib3
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import (
    suppress_http_instrumentation,
    suppress_instrumentation,
)
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery.backoff import LONGEST_RETRY_AFTER
from cmdrdata_exporter.delivery.connections import NoConnectionError, owner, poster, progress
from cmdrdata_exporter.scrubbing import scrubbed

_LONGEST_BODY = 65536
"""Bytes of an answer that are read."""
LONGEST_ANSWER = 300
"""Characters of it that are kept as the reason for a refusal."""

_EXISTS = ("already exists", "already recorded", "already_exists", "duplicate event")
_FIRST_WORDS = (b"already", b"duplicate")
"""How each of those begins."""

ATTEMPT_TIMEOUT = 10.0
"""Seconds that one attempt may take."""


class Verdict(enum.Enum):
    """What became of one attempt to deliver an event."""

    DELIVERED = "delivered"
    DUPLICATE = "delivered before"
    REFUSED = "refused"
    """This event will never be accepted as it is; others may."""
    MISCONFIGURED = "misconfigured"
    """Nothing will be accepted until key or endpoint are mended."""
    FORBIDDEN = "forbidden"
    """The one or the other: whether another event is accepted will tell."""
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on one attempt and what the next one must know."""

    verdict: Verdict
    reason: str
    """The status or the kind of failure: one of few."""
    ambiguous: bool = False
    """The event may have been accepted all the same: the request went out, no verdict came back."""
    retry_after: float | None = None
    """Seconds in which nothing may be sent."""
    answer: str = ""
    """How the backend's answer begins, where it accepted nothing: one line, without what looks like a key."""

    @property
    def explanation(self) -> str:
        """The reason for logs and dead letters, with the answer; `cause` takes it off again."""
        return f"{self.reason}: {self.answer}" if self.answer else self.reason


def cause(explanation: str) -> str:
    """Return the `reason` of an `explanation`."""
    return explanation.partition(": ")[0]


Post = Callable[[str, bytes, float], Outcome]
"""Sends an event's id and body within a number of seconds, as `Client.post` does."""


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


def _quiet_context() -> Context:
    """Return a context without anything of a caller, in which nothing is traced."""
    token = otel_context.attach(Context())
    try:
        with suppress_instrumentation(), suppress_http_instrumentation():
            return otel_context.get_current()
    finally:
        otel_context.detach(token)


_QUIET = _quiet_context()


class Client:
    """
    Posts events to one endpoint over pooled keep-alive connections. Safe to use from several threads.

    Args:
        endpoint: the URL to POST to.
        read_key: returns the key; asked again after the backend refused it.
        user_agent: the `User-Agent` header.
        connections: how many connections are kept at most.
        clock: returns Unix seconds.
        proxy: the URL of the HTTP proxy to go through.
    """

    def __init__(
        self,
        endpoint: str,
        read_key: Callable[[], str | None],
        user_agent: str,
        *,
        connections: int,
        clock: Callable[[], float],
        proxy: str | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._read_key = read_key
        self._user_agent = user_agent
        self._connections = connections
        self._clock = clock
        self._proxy = proxy
        self._key: str | None = None
        self.reset()

    def reset(self) -> None:
        """Start with fresh connections and read the key anew: at the start, in a forked child, after a refusal."""
        self._key = None
        # By whom they belong to; of a thread that ended they are forgotten with it.
        self._posters: dict[object, Callable[..., BaseHTTPResponse]] = {}

    def post(self, event_id: str, body: bytes, timeout: float) -> Outcome:
        """
        Send one event; connecting, sending and waiting for the answer take at most `timeout` seconds in all.

        What keeps us from trying is a failure like any other: it says nothing about the event.
        """
        token = otel_context.attach(_QUIET)
        progress.sent = False
        try:
            return self._post(event_id, body, timeout)
        except (HTTPError, OSError) as error:
            return classify_failure(error, sent=progress.sent)
        except Exception as error:  # noqa: BLE001 - no memory, no name for such a host, an id that is no header's value
            faults.report("delivery", "usage event %r cannot be sent", event_id, exc_info=True)
            return classify_failure(error, sent=progress.sent)
        finally:
            otel_context.detach(token)

    def _poster(self) -> Callable[..., BaseHTTPResponse]:
        own = owner()
        found = self._posters.get(own)
        if found is None:
            found = self._posters[own] = poster(self._endpoint, self._proxy, self._connections)
        return found

    def _post(self, event_id: str, body: bytes, timeout: float) -> Outcome:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": event_id,
            "User-Agent": self._user_agent,
        }
        key = self._key
        try:
            if key is None:
                self._key = key = self._read_key()
        except ValueError:
            return Outcome(Verdict.MISCONFIGURED, "the key file holds no usable key")
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        response = self._poster()(
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(total=timeout),
            redirect=False,
            retries=False,
            preload_content=False,
        )
        try:
            # Much is read, so that the connection can be used again; one with much left is given up.
            content = response.read(_LONGEST_BODY)
            if len(content) == _LONGEST_BODY:
                response.close()
            text = content.decode("utf-8", "replace")
        except (HTTPError, OSError):
            # The status is the verdict, whatever became of the body.
            text = None
        finally:
            response.release_conn()
        if text and key:
            text = text.replace(key, "[scrubbed]")
        outcome = classify(response.status, response.headers, text, self._clock(), body)
        if outcome.verdict in (Verdict.MISCONFIGURED, Verdict.FORBIDDEN):
            self._key = None
        return outcome
