"""
From a span, of whichever instrumentation, to a usage event.

Pure. Instrumentations spell one fact in several ways; `attributes` has the spellings.

    event = event_from_span(span)       # None for spans that are no charge
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from cmdrdata_exporter import attributes as names
from cmdrdata_exporter.attributes import OUR_SCOPE
from cmdrdata_exporter.customer import usable
from cmdrdata_exporter.events import (
    UsageEvent,
    add_users_keys,
    error_type,
    first_token_ms,
    plain,
    reserved,
)
from cmdrdata_exporter.ids import as_written, refusal
from cmdrdata_exporter.scrubbing import scrubbed

_CHAT = "chat"
_OPERATIONS = {
    _CHAT: "chat.completions",
    "text_completion": "completions",
    "generate_content": "generate_content",
    "embeddings": "embeddings",
    # LiteLLM gives the name of the function that was called.
    "acompletion": "chat.completions",
    "atext_completion": "completions",
    "embedding": "embeddings",
    "aembedding": "embeddings",
    "responses": "responses",
    "aresponses": "responses",
    "anthropic_messages": "chat.completions",
    "aanthropic_messages": "chat.completions",
    "image_generation": "images.generate",
    "aimage_generation": "images.generate",
    "image_edit": "images.edit",
    "aimage_edit": "images.edit",
}
"""
`metadata.endpoint` by operation, for spans that do not tell it.

No other operation is a charge: agents, workflows and tools contain calls, they are none.
"""
_NEMO = "nemo_guardrails"
"""Its operations are named as the tasks of a guardrail, of which anybody may add some; only models have a provider."""
_OPENINFERENCE = {"LLM": _CHAT, "EMBEDDING": "embeddings"}
_OPENLLMETRY = {"chat": _CHAT, "completion": "text_completion", "embedding": "embeddings"}


def event_from_span(span: ReadableSpan, *, customer_id: str | None = None) -> UsageEvent | None:
    """
    Return the usage event for one finished span, None where the span is no charge.

    A charge is a model call: an inference or embeddings span of any GenAI instrumentation that reports usage, or a
    call that our own instrumentation observed, with or without usage.
    Spans of agents, workflows, chains and tools never are, nor is anything that is not GenAI.

    Args:
        span: a finished span.
        customer_id: who pays where the span does not say.
    """
    attributes: Mapping[str, Any] = span.attributes or {}
    scope = span.instrumentation_scope
    endpoint = _endpoint(attributes, scope.name if scope else "")
    if endpoint is None:
        return None
    read = _Read(attributes)
    values, usage = read.values, read.usage
    input_tokens = _count(values.get("input_tokens"))
    output_tokens = _count(values.get("output_tokens"))
    total_tokens = _count(values.get("total_tokens"))
    reported = not (
        input_tokens is None and output_tokens is None and total_tokens is None and not usage
    )
    if not reported and (scope is None or scope.name != OUR_SCOPE):
        return None

    context = span.get_span_context()
    start, end = span.start_time or 0, span.end_time or span.start_time or 0
    failed = span.status.status_code is StatusCode.ERROR
    error_code = _text(values.get("error_code")) if failed else None
    request_model = _text(values.get("request_model"))
    known = read.details
    known["response_id"] = _text(values.get("response_id"))
    known["finish_reason"] = _finish_reason(values.get("finish_reasons"))
    known["usage_status"] = _text(values.get("usage_status")) or (
        "reported" if reported else "missing"
    )
    known["endpoint"] = endpoint
    known["request_model"] = request_model
    known["service_tier"] = _text(values.get("service_tier"))
    known["server_address"] = _text(values.get("server_address"))
    # For whoever assigns the event.
    known["customer_refused"], known["customer_refused_value"] = _refused(values)
    if context is not None:
        known["trace_id"] = format_trace_id(context.trace_id)
        known["span_id"] = format_span_id(context.span_id)
    metadata = reserved(endpoint)
    metadata |= {key: value for key, value in known.items() if value is not None}
    renamed = add_users_keys(metadata, read.users)
    return UsageEvent(
        id=_event_id(values.get("event_id")) or _foreign_id(span),
        customer_id=_customer(values, customer_id),
        # The older conventions had it capitalised.
        provider=(_text(values.get("provider")) or "unknown").lower(),
        model=_text(values.get("response_model")) or request_model or "unknown",
        endpoint=endpoint,
        usage_status=known["usage_status"],
        input_tokens=input_tokens or 0,
        output_tokens=output_tokens or 0,
        total_tokens=(input_tokens or 0) + (output_tokens or 0)
        if total_tokens is None
        else total_tokens,
        usage=usage,
        metadata=metadata,
        timestamp=end // 1_000_000_000,
        start_time=start // 1_000_000_000,
        end_time=end // 1_000_000_000,
        duration_ms=max(0, (end - start + 500_000) // 1_000_000),
        time_to_first_token_ms=first_token_ms(values.get("first_chunk")),
        # LiteLLM writes the word.
        streaming=values.get("streaming") in (True, "True"),
        retry_count=_count(values.get("retry_count")) or 0,
        error_type=error_type(values.get("error_type"), error_code) if failed else None,
        error_code=error_code,
        error_message=scrubbed(span.status.description or "") or None if failed else None,
        remember=_remembered(
            values.get("remember"), ours=scope is not None and scope.name == OUR_SCOPE
        ),
        renamed=renamed,
    )


def is_without_usage(span: ReadableSpan) -> bool:
    """
    Say whether a span is of a model call that did not fail, and tells nothing of what it used, so that it is no event.

    That may be a stream that was not asked for its usage, and then a charge is missing. It may also be a framework's
    span around a call that another one tells.
    """
    scope = span.instrumentation_scope
    return (
        span.status.status_code is not StatusCode.ERROR
        and _endpoint(span.attributes or {}, scope.name if scope else "") is not None
        and event_from_span(span) is None
    )


_MOST = 2.0**63
"""More than any quantity, and than an integer of the ledger."""


def _places() -> dict[str, tuple[str, int, bool]]:
    """Return where each attribute belongs: the fact, its rank among the spellings, whether it is a breakdown."""
    return {
        name: (key, rank, group is names.BREAKDOWNS)
        for group in (names.FIELDS, names.BREAKDOWNS)
        for key, spellings in group.items()
        for rank, name in enumerate(spellings)
    }


_PLACES = _places()


class _Read:
    """The attributes of a span, sorted in one pass."""

    __slots__ = ("details", "usage", "users", "values")

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        """Facts of one value, by the keys of `attributes.FIELDS`."""
        self.usage: dict[str, int | float | bool] = {}
        """Breakdowns, and units that are not tokens: those only that were reported."""
        self.details: dict[str, Any] = {}
        """Reserved keys of the event's metadata."""
        self.users: dict[str, Any] = {}
        """The user's keys of the event's metadata."""
        ranks: dict[str, int] = {}
        for name, value in attributes.items():
            if value is None:
                continue
            place = _PLACES.get(name)
            if place is None:
                if name.startswith(names.OWN_PREFIX):
                    self._read_own(name, value)
                continue
            key, rank, is_breakdown = place
            if rank > ranks.get(key, rank):
                continue  # A spelling that is preferred was there before.
            ranks[key] = rank
            if not is_breakdown:
                self.values[key] = value
            elif (number := _count(value)) is not None:
                self.usage[key] = number

    def _read_own(self, name: str, value: Any) -> None:
        """Read one of the names that belong to this package."""
        if name.startswith(names.USAGE_PREFIX):
            # A flag, or a number; what is neither tells no quantity.
            if isinstance(value, (int, float)) and 0 <= value < _MOST:
                self.usage[name[len(names.USAGE_PREFIX) :]] = value
        elif name.startswith(names.DETAIL_PREFIX):
            self.details[name[len(names.DETAIL_PREFIX) :]] = plain(value)
        elif name.startswith(names.METADATA_PREFIX):
            self.users[name[len(names.METADATA_PREFIX) :]] = value


def _endpoint(attributes: Mapping[str, Any], scope: str) -> str | None:
    """Return what was called, None where the span is no model call. First the cheap look that refuses most spans."""
    if (endpoint := _text(attributes.get(names.ENDPOINT))) is not None:
        return endpoint
    if attributes.get(names.CACHE_HIT) is True:
        return None
    operation = None
    if (kind := _text(attributes.get(names.OPENINFERENCE_KIND))) is not None:
        operation = _OPENINFERENCE.get(kind)
    elif (named := _text(attributes.get(names.OPERATION))) is not None:
        operation = named
        if scope == _NEMO and _first(attributes, names.PROVIDER) is not None:
            operation = _CHAT
    elif (request_type := _text(attributes.get(names.OPENLLMETRY_REQUEST_TYPE))) is not None:
        operation = _OPENLLMETRY.get(request_type)
    if operation == _CHAT and (
        attributes.get(names.OPENAI_API_TYPE) == "responses"
        # Not every instrumentation tells, but the provider's ids do.
        or str(_first(attributes, names.RESPONSE_ID)).startswith("resp_")
    ):
        return "responses"
    return _OPERATIONS.get(operation or "")


def _customer(values: Mapping[str, Any], default: str | None) -> str | None:
    """Return who pays: whom the span names, if that can be; the default only where it names nobody."""
    customer = None if "refused" in values else values.get("customer", default)
    return customer if usable(customer) else None


def _refused(values: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return why a customer that was named cannot be billed, and how it was written; None where none was."""
    if "refused" in values:
        return _text(values["refused"]), _text(values.get("refused_value"))
    # As others have set it on a span of theirs.
    if "customer" in values and (reason := refusal(values["customer"])):
        return reason, as_written(values["customer"])
    return None, None


def _event_id(value: object) -> str | None:
    """Return the id that a span brings, if a header can carry it."""
    if isinstance(value, str) and 0 < len(value) <= 64 and value.isascii() and value.isprintable():
        return value
    return None


_SEEN_AGAIN = 24 * 3600
"""Seconds in which a span of a pipeline may come a second time, through another processor or process."""


def _remembered(seconds: object, *, ours: bool) -> int:
    """Return for how long an event must be known by its id: one of ours, whose id is random, comes once only."""
    if type(seconds) is int and 0 <= seconds < 2**31:
        return seconds
    return 0 if ours else _SEEN_AGAIN


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _first(attributes: Mapping[str, Any], spellings: tuple[str, ...]) -> Any:
    """Return the value under the first spelling that is there."""
    for name in spellings:
        if (value := attributes.get(name)) is not None:
            return value
    return None


def _count(value: object) -> int | None:
    """Return a number of units, None where it is no such number."""
    if type(value) is int:
        return value if 0 <= value < 2**63 else None
    return int(value) if isinstance(value, float) and 0 <= value < 2**63 else None


def _finish_reason(reasons: object) -> str | None:
    """
    Return why the first choice ended, as the provider said.

    The conventions put `error` where the provider said nothing because the call failed or was cut.
    """
    if isinstance(reasons, (list, tuple)):
        reasons = next(iter(cast("Sequence[object]", reasons)), None)
    return None if reasons == "error" else _text(reasons)


def _foreign_id(span: ReadableSpan) -> str:
    """Return an id that the same span always gets, in whichever process it is seen again."""
    context = span.get_span_context()
    trace_id, span_id = (context.trace_id, context.span_id) if context else (0, 0)
    digest = hashlib.sha256(f"{trace_id:032x}{span_id:016x}{span.start_time}".encode())
    return digest.hexdigest()[:32]
