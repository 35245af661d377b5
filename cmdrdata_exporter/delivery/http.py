"""
One POST to the backend, and what its answer means.

`classify` is a pure function of the answer; `Client` owns the pooled keep-alive connections.
The key goes into one header, over https or to a loopback host, and never follows a redirect.
"""

from __future__ import annotations

import email.utils
import enum
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProxyError,
    SSLError,
)

LONGEST_RETRY_AFTER = 3600.0
"""Seconds. A backend that asks for more waits no longer than this."""

_LONGEST_REST = 65536

_ALREADY_EXISTS = ("already exists", "already recorded", "already_exists", "duplicate")


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
    unreached = isinstance(error, (NewConnectionError, ConnectTimeoutError, ProxyError)) or (
        # Only a failed handshake or certificate surely precedes the request.
        isinstance(error, SSLError) and "EOF" not in str(error)
    )
    return Outcome(Verdict.RETRY, type(error).__name__, ambiguous=not unreached)


def _retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that `Retry-After` asks for, within 0 and an hour; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(int(value))
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


class Client:
    """
    Posts events to one endpoint over pooled keep-alive connections. Safe to use from several threads.

    Args:
        endpoint: the URL to POST to.
        read_key: returns the key; asked again after the backend refused it.
        user_agent: the `User-Agent` header.
        connections: how many connections are kept at most.
        clock: returns Unix seconds.
    """

    def __init__(
        self,
        endpoint: str,
        read_key: Callable[[], str | None],
        user_agent: str,
        *,
        connections: int,
        clock: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._read_key = read_key
        self._user_agent = user_agent
        self._connections = connections
        self._clock = clock
        self._key: str | None = None
        self.reset()

    def reset(self) -> None:
        """Start with fresh connections and read the key anew: at the start, in a forked child, after a refusal."""
        self._key = None
        self._pool = _pool(self._endpoint, self._connections)

    def post(self, event_id: str, body: bytes, timeout: float) -> Outcome:
        """Send one event; connecting and waiting for the answer take at most `timeout` seconds in all. Never raises."""
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
            response = self._pool.request(
                "POST",
                self._endpoint,
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
            text = response.read(4096).decode("utf-8", "replace")
            # What remains is read so that the connection can be used again; one with much left is given up.
            if len(response.read(_LONGEST_REST)) == _LONGEST_REST:
                response.close()
        except (HTTPError, OSError):
            # The status is the verdict, whatever became of the body.
            text = ""
        finally:
            response.release_conn()
        outcome = classify(
            response.status,
            {k.lower(): v for k, v in response.headers.items()},
            text,
            self._clock(),
        )
        if outcome.verdict is Verdict.MISCONFIGURED:
            self._key = None
        return outcome


def _pool(endpoint: str, connections: int) -> urllib3.PoolManager:
    """Return a pool that goes through the proxy of the environment, as any well-behaved client does."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if parts.scheme == "https" and proxy and not urllib.request.proxy_bypass(host):
        return urllib3.ProxyManager(proxy, maxsize=connections)
    return urllib3.PoolManager(maxsize=connections)
