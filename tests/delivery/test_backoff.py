"""How delivery is paced: by numbers that stand in one place, and are what the documentation promises."""

from __future__ import annotations

import inspect
import random
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery import backoff as pace
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.settings import ConfigurationError, Settings

DOCS = Path(__file__).parent.parent.parent


def test_the_numbers() -> None:
    """A backend that is down, or refuses a key, is asked as often as is promised, and no number changes by itself."""
    assert (
        pace.FIRST_BACKOFF,
        pace.LONGEST_BACKOFF,
        pace.PROBE_AFTER,
        pace.PROBE_INTERVAL,
        pace.LONGEST_PAUSE,
        pace.LONGEST_RETRY_AFTER,
    ) == (0.5, 60.0, 5, 60.0, 300.0, 3600.0)


def test_what_is_promised() -> None:
    """The pages say these numbers."""
    page = (DOCS / "docs/delivery.md").read_text()
    readme = (DOCS / "README.md").read_text()
    first = pace.FIRST_BACKOFF
    assert (
        f"after up to {first} s, {2 * first:.0f} s, {4 * first:.0f} s … {pace.LONGEST_BACKOFF:.0f} s"
        in page
    )
    assert pace.LONGEST_RETRY_AFTER == 3600
    assert "nothing is sent for that time, an hour at most" in page
    minutes = [pace.PROBE_INTERVAL * 2**number / 60 for number in range(3)]
    assert (
        "asks again after {:.0f} minute (`CMDRDATA_PROBE_INTERVAL`), then {:.0f}, {:.0f}, and every ".format(
            *minutes
        )
        + f"{pace.LONGEST_PAUSE / 60:.0f} minutes"
        in page
    )
    assert (
        f"| `CMDRDATA_PROBE_INTERVAL` | seconds until a backend that refuses the key is asked again, 1 to "
        f"{pace.LONGEST_PAUSE:.0f}; doubled each further time, up to {pace.LONGEST_PAUSE:.0f} | "
        f"`{pace.PROBE_INTERVAL:.0f}` |" in readme
    )


def test_all_pace_by_them() -> None:
    """Whatever delivers takes the interval of a pause from the settings, and these take it from here."""
    assert Settings.read({}).probe_interval == pace.PROBE_INTERVAL
    assert Options(post=None).probe_interval == pace.PROBE_INTERVAL
    assert inspect.signature(Gate).parameters["probe_interval"].default == pace.PROBE_INTERVAL
    longest = str(int(pace.LONGEST_PAUSE))
    assert Settings.read({"CMDRDATA_PROBE_INTERVAL": longest}).probe_interval == pace.LONGEST_PAUSE
    with pytest.raises(ConfigurationError, match=longest):
        Settings.read({"CMDRDATA_PROBE_INTERVAL": f"{longest}1"})


def test_the_random_numbers_of_the_application() -> None:
    """A program that seeds `random` gets the same numbers as without us, and its deliveries are not in step."""
    random.seed(18)
    expected = random.getstate()
    first = [pace.backoff(number) for number in range(8)]
    assert random.getstate() == expected
    random.seed(18)
    assert [pace.backoff(number) for number in range(8)] != first
