"""
The calls that are metered: one row per endpoint.

To meter another one, add its row, and a function to `usage` if its answers have a shape of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from opentelemetry_instrumentation_cmdrdata import usage
from opentelemetry_instrumentation_cmdrdata.usage import Reading

Read = Callable[[Reading, object], None]


class Endpoint(NamedTuple):
    """What is to be known of an endpoint of the provider."""

    name: str
    """`metadata.endpoint` of its events."""
    method: str
    path: str
    """As the SDK has it in `options.url`, without a query."""
    operation: str
    """`gen_ai.operation.name` of its spans."""
    read: Read
    """Reads an answer."""
    read_chunk: Read | None = None
    """Reads a chunk of a streamed answer, where the endpoint streams."""
    api_type: str | None = None
    """`openai.api.type` of its spans."""
    has_choices: bool = False
    """Whether its answers end for a reason, one per choice."""


ENDPOINTS = (
    Endpoint(
        name="chat.completions",
        method="post",
        path="/chat/completions",
        operation="chat",
        read=usage.read_chat,
        read_chunk=usage.read_chat_chunk,
        api_type="chat_completions",
        has_choices=True,
    ),
    Endpoint(
        name="responses",
        method="post",
        path="/responses",
        operation="chat",
        read=usage.read_response,
        read_chunk=usage.read_response_event,
        api_type="responses",
        has_choices=True,
    ),
    Endpoint(
        name="embeddings",
        method="post",
        path="/embeddings",
        operation="embeddings",
        read=usage.read_embeddings,
    ),
)

_BY_REQUEST = {(endpoint.method, endpoint.path): endpoint for endpoint in ENDPOINTS}


def find(method: str, url: str) -> Endpoint | None:
    """Return the row of a request, None where it is not metered. A query (`?beta=true`) is no part of the path."""
    return _BY_REQUEST.get((method.lower(), url.partition("?")[0]))
