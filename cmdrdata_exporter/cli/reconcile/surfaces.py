"""
What OpenAI's usage API counts, surface by surface, and how it becomes the units of the ledger. Pure.

Their numbers exclude each other where ours include: a token of cached sound is in none of their other input parts, and
in our `audio_input_tokens` as well as in `cache_read_input_tokens`. A `Rule` says which of their fields add up to one
of our units.
https://platform.openai.com/docs/api-reference/usage
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

REQUESTS = "requests"
"""Requests to a model. Evidence only: a run of an assistant, or a batch, is one event here and many requests there."""


class Rule(NamedTuple):
    """How one of our units is made of their fields."""

    unit: str
    fields: tuple[str, ...]
    """Those that are added up. The first one must be told; of the others, what is told."""
    otherwise: tuple[str, ...] = ()
    """What is added up in their place where the first of them is not told."""


class Surface(NamedTuple):
    """A part of the provider's API, as its usage API has it."""

    name: str
    """Of the results: `organization.usage.<name>.result`."""
    method: str
    """Of the SDK, `admin.organization.usage.<method>`; also the end of the path."""
    rules: tuple[Rule, ...]
    groups: tuple[str, ...] = ("model", "project_id", "api_key_id")
    """What it may be grouped by, of that which we compare by."""
    uncompared: str | None = None
    """Why its numbers are only named."""


_TOKENS = (
    Rule(REQUESTS, ("num_model_requests",)),
    Rule(
        "input_tokens",
        ("input_tokens",),
        ("input_uncached_tokens", "input_cached_tokens", "input_cache_write_tokens"),
    ),
    Rule("cache_read_input_tokens", ("input_cached_tokens",)),
    Rule("cache_write_input_tokens", ("input_cache_write_tokens",)),
    Rule("audio_input_tokens", ("input_audio_tokens", "input_cached_audio_tokens")),
    Rule("image_input_tokens", ("input_image_tokens", "input_cached_image_tokens")),
    Rule("output_tokens", ("output_tokens",)),
    Rule("audio_output_tokens", ("output_audio_tokens",)),
    Rule("image_output_tokens", ("output_image_tokens",)),
)
_TIERS = ("model", "project_id", "api_key_id", "batch", "service_tier")
_INPUT = (Rule(REQUESTS, ("num_model_requests",)), Rule("input_tokens", ("input_tokens",)))

SURFACES = (
    Surface("completions", "completions", _TOKENS, _TIERS),
    Surface("decisions", "decisions", _TOKENS, _TIERS),
    Surface("embeddings", "embeddings", _INPUT),
    Surface(
        "moderations",
        "moderations",
        (Rule("moderated_tokens", ("input_tokens",)),),
        uncompared="free of charge, and their answers tell no usage",
    ),
    Surface(
        "images",
        "images",
        (Rule(REQUESTS, ("num_model_requests",)), Rule("images", ("images",))),
    ),
    Surface(
        "audio_speeches",
        "audio_speeches",
        (Rule(REQUESTS, ("num_model_requests",)), Rule("characters", ("characters",))),
    ),
    Surface(
        "audio_transcriptions",
        "audio_transcriptions",
        (Rule(REQUESTS, ("num_model_requests",)), Rule("audio_seconds", ("seconds",))),
    ),
    Surface("web_searches", "web_search_calls", (Rule("web_search_calls", ("num_requests",)),)),
    Surface(
        "file_searches",
        "file_search_calls",
        (Rule("file_search_calls", ("num_requests",)),),
        ("project_id", "api_key_id"),
    ),
    Surface(
        "code_interpreter_sessions",
        "code_interpreter_sessions",
        (Rule("code_interpreter_sessions", ("num_sessions",)),),
        ("project_id",),
        uncompared="they count sessions, answers tell calls",
    ),
    Surface(
        "vector_stores",
        "vector_stores",
        (Rule("vector_store_bytes", ("usage_bytes",)),),
        ("project_id",),
        uncompared="storage is charged by the day, no call uses it",
    ),
)
"""The surfaces, in the order in which they are read."""

BY_NAME: Mapping[str, Surface] = {surface.name: surface for surface in SURFACES}

UNITS = tuple(
    dict.fromkeys(
        rule.unit for surface in SURFACES if not surface.uncompared for rule in surface.rules
    )
)
"""Our units that are compared, in the order in which they are shown."""
CHARGED = (
    "input_tokens",
    "output_tokens",
    "images",
    "characters",
    "audio_seconds",
    "web_search_calls",
    "file_search_calls",
)
"""The units that are a whole each, not a part of another: `--check` looks at them."""

_OF_ENDPOINT = {
    "embeddings": "embeddings",
    "moderations": "moderations",
    "decisions": "decisions",
    "live.decisions": "decisions",
}
_OF_UNIT = {
    "images": "images",
    "characters": "audio_speeches",
    "audio_seconds": "audio_transcriptions",
    "web_search_calls": "web_searches",
    "file_search_calls": "file_searches",
}
_REQUESTED = {
    "images.generate": "images",
    "images.edit": "images",
    "images.create_variation": "images",
    "audio.speech": "audio_speeches",
    "audio.transcriptions": "audio_transcriptions",
    "audio.translations": "audio_transcriptions",
}


def surface_of(endpoint: str, unit: str) -> str:
    """Return the name of the surface where a unit of an event's endpoint is counted there."""
    if unit == REQUESTS and endpoint in _REQUESTED:
        return _REQUESTED[endpoint]
    return _OF_UNIT.get(unit) or _OF_ENDPOINT.get(endpoint, "completions")


def converted(surface: Surface, told: Mapping[str, float]) -> dict[str, float]:
    """
    Return their numbers in our units; a unit of which nothing is told is missing, not zero.

    Args:
        surface: what was counted.
        told: their fields that hold a number.
    """
    units: dict[str, float] = {}
    for rule in surface.rules:
        fields = rule.fields if rule.fields[0] in told else rule.otherwise
        if fields and fields[0] in told:
            units[rule.unit] = sum(told[name] for name in fields if name in told)
    return units


def adds_up(told: Mapping[str, float]) -> bool:
    """Say whether the parts of their input tokens are as many as they say in all, where they tell both."""
    if "input_tokens" not in told or "input_uncached_tokens" not in told:
        return True
    parts = ("input_uncached_tokens", "input_cached_tokens", "input_cache_write_tokens")
    return told["input_tokens"] == sum(told.get(name, 0) for name in parts)
