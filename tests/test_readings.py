"""The journals of a directory as the process that drains reads them."""

from __future__ import annotations

from pathlib import Path

from cmdrdata_exporter.delivery.directory import Directory
from cmdrdata_exporter.delivery.journal import Journal, frame
from cmdrdata_exporter.delivery.readings import Readings


def test_what_does_not_fit_is_there_at_once(tmp_path: Path) -> None:
    """A limit in the middle of a record leaves more to be read now, not at the next look."""
    directory = Directory.prepare(tmp_path / "spool", None, "test")
    journal = Journal(directory)
    records = [b"%04d" % number for number in range(10)]
    for record in records:
        journal.append(record)
    journal.seal()
    readings = Readings(directory, {})
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
