"""
Usage split into meters: quantities of which each is charged apart, and none is counted in another.

The units of an event are inclusive: `cache_read_input_tokens` are a part of `input_tokens`. Lines of a bill are added
up, so there each token must stand once. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Meter(NamedTuple):
    """What is charged apart."""

    name: str
    counted: tuple[str, ...]
    """The units of an event in which it is counted, the one that is its own first."""

    @property
    def unit(self) -> str:
        """What is counted, as FOCUS writes it: the plural, `Tokens`."""
        return self.counted[0].rpartition("_")[2].capitalize()


class Reading(NamedTuple):
    """How much of a meter was used."""

    meter: Meter
    quantity: float

    @property
    def units(self) -> dict[str, float]:
        """The same as the units of an event, so that whatever prices those can price this alone."""
        return dict.fromkeys(self.meter.counted, self.quantity)


_INPUT, _OUTPUT, _TOTAL = "input_tokens", "output_tokens", "total_tokens"
_CACHED = "cache_read_input_tokens"

METERS = (
    # A part comes before what it is a part of.
    Meter(
        "Cached Audio Input Tokens",
        ("audio_cache_read_input_tokens", "audio_input_tokens", _CACHED, _INPUT),
    ),
    Meter(
        "Cached Image Input Tokens",
        ("image_cache_read_input_tokens", "image_input_tokens", _CACHED, _INPUT),
    ),
    Meter("Cached Input Tokens", (_CACHED, _INPUT)),
    Meter("Cache Write Input Tokens", ("cache_write_input_tokens", _INPUT)),
    Meter("Audio Input Tokens", ("audio_input_tokens", _INPUT)),
    Meter("Image Input Tokens", ("image_input_tokens", _INPUT)),
    Meter("Input Tokens", (_INPUT,)),
    Meter("Audio Output Tokens", ("audio_output_tokens", _OUTPUT)),
    Meter("Image Output Tokens", ("image_output_tokens", _OUTPUT)),
    Meter("Output Tokens", (_OUTPUT,)),
)
"""The meters of tokens. Each other unit is a meter of its own."""
OTHER = Meter("Other Tokens", (_TOTAL,))
"""What a total has beyond input and output."""
PARTS = frozenset(
    {
        _TOTAL,
        "text_input_tokens",
        "text_cache_read_input_tokens",
        "text_output_tokens",
        "reasoning_output_tokens",
        "accepted_prediction_tokens",
        "rejected_prediction_tokens",
        "active_seconds",
        "paused_seconds",
    }
)
"""Units that are charged as a part of another one, not apart."""


def readings(units: Mapping[str, float]) -> Iterator[Reading]:
    """
    Split usage into meters.

    A part that is more than what it is a part of stays in that: how they overlap is not known then.

    Args:
        units: of an event, or the sums of some, without the number of events.
    """
    left = dict(units)
    for meter in METERS:
        own, *wholes = meter.counted
        quantity = left.get(own, 0)
        if quantity > 0 and all(left.get(whole, 0) >= quantity for whole in wholes):
            for unit in meter.counted:
                left[unit] -= quantity
            yield Reading(meter, quantity)
    other = units.get(_TOTAL, 0) - units.get(_INPUT, 0) - units.get(_OUTPUT, 0)
    if other > 0:
        yield Reading(OTHER, other)
    split = {meter.counted[0] for meter in METERS} | PARTS
    for unit in sorted(set(units) - split):
        if units[unit] > 0:
            yield Reading(Meter(unit.replace("_", " ").title(), (unit,)), units[unit])
