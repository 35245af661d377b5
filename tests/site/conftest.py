"""The site, as `mkdocs build` has made it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site() -> Path:
    """The directory of the site, which the environment `site` of tox has built."""
    return Path(os.environ["SITE"])
