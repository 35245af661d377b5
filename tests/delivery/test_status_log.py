"""What keeps events from going on is told: once, or once a minute."""

from __future__ import annotations

import pytest

from cmdrdata_exporter.delivery import Handed
from cmdrdata_exporter.delivery.senders import Done
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.status_log import REFUSALS_INTERVAL, Trouble
from tests.delivery.samples import DELIVERED, REFUSED, Clock


def done(number: int, *, refused: bool = True) -> Done:
    """Return what came of an event."""
    return Handed(number, b"", f"event-{number}", b"{}", 0, 0), REFUSED if refused else DELIVERED


def test_refused_events(directory: Directory, caplog: pytest.LogCaptureFixture) -> None:
    """The first refusal is told at once, those of the next minute together, and nothing where there is none."""
    clock = Clock()
    trouble = Trouble(directory, clock=clock)
    trouble.settled([done(1, refused=False), (done(2)[0], None)])
    trouble.refused()
    assert caplog.messages == []
    trouble.settled([done(3), done(4, refused=False)])
    trouble.refused()
    trouble.settled([done(5), done(6)])
    trouble.refused()
    clock.now += REFUSALS_INTERVAL
    trouble.refused()
    trouble.refused()
    kept = "They are kept as dead letters: see `cmdrdata dead-letters list`"
    assert caplog.messages == [
        f"CmdrData refused 1 usage event(s) for good, the last one event-3 with HTTP 400: no such model. {kept}",
        f"CmdrData refused 2 usage event(s) for good, the last one event-6 with HTTP 400: no such model. {kept}",
    ]
