"""
The format of a journal: a sequence of frames, each of which holds one record.

    magic      4 bytes   f5 c1 ff c0
    length     4 bytes   of the record, little-endian
    checksum   4 bytes   CRC-32 of length and record, little-endian
    record     `length` bytes

A frame whose length is 0 ends the file. The magic consists of bytes that occur in no UTF-8 text, so that a reader
finds the next frame behind damaged bytes.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

MAGIC = b"\xf5\xc1\xff\xc0"
_HEAD = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")


def frame(record: bytes) -> bytes:
    """Return the frame that holds `record`."""
    size = len(record)
    return _HEAD.pack(MAGIC, size, zlib.crc32(record, zlib.crc32(_LENGTH.pack(size)))) + record


def record_in(data: bytes) -> bytes:
    """Return the record that a frame holds."""
    return data[_HEAD.size :]


class Scan(NamedTuple):
    """What a part of a journal holds."""

    records: list[bytes]
    damaged: list[tuple[int, bytes]]
    """Bytes that are no frame, each with its position."""
    end: int
    """Where the next scan begins."""
    sealed: bool
    """Whether the frame that ends the file was read."""


def scan(data: bytes, *, final: bool) -> Scan:
    """
    Read the records of a part of a journal.

    Args:
        data: the bytes, which begin with a frame.
        final: whether nothing will be added to them. An incomplete frame at the end is damaged then; else it is left
            to the next scan.
    """
    records: list[bytes] = []
    damaged: list[tuple[int, bytes]] = []
    position, size = 0, len(data)
    while position < size:
        begin = position + _HEAD.size
        if begin <= size:
            magic, length, checksum = _HEAD.unpack_from(data, position)
            end = begin + length
            if magic == MAGIC and end <= size:
                record = data[begin:end]
                if zlib.crc32(record, zlib.crc32(_LENGTH.pack(length))) == checksum:
                    if not length:
                        return Scan(records, damaged, end, sealed=True)
                    records.append(record)
                    position = end
                    continue
        following = data.find(MAGIC, position + 1)
        if following < 0:
            if not final:
                break  # The frame may only be incomplete.
            following = size
        damaged.append((position, data[position:following]))
        position = following
    return Scan(records, damaged, position, sealed=False)
