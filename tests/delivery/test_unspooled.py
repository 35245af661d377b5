"""What could not be written is in the log, and counted in the ledger once something can be written again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import decode
from tests.ledgers import event_id, record


class Host:
    """A delivery to a directory that may be full."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.delivery = DurableDelivery(directory, Options(post=None))
        self.delivery.drainer._measure = lambda: None  # The test says whether it is full.

    def record(self, number: int) -> None:
        """Record an event."""
        event = decode(record(number))
        assert isinstance(event, Event)
        self.delivery.record(event.id, event.header, event.body)

    def counts(self) -> dict[str, int]:
        """Return the counts of the ledger that are not 0."""
        commands.import_journals(self.directory)
        with LedgerReader(self.directory) as ledger:
            return {name: number for name, number in ledger.counts().items() if number}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A delivery whose end does no harm."""
    host = Host(Directory.prepare(tmp_path / "spool", None, "default"))
    yield host
    host.delivery.close(0)


def test_counted_once_something_can_be_written(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Each event that could not be written is one line of the log, and one in the ledger's count; nothing is twice."""
    caplog.set_level(logging.ERROR, "cmdrdata")
    host.record(1)
    host.delivery._journal.is_full = True
    host.record(2)
    host.record(3)
    host.delivery._journal.is_full = False
    host.record(4)
    host.record(5)
    host.delivery.close(5)
    assert {"recorded": 3, "local": 3, "unspooled": 2} == host.counts()
    lines = [json.loads(text) for text in caplog.messages if text.startswith("{")]
    assert [("unspooled", event_id(number)) for number in (2, 3)] == [
        (line["cmdrdata"], line["id"]) for line in lines
    ]


def test_counted_while_nothing_can_be_recorded(host: Host) -> None:
    """The count may use the room that events leave free; it is written anew whenever the number has doubled."""
    host.delivery._journal.is_full = True
    for number in range(7):
        host.record(number)
    assert {"unspooled": 4} == host.counts()
    host.delivery.close(5)
    assert {"unspooled": 7} == host.counts()


def test_counted_at_the_end(host: Host) -> None:
    """A process to which nothing is written any more tells when it ends."""
    host.delivery._journal.is_full = True
    host.record(1)
    host.delivery.close(5)
    host.delivery.close(5)
    assert {"unspooled": 1} == host.counts()


def test_told_again_where_that_failed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the count cannot be written either, it is with the next event."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(commands, "append", fail)
        host.delivery._journal.is_full = True
        host.record(1)
        host.delivery._journal.is_full = False
        host.record(2)
    host.record(3)
    host.delivery.close(5)
    assert {"recorded": 2, "local": 2, "unspooled": 1} == host.counts()


def test_a_forked_child_tells_of_its_own(host: Host) -> None:
    """What its parent has still to tell is the parent's."""
    host.delivery._journal.is_full = True
    host.record(1)
    before = host.directory.journals()
    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent only
        host.delivery._journal.is_full = False
        host.delivery.close(5)
        os._exit(0)
    os.waitpid(child, 0)
    assert before == host.directory.journals()
