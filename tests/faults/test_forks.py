"""A process that is forked, however and whenever, has a journal of its own and holds up nobody."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.faults.hosts import Host


def recorded(host: Host) -> tuple[int, int, int]:
    """Settle the account; return how many events were exported, billed, and billed more than once."""
    host.settle()
    return len(host.ids), len(host.oracle.keys), host.oracle.duplicates


FORKS: list[tuple[str, dict[str, int], int]] = [
    ("in_children", {"count": 100}, 100),
    ("task_by_task", {"count": 10}, 20),
    ("in_multiprocessing", {"count": 10}, 10),
    ("in_grandchildren", {"depth": 4}, 9),
    ("forked_in_c", {"count": 10}, 10),
    ("preload", {"workers": 4, "count": 100}, 401),
]
if sys.version_info < (3, 13):
    # Since then such a child may find locks of Python's own taken, which nothing releases.
    FORKS.append(("forked_in_c_with_threads", {"count": 50}, 100))


@pytest.mark.parametrize(
    ("program", "options", "events"),
    FORKS,
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_forks(host: Host, program: str, options: dict[str, Any], events: int) -> None:
    """What a forked child has exported is billed once, even if the child ends right after."""
    assert 0 == host.start(program, **options).wait()
    assert "" == host.log
    assert (events, events, 0) == recorded(host)


@pytest.mark.parametrize("forks", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_forks_under_load(host: Host, forks: int) -> None:
    """A process that forks while it meters and delivers waits for nothing, and keeps no descriptor of it."""
    forking = host.start("fork_under_load", forks=forks)
    assert 0 == forking.wait(600)
    seconds = sorted(float(words[1]) for words in forking.notes if words[0] == "fork")
    (longest,) = forking.wait_for_note("longest")
    (more,) = forking.wait_for_note("descriptors")
    print(
        f"{forks} forks: median {seconds[forks // 2] * 1000:.1f} ms, longest {seconds[-1] * 1000:.0f} ms, "
        f"with the child {float(longest) * 1000:.0f} ms; {len(host.ids)} events, {more} more descriptors"
    )
    assert 1 > float(longest)
    # The ledger has three, and the index as many, while they are open, and the loop two while it sends.
    assert 8 >= int(more)
    exported, billed, _ = recorded(host)
    assert exported == billed
