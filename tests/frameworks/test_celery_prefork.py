"""Celery's worker as it is by default, which forks: processes that end after a task, or in the middle of one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from tests.faults.hosts import Host, Zygote
from tests.frameworks.conftest import MeetingProvider

TASKS = 10
FOLDERS = ("data_folder_in", "data_folder_out", "control_folder")


class Worker:
    """
    A worker over folders, a transport that has no event loop.

    Args:
        host: whose spool its processes use.
        queue: the folder of its messages.
        options: further ones of the command.
    """

    def __init__(self, host: Host, queue: Path, *options: str) -> None:
        queue.mkdir()
        self.host = host
        self._sender = Celery(broker="filesystem://", set_as_current=False)
        self._sender.conf.broker_transport_options = dict.fromkeys(FOLDERS, str(queue))
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "--app", "prefork_app", "worker"),
                *("--pool", "prefork", "--without-mingle", "--without-gossip"),
                *("--without-heartbeat", *options),
            ],
            env={**os.environ, **host.environment, "QUEUE": str(queue)},
            cwd=Path(__file__).parent,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def send(self, task: str, model: str) -> None:
        """Have a task done."""
        self._sender.send_task(task, [model])

    def end(self) -> None:
        """Let it end, and what it has recorded be delivered."""
        self._process.send_signal(signal.SIGTERM)
        assert 0 == self._process.wait(30)
        self.host.settle()

    def kill(self) -> None:
        """End it and its children."""
        self._sender.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start a worker."""
    with contextlib.ExitStack() as stack:
        with Zygote() as zygote:
            host = Host(tmp_path, zygote)
        stack.callback(host.close)

        def start(*options: str) -> Worker:
            worker = Worker(host, tmp_path / "queue", *options)
            stack.callback(worker.kill)
            return worker

        yield start


def test_a_process_for_each_task(provider: MeetingProvider, start: Callable[..., Worker]) -> None:
    """What a task did is billed once, although its process ends as soon as it is over."""
    worker = start("--concurrency", "2", "--max-tasks-per-child", "1")
    for number in range(TASKS):
        worker.send("ask", f"gpt-{number}")
    worker.host.oracle.wait_for_accepted(TASKS)
    worker.end()
    assert (TASKS, TASKS, 0) == (
        len(provider.requests),
        worker.host.counts["delivered"],
        worker.host.oracle.duplicates,
    )


def test_a_hard_time_limit(provider: MeetingProvider, start: Callable[..., Worker]) -> None:
    """A task that is killed is billed for what it did, and the worker goes on with the next one."""
    worker = start("--concurrency", "1", "--time-limit", "2")
    for number in range(2):
        worker.send("ask_and_hang", f"gpt-{number}")
    worker.send("ask", "gpt-2")
    worker.host.oracle.wait_for_accepted(3)
    worker.end()
    assert (3, 3, 0) == (
        len(provider.requests),
        worker.host.counts["delivered"],
        worker.host.oracle.duplicates,
    )


def test_a_soft_time_limit(provider: MeetingProvider, start: Callable[..., Worker]) -> None:
    """The limit's exception ends the task wherever it comes, and every call that was answered is billed once."""
    worker = start("--concurrency", "1", "--soft-time-limit", "1", "--time-limit", "20")
    for number in range(3):
        worker.send("ask_until_the_limit", f"gpt-{number}")
    worker.send("ask", "the-last")
    worker.host.oracle.wait_for(lambda _: was_asked(provider, b"the-last"), 60)
    worker.end()
    recorded = worker.host.counts["recorded"]
    # A call that the limit has kept from being sent may have an event of its own, which says so.
    assert len(provider.requests) <= recorded <= len(provider.requests) + 3
    assert (recorded, 0) == (worker.host.counts["delivered"], worker.host.oracle.duplicates)


def was_asked(provider: MeetingProvider, model: bytes) -> bool:
    """Say whether the provider was asked for a model. The limit may have cut other requests off."""
    return any(model in request.body for request in list(provider.requests))
