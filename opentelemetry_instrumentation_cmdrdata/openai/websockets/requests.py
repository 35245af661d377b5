"""
What the application has asked for on a connection, until it is answered: who pays, and since when.

The protocol does not say which request a response answers. They are related by their metadata, where a request has
any, else by their order.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cmdrdata_exporter.customer import current
from cmdrdata_exporter.metadata import context_attributes
from opentelemetry_instrumentation_cmdrdata.openai.parameters import PARAMETERS
from opentelemetry_instrumentation_cmdrdata.openai.usage import fields, get, string

CREATE = "response.create"
DECIDE = "decision.create"

MOST = 256
"""Requests that may wait for an answer."""


class Request(NamedTuple):
    """One of them."""

    kind: str
    """The type of the frame."""
    began: tuple[int, int]
    """When it was sent: nanoseconds since 1970, and of the performance counter."""
    payer: Mapping[str, Any] | None
    """The attributes that say who pays, where that is not who pays for the connection."""
    parameters: Mapping[str, Any]
    """What it asks for, without content."""
    event_id: str | None
    lane: str | None
    """In which of the lanes of a connection to the Responses API."""
    metadata: Any


class Context(NamedTuple):
    """Who pays by a context, apart from what its metadata adds."""

    payer: Mapping[str, Any] | None
    """The attributes of its customer, None where it has none."""
    metadata: Mapping[str, Any]

    @classmethod
    def of_now(cls) -> Context:
        """Return that of this moment."""
        customer = current()
        return cls(None if customer is None else customer.attributes(), context_attributes())


class Early(NamedTuple):
    """A frame that was to be sent before there was a connection."""

    frame: object
    context: Context


def now() -> tuple[int, int]:
    """Return the moment as a request has it."""
    return time.time_ns(), time.perf_counter_ns()


class Requests:
    """Those of a connection, in their order. One thread takes; others may add meanwhile."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque(maxlen=MOST)

    def add(
        self, frame: object, payer: Mapping[str, Any] | None, lane: str | None = None
    ) -> Request | None:
        """Note a frame that is about to be sent; None where it asks for nothing that is charged."""
        values = fields(frame)
        kind = values.get("type")
        if kind not in (CREATE, DECIDE):
            return None
        asked = fields(values.get("response") or values)
        request = Request(
            kind,
            now(),
            payer,
            {name: asked[name] for name in PARAMETERS if name in asked},
            string(values.get("event_id")),
            lane or string(values.get("stream_id")),
            asked.get("metadata") or None,
        )
        self._waiting.append(request)
        return request

    def discard(self, request: Request) -> None:
        """Forget a request, which could not be sent."""
        with contextlib.suppress(ValueError):  # It was answered, perhaps in another thread.
            self._waiting.remove(request)

    def forget(self, before: int) -> None:
        """Forget what was sent before a moment of the performance counter: it is not answered any more."""
        for request in list(self._waiting):
            if request.began[1] < before:
                self.discard(request)

    def take(self, **equal: str | None) -> Request | None:
        """Return the oldest request whose fields equal these, and forget it."""
        return self._take(self._with(equal))

    def _with(self, equal: Mapping[str, str | None]) -> Iterator[Request]:
        return (
            request
            for request in list(self._waiting)
            if all(getattr(request, name) == value for name, value in equal.items())
        )

    def answered(self, kind: str, response: object, lane: str | None) -> Request | None:
        """Return the request that a response which begins is taken to answer. It waits until it is discarded."""
        metadata = get(response, "metadata") or None
        waiting = [one for one in list(self._waiting) if (one.kind, one.lane) == (kind, lane)]
        return next((one for one in waiting if one.metadata == metadata), None)

    def _take(self, found: Any) -> Request | None:
        request = next(iter(found), None)
        if request is not None:
            self.discard(request)
        return request
