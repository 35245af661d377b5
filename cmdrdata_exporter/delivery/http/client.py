"""
One POST to the backend.

The key goes into one header, over https or to a loopback host, and never follows a redirect.
No instrumentation sees our requests, and nothing of the caller's context leaves with them.
"""

from __future__ import annotations

from collections.abc import Callable

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
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.http.answers import classify, classify_failure
from cmdrdata_exporter.delivery.http.connections import (
    owner,
    poster,
    progress,
)

_LONGEST_BODY = 65536
"""Bytes of an answer that are read."""


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
