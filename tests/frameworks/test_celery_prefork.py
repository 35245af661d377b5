"""Celery's worker as it is by default, which forks: each task in a process of its own, which ends right after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from tests.faults.hosts import Host, Zygote
from tests.frameworks.conftest import MeetingProvider

TASKS = 10


def test_a_process_for_each_task(
    provider: MeetingProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a task did is billed once, although its process ends as soon as it is over."""
    queue = tmp_path / "queue"
    queue.mkdir()
    with Zygote() as zygote:
        host = Host(tmp_path, zygote)
    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "--app", "prefork_app", "worker"),
            *("--pool", "prefork", "--concurrency", "2", "--max-tasks-per-child", "1"),
            *("--without-mingle", "--without-gossip", "--without-heartbeat"),
        ],
        env={**os.environ, **host.environment, "QUEUE": str(queue)},
        cwd=Path(__file__).parent,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        sender = Celery(broker="filesystem://", set_as_current=False)
        folders = ("data_folder_in", "data_folder_out", "control_folder")
        sender.conf.broker_transport_options = dict.fromkeys(folders, str(queue))
        for number in range(TASKS):
            sender.send_task("ask", [f"gpt-{number}"])
        sender.close()
        host.oracle.wait_for_accepted(TASKS)
        worker.send_signal(signal.SIGTERM)
        assert 0 == worker.wait(30)
        host.settle()
        assert (TASKS, TASKS, 0) == (
            len(provider.requests),
            host.counts["delivered"],
            host.oracle.duplicates,
        )
    finally:
        worker.kill()
        worker.wait()
        host.close()
