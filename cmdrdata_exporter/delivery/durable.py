"""The delivery that loses nothing: an event is in a journal on the disk when `record` returns."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import Event, Header
from cmdrdata_exporter.delivery.drainer import Drainer, Options
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, UnreadableError
from cmdrdata_exporter.delivery.spool.records import (
    Command,
    UnknownRecordError,
    decode,
    encode_command,
    encode_event,
    line,
)

if TYPE_CHECKING:
    from typing_extensions import Self

_FIRST_LOOK = 0.005
_LONGEST_LOOK = 0.1
"""Seconds between two looks of who waits for a delivery."""
_GAUGE_WAIT = 0.5
"""Seconds that a measurement waits for whoever uses the database."""


class _Found(NamedTuple):
    """What a ledger tells that is measured; times in Unix seconds."""

    pending: int
    held: int
    dead: int
    oldest: float | None
    jobs: int
    oldest_job: float | None

    @classmethod
    def of(cls, ledger: LedgerReader) -> Self:
        """Read a ledger."""
        counts = ledger.counts()
        return cls(
            counts["pending"] + counts["in_flight"],
            counts["held"],
            counts["dead"],
            ledger.oldest_pending(),
            *ledger.count_open_jobs(),
        )

    def gauges(self) -> dict[str, float]:
        """Return the values of gauges."""
        return {
            "events.pending": self.pending,
            "events.oldest_pending": _age(self.oldest),
            "events.held": self.held,
            "events.dead": self.dead,
            "jobs.open": self.jobs,
            "jobs.oldest_open": _age(self.oldest_job),
        }


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
        self.unspooled: Counter[str] = Counter()
        """How many events could not be written and are in the log instead, by the reason."""
        self._notes = 0
        """How many records of this process are no events."""
        self._reported = 0
        """How many of them the ledger has counted."""
        self._report_at = 1
        """How many they are when it counts them while nothing can be recorded: after each doubling."""
        self._reporting = threading.Lock()
        self._journal = Journal(
            directory,
            fsync=fsync,
            refused=self._refused,
        )
        self.drainer = Drainer(directory, self._journal, options)
        self._looked: tuple[int | None, _Found | None] = None, None
        """What was in the ledger at the last look, and when that was changed last."""
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
            self._log(Event(event_id, header, body), error)
            if header.kept is not None:
                header.kept.append(None)
            total = self.unspooled.total()
            if total >= self._report_at:
                # A command is small, and may use the room that events leave free.
                self._report_at = 2 * total
                self._report_unspooled()
        else:
            if self.unspooled:
                self._report_unspooled()
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
        if not self.drainer.database.acquire(timeout=_GAUGE_WAIT):
            return []
        try:
            with LedgerReader(self.directory) as ledger:
                return ledger.open_jobs()
        except UnreadableError:
            return []
        finally:
            self.drainer.database.release()

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
        while True:
            if sizes is None:
                sizes = self._sizes()
                self.drainer.wake()
            # Whoever has the database may wait for a disk that has stalled.
            if self.drainer.database.acquire(timeout=_left(deadline)):
                try:
                    with LedgerReader(self.directory) as ledger:
                        if last is None and self._are_imported(ledger, sizes):
                            last = ledger.last()
                        if last is not None and ledger.is_delivered(last):
                            return True
                except UnreadableError:
                    pass
                finally:
                    self.drainer.database.release()
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
        self._report_unspooled()
        self.drainer.stop(max(0.0, timeout - (clocks.monotonic() - began)))

    # What is reported

    def outcomes(self) -> dict[str, int]:
        """Return how many events this process recorded, and how many could not be written, since it began."""
        return {
            "recorded": self._journal.appended - self._notes,
            "unspooled": sum(self.unspooled.values()),
            "handed_over": self._journal.handed_over,
        }

    def gauges(self) -> dict[str, float]:
        """
        Return the current gauge values; those of the directory only if this process drains it.

        Where nobody does, since there is nothing to do, the one that did last knows them still.
        """
        known: dict[str, float] = {"delivery.durable": 1}
        leads = self.drainer.leads
        if leads:
            known |= self._of_directory()
        elif not self.drainer.rests or self.directory.leader() is not None:
            return known
        found = self._look(leads=leads)
        if found is not None:
            known |= found.gauges()
            if not leads:
                known |= self._of_directory()
        return known

    def _look(self, *, leads: bool) -> _Found | None:
        """Return what is in the ledger; None where that cannot be known now, or is for another process to tell."""
        modified = None if leads else self._modified()
        if modified is not None and modified == self._looked[0]:
            return self._looked[1]
        # Who measures must not wait for a disk that has stalled, nor for what a signal handler has interrupted.
        if not self.drainer.database.acquire(timeout=_GAUGE_WAIT):
            return None
        try:
            with LedgerReader(self.directory) as ledger:
                is_ours = leads or ledger.facts().get("pid") == os.getpid()
                found = _Found.of(ledger) if is_ours else None
        except UnreadableError:
            return None
        finally:
            self.drainer.database.release()
        self._looked = modified, found
        return found

    def _modified(self) -> int | None:
        """Return when the ledger was changed last, None where its log has more. There may be hundreds at rest."""
        path = self.directory.path
        try:
            with contextlib.suppress(FileNotFoundError):
                if (path / f"{LEDGER}-wal").stat().st_size:
                    return None
            return (path / LEDGER).stat().st_mtime_ns
        except OSError:
            return None

    def _of_directory(self) -> dict[str, float]:
        return {
            "delivery.paused": int(self.drainer.gate.paused),
            "spool.size": self.directory.size(),
        }

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
        self._looked = None, None
        self._reported = self.unspooled.total()
        self._report_at = self._reported + 1
        self._reporting = threading.Lock()
        self._journal.forked()
        self.drainer.forked(parked=parked)

    # What cannot be written

    def _refused(self, record: bytes, error: OSError) -> None:
        try:
            event = decode(record)
        except UnknownRecordError:
            return
        if isinstance(event, Event):
            self._log(event, error)

    def _log(self, event: Event, error: OSError) -> None:
        reason = error.strerror or str(error)
        self.unspooled[reason] += 1
        if self.unspooled[reason] == 1:
            faults.say(
                logging.ERROR,
                "usage events cannot be written to %s (%s); one line of JSON each follows instead",
                self.directory.path,
                reason,
            )
        faults.say(logging.ERROR, "%s", line("unspooled", event.id, event.body))

    def _report_unspooled(self) -> None:
        """Have the ledger count the events that are in the log."""
        # Who finds another one at it leaves the rest to the next event, or to the end.
        if not self._reporting.acquire(blocking=False):
            return
        try:
            total = self.unspooled.total()
            if total != self._reported:
                command = Command("unspooled", (), number=total - self._reported)
                commands.append(self.directory, [encode_command(command)])
                self._reported = total
        except OSError as error:
            if faults.is_interruption(error):
                raise
            # The next time.
        finally:
            self._reporting.release()


def _age(since: float | None) -> float:
    """Return for how many seconds something waits, 0 where nothing does."""
    return 0.0 if since is None else max(0.0, clocks.wall() - since)


def _left(deadline: float) -> float:
    """Return the seconds until then, as a lock takes them."""
    return min(max(0.0, deadline - clocks.monotonic()), threading.TIMEOUT_MAX)
