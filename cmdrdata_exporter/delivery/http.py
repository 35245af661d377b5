"""
One POST to the backend, and what its answer means.

`classify` is a pure function of the answer; `Client` makes the attempt.
The key goes into one header, over https or to a loopback host, and never follows a redirect.
No instrumentation sees our requests, and nothing of the caller's context leaves with them.
"""

from __future__ import annotations

import email.utils
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import urllib3
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import (
    suppress_http_instrumentation,
    suppress_instrumentation,
)
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProxyError,
)
from urllib3.response import BaseHTTPResponse

from cmdrdata_exporter.delivery.connections import NoConnectionError, owner, poster

LONGEST_RETRY_AFTER = 3600.0
"""Seconds. A backend that asks for more waits no longer than this."""

_LOOKED_AT = 4096
_LONGEST_BODY = 65536
"""Bytes of an answer that are looked at, and that are read."""

_ALREADY_EXISTS = ("already exists", "already recorded", "already_exists", "duplicate")


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
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on one attempt and what the next one must know."""

    verdict: Verdict
    reason: str
    """For logs: the status or the kind of failure, never a key or a body."""
    ambiguous: bool = False
    """The event may have been accepted all the same: the request went out whole, no verdict came back."""
    retry_after: float | None = None
    """Seconds in which nothing may be sent."""


Post = Callable[[str, bytes, float], Outcome]
"""Sends an event's id and body within a number of seconds, as `Client.post` does."""


def classify(status: int, headers: Mapping[str, str], body: str, now: float) -> Outcome:
    """
    Read the backend's answer.

    Args:
        status: the HTTP status.
        headers: looked up by lower-case name.
        body: the beginning of the answer's body.
        now: Unix seconds, to which a date in `Retry-After` is compared.
    """
    reason = f"HTTP {status}"
    if 200 <= status < 300:
        return Outcome(Verdict.DELIVERED, reason)
    if status == 409 or (
        status == 422 and any(phrase in body.lower() for phrase in _ALREADY_EXISTS)
    ):
        return Outcome(Verdict.DUPLICATE, reason)
    if status in (400, 413, 422):
        return Outcome(Verdict.REFUSED, reason)
    if status in (408, 425, 429) or status >= 500:
        return Outcome(
            Verdict.RETRY,
            reason,
            ambiguous=status == 408 or (status >= 500 and status != 503),
            retry_after=_retry_after(headers.get("retry-after"), now),
        )
    # 401, 403, 404, 405 and redirects; also whatever else says that we talk to the wrong place, so that
    # nothing is given up that a mended setting would deliver.
    return Outcome(Verdict.MISCONFIGURED, reason)


def classify_failure(error: Exception) -> Outcome:
    """Read a failure to get an answer: did the request reach the backend?"""
    unreached = isinstance(error, (NewConnectionError, ConnectTimeoutError, ProxyError))
    told = error.__cause__ if isinstance(error, NoConnectionError) else error
    return Outcome(Verdict.RETRY, type(told).__name__, ambiguous=not unreached)


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

        Raises:
            Exception: the request cannot be made at all, with an id that is no header's value for instance.
        """
        token = otel_context.attach(_QUIET)
        try:
            return self._post(event_id, body, timeout)
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
        try:
            if self._key is None:
                self._key = self._read_key()
        except ValueError:
            return Outcome(Verdict.MISCONFIGURED, "the key file holds no usable key")
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            response = self._poster()(
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(total=timeout),
                redirect=False,
                retries=False,
                preload_content=False,
            )
        except (HTTPError, OSError) as error:
            return classify_failure(error)
        try:
            # More than what is looked at, so that the connection can be used again; one with much left is given up.
            content = response.read(_LONGEST_BODY)
            if len(content) == _LONGEST_BODY:
                response.close()
            text = content[:_LOOKED_AT].decode("utf-8", "replace")
        except (HTTPError, OSError):
            # The status is the verdict, whatever became of the body.
            text = ""
        finally:
            response.release_conn()
        outcome = classify(response.status, response.headers, text, self._clock())
        if outcome.verdict is Verdict.MISCONFIGURED:
            self._key = None
        return outcome
