"""What is known of a call at its end, beside what was read of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.delivery.open_jobs import KeepsJobs
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.providers import Server


class CallAttribution(NamedTuple):
    """Who pays, fixed when the call starts: the context in which a stream is read does not count."""

    attributes: Mapping[str, Any] = {}
    """The span attributes of the customer and of the user's metadata."""
    tracked: bool = True
    """Whether the call makes an event."""
    exporter: CmdrDataSpanExporter | None = None
    """Meters the call, instead of the process's own."""


class Failure(NamedTuple):
    """How a call failed."""

    type: str
    """`error.type`: the name of an exception, or the provider's code."""
    code: str | None
    """The HTTP status or the provider's code."""
    message: str | None


class EndedCall(NamedTuple):
    """What is known of a call at its end, beside what was read of its answer."""

    endpoint: Endpoint
    server: Server
    attribution: CallAttribution
    request_model: str | None
    response_id: str | None
    """That of the response which was asked for again."""
    trace_id: int
    span_id: int
    start_time: int
    end_time: int
    """Both in nanoseconds since 1970."""
    streaming: bool
    retry_count: int
    request_id: str | None
    failure: Failure | None
    event_id: str
    """A random one, for the event of a call that is about no job."""
    default_customer: str | None = None
    """Who pays where the call names nobody."""
    starts_job: bool = False
    """Whether what it asks for is a job."""
    keeper: KeepsJobs | None = None
    """What keeps jobs whose end is not seen here, where that is the case."""
