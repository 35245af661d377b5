"""JournalReader journals: everything that was appended is read once, in order, whatever became of its writer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery.spool import journal_reader as module
from cmdrdata_exporter.delivery.spool.directory import Directory, lock
from cmdrdata_exporter.delivery.spool.frames import Scan, frame
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.journal_reader import (
    LOOK_INTERVAL,
    JournalReader,
    JournalsReader,
    clear_away,
)

MB = 1 << 20


def left(directory: Directory, name: str, content: bytes) -> Path:
    """Leave a journal behind, as a process that died."""
    os.close(directory.create(name))
    path = directory.path / name
    path.write_bytes(content)
    return path


def read_all(readings: JournalsReader, limit: int = MB) -> list[bytes]:
    """Read and commit until nothing is new."""
    records: list[bytes] = []
    more = True
    while more:
        found, more = readings.read(limit)
        for reading, new in found:
            records += new.records
            reading.committed(new)
    return records


def test_a_live_journal(directory: Directory) -> None:
    """What is appended is read once it is there, and again until it is committed; the file stays."""
    journal = Journal(directory)
    journal.append(b"one")
    (path,) = directory.journals()
    reading = JournalReader(path, 0)
    expected = Scan([b"one"], [], 15, sealed=False)
    assert reading.read(MB, 0.0) == expected
    assert reading.read(MB, 0.0) == expected
    reading.committed(expected)
    assert reading.read(MB, 0.0) is None
    journal.append(b"two")
    two = Scan([b"two"], [], 30, sealed=False)
    assert reading.read(MB, 0.0) == two
    reading.committed(two)
    assert not reading.finished
    journal.seal()
    end = Scan([], [], 42, sealed=True)
    assert reading.read(MB, 0.0) == end
    reading.committed(end)
    assert reading.finished


def test_a_dead_journal(directory: Directory) -> None:
    """Of a process that died in the middle of a write everything before it is read; the rest is damaged."""
    torn = frame(b"two")[:-1]
    path = left(directory, "1.journal", frame(b"one") + torn)
    reading = JournalReader(path, 0)
    found = Scan([b"one"], [(15, torn)], 29, sealed=False)
    assert reading.read(MB, 0.0) == found
    reading.committed(found)
    assert not reading.finished
    assert reading.read(MB, LOOK_INTERVAL) is None
    assert reading.finished


def test_a_frame_that_is_being_written(directory: Directory) -> None:
    """A frame that is not whole waits for its writer, for as long as that lives."""
    path = left(directory, "1.journal", frame(b"one")[:-1])
    with path.open("ab") as writer:
        assert lock(writer.fileno())
        reading = JournalReader(path, 0)
        assert reading.read(MB, 0.0) is None
        writer.write(frame(b"one")[-1:])
        writer.flush()
        assert reading.read(MB, 0.0) == Scan([b"one"], [], 15, sealed=False)


def test_whether_the_writer_has_gone_is_looked_at_now_and_then(directory: Directory) -> None:
    """A file in which nothing is new is opened once a second only."""
    path = left(directory, "1.journal", b"")
    with path.open("ab") as writer:
        assert lock(writer.fileno())
        reading = JournalReader(path, 0)
        assert reading.read(MB, 10.0) is None
    assert reading.read(MB, 10.0 + LOOK_INTERVAL / 2) is None
    assert not reading.finished
    assert reading.read(MB, 10.0 + LOOK_INTERVAL) is None
    assert reading.finished


@pytest.mark.parametrize("limit", [1, 12, 13, 100, MB])
def test_records_larger_than_the_limit(directory: Directory, limit: int) -> None:
    """A record is read whole, however little is to be read at a time; positions are those in the file."""
    records = [b"a" * 50, b"b" * 3000, b"c"]
    one, two, three = map(frame, records)
    left(directory, "1.journal", one + b"damage" + two + three)
    readings = JournalsReader(directory, {})
    found: list[bytes] = []
    damaged: list[tuple[int, bytes]] = []
    for _ in range(10):
        for reading, new in readings.read(limit)[0]:
            found += new.records
            damaged += new.damaged
            reading.committed(new)
    assert found == records
    assert damaged == [(len(one), b"damage")]
    assert readings.remove_finished() == []
    assert directory.journals() != []


@pytest.mark.parametrize("size", [10, 100, 101, 1000])
def test_a_torn_record_larger_than_the_limit(directory: Directory, size: int) -> None:
    """What a process that died has left of a large record is damaged, and the file is done with."""
    torn = frame(b"x" * 2000)[:size]
    path = left(directory, "1.journal", torn)
    reading = JournalReader(path, 0)
    found = Scan([], [(0, torn)], size, sealed=False)
    assert reading.read(100, 0.0) == found
    reading.committed(found)
    assert reading.read(100, LOOK_INTERVAL) is None
    assert reading.finished


def test_a_journal_that_became_shorter(directory: Directory) -> None:
    """Where a record was taken back after it was read, nothing follows, and the file is done with."""
    path = left(directory, "1.journal", frame(b"one"))
    reading = JournalReader(path, 40)
    assert reading.read(MB, 0.0) is None
    assert reading.finished


def test_several_journals(directory: Directory) -> None:
    """Journals are read the oldest first, about as much as is asked for, and removed when all is committed."""
    for number in (3, 1, 2):
        left(directory, f"{number}.journal", frame(b"%d" % number) + frame(b""))
    readings = JournalsReader(directory, {})
    found, more = readings.read(1)
    assert ([new.records for _, new in found], more) == ([[b"1"]], True)
    found, more = readings.read(MB)
    assert ([new.records for _, new in found], more) == ([[b"1"], [b"2"], [b"3"]], False)
    assert read_all(readings) == [b"1", b"2", b"3"]
    assert sorted(readings.remove_finished()) == ["1.journal", "2.journal", "3.journal"]
    assert directory.journals() == []
    assert readings.remove_finished() == []


def test_an_offset_of_a_journal_that_was_not_read_yet(directory: Directory) -> None:
    """Where reading stops at its limit, what lies behind is not forgotten: it would be imported again."""
    for name in ("1.journal", "2.journal"):
        left(directory, name, frame(b"one") + frame(b"two"))
    readings = JournalsReader(directory, {"2.journal": 15, "0.journal": 99})
    assert readings.remove_finished() == []
    found, more = readings.read(1)
    assert more
    assert readings.remove_finished() == ["0.journal"]
    for reading, new in found:
        reading.committed(new)
    assert read_all(readings) == [b"two", b"two"]
    assert {name: reading.offset for name, reading in readings._readings.items()} == {
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
    readings = JournalsReader(directory, {})
    read: list[bytes] = []
    turns: list[bool] = []
    while not turns or turns[-1]:
        # As far as into the middle of the fourth record.
        found, more = readings.read(int(3.5 * len(frame(records[0]))))
        for reading, scan in found:
            read += scan.records
            reading.committed(scan)
        turns.append(more)
    assert (read, turns) == (records, [True, True, True, False])
    readings.remove_finished()
    assert directory.journals() == []


def test_a_journal_that_vanishes(directory: Directory) -> None:
    """A file that goes between two looks is no obstacle, and is forgotten."""
    path = left(directory, "1.journal", frame(b"one"))
    left(directory, "2.journal", frame(b"two"))
    readings = JournalsReader(directory, {})

    class Vanishes(Directory):
        """A directory from which a file goes when it was listed."""

        def journals(self) -> list[Path]:
            """List, then remove."""
            found = super().journals()
            path.unlink(missing_ok=True)
            return found

    readings._directory = Vanishes(directory.path)
    assert read_all(readings) == [b"two"]
    assert read_all(readings) == []
    assert readings.remove_finished() == ["1.journal"]


def test_a_journal_that_cannot_be_read(directory: Directory) -> None:
    """What cannot be read is left alone, told once and tried again, and does not hold up the others."""
    (directory.path / "1.journal").mkdir()
    (directory.path / "2.journal").symlink_to(directory.path / "3.journal")
    left(directory, "3.journal", frame(b"three"))
    readings = JournalsReader(directory, {})
    assert read_all(readings) == [b"three"]
    assert readings.remove_finished() == []
    (directory.path / "1.journal").rmdir()
    left(directory, "1.journal", frame(b"one"))
    assert read_all(readings) == [b"one"]
    assert faults.counts.pop("journal") > 1


def test_files_without_a_name(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process left that died while it began a journal is removed once it is old."""
    os.close(directory.create("1.journal.new"))
    os.close(directory.create("2.journal"))
    clear_away(directory)
    assert (directory.path / "1.journal.new").exists()
    now = time.time()
    monkeypatch.setattr(module.clocks, "wall", lambda: now + 61)
    clear_away(directory)
    assert not (directory.path / "1.journal.new").exists()
    assert [path.name for path in directory.journals()] == ["2.journal"]
