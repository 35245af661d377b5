"""
From a provider's usage to span attributes, and the reading of an answer that collects them.

Pure, and tolerant: an SDK object, a dict, a missing or null field, a type from a newer API are all the same to it.
What is not there is left out; nothing is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.shared import Identity

Value = str | bool | int | float | tuple[str, ...]
Attributes = dict[str, Any]
NOTHING: dict[str, Any] = {}
"""What nothing is ever added to."""


class Reading:
    """What was read of an answer so far: whole, or chunk by chunk, where the last value of each field counts."""

    __slots__ = (
        "attributes",
        "charges",
        "error",
        "finish_reasons",
        "has_ended",
        "has_usage",
        "is_news",
        "job",
        "listed",
        "shared",
        "within",
    )

    def __init__(self) -> None:
        self.attributes: Attributes = {}
        self.finish_reasons: dict[int, str | None] = {}
        """By the index of the choice; None while the choice is unfinished."""
        self.has_usage = False
        """Whether the provider reported usage."""
        self.error: tuple[str, str] | None = None
        """Code and message of a failure that the provider reported inside an answer."""
        self.job: str | None = None
        """The provider's id of the job that the answer is about, where it is about one."""
        self.charges: Mapping[str, Attributes] = NOTHING
        """
        What is to be billed of the job by now, as far as it was not billed before.
        By the part of the job, which is empty where it has but one; with what only that part's event says.
        """
        self.listed: Sequence[Reading] = ()
        """Of a page or a stream of jobs, those that have ended."""
        self.has_ended = False
        """Whether the job has."""
        self.within: str | None = None
        """The id of the job that this one is a part of, and whose starter pays for it."""
        self.is_news = False
        """Whether a stream has told of a job what shall outlive this process: its id, or its end."""
        self.shared: Identity | None = None
        """What others may see, too, is known by."""

    def due(self, part: str = "", only: Attributes | None = None) -> Attributes:
        """
        Have a part of the job billed.

        Args:
            part: of the job, see `charges`.
            only: what only its event says.

        Returns:
            What only its event says, to be added to.
        """
        charge: Attributes = {} if only is None else only
        # Most answers are about no job: they share an empty mapping.
        self.charges = {**self.charges, part: charge}
        return charge

    def show(self, ended: Reading) -> None:
        """Note one job more that has ended."""
        self.listed = (*self.listed, ended)


def read_usage(reading: Reading, usage: object) -> None:
    """
    Read a `usage` object of any endpoint; where several arrive the last one counts whole.

    One that lacks a total that was reported before adds to that report and takes nothing away. One that is all zero
    tells nothing after one that is not: some servers end a stream so.
    """
    if usage is None:
        return
    values = fields(usage)
    attributes: Attributes = {}
    for field, name in _TOTALS:
        value = values.get(field)
        # Most are integers: what is done for each token count of each call is done here.
        if type(value) is int and 0 <= value < 2**63:
            attributes[name] = value
        elif value is not None and (number := count(value)) is not None:
            attributes[name] = number
    for field, names in _DETAILS:
        if (details := values.get(field)) is not None:
            for detail, value in fields(details).items():
                if value is None or (name := names.get(detail)) is None:
                    continue
                if type(value) is int and 0 <= value < 2**63:
                    attributes[name] = value
                elif (number := count(value)) is not None:
                    attributes[name] = number
    if not _BESIDE.isdisjoint(values):
        _read_beside(attributes, values)
    if attributes:
        if reading.has_usage:
            earlier = reading.attributes
            if not any(attributes.values()) and any(earlier.get(name) for name in _USAGE_NAMES):
                return
            if all(name in attributes for name in _MEASURES if name in earlier):
                for name in _USAGE_NAMES:
                    earlier.pop(name, None)
            elif semconv.TOTAL_TOKENS not in attributes and not _SUMMANDS.isdisjoint(attributes):
                earlier.pop(
                    semconv.TOTAL_TOKENS, None
                )  # It is the sum of what was reported before.
        reading.attributes.update(attributes)
        reading.has_usage = True


def _read_beside(attributes: Attributes, values: Mapping[str, Any]) -> None:
    """Read what few servers tell beside the totals."""
    for field in _CACHE_READ:
        if (value := values.get(field)) is not None and (number := count(value)) is not None:
            attributes.setdefault(semconv.CACHE_READ_TOKENS, number)
    # SGLang counts them in the output (python/sglang/srt/entrypoints/openai/protocol.py, UsageInfo), Vertex AI and
    # Perplexity beside it (https://github.com/openai/openai-python/issues/2544). Where the total has no room for them
    # beside the output, they are a part of it.
    if (value := values.get("reasoning_tokens")) is not None:
        _read_reasoning(attributes, count(value))
    for field in _SECONDS:
        if (value := values.get(field)) is not None and (seconds := quantity(value)) is not None:
            attributes[semconv.AUDIO_SECONDS] = seconds


def _read_reasoning(attributes: Attributes, reasoning: int | None) -> None:
    """Read a count of reasoning tokens that stands beside the totals, if it is certainly a part of the output."""
    output = attributes.get(semconv.OUTPUT_TOKENS)
    if (
        reasoning is not None
        and output is not None
        and reasoning <= output
        and attributes.get(semconv.TOTAL_TOKENS) == attributes.get(semconv.INPUT_TOKENS, 0) + output
    ):
        attributes.setdefault(semconv.REASONING_TOKENS, reasoning)


# Where a server has both spellings, the second one prevails.
_TOTALS = (
    ("input_tokens", semconv.INPUT_TOKENS),
    ("prompt_tokens", semconv.INPUT_TOKENS),
    ("output_tokens", semconv.OUTPUT_TOKENS),
    ("completion_tokens", semconv.OUTPUT_TOKENS),
    ("total_tokens", semconv.TOTAL_TOKENS),
)
_INPUT_DETAILS = {
    "cached_tokens": semconv.CACHE_READ_TOKENS,
    "cache_write_tokens": semconv.CACHE_WRITE_TOKENS,
    # LiteLLM's proxy and Alibaba's Model Studio; like OpenAI's they are a part of `prompt_tokens`.
    "cache_creation_tokens": semconv.CACHE_WRITE_TOKENS,
    "cache_creation_input_tokens": semconv.CACHE_WRITE_TOKENS,
    "text_tokens": semconv.TEXT_INPUT_TOKENS,
    "image_tokens": semconv.IMAGE_INPUT_TOKENS,
    "audio_tokens": semconv.AUDIO_INPUT_TOKENS,
}
CACHED_DETAILS = {
    "text_tokens": semconv.TEXT_CACHE_READ_TOKENS,
    "image_tokens": semconv.IMAGE_CACHE_READ_TOKENS,
    "audio_tokens": semconv.AUDIO_CACHE_READ_TOKENS,
}
"""Of the Realtime API alone: parts of the input that was cached."""
_OUTPUT_DETAILS = {
    "reasoning_tokens": semconv.REASONING_TOKENS,
    "text_tokens": semconv.TEXT_OUTPUT_TOKENS,
    "image_tokens": semconv.IMAGE_OUTPUT_TOKENS,
    "audio_tokens": semconv.AUDIO_OUTPUT_TOKENS,
    "accepted_prediction_tokens": semconv.ACCEPTED_PREDICTION_TOKENS,
    "rejected_prediction_tokens": semconv.REJECTED_PREDICTION_TOKENS,
}
_DETAILS = (
    ("prompt_tokens_details", _INPUT_DETAILS),
    ("input_tokens_details", _INPUT_DETAILS),
    ("input_token_details", _INPUT_DETAILS),
    ("completion_tokens_details", _OUTPUT_DETAILS),
    ("output_tokens_details", _OUTPUT_DETAILS),
)
# Beside the totals.
_CACHE_READ = ("cached_tokens", "prompt_cache_hit_tokens")
"""Together and Moonshot; DeepSeek."""
_SECONDS = ("seconds", "prompt_audio_seconds")
"""OpenAI; Mistral."""
_BESIDE = frozenset((*_CACHE_READ, "reasoning_tokens", *_SECONDS))
BREAKDOWNS = frozenset(
    (*_INPUT_DETAILS.values(), *CACHED_DETAILS.values(), *_OUTPUT_DETAILS.values())
)
"""Subsets of the totals. The conventions drop those that are zero from spans; an event keeps what was reported."""
_SUMMANDS = frozenset((semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS))
_MEASURES = frozenset((semconv.AUDIO_SECONDS, *(name for _, name in _TOTALS)))
_USAGE_NAMES = BREAKDOWNS | _MEASURES


def fields(thing: object) -> Mapping[str, Any]:
    """
    Return the fields of an SDK object, or of a dict; none of what has no fields.

    An SDK object is a pydantic model, which keeps those that its class does not declare apart.
    """
    if isinstance(thing, dict):
        return cast("dict[str, Any]", thing)
    declared: dict[str, Any] = getattr(thing, "__dict__", NOTHING)
    undeclared: dict[str, Any] | None = getattr(thing, "__pydantic_extra__", None)
    return {**undeclared, **declared} if undeclared else declared


def get(thing: object, name: str) -> Any:
    """Return a field of an SDK object or of a dict, None where there is no such field."""
    return fields(thing).get(name)


def count(value: object) -> int | None:
    """Return a number of units: also one that a compatible server sent as a string. None where it is no such number."""
    if type(value) is int:
        return value if 0 <= value < 2**63 else None
    written = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19
    if written or (isinstance(value, float) and value.is_integer() and 0 <= value < 2**63):
        return int(cast("str | float", value))
    return None


def quantity(value: object) -> int | float | None:
    """Return an amount that need not be whole, such as seconds; None where it is no such number."""
    if isinstance(value, str) and len(value) < 25:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float) and not value.is_integer():
        return value if math.isfinite(value) and value >= 0 else None
    return count(value)


def put(
    attributes: Attributes, name: str, value: object, convert: Callable[[Any], Value | None]
) -> None:
    """Set an attribute, where there is a value that `convert` understands."""
    if value is not None and (converted := convert(value)) is not None:
        attributes[name] = converted


def items(value: object) -> Iterable[Any]:
    """Return the items of a list, none of what is no list."""
    return cast("Iterable[Any]", value) if isinstance(value, (list, tuple)) else ()


def string(value: object) -> str | None:
    """Return `value` if it is a string that says something."""
    return value if isinstance(value, str) and value else None
