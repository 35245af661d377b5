"""The end of a process waits for its backend no longer than it was told to, and what is left the next one delivers."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.hosts import Host
from tests.faults.oracle import ACCEPTED, SILENCE

LEFT = [2000, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(300)])]


@pytest.fixture
def black_hole(host: Host) -> Host:
    """A host whose backend takes requests and answers none."""
    host.oracle.answer = lambda _: SILENCE
    return host


@pytest.mark.parametrize("shutdown", [True, False], ids=["shutdown", "atexit"])
@pytest.mark.parametrize(("timeout", "most"), [(1.0, 1.5), (5.0, 5.5)])
@pytest.mark.parametrize("count", LEFT)
def test_a_backend_that_never_answers(
    black_hole: Host, count: int, timeout: float, most: float, shutdown: bool
) -> None:
    """Shutdown and exit together take what one of them may take; then everything is there for the next process."""
    process = black_hole.start("leave", count=count, shutdown_timeout=timeout, shutdown=shutdown)
    process.wait_for(count)
    began = time.monotonic()
    assert 0 == process.wait()
    # The end of the interpreter itself, on a busy machine.
    assert time.monotonic() - began < most + 1
    if shutdown:
        (took,) = process.wait_for_note("took")
        assert timeout <= float(took) < most
    counts = black_hole.count()
    assert (count, 0) == (counts["recorded"], counts["delivered"])
    black_hole.oracle.answer = lambda _: ACCEPTED
    black_hole.settle()
    # Only those that were under way.
    assert black_hole.counts["ambiguous"] <= 32
    assert (count, 0) == (black_hole.counts["delivered"], black_hole.oracle.duplicates)


@pytest.mark.parametrize("count", LEFT)
def test_a_signal(black_hole: Host, count: int) -> None:
    """SIGTERM ends a process at once, and loses nothing."""
    process = black_hole.start("produce", count=count, end="wait")
    process.wait_for(count)
    process.wait_for_note("waits")
    began = time.monotonic()
    process.send(signal.SIGTERM)
    assert -signal.SIGTERM == process.wait()
    assert time.monotonic() - began < 1
    black_hole.oracle.answer = lambda _: ACCEPTED
    black_hole.settle()
    assert (count, 0) == (black_hole.counts["delivered"], black_hole.oracle.duplicates)
