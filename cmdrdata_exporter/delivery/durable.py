"""The delivery that loses nothing: an event is in a journal on the disk when `record` returns."""

from __future__ import annotations

import contextlib
import os
import threading
import time

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import Event, Header
from cmdrdata_exporter.delivery.drainer import Drainer, Options
from cmdrdata_exporter.delivery.gauges import GAUGE_WAIT, LedgerGauges
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, ask
from cmdrdata_exporter.delivery.spool.records import (
    Command,
    UnknownRecordError,
    decode,
    encode_command,
    encode_event,
)
from cmdrdata_exporter.delivery.unspooled import Unspooled

_FIRST_LOOK = 0.005
_LONGEST_LOOK = 0.1
"""Seconds between two looks of who waits for a delivery."""


class DurableDelivery(processes.ForkAware):
    """
    A destination's journal in this process, and its drainer.

    Args:
        directory: where the destination's files are.
        options: how it is drained.
        fsync: whether a record is on the disk itself when `record` returns, so that a crash of the host loses none.
    """

    def __init__(self, directory: Directory, options: Options, *, fsync: bool = False) -> None:
        self.directory = directory
        self.unspooled = Unspooled(directory)
        self._notes = 0
        """How many records of this process are no events."""
        self._journal = Journal(
            directory,
            fsync=fsync,
            refused=self._refused,
        )
        self.drainer = Drainer(directory, self._journal, options)
        self._gauges = LedgerGauges(directory, self.drainer)
        self._pid = os.getpid()
        self._parked: dict[int, bool] = {}
        processes.notify_of_forks(self)

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """See `Delivery.record`. Where it cannot be written, it is in the log, as one line of JSON."""
        if os.getpid() != self._pid:
            # Forked by something other than Python.
            self.after_fork_child()
        try:
            self._journal.append(encode_event(event_id, header, body), header.kept)
        except OSError as error:
            if faults.is_interruption(error):
                raise
            self.unspooled.log(Event(event_id, header, body), error)
            if header.kept is not None:
                header.kept.append(None)
            self.unspooled.report_if_doubled()
        else:
            if self.unspooled.counts:
                self.unspooled.report()
        if not self.drainer.running:
            self.drainer.start()

    # Jobs of the provider, see `KeepsJobs`

    def start_job(self, job: OpenJob) -> None:
        """See `KeepsJobs.start_job`."""
        self._note(Command("job", (job.key,), job=job))

    def end_job(self, key: bytes) -> None:
        """See `KeepsJobs.end_job`."""
        self._note(Command("job_ended", (key,), at=clocks.wall()))

    def _note(self, command: Command) -> None:
        if os.getpid() != self._pid:
            self.after_fork_child()
        try:
            self._journal.append(encode_command(command))
            self._notes += 1
        except OSError as error:
            if faults.is_interruption(error):
                raise
            faults.report(
                "open jobs",
                "what is known of a job of the provider cannot be written to %s: %s",
                self.directory.path,
                error.strerror or error,
            )
        if not self.drainer.running:
            self.drainer.start()

    def open_jobs(self) -> list[OpenJob]:
        """See `KeepsJobs.open_jobs`. None where the ledger cannot be read now."""
        return ask(self.directory, self.drainer.database, GAUGE_WAIT, LedgerReader.open_jobs) or []

    def start(self) -> None:
        """Begin to drain what earlier processes have left."""
        self.drainer.start()

    def flush(self, timeout: float) -> bool:
        """
        See `Delivery.flush`.

        True only if everything that this process recorded before is delivered, held, refused for good, or in the log.
        """
        deadline = clocks.monotonic() + timeout
        self.drainer.start()
        try:
            return self._flush(deadline)
        except OSError as error:
            if faults.is_interruption(error):
                raise
            faults.report("flush", "usage events cannot be flushed: %s. None is lost", error)
            return False

    def _flush(self, deadline: float) -> bool:
        sizes: dict[str, int] | None = None
        last: int | None = None
        look = _FIRST_LOOK

        def is_delivered(ledger: LedgerReader) -> bool:
            nonlocal last
            if last is None and self._are_imported(ledger, sizes):
                last = ledger.last()
            return last is not None and ledger.is_delivered(last)

        while True:
            if sizes is None:
                sizes = self._sizes()
                self.drainer.wake()
            # Whoever has the database may wait for a disk that has stalled.
            if ask(self.directory, self.drainer.database, _left(deadline), is_delivered):
                return True
            remaining = deadline - clocks.monotonic()
            if remaining <= 0 or (self.drainer.leads and self.drainer.gate.delay() >= remaining):
                return False
            time.sleep(min(look, remaining))
            look = min(2 * look, _LONGEST_LOOK)

    def _sizes(self) -> dict[str, int] | None:
        """Return how large the journals of this process are; None while records wait for a disk that has stalled."""
        if not self._journal.catch_up():
            return None
        mine = f"-{os.getpid()}-"
        sizes: dict[str, int] = {}
        for path in self.directory.journals():
            if mine in path.name:
                with contextlib.suppress(FileNotFoundError):
                    sizes[path.name] = path.stat().st_size
        return sizes

    def _are_imported(self, ledger: LedgerReader, sizes: dict[str, int] | None) -> bool:
        there = {path.name for path in self.directory.journals()}
        offsets = ledger.offsets()
        return sizes is not None and all(
            name not in there or offsets.get(name, 0) >= size for name, size in sizes.items()
        )

    def shutdown(self, timeout: float) -> None:
        """See `Delivery.shutdown`. What is not delivered stays for the next process."""
        self.close(timeout)

    def close(self, timeout: float) -> None:
        """End the journal and drain for at most `timeout` seconds. A later event begins another journal."""
        began = clocks.monotonic()
        self._journal.seal(min(timeout, 1.0))
        self.unspooled.report()
        self.drainer.stop(max(0.0, timeout - (clocks.monotonic() - began)))

    # What is reported

    def outcomes(self) -> dict[str, int]:
        """Return how many events this process recorded, and how many could not be written, since it began."""
        return {
            "recorded": self._journal.appended - self._notes,
            "unspooled": self.unspooled.counts.total(),
            "handed_over": self._journal.handed_over,
        }

    def gauges(self) -> dict[str, float]:
        """Return the current gauge values; those of the directory only if this process drains it."""
        return {"delivery.durable": 1, **self._gauges.values()}

    # Forks

    def before_fork(self) -> None:
        """Close the database, which must not be open in two processes."""
        self._parked[threading.get_ident()] = self.drainer.leadership.park()

    def after_fork_parent(self) -> None:
        """Go on."""
        if self._parked.pop(threading.get_ident(), False):
            self.drainer.leadership.unpark()

    def after_fork_child(self) -> None:
        """Begin anew in a forked child, with a journal of its own."""
        parked = self._parked.pop(threading.get_ident(), False)
        self._parked.clear()
        self._pid = os.getpid()
        self._gauges.forget()
        self.unspooled.forked()
        self._journal.forked()
        self.drainer.forked(parked=parked)

    def _refused(self, record: bytes, error: OSError) -> None:
        try:
            event = decode(record)
        except UnknownRecordError:
            return
        if isinstance(event, Event):
            self.unspooled.log(event, error)


def _left(deadline: float) -> float:
    """Return the seconds until then, as a lock takes them."""
    return min(max(0.0, deadline - clocks.monotonic()), threading.TIMEOUT_MAX)
