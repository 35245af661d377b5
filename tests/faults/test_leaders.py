"""Of the processes that share a directory one delivers for all, and when it dies another one does."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.application import until
from tests.faults.hosts import Host, Process
from tests.faults.oracle import Oracle


def leader(host: Host) -> Process:
    """Return the process that delivers."""
    pid = host.directory.leader()
    (leading,) = [process for process in host.processes if process.pid == pid]
    return leading


def delivers(host: Host, process: Process) -> None:
    """Wait until what the process exports from now on is delivered."""
    process.wait_for(len(process.ids) + 2)
    last = process.ids[-1]
    host.oracle.wait_for(lambda oracle: last in oracle.keys)


@pytest.mark.parametrize(
    ("writers", "kills"),
    [(4, 3), pytest.param(8, 30, marks=pytest.mark.long)],
)
def test_leader_killed(host: Host, writers: int, kills: int) -> None:
    """When the process that delivers is killed, another one takes over within a second and a half."""
    seconds: list[float] = []
    for _ in range(writers):
        host.start("produce", pause=0.02)
    survivor = host.processes[0]
    delivers(host, survivor)
    for _ in range(kills):
        died = leader(host)
        survivor = next(
            process for process in host.processes if process.lives and process is not died
        )
        began = time.monotonic()
        died.kill()
        delivers(host, survivor)
        seconds.append(time.monotonic() - began)
        # In its place, as a server of processes would have it.
        host.start("produce", pause=0.02)
    host.settle()
    print(
        f"{kills} leaders killed, an event was delivered {sorted(seconds)[kills // 2]:.2f} s later (median), "
        f"{max(seconds):.2f} s at most; {len(host.ids)} events, {host.oracle.duplicates} raw duplicates"
    )
    assert 3 > max(seconds)


def test_a_forked_child_takes_over(host: Host) -> None:
    """When a parent that delivers is killed, the child that it forked delivers its own events and what it finds."""
    parent = host.start("parent_and_child")
    (child,) = parent.wait_for_note("child")
    assert parent.pid == host.directory.leader()
    parent.wait_for(20)
    began = time.monotonic()
    parent.send(signal.SIGKILL)
    until(lambda: host.directory.leader() == int(child), 10)
    # Of both, whatever the parent has left.
    before = set(parent.ids)
    delivers(host, parent)
    host.oracle.wait_for(lambda oracle: before <= oracle.keys)
    print(f"an event of the child was delivered {time.monotonic() - began:.2f} s later")
    assert int(child) == host.directory.leader()


@pytest.mark.parametrize("seconds", [2.5, pytest.param(30, marks=pytest.mark.long)])
def test_leader_stopped(host: Host, seconds: float) -> None:
    """While the process that delivers is stopped, nobody else sends; it goes on where it was."""
    for _ in range(3):
        host.start("produce", pause=0.02)
    delivers(host, host.processes[0])
    stopped = leader(host)
    stopped.send(signal.SIGSTOP)
    # What was under way arrives at once.
    sent: set[str] = set(host.ids)

    def from_others(oracle: Oracle) -> bool:
        return bool(oracle.keys - sent - set(stopped.ids))

    with pytest.raises(AssertionError):
        host.oracle.wait_for(from_others, seconds)
    assert stopped.pid == host.directory.leader()
    stopped.send(signal.SIGCONT)
    delivers(host, host.processes[-1])
    host.settle()
    print(
        f"stopped for {seconds} s: {len(host.ids)} events, {host.oracle.duplicates} raw duplicates"
    )


def test_shared_directory(host: Host) -> None:
    """Processes that export at the same time into one directory are each billed for what they did."""
    running = [host.start("produce", count=100) for _ in range(6)]
    assert [0] * 6 == [process.wait() for process in running]
    host.settle()
    assert (600, 0) == (len(host.oracle.keys), host.oracle.duplicates)
    assert (600, 0) == (host.counts["delivered"], host.counts["ambiguous"])
