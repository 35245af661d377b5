"""
From the parameters of a request to span attributes.

Pure, and tolerant as `usage` is. Content is not read, but for how many characters it has where those are charged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.usage import (
    Attributes,
    Value,
    get,
    items,
    put,
    string,
)


def request_attributes(
    endpoint: Endpoint, body: Mapping[str, Any], *, only_model: bool = False
) -> Attributes:
    """Return the attributes of a request's parameters, as they go to the provider; `only_model` where no span is."""
    if only_model or not endpoint.is_conventional:
        model = string(body.get("model", endpoint.default_model))
        if model is None and endpoint.polled_at is not None:
            # That of the agent of a session.
            model = string(get(body.get("agent"), "model"))
        return {} if model is None else {semconv.REQUEST_MODEL: model}
    attributes: Attributes = {}
    for parameter, value in body.items():
        if value is not None and parameter in PARAMETERS:
            for name, convert in PARAMETERS[parameter]:
                if (converted := convert(value)) is not None:
                    attributes[name] = converted
    if attributes.get(semconv.CHOICE_COUNT) == 1:
        del attributes[semconv.CHOICE_COUNT]
    if attributes.get(semconv.REQUEST_SERVICE_TIER) == "auto":
        del attributes[semconv.REQUEST_SERVICE_TIER]
    return attributes


def request_details(endpoint: Endpoint, body: Mapping[str, Any]) -> Attributes:
    """Return what only the event says of a request: what its endpoint echoes, and how many characters it has."""
    details: Attributes = {}
    for name, value in endpoint.details.items():
        details[semconv.DETAIL_PREFIX + name] = value
    for name in endpoint.echoes:
        put(details, semconv.DETAIL_PREFIX + name, body.get(name), _identifier)
    if endpoint.characters is not None:
        text = body.get(endpoint.characters)
        if isinstance(text, str):
            details[semconv.CHARACTERS] = len(text)
    return details


def _integer(value: object) -> int | None:
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        else None
    )


def _number(value: object) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(cast("float", value)) if number and abs(cast("float", value)) < 2**63 else None


def _strings(value: object) -> tuple[str, ...] | None:
    """Return one string or several as several."""
    values = (value,) if isinstance(value, str) else items(value)
    return tuple(v for v in values if isinstance(v, str)) or None


def _output_type(value: object) -> str | None:
    """Return the convention's name for a `response_format`, or for the `text` parameter that holds one."""
    format_type = get(get(value, "format"), "type") or get(value, "type")
    return {"json_object": "json", "json_schema": "json", "text": "text"}.get(str(format_type))


def _identifier(value: object) -> str | None:
    """Return an id that is given as such or as an object that has it."""
    return string(value) or string(get(value, "id"))


def _cursor(value: object) -> str | None:
    return str(value) if isinstance(value, (int, str)) else None


PARAMETERS: Mapping[str, tuple[tuple[str, Callable[[Any], Value | None]], ...]] = {
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
    "starting_after": ((semconv.STREAM_CURSOR, _cursor),),
    "dimensions": ((semconv.EMBEDDING_DIMENSIONS, _integer),),
    "encoding_format": ((semconv.ENCODING_FORMATS, _strings),),
}
