"""What is known of a call at its end, beside what was read of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.attributes import CUSTOMER_ID, CUSTOMER_REFUSED
from cmdrdata_exporter.delivery.open_jobs import KeepsJobs
from opentelemetry_instrumentation_cmdrdata.content import Content
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
    capture: bool = False
    """Whether its content is read, also where the environment does not ask for any: for its span and its observer."""
    observer: Callable[[FinishedCall], object] | None = None
    """Is told of the call once it has ended. What it raises is logged, and changes nothing."""
    shows_call_site: bool = False
    """Whether its span tells which line of the application makes it."""

    def customer(self, default: str | None) -> str | None:
        """Return who pays, None where that is nobody; the default customer only where the call names no other."""
        if CUSTOMER_REFUSED in self.attributes:
            return None
        return self.attributes.get(CUSTOMER_ID, default)


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
    account: Mapping[str, Any] = {}
    """Who is charged at OpenAI, by the names of attributes."""


class FinishedCall(NamedTuple):
    """What an observer is told of a call, exactly once, in the thread in which it ends."""

    call: EndedCall
    """With the model, the times, the ids of the trace, how it failed, and whether it was a stream."""
    facts: Mapping[str, Any]
    """What was read of the answer, by the names of `semconv`."""
    content: Content | None
    """
    What was said, as long as it is, after the application's `content_hook`.
    None where it was not asked for, the endpoint has none, or the hook has dropped it.
    """
