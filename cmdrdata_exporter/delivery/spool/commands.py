"""
Apply commands to a ledger: the leader imports them; without one this process takes the lock until they are imported.

Until then it imports, and nothing else: nothing is sent, what was in flight stays so, and what the last leader has
written down of itself stays for whoever reads it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.journal_reader import JournalsReader
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, UnreadableError
from cmdrdata_exporter.delivery.spool.records import Command, encode_command
from cmdrdata_exporter.delivery.spool.salvage import finish

KEYS = 10_000
"""How many events one record may name."""
IMPORT_BYTES = 1 << 20
"""How much is imported in a transaction."""
LOOK = 0.05
"""Seconds between two looks whether the leader has imported the records."""


def apply(
    directory: Directory,
    action: str,
    keys: Sequence[bytes],
    *,
    customer: str | None = None,
    timeout: float,
) -> bool:
    """
    Have a command applied to events of a ledger; see `records.Command`, and `take_in` for what may be raised.

    Returns:
        whether it was applied within `timeout` seconds. If not it will be, by the next process that imports.
    """
    parts = (keys[start : start + KEYS] for start in range(0, len(keys), KEYS))
    commands = (encode_command(Command(action, tuple(part), customer)) for part in parts)
    return take_in(directory, commands, timeout)


def take_in(directory: Directory, records: Iterable[bytes], timeout: float) -> bool:
    """
    Add records to a ledger.

    Returns:
        whether they are in it within `timeout` seconds. If not they will be, once a process imports the journals.

    Raises:
        UnreadableError: the ledger cannot be read or written now; the records are in a journal.
        UnknownVersionError: a later version wrote it; likewise.
        UnsafeDirectoryError: the directory must not be used.
        OSError: the records could not be written, or not all of them.
    """
    names = append(directory, records)
    deadline = clocks.monotonic() + timeout
    while True:
        try:
            import_journals(directory)
        except sqlite3.Error as error:
            raise UnreadableError(f"{directory.path} cannot be written: {error}") from error
        if not _wait(directory, names):
            return True
        if clocks.monotonic() >= deadline:
            return False
        time.sleep(LOOK)


def import_journals(directory: Directory) -> bool:
    """Import what is in the journals of a directory, unless another process leads there; say whether none did."""
    lock_file = directory.try_to_lead()
    if lock_file is None:
        return False
    try:
        finish(directory)
        ledger = Ledger(directory, local=directory.is_local)
        with contextlib.closing(ledger):
            readings = JournalsReader(directory, ledger.offsets())
            while _import(ledger, readings):
                pass
        return True
    finally:
        os.close(lock_file)


def _import(ledger: Ledger, readings: JournalsReader) -> bool:
    """Import a part of the journals, and say whether there may be more."""
    chunks, more = readings.read(IMPORT_BYTES)
    with ledger.transaction():
        for reading, found in chunks:
            ledger.import_records(
                reading.path.name, found.end, found.records, found.damaged, clocks.wall()
            )
    for reading, found in chunks:
        reading.committed(found)
    gone = readings.remove_finished()
    with ledger.transaction():
        ledger.forget_journals(gone)
    return more


def append(directory: Directory, records: Iterable[bytes]) -> set[str]:
    """
    Write records to journals of their own, and return the names of these.

    Raises:
        OSError: the records could not be written, or not all of them.
    """
    journal = Journal(directory)
    try:
        return {name for name in _appended(journal, records) if name is not None}
    finally:
        journal.seal()


def _appended(journal: Journal, records: Iterable[bytes]) -> Iterator[str | None]:
    for record in records:
        journal.append(record)
        yield journal.name


def _wait(directory: Directory, names: set[str]) -> bool:
    """Say whether one of the journals is not in the ledger yet."""
    with LedgerReader(directory) as ledger:
        offsets = ledger.offsets()
    for name in names:
        # A journal is removed once all of it is in the ledger.
        with contextlib.suppress(FileNotFoundError):
            if offsets.get(name, 0) < (directory.path / name).stat().st_size:
                return True
    return False
