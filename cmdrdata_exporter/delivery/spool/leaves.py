"""
Events that are in the pages of a damaged ledger, read without SQLite, which finds none whose tree has lost its root.

Each is taken only if its checksum and key say that it is whole. Pages that the database has given up are left out: what
is there still was delivered, perhaps.
https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cmdrdata_exporter.delivery.spool.records import intact
from cmdrdata_exporter.delivery.spool.schema import PAGE

_LEAF = 13
"""The type of a page that has rows of a table."""
_LIVE = (1, 5)
"""In the map of all pages: a root, and any other page of a tree."""
_MAPPED = PAGE // 5
"""How many pages one page of the map is about, which come right after it."""
_LOCAL = PAGE - 35
_LEAST = (PAGE - 12) * 32 // 255 - 23
"""How many bytes of a row are in its leaf, at most, and at least where the rest is elsewhere."""
_WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Bytes of an integer, by its type."""
_COLUMNS = (10, 12)
"""Of a row that was written by version 1 or 2, and of one that was written since."""

_Row = tuple[Any, ...]


def rows(path: Path) -> Iterator[_Row]:
    """Yield the rows of the table of events that are whole, as `SELECT * FROM events` would."""
    with path.open("rb") as file:
        pages = _Pages(file, _log(Path(f"{path}-wal")))
        for number in range(2, pages.count + 1):
            page = pages.read(number)
            if page[:1] == bytes([_LEAF]) and pages.is_live(number):
                yield from _rows_of(page, pages)


class _Pages:
    """The pages of a database, with what its log has of them."""

    def __init__(self, file: BinaryIO, log: dict[int, bytes]) -> None:
        self._file = file
        self._log = log
        self._map = 0, b""
        self.count = max([os.fstat(file.fileno()).st_size // PAGE, *log])

    def read(self, number: int) -> bytes:
        """Return a page, an empty one where there is none."""
        if number in self._log:
            return self._log[number]
        if not 0 < number <= self.count:
            return b""
        self._file.seek((number - 1) * PAGE)
        return self._file.read(PAGE)

    def is_live(self, number: int) -> bool:
        """Say whether the map has a page in a tree."""
        index = (number - 2) % (_MAPPED + 1)
        place = number - index
        if self._map[0] != place:
            self._map = place, self.read(place)
        entry = self._map[1][5 * (index - 1) : 5 * index] if index else b""
        return bool(entry) and entry[0] in _LIVE


def _log(path: Path) -> dict[int, bytes]:
    """Return the pages that are in a log, as the last transaction in it left them."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    committed: dict[int, bytes] = {}
    open_pages: dict[int, bytes] = {}
    salts = data[16:24]
    for begin in range(32, len(data) - PAGE - 23, PAGE + 24):
        number, size = struct.unpack_from(">II", data, begin)
        if data[begin + 8 : begin + 16] != salts:
            break
        open_pages[number] = data[begin + 24 : begin + 24 + PAGE]
        if size:
            committed |= open_pages
            open_pages = {}
    return committed


def _rows_of(page: bytes, pages: _Pages) -> Iterator[_Row]:
    for index in range(int.from_bytes(page[3:5], "big")):
        try:
            row = _row(page, int.from_bytes(page[8 + 2 * index : 10 + 2 * index], "big"), pages)
        except (IndexError, KeyError, TypeError, ValueError):
            continue  # Garbage, or a row of another table.
        if row is not None:
            yield row


def _row(page: bytes, place: int, pages: _Pages) -> _Row | None:
    size, place = _number(page, place)
    seq, place = _number(page, place)
    if size > pages.count * PAGE:
        return None
    local = size
    if size > _LOCAL:
        local = _LEAST + (size - _LEAST) % (PAGE - 4)
        if local > _LOCAL:
            local = _LEAST
    payload = bytearray(page[place : place + local])
    following = int.from_bytes(page[place + local : place + local + 4], "big")
    while len(payload) < size:
        rest = pages.read(following)
        if len(rest) < PAGE:
            return None
        following = int.from_bytes(rest[:4], "big")
        payload += rest[4 : 4 + size - len(payload)]
    values = _values(bytes(payload))
    if len(values) not in _COLUMNS:
        return None
    # The number of the row is not in it; SQLite stores a float that is a whole number as that.
    _, key, state, due, recorded, attempts, remember, reason, crc, record, *counted = values
    if intact(key, crc, record) is None:
        return None
    time, number = counted or (None, None)
    return (
        *(seq, key, state, float(due), float(recorded)),
        *(attempts, remember, reason, crc, record, time, number),
    )


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of a varying width, and where the next one begins."""
    value = 0
    for _ in range(8):
        byte = data[place]
        place += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place
    return value << 8 | data[place], place + 1


def _values(payload: bytes) -> list[Any]:
    """Return the columns of a row."""
    end, place = _number(payload, 0)
    kinds: list[int] = []
    while place < end:
        kind, place = _number(payload, place)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        width = (kind - 12) // 2 if kind >= 12 else 8 if kind == 7 else _WIDTHS.get(kind, 0)
        part = payload[place : place + width]
        if len(part) != width:
            raise ValueError
        place += width
        values.append(_value(kind, part))
    return values


def _value(kind: int, part: bytes) -> Any:
    if kind >= 12:
        return part.decode() if kind % 2 else part
    if kind == 7:
        return struct.unpack(">d", part)[0]
    if kind in _WIDTHS:
        return int.from_bytes(part, "big", signed=True)
    return {0: None, 8: 0, 9: 1}[kind]
