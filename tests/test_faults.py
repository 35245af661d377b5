"""What goes wrong with us stays with us."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterator

import pytest

from cmdrdata_exporter import faults


def test_a_fault_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each fault is counted; the first of its kind is in the log."""
    for number in range(3):
        faults.report("of this kind", "number %d", number)
    assert [record.getMessage() for record in caplog.records] == [
        "number 0 (further ones of this kind are only counted)"
    ]
    assert faults.counts == {"of this kind": 3}
    faults.counts.clear()


def test_logging_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter of the application that raises does so to nobody who is metered."""

    def fail(record: logging.LogRecord) -> bool:
        raise RuntimeError

    @faults.guarded
    def faulty() -> None:
        raise ValueError

    monkeypatch.setattr(logging.getLogger("cmdrdata"), "filters", [fail])
    faulty()
    assert sorted(faults.counts.values()) == [1, 1]
    assert faults.counts["logging"] == 1
    faults.counts.clear()


@pytest.fixture
def disabled() -> Iterator[logging.Logger]:
    """Our logger, as `dictConfig` leaves one that it does not name."""
    logger = logging.getLogger("cmdrdata")
    root = logging.getLogger()
    handlers = root.handlers[:]
    # It disables each other one, too, whose messages later tests read.
    known = map(logging.getLogger, list(root.manager.loggerDict))
    enabled = [each for each in known if not each.disabled]
    logging.config.dictConfig({"version": 1})
    assert logger.disabled
    for handler in handlers:
        if handler not in root.handlers:
            root.addHandler(handler)
    yield logger
    for each in enabled:
        each.disabled = False


def test_an_error_is_said_where_our_logger_is_disabled(
    disabled: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left of an event in the log alone gets to the handlers that the application has set up."""
    faults.say(logging.ERROR, "%s", "the event")
    faults.say(logging.WARNING, "%s", "a hint")
    assert ["the event"] == caplog.messages


def test_an_error_is_said_where_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a handler that does anything it is on stderr, once."""
    logger = logging.getLogger("cmdrdata")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler()])
    faults.say(logging.ERROR, "%s", "the event")
    assert "the event\n" == capsys.readouterr().err
