"""Wherever a call ends, also while its process does, its event is recorded; and no process waits for ever."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.hosts import Host


@pytest.mark.parametrize("program", ["in_finalizers", "in_signal_handler", "late"])
def test_ends_of_calls(host: Host, program: str) -> None:
    """An event is recorded and billed once from wherever Python code runs, a thousand times over."""
    ended = host.start(program, count=1000)
    assert 0 == ended.wait()
    assert "" == host.log
    host.settle()
    expected = {"in_finalizers": 3001, "late": 1001}.get(program, len(ended.ids))
    assert expected == len(host.oracle.keys)


def test_daemon_threads(host: Host) -> None:
    """A process ends in time under daemon threads that still export, and what they exported is kept."""
    ended = host.start("in_daemon_thread", count=100)
    ended.wait_for(200)
    began = time.monotonic()
    assert 0 == ended.wait()
    assert 8 > time.monotonic() - began
    assert "" == host.log
    host.settle()
    assert len(ended.ids) <= len(host.oracle.keys) <= len(ended.ids) + 2


def test_terminated(host: Host) -> None:
    """A process that a signal ends, as it does by default, loses nothing."""
    running = host.start("produce", threads=2)
    running.wait_for(100)
    running.send(signal.SIGTERM)
    assert -signal.SIGTERM == running.wait()
