"""
Which metrics a call has, and by which names. Pure.

The conventions renamed them all in 2026, and dashboards read the names of before. So there are two sets, `TODAYS` and
`LATEST`; each is a table of metrics, and says which of them a call has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from cmdrdata_exporter.measures import Kind, Metric
from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS, Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes

SECONDS = tuple(0.01 * 2**power for power in range(14))
"""The boundaries of the buckets of times."""
TOKENS = tuple(4**power for power in range(14))
"""Those of numbers of tokens."""


Measure = tuple[Metric, float, Attributes]
"""A value of a metric, with the attributes that it has besides those of all metrics of its call."""


class Names(NamedTuple):
    """A set of metrics."""

    metrics: tuple[Metric, ...]
    of_call: Callable[[Endpoint, Attributes, float], Iterator[Measure]]
    """Returns what is measured of a call that ended: of an endpoint, with the facts of its answer, after seconds."""
    of_chunk: Callable[[Endpoint], Metric | None]
    """Returns what the time from one chunk to the next is measured by."""


def _histogram(name: str, unit: str, description: str) -> Metric:
    boundaries = SECONDS if unit == "s" else TOKENS
    return Metric(name, unit, description, Kind.HISTOGRAM, boundaries)


# --- The names that dashboards read today -----------------------------------------------------

_DURATION = _histogram(
    "gen_ai.client.operation.duration", "s", "Duration of GenAI client operation"
)
_TOKENS = _histogram(
    "gen_ai.client.token.usage",
    "{token}",
    "Number of input and output tokens used by GenAI clients",
)
_FIRST_CHUNK = _histogram(
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    "Time from the request to the first chunk of a streamed answer",
)
_FURTHER_CHUNK = _histogram(
    "gen_ai.client.operation.time_per_output_chunk",
    "s",
    "Time from one chunk of a streamed answer to the next",
)
_TOKEN_TYPES = (("input", semconv.INPUT_TOKENS), ("output", semconv.OUTPUT_TOKENS))


def _of_call_today(endpoint: Endpoint, facts: Attributes, seconds: float) -> Iterator[Measure]:
    yield _DURATION, seconds, _error(facts)
    if (first_chunk := facts.get(semconv.TIME_TO_FIRST_CHUNK)) is not None:
        yield _FIRST_CHUNK, first_chunk, {}
    for token_type, name in () if endpoint.polls else _TOKEN_TYPES:
        if name in facts:
            yield _TOKENS, facts[name], {semconv.TOKEN_TYPE: token_type}


def _chunk_today(_: Endpoint) -> Metric:
    return _FURTHER_CHUNK


TODAYS = Names((_DURATION, _TOKENS, _FIRST_CHUNK, _FURTHER_CHUNK), _of_call_today, _chunk_today)
"""
What the official instrumentations record in October 2026.

https://pypi.org/project/opentelemetry-util-genai/1.3b0/
"""


# --- Those of the conventions' main branch ----------------------------------------------------

_INFERENCE_DURATION = _histogram(
    "gen_ai.client.inference.duration", "s", "Duration of GenAI client inference"
)
_INFERENCE_FIRST_CHUNK = replace(_FIRST_CHUNK, name="gen_ai.client.inference.time_to_first_chunk")
_INFERENCE_FURTHER_CHUNK = replace(
    _FURTHER_CHUNK, name="gen_ai.client.inference.time_per_output_chunk"
)


class _Total(NamedTuple):
    """A total of tokens: what it is added to, what shows its distribution, and the parts of it by their modality."""

    name: str
    counter: Metric
    per_operation: Metric
    parts: tuple[tuple[str, str], ...]


def _usage(name: str, description: str) -> Metric:
    return Metric(f"gen_ai.client.inference.usage.{name}", "{token}", description, Kind.COUNTER)


def _total(name: str, counted: str, parts: tuple[tuple[str, str], ...]) -> _Total:
    kind = name.removeprefix(semconv.USAGE_PREFIX)
    return _Total(
        name,
        _usage(kind, f"The number of {counted}"),
        _histogram(
            f"gen_ai.client.inference.operation.{kind}",
            "{token}",
            f"The number of {counted} per operation",
        ),
        parts,
    )


_TOTALS = (
    _total(
        semconv.INPUT_TOKENS,
        "input (prompt) tokens used, including cached tokens",
        (
            ("text", semconv.TEXT_INPUT_TOKENS),
            ("image", semconv.IMAGE_INPUT_TOKENS),
            ("audio", semconv.AUDIO_INPUT_TOKENS),
        ),
    ),
    _total(
        semconv.OUTPUT_TOKENS,
        "output (completion) tokens used, including reasoning tokens",
        (
            ("text", semconv.TEXT_OUTPUT_TOKENS),
            ("image", semconv.IMAGE_OUTPUT_TOKENS),
            ("audio", semconv.AUDIO_OUTPUT_TOKENS),
        ),
    ),
)
_SUBSETS = tuple(
    (name, _usage(name.removeprefix(semconv.USAGE_PREFIX), f"The number of {counted}"))
    for name, counted in (
        (semconv.CACHE_READ_TOKENS, "input tokens served from a cache"),
        (semconv.CACHE_WRITE_TOKENS, "input tokens written to a cache"),
        (semconv.REASONING_TOKENS, "output tokens used for reasoning"),
    )
)
"""Of the totals. No provider tells their modality."""
_UNKNOWN: Attributes = {semconv.TOKEN_MODALITY: "unknown"}


def _of_call_latest(endpoint: Endpoint, facts: Attributes, seconds: float) -> Iterator[Measure]:
    if not is_inference(endpoint):
        yield _DURATION, seconds, _error(facts)
        return
    yield _INFERENCE_DURATION, seconds, _error(facts)
    if (first_chunk := facts.get(semconv.TIME_TO_FIRST_CHUNK)) is not None:
        yield _INFERENCE_FIRST_CHUNK, first_chunk, {}
    for total in _TOTALS:
        if (tokens := facts.get(total.name)) is not None:
            yield total.per_operation, tokens, {}
            for modality, part in _by_modality(tokens, total.parts, facts):
                yield total.counter, part, {semconv.TOKEN_MODALITY: modality}
    for name, counter in _SUBSETS:
        # A part that is zero is left out, as on spans.
        if tokens := facts.get(name):
            yield counter, tokens, _UNKNOWN


def _by_modality(
    total: int, parts: tuple[tuple[str, str], ...], facts: Attributes
) -> Iterator[tuple[str, int]]:
    """Split a total, so that the parts add up to it: what the provider assigns to no modality is `unknown`."""
    told = [(modality, facts[name]) for modality, name in parts if facts.get(name)]
    rest = total - sum(tokens for _, tokens in told)
    if rest < 0:  # They overlap, or are wrong.
        told, rest = [], total
    yield from told
    if rest or not told:
        yield "unknown", rest


def _inference_chunk(endpoint: Endpoint) -> Metric | None:
    return _INFERENCE_FURTHER_CHUNK if is_inference(endpoint) else None


_JOBS = frozenset(row.name for row in ENDPOINTS if row.polls and row.api_type is None)


def is_inference(endpoint: Endpoint) -> bool:
    """Say whether a model answers at once, and not with embeddings, which the conventions measure apart."""
    return not (endpoint.polls or endpoint.name in _JOBS or endpoint.span_operation == "embeddings")


LATEST = Names(
    (
        _INFERENCE_DURATION,
        _INFERENCE_FIRST_CHUNK,
        _INFERENCE_FURTHER_CHUNK,
        *(total.counter for total in _TOTALS),
        *(counter for _, counter in _SUBSETS),
        *(total.per_operation for total in _TOTALS),
        _DURATION,
    ),
    _of_call_latest,
    _inference_chunk,
)
"""
What the conventions say in October 2026: a part of the operations has metrics of its own.

https://github.com/open-telemetry/semantic-conventions-genai/blob/6fd0d763/docs/gen-ai/gen-ai-token-metrics.md
"""


def _error(facts: Attributes) -> Attributes:
    error = facts.get(semconv.ERROR_TYPE)
    return {} if error is None else {semconv.ERROR_TYPE: error}
