"""
From what the SDK sends and returns to span attributes.

Pure, and tolerant: an SDK object, a dict, a missing or null field, a type from a newer API are all the same to it.
What is not there is left out; nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from opentelemetry_instrumentation_cmdrdata import semconv

Value = str | bool | int | float | tuple[str, ...]
Attributes = dict[str, Any]


class Reading:
    """What was read of a response so far: whole, or chunk by chunk, where the last value of each field counts."""

    __slots__ = ("attributes", "error", "finish_reasons", "reported")

    def __init__(self) -> None:
        self.attributes: Attributes = {}
        self.finish_reasons: dict[int, str | None] = {}
        """By the index of the choice; None while the choice is unfinished."""
        self.reported = False
        """Whether the provider reported usage."""
        self.error: tuple[str, str] | None = None
        """Code and message of a failure that the provider reported inside a response."""


def read_chat(reading: Reading, body: object) -> None:
    """Read a chat completion or a chunk of one; also a legacy completion, which has the same shape."""
    _read_common(reading, body, "created")
    for index, choice in enumerate(_items(get(body, "choices"))):
        number = get(choice, "index")
        reason = get(choice, "finish_reason")
        key = number if isinstance(number, int) else index
        if reason is not None or key not in reading.finish_reasons:
            reading.finish_reasons[key] = reason if isinstance(reason, str) else None
    _put(reading.attributes, semconv.SYSTEM_FINGERPRINT, get(body, "system_fingerprint"), string)


def read_chat_chunk(reading: Reading, chunk: object) -> None:
    """Read a chunk of a chat stream; most carry one more piece of text and nothing else, so they cost little."""
    if reading.attributes and get(chunk, "usage") is None:
        choices = cast("list[object]", get(chunk, "choices"))
        if type(choices) is list and len(choices) == 1:
            (choice,) = choices
            if (
                get(choice, "finish_reason") is None
                and get(choice, "index") in reading.finish_reasons
            ):
                return
    read_chat(reading, chunk)


def read_response(reading: Reading, body: object) -> None:
    """Read an object of the Responses API."""
    _read_common(reading, body, "created_at")
    status = get(body, "status")
    if status in ("failed", "cancelled"):
        reading.finish_reasons = {0: "error"}
    elif status == "incomplete":
        reason = get(get(body, "incomplete_details"), "reason")
        reading.finish_reasons = {
            0: "length" if reason == "max_output_tokens" else str(reason or status)
        }
    elif status == "completed":
        kinds = [get(item, "type") for item in _items(get(body, "output"))]
        reasons = [
            reason
            for reason, types in (
                ("tool_calls", ("function_call", "custom_tool_call")),
                ("stop", ("message",)),
            )
            if any(kind in types for kind in kinds)
        ]
        reading.finish_reasons = dict(enumerate(reasons or ["stop"]))
    conversation = get(get(body, "conversation"), "id")
    _put(reading.attributes, semconv.CONVERSATION_ID, conversation, string)
    error = get(body, "error")
    if status == "failed":
        reading.error = (
            str(get(error, "code") or "_OTHER"),
            str(get(error, "message") or "the response failed"),
        )


def read_response_event(reading: Reading, event: object) -> None:
    """Read an event of a Responses stream: those that carry the response itself."""
    kind = get(event, "type")
    if type(kind) is str and kind in _RESPONSE_EVENTS:
        read_response(reading, get(event, "response"))
    elif kind == "error":
        reading.error = (
            str(get(event, "code") or "_OTHER"),
            str(get(event, "message") or "the stream failed"),
        )


_RESPONSE_EVENTS = frozenset(
    f"response.{state}"
    for state in ("created", "queued", "in_progress", "completed", "incomplete", "failed")
)


def read_embeddings(reading: Reading, body: object) -> None:
    """Read the answer to an embeddings request. The conventions give its span no response id and no output."""
    attributes = reading.attributes
    _put(attributes, semconv.RESPONSE_MODEL, get(body, "model"), string)
    data = get(body, "data")
    if isinstance(data, list):
        attributes[semconv.EMBEDDING_COUNT] = len(data)  # pyright: ignore[reportUnknownArgumentType]
    read_usage(reading, get(body, "usage"))


def _read_common(reading: Reading, body: object, created: str) -> None:
    attributes = reading.attributes
    _put(attributes, semconv.RESPONSE_ID, get(body, "id"), string)
    _put(attributes, semconv.RESPONSE_MODEL, get(body, "model"), string)
    _put(attributes, semconv.RESPONSE_SERVICE_TIER, get(body, "service_tier"), string)
    if (seconds := count(get(body, created))) is not None:
        attributes[semconv.CREATED] = seconds
    read_usage(reading, get(body, "usage"))


def read_usage(reading: Reading, usage: object) -> None:
    """Read a `usage` object, of chat or of responses; where several arrive the last one counts whole."""
    if usage is None:
        return
    attributes: Attributes = {}
    for name, spellings in _TOTALS:
        for spelling in spellings:
            if (number := count(get(usage, spelling))) is not None:
                attributes[name] = number
                break
    for spelling, names in _DETAILS:
        details = get(usage, spelling)
        if details is not None:
            for field, name in names:
                if (number := count(get(details, field))) is not None:
                    attributes[name] = number
    if attributes:
        for name in _USAGE_NAMES:
            reading.attributes.pop(name, None)
        reading.attributes.update(attributes)
        reading.reported = True


_TOTALS = (
    (semconv.INPUT_TOKENS, ("prompt_tokens", "input_tokens")),
    (semconv.OUTPUT_TOKENS, ("completion_tokens", "output_tokens")),
    (semconv.TOTAL_TOKENS, ("total_tokens",)),
)
_INPUT_DETAILS = (
    ("cached_tokens", semconv.CACHE_READ_TOKENS),
    ("cache_write_tokens", semconv.CACHE_WRITE_TOKENS),
    ("text_tokens", semconv.TEXT_INPUT_TOKENS),
    ("image_tokens", semconv.IMAGE_INPUT_TOKENS),
    ("audio_tokens", semconv.AUDIO_INPUT_TOKENS),
)
_OUTPUT_DETAILS = (
    ("reasoning_tokens", semconv.REASONING_TOKENS),
    ("text_tokens", semconv.TEXT_OUTPUT_TOKENS),
    ("image_tokens", semconv.IMAGE_OUTPUT_TOKENS),
    ("audio_tokens", semconv.AUDIO_OUTPUT_TOKENS),
    ("accepted_prediction_tokens", semconv.ACCEPTED_PREDICTION_TOKENS),
    ("rejected_prediction_tokens", semconv.REJECTED_PREDICTION_TOKENS),
)
_DETAILS = (
    ("prompt_tokens_details", _INPUT_DETAILS),
    ("input_tokens_details", _INPUT_DETAILS),
    ("completion_tokens_details", _OUTPUT_DETAILS),
    ("output_tokens_details", _OUTPUT_DETAILS),
)
BREAKDOWNS = frozenset(name for _, name in _INPUT_DETAILS + _OUTPUT_DETAILS)
"""Subsets of the totals. The conventions drop those that are zero from spans; an event keeps what was reported."""
_USAGE_NAMES = BREAKDOWNS.union(name for name, _ in _TOTALS)


def request_attributes(body: Mapping[str, Any]) -> Attributes:
    """Return the attributes of a request's parameters, as they go to the provider."""
    attributes: Attributes = {}
    for parameter, value in body.items():
        for name, convert in _PARAMETERS.get(parameter, ()):
            _put(attributes, name, value, convert)
    if attributes.get(semconv.CHOICE_COUNT) == 1:
        del attributes[semconv.CHOICE_COUNT]
    if attributes.get(semconv.REQUEST_SERVICE_TIER) == "auto":
        del attributes[semconv.REQUEST_SERVICE_TIER]
    return attributes


def get(thing: object, name: str) -> Any:
    """Return a field of an SDK object or of a dict, None where there is no such field."""
    if isinstance(thing, dict):
        return thing.get(name)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return getattr(thing, name, None)


def count(value: object) -> int | None:
    """Return a number of units: also one that a compatible server sent as a string. None where it is no such number."""
    written = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19
    if written or (isinstance(value, float) and value.is_integer()):
        value = int(cast("str | float", value))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    return None


def _put(
    attributes: Attributes, name: str, value: object, convert: Callable[[Any], Value | None]
) -> None:
    if value is not None and (converted := convert(value)) is not None:
        attributes[name] = converted


def _items(value: object) -> Iterable[Any]:
    return cast("Iterable[Any]", value) if isinstance(value, (list, tuple)) else ()


def string(value: object) -> str | None:
    """Return `value` if it is a string that says something."""
    return value if isinstance(value, str) and value else None


def _integer(value: object) -> int | None:
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        else None
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _strings(value: object) -> tuple[str, ...] | None:
    """Return one string or several as several."""
    values = (value,) if isinstance(value, str) else _items(value)
    return tuple(v for v in values if isinstance(v, str)) or None


def _output_type(value: object) -> str | None:
    """Return the convention's name for a `response_format`, or for the `text` parameter that holds one."""
    format_type = get(get(value, "format"), "type") or get(value, "type")
    return {"json_object": "json", "json_schema": "json", "text": "text"}.get(str(format_type))


def _identifier(value: object) -> str | None:
    """Return an id that is given as such or as an object that has it."""
    return string(value) or string(get(value, "id"))


_PARAMETERS: Mapping[str, tuple[tuple[str, Callable[[Any], Value | None]], ...]] = {
    "model": ((semconv.REQUEST_MODEL, string),),
    "temperature": ((semconv.TEMPERATURE, _number),),
    "top_p": ((semconv.TOP_P, _number),),
    "max_tokens": ((semconv.MAX_TOKENS, _integer),),
    "max_completion_tokens": ((semconv.MAX_TOKENS, _integer),),
    "max_output_tokens": ((semconv.MAX_TOKENS, _integer),),
    "frequency_penalty": ((semconv.FREQUENCY_PENALTY, _number),),
    "presence_penalty": ((semconv.PRESENCE_PENALTY, _number),),
    "n": ((semconv.CHOICE_COUNT, _integer),),
    "seed": ((semconv.SEED, _integer),),
    "stop": ((semconv.STOP_SEQUENCES, _strings),),
    "service_tier": ((semconv.REQUEST_SERVICE_TIER, string),),
    "response_format": ((semconv.OUTPUT_TYPE, _output_type),),
    "text": ((semconv.OUTPUT_TYPE, _output_type),),
    "reasoning_effort": ((semconv.REASONING_LEVEL, string),),
    "reasoning": ((semconv.REASONING_LEVEL, lambda value: string(get(value, "effort"))),),
    "previous_response_id": ((semconv.PREVIOUS_RESPONSE_ID, string),),
    "conversation": ((semconv.CONVERSATION_ID, _identifier),),
    "prompt": (
        (semconv.PROMPT_NAME, lambda value: string(get(value, "id"))),
        (semconv.PROMPT_VERSION, lambda value: string(get(value, "version"))),
    ),
    "dimensions": ((semconv.EMBEDDING_DIMENSIONS, _integer),),
    "encoding_format": ((semconv.ENCODING_FORMATS, _strings),),
}
