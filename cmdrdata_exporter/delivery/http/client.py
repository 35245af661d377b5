"""
POSTs to the backend.

The key goes into one header, over https or to a loopback host, and never follows a redirect.
No instrumentation sees our requests, and nothing of the caller's context leaves with them.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import (
    suppress_http_instrumentation,
    suppress_instrumentation,
)
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url
from urllib3.util.wait import wait_for_socket

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.http.answers import Answer, classify, classify_failure
from cmdrdata_exporter.delivery.http.connections import Connection, Connector
from cmdrdata_exporter.delivery.http.loop import Loop


def _quiet_context() -> Context:
    """Return a context without anything of a caller, in which nothing is traced."""
    token = otel_context.attach(Context())
    try:
        with suppress_instrumentation(), suppress_http_instrumentation():
            return otel_context.get_current()
    finally:
        otel_context.detach(token)


_QUIET = _quiet_context()

_loop = Loop()
"""That of all endpoints of this process."""


class Client:
    """
    Posts events to one endpoint over keep-alive connections. Safe to use from several threads.

    `post` makes one attempt and waits for it. A `Loop` makes many at once, of the same parts: `request`, `take` or
    `connect`, and `outcome`.

    Args:
        endpoint: the URL to POST to.
        read_key: returns the key; asked again after the backend refused it.
        user_agent: the `User-Agent` header.
        connections: how many connections are kept at most.
        clock: returns Unix seconds.
        proxy: the URL of the HTTP proxy to go through.
        note: is given the outcome of each attempt, and how many seconds it took.
    """

    loop = _loop

    def __init__(
        self,
        endpoint: str,
        read_key: Callable[[], str | None],
        user_agent: str,
        *,
        connections: int,
        clock: Callable[[], float],
        proxy: str | None = None,
        note: Callable[[Outcome, float], object] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._read_key = read_key
        self._user_agent = user_agent
        self._connections = connections
        self._clock = clock
        self._connector = Connector(endpoint, proxy)
        self._note = note
        self._idle: deque[Connection] = deque()
        weakref.finalize(self, _close, self._idle).atexit = False
        self.reset()

    def reset(self) -> None:
        """Start with fresh connections and read the key anew: at the start, in a forked child, after a refusal."""
        self._keys: set[str] = set()
        """Those that have been sent."""
        self._head = b""
        """The beginning of each request, as far as it is the same; empty until the key is read."""
        _close(self._idle)

    def post(self, event_id: str, body: bytes, timeout: float) -> Outcome:
        """
        Send one event; connecting, sending and waiting for the answer take at most `timeout` seconds in all.

        What keeps us from trying is a failure like any other: it says nothing about the event.
        """
        began = clocks.monotonic()
        return self.noted(self._post(event_id, body, began + timeout), began)

    def noted(self, outcome: Outcome, began: float) -> Outcome:
        """Take note of an attempt that began at that time, and return its outcome."""
        if self._note is not None:
            self._note(outcome, clocks.monotonic() - began)
        return outcome

    def _post(self, event_id: str, body: bytes, deadline: float) -> Outcome:
        request = self.request(event_id, body)
        if isinstance(request, Outcome):
            return request
        connection = self.take() or self.connect(deadline - clocks.monotonic())
        if isinstance(connection, Outcome):
            return connection
        try:
            found = _exchange(connection, request, deadline)
        except Exception as error:  # noqa: BLE001 - no memory, for one
            found = error
        return self.outcome(connection, found, event_id, body)

    def request(self, event_id: str, body: bytes) -> bytes | Outcome:
        """Return the bytes of a request, or why there can be none now."""
        try:
            if not self._head:
                self._head = self._begin("POST")
            key = _checked(event_id).encode("latin-1")
        except _UnusableKeyError:
            return Outcome(Verdict.MISCONFIGURED, "the key file holds no usable key")
        except Exception as error:  # noqa: BLE001 - see `_failure`
            return self._failure(error, event_id, sent=False)
        return b"%bContent-Length: %d\r\nIdempotency-Key: %b\r\n\r\n%b" % (
            self._head,
            len(body),
            key,
            body,
        )

    def ask(self, timeout: float) -> Answer | Exception:
        """
        Ask for the endpoint by GET, with the key as for an event, which records nothing.

        Returns:
            The answer, or why there is none within `timeout` seconds.
        """
        deadline = clocks.monotonic() + timeout
        token = otel_context.attach(_QUIET)
        try:
            request = self._begin("GET") + b"\r\n"
            connection = self._connector.connect(timeout)
            try:
                return _exchange(connection, request, deadline)
            finally:
                connection.close()
        except Exception as error:  # noqa: BLE001 - it is what was asked for
            return error
        finally:
            otel_context.detach(token)

    def _begin(self, method: str) -> bytes:
        try:
            key = self._read_key()
        except ValueError:
            raise _UnusableKeyError from None
        url = parse_url(self._endpoint)
        is_default = url.port == {"http": 80, "https": 443}.get(url.scheme or "")
        lines = [
            f"{method} {url.request_uri} HTTP/1.1",
            f"Host: {url.host if is_default else url.netloc}",
            "Accept-Encoding: identity",
            "Content-Type: application/json",
            f"User-Agent: {self._user_agent}",
        ]
        if key is not None:
            self._keys.add(key)
            lines.append(f"Authorization: Bearer {key}")
        return "".join(f"{_checked(line)}\r\n" for line in lines).encode("latin-1")

    def take(self) -> Connection | None:
        """Return a connection that is open, if there is one."""
        while (connection := _pop(self._idle)) is not None:
            if connection.is_fresh():
                return connection
            connection.close()
        return None

    def connect(self, timeout: float) -> Connection | Outcome:
        """Return a new connection, or the failure to open it."""
        token = otel_context.attach(_QUIET)
        try:
            return self._connector.connect(timeout)
        except Exception as error:  # noqa: BLE001 - see `_failure`
            return self._failure(error, "", sent=False)
        finally:
            otel_context.detach(token)

    def keep(self, connection: Connection) -> None:
        """Keep a connection for another request."""
        if len(self._idle) < self._connections:
            self._idle.append(connection)
        else:
            connection.close()

    def outcome(
        self, connection: Connection, found: Answer | Exception, event_id: str, body: bytes
    ) -> Outcome:
        """Return what came of a request, and keep its connection where it can carry another one."""
        if isinstance(found, Exception):
            connection.close()
            return self._failure(found, event_id, sent=connection.sent)
        if found.keep_alive:
            self.keep(connection)
        else:
            connection.close()
        text = None if found.body is None else found.body.decode("utf-8", "replace")
        if text:
            for key in self._keys:
                text = text.replace(key, "[scrubbed]")
        outcome = classify(found.status, found.headers, text, self._clock(), body)
        if outcome.verdict in (Verdict.MISCONFIGURED, Verdict.FORBIDDEN):
            self._head = b""
        return outcome

    def _failure(self, error: Exception, event_id: str, *, sent: bool) -> Outcome:
        # No memory, no name for such a host, an id that is no header's value.
        if not isinstance(error, HTTPError | OSError):
            faults.report("delivery", "usage event %r cannot be sent: %r", event_id, error)
        return classify_failure(error, sent=sent)


def _pop(connections: deque[Connection]) -> Connection | None:
    """Return the one that was used last, which is open most likely."""
    try:
        return connections.pop()
    except IndexError:
        return None


def _close(connections: deque[Connection]) -> None:
    while (connection := _pop(connections)) is not None:
        connection.close()


def _checked(text: str) -> str:
    """Return a part of a request's head, which has no line breaks of its own."""
    if "\r" in text or "\n" in text:
        raise ValueError("a line break in a header")
    return text


def _exchange(connection: Connection, request: bytes, deadline: float) -> Answer | Exception:
    """Make a request and wait for what comes of it."""
    connection.begin(request, deadline)
    while (found := connection.advance(clocks.monotonic())) is None:
        sock: Any = connection.descriptor
        remaining = max(0.0, connection.deadline - clocks.monotonic())
        wait_for_socket(sock, read=True, write=bool(connection.unsent), timeout=remaining)
    return found


class _UnusableKeyError(Exception):
    """There is no key that can be sent."""
