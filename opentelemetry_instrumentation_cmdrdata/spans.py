"""
What the public span of a call says: its attributes when it starts, and those of what was read of its answer. Pure.

The conventions' own spans get only their attributes; those that we define get the units of usage too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.providers import Server
from opentelemetry_instrumentation_cmdrdata.openai.usage import BREAKDOWNS, Attributes


def start_attributes(
    endpoint: Endpoint,
    server: Server,
    requested: Mapping[str, Any],
    *,
    response_id: str | None = None,
    streaming: bool = False,
) -> Attributes:
    """
    Return the attributes with which a span starts, for samplers; who pays comes on top.

    Args:
        endpoint: what is called.
        server: where.
        requested: the attributes of the request's parameters.
        response_id: of a response that is asked for again.
        streaming: whether the answer is to be a stream.
    """
    attributes = _constant_attributes(endpoint, server).copy()
    if response_id is not None:
        attributes[semconv.RESPONSE_ID] = response_id
    if streaming:
        attributes[semconv.STREAM] = True
    attributes.update(requested)
    return attributes


@functools.lru_cache(maxsize=512)
def _constant_attributes(endpoint: Endpoint, server: Server) -> Attributes:
    """Return what all spans of an endpoint on a server start with."""
    attributes = server_attributes(endpoint, server)
    if endpoint.api_type is not None:
        attributes[semconv.OPENAI_API_TYPE] = endpoint.api_type
    return attributes


def server_attributes(endpoint: Endpoint, server: Server) -> Attributes:
    """Return what spans and metrics say of what was called, and where."""
    return {
        semconv.OPERATION: endpoint.span_operation,
        semconv.PROVIDER: server.provider,
        semconv.SERVER_ADDRESS: server.address,
        semconv.SERVER_PORT: server.port,
    }


def answer_attributes(endpoint: Endpoint, facts: Attributes) -> Attributes:
    """Return what a span gets of the facts that were read of an answer, or are known at its end."""
    shown = _POLLING if endpoint.polls else _CONVENTIONAL if endpoint.is_conventional else _OURS
    return {
        name: value
        for name, value in facts.items()
        # The conventions drop a breakdown that is zero.
        if shown[name] and (value or name not in BREAKDOWNS)
    }


class _Shown(dict[str, bool]):
    """Whether each attribute is shown on spans of one kind. Filled when a name is first seen: there are few."""

    def __init__(self, *, hidden: tuple[str, ...], units: bool = False) -> None:
        super().__init__({semconv.TOTAL_TOKENS: False})
        self._hidden = hidden
        self._units = units

    def __missing__(self, name: str) -> bool:
        shown = self[name] = (
            name.startswith(semconv.UNIT_PREFIX) and self._units
        ) or not name.startswith(self._hidden)
        return shown


_POLLING = _Shown(hidden=(semconv.BILLING_PREFIX, semconv.USAGE_PREFIX))
"""Whoever adds up spans shall not count a job as often as it was asked for."""
_CONVENTIONAL = _Shown(hidden=(semconv.BILLING_PREFIX,))
_OURS = _Shown(hidden=(semconv.BILLING_PREFIX,), units=True)
