"""
A usage event, and the bytes that are sent of it.

Pure: no clock, no environment, no network. An event is made of a span (`foreign`), or of a call of our own
instrumentation directly.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from cmdrdata_exporter.metadata import digits, is_short
from cmdrdata_exporter.quick_json import quick_json

FORMAT_VERSION = "0.1.0"
"""The version of the event's format, sent as `version`."""

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
    "agents.sessions": ("turn_id", "session_id", "agent_id", "status", "created"),
    "realtime": ("response_id", "finish_reason", "session_id"),
    "realtime.transcription": ("item_id", "session_id"),
    "realtime.translations": ("session_id",),
    "live": ("finish_reason", "session_id"),
    "live.responses": ("response_id", "created", "finish_reason", "session_id"),
    "live.decisions": ("session_id",),
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
    "call_site",
    "request_id",
    "openai_organization",
    "openai_project",
    "openai_key_hash",
    "usage",
)
"""The metadata keys that belong to events of every endpoint; the last six are there where they are known."""

OURS = frozenset(COMMON).union(*RESERVED.values())
"""The metadata keys that belong to events of some endpoint."""

_ERRORS = (
    ("timeout", ("TimeoutError", "Timeout")),
    (
        "cancelled",
        ("CancelledError", "Cancelled", "KeyboardInterrupt", "GeneratorExit", "SystemExit"),
    ),
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
    (
        "connection_error",
        (
            "ConnectionError",
            "ConnectError",
            "ReadError",
            "RemoteProtocolError",
            # Of a WebSocket.
            "ConnectionClosedError",
        ),
    ),
)
"""`error.type` of the event, by how the code or the name of the exception ends."""


class UsageEvent(NamedTuple):
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
    remember: int = 0
    """For how many seconds the same event may be seen again, and must be known by its id."""
    renamed: tuple[str, ...] = ()
    """The user's keys that collided with reserved ones and are sent as `user_<key>`."""

    @property
    def success(self) -> bool:
        """Whether the call ended without an error."""
        return self.error_type is None

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object that is posted."""
        # All at once: each field by its name takes several times as long, in each call of an application.
        (
            event_id,
            customer_id,
            provider,
            model,
            _,
            _,
            input_tokens,
            output_tokens,
            total_tokens,
            usage,
            metadata,
            timestamp,
            start_time,
            end_time,
            duration_ms,
            first_token,
            streaming,
            retry_count,
            error,
            code,
            message,
            _,
            _,
        ) = self
        latency = {
            "request_start_time": start_time,
            "request_end_time": end_time,
            "duration_ms": duration_ms,
        }
        if first_token is not None:
            latency["time_to_first_token_ms"] = first_token
        success = error is None
        return {
            "customer_id": customer_id,
            "model": model,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": total_tokens,
            "provider": provider,
            "metadata": {**metadata, "usage": dict(usage)},
            "timestamp": timestamp,
            "version": FORMAT_VERSION,
            "latency": latency,
            "error": {"occurred": not success, "type": error, "code": code, "message": message},
            "request": {
                "id": event_id,
                "streaming": streaming,
                "retry_count": retry_count,
                "success": success,
            },
        }


_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode


def encode(event: UsageEvent) -> bytes:
    """
    Return the body of the POST for `event`; the same event always gives the same bytes.

    They are the same with orjson, which is used where it is installed.
    """
    wire = event.to_wire()
    quick = quick_json(wire, event.metadata.values(), event.usage.values())
    if quick is not None:
        return quick
    # Half of a surrogate pair is no character; it becomes a question mark.
    return _encode(wire).encode("utf-8", "replace")


_NO_CUSTOMER = b'"customer_id":null'


def customer_place(body: bytes) -> int | None:
    """
    Return where the `null` is in a body in whose place a customer goes; None where the event has one.

    Only the event itself has this key with null: what is null in the metadata are reserved keys, and in a string the
    quotes are escaped.
    """
    place = body.find(_NO_CUSTOMER)
    return None if place < 0 else place + len(_NO_CUSTOMER) - len("null")


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


_LONGEST_WAIT = 10 * 365 * 86400
"""Seconds; no answer took longer to begin."""


def first_token_ms(seconds: object) -> int | None:
    """Return `time_to_first_token_ms`, None where the seconds are no such time."""
    if isinstance(seconds, (int, float)) and 0 <= seconds < _LONGEST_WAIT:
        return round(seconds * 1000)
    return None


def reserved(endpoint: str) -> dict[str, Any]:
    """Return the reserved keys that each event of an endpoint has in its metadata, with null: to be filled in."""
    return _reserved(endpoint).copy()


@functools.lru_cache(maxsize=256)
def _reserved(endpoint: str) -> dict[str, Any]:
    return dict.fromkeys((*RESERVED.get(endpoint, ("response_id",)), *COMMON[:-6]))


def add_users_keys(metadata: dict[str, Any], users: Mapping[str, Any]) -> tuple[str, ...]:
    """Add the user's keys to an event's metadata; return those that were taken and go as `user_<key>`."""
    taken = tuple(key for key in users if key in metadata or key in COMMON)
    for key, value in users.items():
        metadata[f"user_{key}" if key in taken else key] = plain(value)
    return taken


def plain(value: object) -> object:
    """Return an attribute's value as JSON has it; what JSON does not have, as a string."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("Sequence[object]", value)]
    if isinstance(value, int):
        # The spans of others may have any; JSON that nobody can read again is lost.
        return value if is_short(value) else digits(value)
    if isinstance(value, str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
