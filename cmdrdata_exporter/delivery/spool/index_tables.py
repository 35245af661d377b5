"""
The tables of the index, and how the ids are stored by which events are found.

| table | a row is |
|---|---|
| events | an event: its number in the ledger, ids, customer, amounts; no body, nothing of what was said |
| kinds | what many events have in common: model, endpoint, what is known of the usage, and the names of its units |
| words | 32 bits of a response, request or trace id, and the number of an event that has it |
| facts | since when all events are in it; up to which number; how far it was filled; why it was begun anew |
"""

from __future__ import annotations

import zlib

VERSION = 1
"""`PRAGMA user_version`. One of another version is begun anew."""

TABLES = (
    """
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,      -- that of the ledger
        key BLOB NOT NULL UNIQUE,        -- 16 bytes that stand for the id
        id TEXT,                         -- NULL where the key is the id
        at INTEGER NOT NULL,             -- when the call ended, in Unix seconds
        customer TEXT,
        kind INTEGER NOT NULL,
        amounts TEXT NOT NULL,           -- JSON: of each unit of its kind
        trace,                           -- 16 bytes where it is as W3C writes it, else text, else NULL
        response TEXT,
        request TEXT,
        dropped INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX by_time ON events (at)",
    """
    CREATE TABLE kinds (
        kind INTEGER PRIMARY KEY,
        model TEXT NOT NULL, endpoint TEXT NOT NULL, status TEXT NOT NULL, units TEXT NOT NULL,
        UNIQUE (model, endpoint, status, units)
    )
    """,
    "CREATE TABLE words (word INTEGER, number INTEGER, PRIMARY KEY (word, number)) WITHOUT ROWID",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
)


def word(text: str) -> int:
    """Return the 32 bits by which a text is looked up: whoever finds an event by them compares the text."""
    return zlib.crc32(text.encode("utf-8", "replace"))


def packed(trace: str) -> str | bytes | None:
    """Return a trace id as it is stored."""
    if len(trace) == 32:
        try:
            number = bytes.fromhex(trace)
        except ValueError:
            return trace
        if number.hex() == trace:
            return number
    return trace or None


def unpacked(trace: object) -> str:
    """Return a trace id as it was."""
    return trace.hex() if isinstance(trace, bytes) else trace if isinstance(trace, str) else ""
