"""What goes wrong with us stays with us."""

from __future__ import annotations

import logging

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
