"""
From a span to a usage event, and from an event to the bytes that are sent.

Pure: no clock, no environment, no network.

    event = event_from_span(span)       # None for spans that are no charge
    body = encode(event)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from cmdrdata_exporter import attributes as names
from cmdrdata_exporter.attributes import OUR_SCOPE

FORMAT_VERSION = "0.1.0"
"""The version of the event's format, sent as `version`."""

# Operations that are a charge. Agents, workflows and tools contain calls, they are none.
_INFERENCE = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
_OPENINFERENCE = {"LLM": "chat", "EMBEDDING": "embeddings"}
_OPENLLMETRY = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}

_ENDPOINTS = {"chat": "chat.completions", "text_completion": "completions"}
"""`metadata.endpoint` by operation, for spans that do not tell; an operation that is not here is its own endpoint."""

_IMAGES = ("created", "image_count", "size", "quality", "style", "operation")
_AUDIO = ("operation", "language", "response_format", "text_length")

RESERVED: Mapping[str, tuple[str, ...]] = {
    "chat.completions": ("response_id", "created", "finish_reason"),
    "responses": ("response_id", "created", "finish_reason"),
    "responses.compact": ("response_id", "created"),
    "completions": ("response_id", "created"),
    "embeddings": ("response_id", "created", "embedding_count"),
    "decisions": (),
    "moderations": ("response_id", "flagged"),
    "images.generate": _IMAGES,
    "images.edit": _IMAGES,
    "images.create_variation": _IMAGES,
    "audio.transcriptions": _AUDIO,
    "audio.translations": _AUDIO,
    "audio.speech": ("operation", "voice", "response_format"),
    "fine_tuning.jobs": ("job_id", "status", "model", "training_file", "validation_file"),
    "fine_tuning.alpha.graders": (),
    "beta.threads.runs": ("run_id", "thread_id", "assistant_id", "status"),
    "batches": ("job_id", "status", "created"),
    "videos": ("job_id", "status", "created", "size"),
    "evals.runs": ("run_id", "eval_id", "status"),
}
"""The metadata keys that an event of each endpoint always has, null where nothing is known."""

COMMON = (
    "usage_status",
    "endpoint",
    "request_model",
    "service_tier",
    "server_address",
    "trace_id",
    "span_id",
    "request_id",
    "usage",
)
"""The metadata keys that belong to events of every endpoint."""

_ERRORS = (
    ("timeout", ("TimeoutError", "Timeout")),
    ("cancelled", ("CancelledError", "KeyboardInterrupt", "GeneratorExit", "SystemExit")),
    ("rate_limit", ("RateLimitError", "rate_limit_exceeded")),
    ("authentication", ("AuthenticationError",)),
    ("authorization", ("PermissionDeniedError",)),
    ("server_error", ("InternalServerError", "server_error")),
    (
        "invalid_request",
        (
            "BadRequestError",
            "NotFoundError",
            "ConflictError",
            "UnprocessableEntityError",
            "invalid_request_error",
        ),
    ),
    ("connection_error", ("ConnectionError", "ConnectError", "ReadError", "RemoteProtocolError")),
)
"""`error.type` of the event, by how the code or the name of the exception ends."""


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """
    One charge: who pays, for what, how much.

    Times are integers as on the wire: Unix seconds, and milliseconds where the name says so.
    """

    id: str
    """Unique, fixed for ever: `request.id` and the idempotency key."""
    customer_id: str | None
    provider: str
    model: str
    endpoint: str
    usage_status: str
    input_tokens: int
    output_tokens: int
    total_tokens: int
    usage: Mapping[str, int | float | bool]
    """Breakdowns of the totals and units that are not tokens."""
    metadata: Mapping[str, Any]
    """The user's keys and the reserved ones, as sent, without `usage`."""
    timestamp: int
    start_time: int
    end_time: int
    duration_ms: int
    time_to_first_token_ms: int | None = None
    streaming: bool = False
    retry_count: int = 0
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    renamed: tuple[str, ...] = field(default=(), compare=False)
    """The user's keys that collided with reserved ones and are sent as `user_<key>`."""

    @property
    def success(self) -> bool:
        """Whether the call ended without an error."""
        return self.error_type is None

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object that is posted."""
        latency = {
            "request_start_time": self.start_time,
            "request_end_time": self.end_time,
            "duration_ms": self.duration_ms,
        }
        if self.time_to_first_token_ms is not None:
            latency["time_to_first_token_ms"] = self.time_to_first_token_ms
        return {
            "customer_id": self.customer_id,
            "model": self.model,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.total_tokens,
            "provider": self.provider,
            "metadata": {**self.metadata, "usage": dict(self.usage)},
            "timestamp": self.timestamp,
            "version": FORMAT_VERSION,
            "latency": latency,
            "error": {
                "occurred": not self.success,
                "type": self.error_type,
                "code": self.error_code,
                "message": self.error_message,
            },
            "request": {
                "id": self.id,
                "streaming": self.streaming,
                "retry_count": self.retry_count,
                "success": self.success,
            },
        }


def encode(event: UsageEvent) -> bytes:
    """Return the body of the POST for `event`; the same event always gives the same bytes."""
    return json.dumps(event.to_wire(), separators=(",", ":"), allow_nan=False).encode()


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
    endpoint = _endpoint(attributes)
    if endpoint is None:
        return None
    input_tokens = _count(attributes, names.INPUT_TOKENS)
    output_tokens = _count(attributes, names.OUTPUT_TOKENS)
    total_tokens = _count(attributes, names.TOTAL_TOKENS)
    usage = _usage(attributes)
    reported = not (
        input_tokens is None and output_tokens is None and total_tokens is None and not usage
    )
    scope = span.instrumentation_scope
    ours = scope is not None and scope.name == OUR_SCOPE
    if not reported and not ours:
        return None

    context = span.get_span_context()
    start, end = span.start_time or 0, span.end_time or span.start_time or 0
    failed = span.status.status_code is StatusCode.ERROR
    error_code = attributes.get(names.ERROR_CODE) if failed else None
    request_model = _first(attributes, names.REQUEST_MODEL)
    first_chunk = _first(attributes, names.TIME_TO_FIRST_CHUNK)
    customer = attributes.get(names.CUSTOMER_ID, customer_id)
    known: dict[str, Any] = {
        "response_id": _first(attributes, names.RESPONSE_ID),
        "finish_reason": _finish_reason(attributes),
        "usage_status": attributes.get(names.USAGE_STATUS, "reported" if reported else "missing"),
        "endpoint": endpoint,
        "request_model": request_model,
        "service_tier": _first(attributes, names.SERVICE_TIER),
        "server_address": _first(attributes, names.SERVER_ADDRESS),
        "trace_id": format_trace_id(context.trace_id) if context else None,
        "span_id": format_span_id(context.span_id) if context else None,
    }
    users: dict[str, Any] = {}
    for key, value in attributes.items():
        if key.startswith(names.DETAIL_PREFIX):
            known[key[len(names.DETAIL_PREFIX) :]] = _plain(value)
        elif key.startswith(names.METADATA_PREFIX):
            users[key[len(names.METADATA_PREFIX) :]] = value
    reserved = _metadata(endpoint, known)
    taken = {*reserved, *COMMON}
    return UsageEvent(
        id=attributes.get(names.EVENT_ID) or _foreign_id(span),
        customer_id=customer,
        # The older conventions had it capitalised.
        provider=str(_first(attributes, names.PROVIDER) or "unknown").lower(),
        model=str(_first(attributes, names.RESPONSE_MODEL) or request_model or "unknown"),
        endpoint=endpoint,
        usage_status=known["usage_status"],
        input_tokens=input_tokens or 0,
        output_tokens=output_tokens or 0,
        total_tokens=(input_tokens or 0) + (output_tokens or 0)
        if total_tokens is None
        else total_tokens,
        usage=usage,
        metadata={
            **{f"user_{k}" if k in taken else k: _plain(v) for k, v in users.items()},
            **reserved,
        },
        timestamp=end // 1_000_000_000,
        start_time=start // 1_000_000_000,
        end_time=end // 1_000_000_000,
        duration_ms=round((end - start) / 1e6),
        time_to_first_token_ms=round(first_chunk * 1000)
        if isinstance(first_chunk, (int, float))
        else None,
        streaming=_first(attributes, names.STREAMING) is True,
        retry_count=attributes.get(names.RETRY_COUNT, 0),
        error_type=error_type(_first(attributes, names.ERROR_TYPE), error_code) if failed else None,
        error_code=error_code,
        error_message=span.status.description if failed else None,
        renamed=tuple(key for key in users if key in taken),
    )


def error_type(name: object, code: str | None) -> str:
    """
    Return the event's `error.type`.

    Args:
        name: the span's `error.type`: an exception's name, a provider's code or an HTTP status.
        code: the HTTP status as a string, or the provider's code, or None.
    """
    said = [word for word in (code, name) if isinstance(word, str)]
    for word in said:
        if word.isdecimal():
            return _error_type_of_status(int(word))
    for word in said:
        for kind, endings in _ERRORS:
            if word.endswith(endings):
                return kind
    return "unknown_error"


def _error_type_of_status(status: int) -> str:
    named = {429: "rate_limit", 401: "authentication", 403: "authorization", 408: "timeout"}
    if status in named:
        return named[status]
    if status >= 500:
        return "server_error"
    return "invalid_request" if status >= 400 else "unknown_error"


def _endpoint(attributes: Mapping[str, Any]) -> str | None:
    """Return what was called, None where the span is no model call. First the cheap look that refuses most spans."""
    if (endpoint := attributes.get(names.ENDPOINT)) is not None:
        return str(endpoint)
    if (kind := attributes.get(names.OPENINFERENCE_KIND)) is not None:
        operation = _OPENINFERENCE.get(kind)
    elif (operation := attributes.get(names.OPERATION)) is not None:
        operation = operation if operation in _INFERENCE else None
    elif (request_type := attributes.get(names.OPENLLMETRY_REQUEST_TYPE)) is not None:
        operation = _OPENLLMETRY.get(request_type)
    if operation is None:
        return None
    if operation == "chat" and (
        attributes.get(names.OPENAI_API_TYPE) == "responses"
        # Not every instrumentation tells, but the provider's ids do.
        or str(_first(attributes, names.RESPONSE_ID)).startswith("resp_")
    ):
        return "responses"
    return _ENDPOINTS.get(operation, operation)


def _usage(attributes: Mapping[str, Any]) -> dict[str, int | float | bool]:
    """Return the breakdowns and the units that are not tokens, those only that were reported."""
    usage: dict[str, int | float | bool] = {}
    for key, spellings in names.BREAKDOWNS.items():
        if (value := _count(attributes, spellings)) is not None:
            usage[key] = value
    for name, value in attributes.items():
        if not name.startswith(names.USAGE_PREFIX) or name in names.TOTAL_TOKENS:
            continue
        # A flag, or a number; what is neither tells no quantity.
        if isinstance(value, (bool, int, float)) and 0 <= value < math.inf:
            usage[name[len(names.USAGE_PREFIX) :]] = value
    return usage


def _metadata(endpoint: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reserved keys of an event: those that it always has, and what else is known."""
    always = (*RESERVED.get(endpoint, ("response_id",)), *COMMON[:-2])
    reserved = {key: known.get(key) for key in always}
    reserved.update({key: value for key, value in known.items() if value is not None})
    return reserved


def _first(attributes: Mapping[str, Any], spellings: tuple[str, ...]) -> Any:
    """Return the value under the first spelling that is there."""
    for name in spellings:
        if (value := attributes.get(name)) is not None:
            return value
    return None


def _count(attributes: Mapping[str, Any], spellings: tuple[str, ...]) -> int | None:
    """Return a number of units, None where it was not reported."""
    value = _first(attributes, spellings)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        return None
    return int(value)


def _finish_reason(attributes: Mapping[str, Any]) -> object:
    """
    Return why the first choice ended, as the provider said.

    The conventions put `error` where the provider said nothing because the call failed or was cut.
    """
    reasons = _first(attributes, names.FINISH_REASONS)
    if isinstance(reasons, (list, tuple)):
        reasons = next(iter(cast("Sequence[object]", reasons)), None)
    return None if reasons == "error" else reasons


def _plain(value: object) -> object:
    """Return an attribute's value as JSON has it; what JSON does not have, as a string."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("Sequence[object]", value)]
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def _foreign_id(span: ReadableSpan) -> str:
    """Return an id that the same span always gets, in whichever process it is seen again."""
    context = span.get_span_context()
    trace_id, span_id = (context.trace_id, context.span_id) if context else (0, 0)
    digest = hashlib.sha256(f"{trace_id:032x}{span_id:016x}{span.start_time}".encode())
    return digest.hexdigest()[:32]
