"""What keeps events from going on is told: once, or once a minute."""

from __future__ import annotations

import pytest

from cmdrdata_exporter.delivery import Handed
from cmdrdata_exporter.delivery.senders import Done
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.status_log import REFUSALS_INTERVAL, StatusLog
from tests.delivery.samples import DELIVERED, REFUSED, Clock


def done(number: int, *, refused: bool = True) -> Done:
    """Return what came of an event."""
    return Handed(number, b"", f"event-{number}", b"{}", 0, 0), REFUSED if refused else DELIVERED


def test_refused_events(directory: Directory, caplog: pytest.LogCaptureFixture) -> None:
    """The first refusal is told at once, those of the next minute together, and nothing where there is none."""
    clock = Clock()
    log = StatusLog(directory, clock=clock)
    log.count_refusals([done(1, refused=False), (done(2)[0], None)])
    log.log_refusals()
    assert caplog.messages == []
    log.count_refusals([done(3), done(4, refused=False)])
    log.log_refusals()
    log.count_refusals([done(5), done(6)])
    log.log_refusals()
    clock.now += REFUSALS_INTERVAL
    log.log_refusals()
    log.log_refusals()
    kept = "Refused events are kept as dead letters: see `cmdrdata dead-letters list`"
    assert caplog.messages == [
        f"the backend refused 1 usage event for good, the last one event-3 with HTTP 400: no such model. {kept}",
        f"the backend refused 2 usage events for good, the last one event-6 with HTTP 400: no such model. {kept}",
    ]


def test_refused_events_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    """Where no directory has refused events, the log says that they are in it at the end."""
    log = StatusLog(None)
    log.count_refusals([done(1)])
    log.log_refusals()
    assert caplog.messages == [
        "the backend refused 1 usage event for good, the last one event-1 with HTTP 400: no such model. "
        "Refused events are kept in memory and go to this log when the process ends"
    ]
