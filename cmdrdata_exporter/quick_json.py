"""JSON by orjson, where that is installed and does what `json` would: it takes a twentieth of the time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

try:
    import orjson
except ImportError:
    orjson = None

_WRITTEN_ALIKE = frozenset({str, int, bool, type(None)})
"""The types of values that orjson writes as `json` does. It has other exponents for floats, and no NaN."""


def quick_json(document: object, *values: Iterable[object]) -> bytes | None:
    """
    Return a document as compact JSON in UTF-8, None where that is up to `json`.

    Args:
        document: what is written.
        values: those parts of it that may have any type.
    """
    if orjson is None:
        return None
    for each in values:
        if not _WRITTEN_ALIKE.issuperset(map(type, each)):
            return None
    try:
        return orjson.dumps(document)
    except TypeError:
        return None  # Half of a surrogate pair, or an integer of more than 64 bits.


def read_json(text: bytes) -> Any:
    """
    Return what a JSON text says. An integer of more than 64 bits may come as a float.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is too deep.
    """
    if orjson is not None:
        try:
            return orjson.loads(text)
        except ValueError:
            pass  # NaN, half of a surrogate pair: `json` reads them.
    return json.loads(text)
