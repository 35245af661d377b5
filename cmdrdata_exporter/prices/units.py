"""
The units of usage as prices see them: which of them are charged, and which are parts of which.

Units are inclusive: a part is contained in its whole. A part has all the marks of its whole, and more.
"""

from __future__ import annotations

from collections.abc import Mapping

Marks = frozenset[tuple[str, str]]
"""What tokens are: `direction`, `modality` and `token_type`, each at most once."""

DIRECTION, MODALITY, KIND = "direction", "modality", "token_type"

INPUT, OUTPUT, TOTAL = "input_tokens", "output_tokens", "total_tokens"


STANDARD, BATCH = "default", "batch"
"""The service tier whose prices are the usual ones; and that of what is handed in as a batch."""


def _marks(direction: str, modality: str | None = None, kind: str | None = None) -> Marks:
    given = ((DIRECTION, direction), (MODALITY, modality), (KIND, kind))
    return frozenset((name, value) for name, value in given if value is not None)


_MODALITIES = ("text", "image", "audio")
TOKENS: Mapping[str, Marks] = {
    INPUT: _marks("input"),
    "cache_read_input_tokens": _marks("input", kind="cache_read"),
    "cache_write_input_tokens": _marks("input", kind="cache_write"),
    **{f"{what}_input_tokens": _marks("input", what) for what in _MODALITIES},
    **{
        f"{what}_cache_read_input_tokens": _marks("input", what, "cache_read")
        for what in _MODALITIES
    },
    OUTPUT: _marks("output"),
    "reasoning_output_tokens": _marks("output", kind="reasoning"),
    **{f"{what}_output_tokens": _marks("output", what) for what in _MODALITIES},
}
"""The units that are tokens of a call, by what they are."""

_BY_NAME = {unit: dict(marks) for unit, marks in TOKENS.items()}
NAMES: Mapping[Marks, str] = {marks: unit for unit, marks in TOKENS.items()}

OTHERS = (
    "images",
    "audio_seconds",
    "characters",
    "batch_requests",
    "trained_tokens",
    "video_seconds",
    "session_seconds",
    "web_search_calls",
    "file_search_calls",
    "code_interpreter_calls",
    "image_generation_calls",
    "image_generation_input_tokens",
    "image_generation_output_tokens",
    "svg_input_tokens",
    "svg_output_tokens",
)
"""The units beside these that may be charged."""

PRICEABLE = (*TOKENS, *OTHERS)
"""All that a price can be for."""

COUNTS = ("images", "batch_requests")
"""Of calls whose tokens are charged these say only how many there were."""

NEVER_CHARGED = frozenset(
    (
        "events",
        # Parts of the output, charged as all of it is.
        "accepted_prediction_tokens",
        "rejected_prediction_tokens",
        # Parts of the seconds of a session.
        "active_seconds",
        "paused_seconds",
    )
)

SUMS = frozenset(("batches", "beta.threads.runs", "evals.runs", "agents.sessions"))
"""The endpoints whose events are of many calls of a model, so that they do not tell how large one of these was."""


def mark(unit: str, name: str) -> str | None:
    """Return one of the marks of a unit of tokens, None where it has none of that name."""
    return _BY_NAME[unit].get(name)


def can_overlap(one: Marks, other: Marks) -> bool:
    """Say whether tokens can be both, where neither is a part of the other."""
    if one <= other or other <= one:
        return False
    names = dict(other)
    return all(names.get(name, value) == value for name, value in one)
