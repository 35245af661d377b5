"""A destination's directory to test in."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmdrdata_exporter.delivery.directory import Directory


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """An empty directory of a destination."""
    return Directory.prepare(tmp_path / "spool", "https://host/events", "default")
