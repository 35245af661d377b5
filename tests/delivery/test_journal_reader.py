"""JournalReader journals: everything that was appended is read once, in order, whatever became of its writer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery.spool import journal_reader as module
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.file_systems import lock
from cmdrdata_exporter.delivery.spool.frames import Scan, frame
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.journal_reader import (
    WRITER_CHECK_INTERVAL,
    JournalReader,
    JournalsReader,
    remove_unnamed,
)

MB = 1 << 20


def left(directory: Directory, name: str, content: bytes) -> Path:
    """Leave a journal behind, as a process that died."""
    os.close(directory.create(name))
    path = directory.path / name
    path.write_bytes(content)
    return path


def read_all(readers: JournalsReader, limit: int = MB) -> list[bytes]:
    """Read and commit until nothing is new."""
    records: list[bytes] = []
    more = True
    while more:
        found, more = readers.read(limit)
        for reader, new in found:
            records += new.records
            reader.committed(new)
    return records


def test_a_live_journal(directory: Directory) -> None:
    """What is appended is read once it is there, and again until it is committed; the file stays."""
    journal = Journal(directory)
    journal.append(b"one")
    (path,) = directory.journals()
    reader = JournalReader(path, 0)
    expected = Scan([b"one"], [], 15, sealed=False)
    assert reader.read(MB, 0.0) == expected
    assert reader.read(MB, 0.0) == expected
    reader.committed(expected)
    assert reader.read(MB, 0.0) is None
    journal.append(b"two")
    two = Scan([b"two"], [], 30, sealed=False)
    assert reader.read(MB, 0.0) == two
    reader.committed(two)
    assert not reader.finished
    journal.seal()
    end = Scan([], [], 42, sealed=True)
    assert reader.read(MB, 0.0) == end
    reader.committed(end)
    assert reader.finished


def test_a_dead_journal(directory: Directory) -> None:
    """Of a process that died in the middle of a write everything before it is read; the rest is damaged."""
    torn = frame(b"two")[:-1]
    path = left(directory, "1.journal", frame(b"one") + torn)
    reader = JournalReader(path, 0)
    found = Scan([b"one"], [(15, torn)], 29, sealed=False)
    assert reader.read(MB, 0.0) == found
    reader.committed(found)
    assert not reader.finished
    assert reader.read(MB, WRITER_CHECK_INTERVAL) is None
    assert reader.finished


def test_a_frame_that_is_being_written(directory: Directory) -> None:
    """A frame that is not whole waits for its writer, for as long as that lives."""
    path = left(directory, "1.journal", frame(b"one")[:-1])
    with path.open("ab") as writer:
        assert lock(writer.fileno())
        reader = JournalReader(path, 0)
        assert reader.read(MB, 0.0) is None
        writer.write(frame(b"one")[-1:])
        writer.flush()
        assert reader.read(MB, 0.0) == Scan([b"one"], [], 15, sealed=False)


def test_whether_the_writer_has_gone_is_looked_at_now_and_then(directory: Directory) -> None:
    """A file in which nothing is new is opened once a second only."""
    path = left(directory, "1.journal", b"")
    with path.open("ab") as writer:
        assert lock(writer.fileno())
        reader = JournalReader(path, 0)
        assert reader.read(MB, 10.0) is None
    assert reader.read(MB, 10.0 + WRITER_CHECK_INTERVAL / 2) is None
    assert not reader.finished
    assert reader.read(MB, 10.0 + WRITER_CHECK_INTERVAL) is None
    assert reader.finished


@pytest.mark.parametrize("limit", [1, 12, 13, 100, MB])
def test_records_larger_than_the_limit(directory: Directory, limit: int) -> None:
    """A record is read whole, however little is to be read at a time; positions are those in the file."""
    records = [b"a" * 50, b"b" * 3000, b"c"]
    one, two, three = map(frame, records)
    left(directory, "1.journal", one + b"damage" + two + three)
    readers = JournalsReader(directory, {})
    found: list[bytes] = []
    damaged: list[tuple[int, bytes]] = []
    for _ in range(10):
        for reader, new in readers.read(limit)[0]:
            found += new.records
            damaged += new.damaged
            reader.committed(new)
    assert found == records
    assert damaged == [(len(one), b"damage")]
    assert readers.remove_finished() == []
    assert directory.journals() != []


@pytest.mark.parametrize("size", [10, 100, 101, 1000])
def test_a_torn_record_larger_than_the_limit(directory: Directory, size: int) -> None:
    """What a process that died has left of a large record is damaged, and the file is done with."""
    torn = frame(b"x" * 2000)[:size]
    path = left(directory, "1.journal", torn)
    reader = JournalReader(path, 0)
    found = Scan([], [(0, torn)], size, sealed=False)
    assert reader.read(100, 0.0) == found
    reader.committed(found)
    assert reader.read(100, WRITER_CHECK_INTERVAL) is None
    assert reader.finished


def test_a_journal_that_became_shorter(directory: Directory) -> None:
    """Where a record was taken back after it was read, nothing follows, and the file is done with."""
    path = left(directory, "1.journal", frame(b"one"))
    reader = JournalReader(path, 40)
    assert reader.read(MB, 0.0) is None
    assert reader.finished


def test_several_journals(directory: Directory) -> None:
    """Journals are read the oldest first, about as much as is asked for, and removed when all is committed."""
    for number in (3, 1, 2):
        left(directory, f"{number}.journal", frame(b"%d" % number) + frame(b""))
    readers = JournalsReader(directory, {})
    found, more = readers.read(1)
    assert ([new.records for _, new in found], more) == ([[b"1"]], True)
    found, more = readers.read(MB)
    assert ([new.records for _, new in found], more) == ([[b"1"], [b"2"], [b"3"]], False)
    assert read_all(readers) == [b"1", b"2", b"3"]
    assert sorted(readers.remove_finished()) == ["1.journal", "2.journal", "3.journal"]
    assert directory.journals() == []
    assert readers.remove_finished() == []


def test_an_offset_of_a_journal_that_was_not_read_yet(directory: Directory) -> None:
    """Where reading stops at its limit, what lies behind is not forgotten: it would be imported again."""
    for name in ("1.journal", "2.journal"):
        left(directory, name, frame(b"one") + frame(b"two"))
    readers = JournalsReader(directory, {"2.journal": 15, "0.journal": 99})
    assert readers.remove_finished() == []
    found, more = readers.read(1)
    assert more
    assert readers.remove_finished() == ["0.journal"]
    for reader, new in found:
        reader.committed(new)
    assert read_all(readers) == [b"two", b"two"]
    assert {name: reader.offset for name, reader in readers._readers.items()} == {
        "1.journal": 30,
        "2.journal": 30,
    }


def test_what_does_not_fit_is_there_at_once(directory: Directory) -> None:
    """A limit in the middle of a record leaves more to be read now, not at the next look."""
    journal = Journal(directory)
    records = [b"%04d" % number for number in range(10)]
    for record in records:
        journal.append(record)
    journal.seal()
    readers = JournalsReader(directory, {})
    read: list[bytes] = []
    turns: list[bool] = []
    while not turns or turns[-1]:
        # As far as into the middle of the fourth record.
        found, more = readers.read(int(3.5 * len(frame(records[0]))))
        for reader, scan in found:
            read += scan.records
            reader.committed(scan)
        turns.append(more)
    assert (read, turns) == (records, [True, True, True, False])
    readers.remove_finished()
    assert directory.journals() == []


def test_a_journal_that_vanishes(directory: Directory) -> None:
    """A file that goes between two looks is no obstacle, and is forgotten."""
    path = left(directory, "1.journal", frame(b"one"))
    left(directory, "2.journal", frame(b"two"))
    readers = JournalsReader(directory, {})

    class Vanishes(Directory):
        """A directory from which a file goes when it was listed."""

        def journal_names(self) -> list[str]:
            """List, then remove."""
            found = super().journal_names()
            path.unlink(missing_ok=True)
            return found

    readers._directory = Vanishes(directory.path)
    assert read_all(readers) == [b"two"]
    assert read_all(readers) == []
    assert readers.remove_finished() == ["1.journal"]


def test_a_journal_that_cannot_be_read(directory: Directory) -> None:
    """What cannot be read is left alone, told once and tried again, and does not hold up the others."""
    (directory.path / "1.journal").mkdir()
    (directory.path / "2.journal").symlink_to(directory.path / "3.journal")
    left(directory, "3.journal", frame(b"three"))
    readers = JournalsReader(directory, {})
    assert read_all(readers) == [b"three"]
    assert readers.remove_finished() == []
    (directory.path / "1.journal").rmdir()
    left(directory, "1.journal", frame(b"one"))
    assert read_all(readers) == [b"one"]
    assert faults.counts.pop("journal") > 1


def test_files_without_a_name(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process left that died while it began a journal is removed once it is old."""
    os.close(directory.create("1.journal.new"))
    os.close(directory.create("2.journal"))
    remove_unnamed(directory)
    assert (directory.path / "1.journal.new").exists()
    now = time.time()
    monkeypatch.setattr(module.clocks, "wall", lambda: now + 61)
    remove_unnamed(directory)
    assert not (directory.path / "1.journal.new").exists()
    assert [path.name for path in directory.journals()] == ["2.journal"]
