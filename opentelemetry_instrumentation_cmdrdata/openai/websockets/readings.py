"""What the frames of a connection tell, read into a `Reading`. Pure and tolerant, see `usage`."""

from __future__ import annotations

from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.answers import (
    read_answer,
    read_response_event,
)
from opentelemetry_instrumentation_cmdrdata.openai.usage import (
    CACHED_DETAILS,
    Reading,
    count,
    fields,
    get,
    items,
    put,
    quantity,
    read_usage,
    string,
)


def read_nothing(reading: Reading, frame: object) -> None:
    """Read nothing: a connection tells of what is in it, not of itself."""


def read_realtime_response(reading: Reading, response: object) -> None:
    """Read a response of the Realtime API, which has no model of its own."""
    values = read_answer(reading, {**fields(response), "usage": None, "model": None})
    put(reading.attributes, semconv.CONVERSATION_ID, values.get("conversation_id"), string)
    _read_realtime_usage(reading, values=fields(response))
    status, details = values.get("status"), values.get("status_details")
    if status == "completed":
        kinds = {get(item, "type") for item in items(values.get("output"))}
        reading.finish_reasons = {0: "tool_calls" if "function_call" in kinds else "stop"}
    elif status == "incomplete":
        reason = string(get(details, "reason")) or "incomplete"
        reading.finish_reasons = {0: "length" if reason == "max_output_tokens" else reason}
    elif status in ("failed", "cancelled"):
        reading.finish_reasons = {0: "error"}
    if status == "failed":
        error = get(details, "error")
        code = get(error, "code") or get(error, "type")
        reading.error = (str(code or "_OTHER"), str(get(error, "message") or "the response failed"))


def _read_realtime_usage(reading: Reading, values: object) -> None:
    usage = get(values, "usage")
    if usage is None:
        return
    # The details of the output have a name of their own here.
    details = get(usage, "output_token_details")
    read_usage(reading, {**fields(usage), "output_tokens_details": details})
    cached = get(get(usage, "input_token_details"), "cached_tokens_details")
    for field, name in CACHED_DETAILS.items():
        put(reading.attributes, name, get(cached, field), count)


def read_realtime_transcription(reading: Reading, frame: object) -> None:
    """Read the frame that has all of a transcript: of its text nothing."""
    put(reading.attributes, semconv.ITEM_ID, get(frame, "item_id"), string)
    read_usage(reading, get(frame, "usage"))


def read_live_session(reading: Reading, frame: object) -> None:
    """Read what a Live session has used so far, in a frame that tells it: the last one counts."""
    usage = get(frame, "usage")
    for field, name in (
        ("seconds", semconv.SESSION_SECONDS),
        ("active_seconds", semconv.ACTIVE_SECONDS),
        ("paused_seconds", semconv.PAUSED_SECONDS),
    ):
        put(reading.attributes, name, get(usage, field), quantity)
    if semconv.SESSION_SECONDS in reading.attributes:
        reading.has_usage = True
    # While it goes on, there is none.
    reading.finish_reasons = {0: string(get(frame, "reason"))}


def read_delegated_response(reading: Reading, frame: object) -> None:
    """Read a frame that brings an event of a response which a Live session has delegated."""
    read_response_event(reading, get(frame, "event"))


def read_decision(reading: Reading, frame: object) -> None:
    """Read a frame that brings a decision which a Live session has delegated."""
    read_answer(reading, get(get(frame, "event"), "decision"))
