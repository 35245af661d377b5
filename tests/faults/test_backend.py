"""A backend that misbehaves, in whatever way, gets every event and gets it as often as must be."""

from __future__ import annotations

from pathlib import Path

from tests.faults.application import Application
from tests.faults.oracle import Oracle, Reply


def test_nothing_goes_wrong(tmp_path: Path) -> None:
    """With a backend that takes 20 ms for each, every event arrives once."""
    with (
        Oracle(tmp_path / "accepted", lambda _: Reply(delay=0.02)) as oracle,
        Application(tmp_path / "spool", oracle.url) as application,
    ):
        application.call(2000)
        application.settled(oracle)
        assert 0 == oracle.duplicates
