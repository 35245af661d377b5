"""A host with a spool directory: the processes that meter there, how they die, and the account of what they did."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.http.client import Client
from cmdrdata_exporter.delivery.options import SENDERS, Options
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from tests.faults.oracle import PATIENCE, Oracle
from tests.metering import complaints

if TYPE_CHECKING:
    from typing_extensions import Self

KEY = "tk-0123456789abcdefghij"
FATES = ("delivered", "local", "pending", "in_flight", "held", "dead", "dropped")
"""What becomes of an event: where it is, or was last."""


class Zygote:
    """The process that forks those of the tests, see `zygote.py`; use it as a context manager."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("zygote.py")], stdin=theirs.fileno()
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._process.wait(PATIENCE)

    def start(self, job: dict[str, Any]) -> Process:
        """Start a process."""
        told, pipe = os.pipe()
        try:
            pid = self._ask(job, pipe)
        finally:
            os.close(pipe)
        return Process(self, pid, told)

    def wait(self, pid: int) -> int:
        """Return the exit code of a process that has ended, or is about to."""
        return self._ask({"wait": pid})

    def _ask(self, asked: dict[str, Any], *descriptors: int) -> int:
        with self._asking:
            socket.send_fds(self._control, [json.dumps(asked).encode()], descriptors)
            return int(self._control.recv(64))


class Process:
    """
    A process that meters, and what it told.

    Args:
        zygote: its parent.
        pid: its id.
        told: where its pipe can be read; it, and children that it leaves behind, hold the other end.
    """

    def __init__(self, zygote: Zygote, pid: int, told: int) -> None:
        self.pid = pid
        self.ids: list[str] = []
        """The events whose `export` has returned."""
        self.notes: list[list[str]] = []
        """What else it told, in words."""
        self._zygote = zygote
        self._changed = threading.Condition()
        self._code: int | None = None
        self._reader = threading.Thread(target=self._read, args=(told,), daemon=True)
        self._reader.start()

    def _read(self, told: int) -> None:
        with os.fdopen(told) as lines:
            for line in lines:
                kind, *words = line.split()
                with self._changed:
                    if kind == "id":
                        self.ids += words
                    else:
                        self.notes.append([kind, *words])
                    self._changed.notify_all()

    def wait_for(self, number: int) -> None:
        """Wait until it has exported so many events in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ids) >= number, PATIENCE), len(self.ids)

    def wait_for_note(self, kind: str) -> list[str]:
        """Wait until it tells something that begins with `kind`, and return the rest."""

        def found() -> list[list[str]]:
            return [words for first, *words in self.notes if first == kind]

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), self.notes
            return found()[0]

    @property
    def lives(self) -> bool:
        """Whether it was not seen to end."""
        return self._code is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it and its children, if they live, and wait for their end."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.send(signal.SIGKILL)
            self.wait()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until it and its children have ended; return its exit code."""
        self._reader.join(timeout)
        assert not self._reader.is_alive(), f"process {self.pid} does not end"
        if self._code is None:
            self._code = self._zygote.wait(self.pid)
        return self._code


class Host:
    """
    A spool directory, the backend of its events, and the processes that use it.

    Args:
        home: a directory for all that.
        zygote: starts the processes.
    """

    def __init__(self, home: Path, zygote: Zygote) -> None:
        self.spool = home / "spool"
        self.stderr = home / "stderr"
        self.oracle = Oracle(home / "accepted")
        self.processes: list[Process] = []
        self.accounts = ["default"]
        """The accounts that the processes use."""
        self.counts: dict[str, int] = {}
        """Of all accounts together, as they were when `settle` returned."""
        self._zygote = zygote
        self.environment = {
            "CMDRDATA_API_KEY": KEY,
            "CMDRDATA_ENDPOINT": self.oracle.url,
            "CMDRDATA_CUSTOMER_ID": "acme",
            "CMDRDATA_SPOOL_DIR": str(self.spool),
        }

    def start(
        self, program: str, environment: dict[str, str] | None = None, **options: Any
    ) -> Process:
        """Start a process that runs one of `programs`."""
        process = self._zygote.start(
            {
                "program": program,
                "options": options,
                "environment": {**self.environment, **(environment or {})},
                "stderr": str(self.stderr),
            }
        )
        self.processes.append(process)
        return process

    @property
    def directories(self) -> list[Directory]:
        """The directory of each account."""
        return [
            Directory.prepare(self.spool, self.oracle.url, account) for account in self.accounts
        ]

    @property
    def directory(self) -> Directory:
        """The directory of the one account that there is."""
        (directory,) = self.directories
        return directory

    @property
    def ids(self) -> list[str]:
        """The events whose `export` returned, in whatever process."""
        return [event_id for process in self.processes for event_id in process.ids]

    @property
    def log(self) -> str:
        """What the processes logged, after the lines that say how metering starts."""
        return complaints(self.stderr.read_text()) if self.stderr.exists() else ""

    def drain(self, timeout: float = PATIENCE) -> float:
        """Do what the next process on this host does: deliver what others have left. Return the seconds it took."""
        began = time.monotonic()
        for directory in self.directories:
            client = Client(
                self.oracle.url, lambda: KEY, "test", connections=SENDERS, clock=time.time
            )
            delivery = DurableDelivery(directory, Options(client.post))
            delivery.start()
            delivery.close(timeout)
        return time.monotonic() - began

    def count(self) -> dict[str, int]:
        """
        Return how many events are in each state, in all accounts together.

        Recorded = delivered + local + pending + in flight + held + dead + dropped, at any instant.
        """
        total: Counter[str] = Counter()
        for directory in self.directories:
            with LedgerReader(directory) as ledger:
                counts = ledger.counts()
            assert counts["recorded"] == sum(counts[state] for state in FATES), counts
            total.update(counts)
        return dict(total)

    def kept(self) -> set[str]:
        """Return the ids of the events that stay in a ledger."""
        found: set[str] = set()
        for directory in self.directories:
            with LedgerReader(directory) as ledger:
                for state in ("held", "dead", "local"):
                    found.update(kept.event.id for kept in ledger.kept(state) if kept.event)
        return found

    def settle(self) -> None:
        """
        End all processes, let the next one deliver what they left, and check the account.

        Nothing that was exported is missing, and what came twice is explained by the attempts that may have been
        accepted unseen.
        """
        for process in self.processes:
            process.kill()
        self.count()
        # Ends as soon as everything is delivered.
        self.drain(600)
        counts = self.counts = self.count()
        assert set() == set(self.ids) - self.oracle.keys - self.kept()
        assert (counts["delivered"], 0, 0) == (
            len(self.oracle.keys),
            counts["pending"],
            counts["in_flight"],
        )
        assert self.oracle.duplicates <= counts["ambiguous"]
        assert set() == self.oracle.altered
        assert [None] * len(self.accounts) == [each.leader() for each in self.directories]

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes:
            process.kill()
        self.oracle.close()
