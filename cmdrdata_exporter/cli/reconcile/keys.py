"""Which of the provider's keys a hash of ours stands for, told by the last characters that the provider shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from cmdrdata_exporter.cli.reconcile.lines import LayoutError
from cmdrdata_exporter.key_hash import SHOWN, key_hash

EXPECTED = (
    'the keys of projects as the admin API lists them, {"data": [{"id": "key_...", "redacted_value": "sk-...abcd"}]}; '
    "several lists may follow one another"
)
_SHOWN = re.compile(rf"(?:\.\.\.|…|\*|•)([A-Za-z0-9_-]{{{SHOWN},}})")
"""What is shown at the end of a key, behind what stands for the rest."""


class Keys:
    """The provider's keys, by their ids and by our hashes."""

    def __init__(self) -> None:
        self._hashes: dict[str, str] = {}
        self._ids: dict[str, list[str]] = {}
        self.unknown = 0
        """Keys of which fewer characters are shown."""

    def add(self, listed: Iterable[Mapping[str, Any]]) -> None:
        """Add keys as the admin API lists them."""
        for key in listed:
            identity, shown = key.get("id"), key.get("redacted_value")
            found = _SHOWN.search(shown) if isinstance(shown, str) else None
            if not isinstance(identity, str) or found is None or found.end() != len(str(shown)):
                self.unknown += 1
                continue
            hashed = key_hash(found[1][-SHOWN:])
            self._hashes[identity] = hashed
            if identity not in (ids := self._ids.setdefault(hashed, [])):
                ids.append(identity)

    def hash_of(self, identity: str) -> str:
        """Return the hash of a key of theirs; the id itself where it is not known."""
        return self._hashes.get(identity, identity)

    def name_of(self, hashed: str) -> str:
        """Return the ids of the keys with a hash, which may be several; the hash itself where none is known."""
        return " or ".join(self._ids.get(hashed, [hashed]))


def read_keys(path: Path) -> Keys:
    """
    Read keys from a file.

    Raises:
        LayoutError: it is none such. What is in it is not shown.
    """
    keys = Keys()
    try:
        for listed in _lists(path.read_text(encoding="utf-8-sig").strip()):
            if not isinstance(listed, list):
                raise TypeError  # noqa: TRY301 - one message for all that it may be instead
            keys.add(dict(key) for key in cast("list[Any]", listed))
    except (ValueError, TypeError, RecursionError):
        raise LayoutError(f"{path.name} is no list of keys; expected are {EXPECTED}") from None
    return keys


def _lists(text: str) -> Iterator[object]:
    """Yield the lists of a text, whether each is a page or the list alone."""
    decoder = json.JSONDecoder()
    while text:
        found, end = decoder.raw_decode(text)
        text = text[end:].lstrip()
        yield cast("dict[str, Any]", found).get("data") if isinstance(found, dict) else found
