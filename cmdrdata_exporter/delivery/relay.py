"""
The relay: step by step, it takes events from the journals to the senders, and outcomes to the ledger.

    journals ─import─▶ ledger: pending ─claim─▶ ledger: in flight ─▶ senders ─▶ outcomes ─▶ ledger
                   └──────────────────────────────────┘ where they can be sent at once

A step is one transaction. What is to be sent is committed as in flight before a sender may send it, and its outcome
after that: a process that dies between the two leaves behind what may have been accepted, and nothing else.
While outcomes cannot be committed nothing is claimed, since it would have to be sent again.
"""

from __future__ import annotations

import contextlib
import queue
import time

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery import Handed
from cmdrdata_exporter.delivery.backoff import LONGEST_BACKOFF
from cmdrdata_exporter.delivery.gate import FIRST, Gate
from cmdrdata_exporter.delivery.options import SENDERS, Options
from cmdrdata_exporter.delivery.senders import Done, Senders, tried_before
from cmdrdata_exporter.delivery.spool.directory import RESERVE, Directory
from cmdrdata_exporter.delivery.spool.frames import Scan
from cmdrdata_exporter.delivery.spool.journal import Mark
from cmdrdata_exporter.delivery.spool.journal_reader import JournalReader, JournalsReader
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.storage import LARGEST_LOG
from cmdrdata_exporter.delivery.status_log import StatusLog
from cmdrdata_exporter.delivery.upkeep import Upkeep

IMPORT_INTERVAL = 0.8
"""
Seconds between two looks at the journals: what comes in one shares a wake-up, a commit and the connections.
An event is to be sent within a second.
"""
SHORTEST_INTERVAL = 0.1
"""The same where so many events come that they would not all have room to be sent at once."""
LINGER = 0.008
"""Seconds in which further outcomes are waited for, so that they share a commit."""
PROMPT = 1.0
"""Seconds after a wake-up in which each outcome is committed at once: somebody waits for it."""
IMPORT_BYTES = 256 << 10
"""Bytes imported per transaction: small enough not to starve the senders."""
SMALLEST_IMPORT = 4096
"""Smallest import, after the disk was full."""
SMALL_DISK = 128 << 20
"""Bytes that are free, from which on room for outcomes is reserved in the ledger's own files."""
OUTCOMES_ON_FULL_DISK = 16
"""How many outcomes are committed at once where there is only that room."""
SENT_ON_FULL_DISK = 4
"""How many events are in flight there, at most."""
AGAIN = 8
"""How many events may be in flight that were tried in vain before: some fail whenever they come, or never end."""


class Relay:
    """
    What takes events on. Its methods are called by one thread.

    Args:
        directory: whose journals.
        options: how it is drained.
        log: what keeps events from going on.
    """

    def __init__(self, directory: Directory, options: Options, log: StatusLog) -> None:
        self._directory = directory
        self._options = options
        self._log = log
        self.inbox: queue.SimpleQueue[Done | None] = queue.SimpleQueue()
        """Outcomes of attempts; None says only that there is something to do."""
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        """For when no outcome is to wake the thread."""
        self._prompt_until = 0.0
        self.outcomes: list[Done] = []
        """Those that are not committed."""
        self.gate = Gate(SENDERS, first=FIRST, probe_interval=options.probe_interval)
        self.senders = (
            None
            if options.post is None
            else Senders(options.post, self.gate, self.inbox, most=SENDERS)
        )
        self.upkeep = Upkeep(directory, options, log, self.gate)
        self._ledger: Ledger | None = None
        self._journals: JournalsReader | None = None
        self.journals_pending = True
        """Whether the journals are to be read now."""
        self._next_import = 0.0
        self._interval = IMPORT_INTERVAL
        self._import_bytes = IMPORT_BYTES
        """Current import size; a sixteenth after an error, doubled after a success."""
        self._disk_nearly_full = False
        self._log_is_full = False
        self._due: float | None = None
        """When the next event is to be claimed."""
        self._retries_wait = False
        """Whether as many that were tried in vain are in flight as may be: others may be due."""
        self._is_empty = False
        """Whether the ledger has nothing that is left to send."""
        self.active = clocks.monotonic()
        """When something was to do last."""
        self._last_wall_time = options.clock()

    @property
    def in_flight(self) -> int:
        """How many events this process is sending."""
        return 0 if self.senders is None else self.senders.busy

    @property
    def is_at_rest(self) -> bool:
        """Whether there is nothing to import, to send or to commit."""
        return self._is_empty and not (self.journals_pending or self.in_flight or self.outcomes)

    def begin(self) -> None:
        """Begin to lead: everything is to be looked at now."""
        self.reset()
        self.upkeep.restart()
        self._next_import = 0.0
        if self.senders is not None:
            self.senders.start()

    def reset(self) -> None:
        """Read again what was not committed."""
        self._ledger = self._journals = None
        self.journals_pending = True

    def has_imported(self, mark: Mark) -> bool:
        """Return whether the ledger has all that had been appended to a journal."""
        return self._journals is not None and self._journals.offset(mark.file.name) >= mark.size

    def import_less(self) -> None:
        """Ask for less of a disk that is full: outcomes of what was sent come first, and they are small."""
        self._import_bytes //= 16

    def measure(self) -> bool:
        """Take note of how much room there is; return whether there is none for new events."""
        full = self._log.size(self._directory.size(), self._options.largest)
        # What outcomes need is not for new events.
        full = full or not self._directory.has_room()
        log = self._directory.log_size()
        self._log_is_full = log > LARGEST_LOG
        self._log.long_reader(log if self._log_is_full else None)
        return full

    def step(self, ledger: Ledger, *, claim: bool = True) -> list[Handed]:
        """
        Import, commit outcomes and claim what is due, in one transaction.

        Returns:
            the events that are in flight now: they must be sent.
        """
        now, clock = clocks.monotonic(), self._options.clock()
        is_new = ledger is not self._ledger
        if is_new or self._journals is None:
            self._ledger, self._journals = ledger, JournalsReader(self._directory, ledger.offsets())
            self.journals_pending = True
        chunks = self._read(self._journals, ledger, now)
        room, again = self._room() if claim else (0, 0)
        upkeep = now >= self.upkeep.next and not self._log_is_full
        outcomes = self.outcomes[: OUTCOMES_ON_FULL_DISK if self._disk_nearly_full else None]
        is_due = room > 0 and self._due is not None and self._due <= clock
        if not (is_new or chunks or outcomes or upkeep or is_due or clock < self._last_wall_time):
            self._last_wall_time = clock
            return []
        # Where outcomes cannot be committed, this fails as a whole: nothing is claimed.
        with ledger.transaction():
            claimed: list[Handed] = []
            for reading, found in chunks:
                claimed += ledger.import_records(
                    reading.path.name,
                    found.end,
                    found.records,
                    found.damaged,
                    clock,
                    # Others that are due have waited longer.
                    room=0 if is_new or is_due else room - len(claimed),
                )
            # After the import: a duplicate of what was delivered meets its row still. Before the claim: what this
            # process had in flight when it led before may be pending again.
            ledger.record_outcomes(outcomes, clock)
            if clock < self._last_wall_time - 1:
                ledger.retention.make_due(clock, clock + LONGEST_BACKOFF)
            due = ledger.next_due()
            if len(claimed) < room and due is not None and due <= clock:
                claimed += ledger.claim(room - len(claimed), clock, again)
            expired = self.upkeep.round(ledger, now, clock) if upkeep else 0
            retries_wait = again <= tried_before(claimed)
            due = ledger.next_due(new=retries_wait)
            empty = due is None and ledger.is_empty()
        # From here on nothing may fail: what is claimed must be sent.
        self._import_bytes = min(2 * max(self._import_bytes, SMALLEST_IMPORT), IMPORT_BYTES)
        self._due, self._retries_wait = due, retries_wait and claim
        self._last_wall_time, self._is_empty = clock, empty
        if chunks or claimed or outcomes:
            self.active = now
        self._log.count_refusals(outcomes)
        self._log.expired(expired)
        del self.outcomes[: len(outcomes)]
        for reading, found in chunks:
            reading.committed(found)
        if upkeep:
            self.upkeep.committed(now)
        return claimed

    def _read(
        self, journals: JournalsReader, ledger: Ledger, now: float
    ) -> list[tuple[JournalReader, Scan]]:
        """Return what is new in the journals, as much as there is room for."""
        if not self.journals_pending and now < self._next_import:
            return []
        # Before the journals are read, so that what is woken for meanwhile is read in another step.
        self.journals_pending = False
        self._next_import = now + self._interval
        # The database takes several times as much, and what comes of it must find room too.
        free = self._directory.free() - RESERVE
        self._disk_nearly_full = free < 4 * IMPORT_BYTES
        limit = min(self._import_bytes, (max(0, free) + ledger.storage.spare()) // 4)
        if self._disk_nearly_full:
            limit = min(limit, IMPORT_BYTES // 8)
        if limit < SMALLEST_IMPORT or self._log_is_full:
            return []
        chunks, more = journals.read(limit)
        if more:
            self.journals_pending = True
        number = sum(len(found.records) for _, found in chunks)
        room = 0 if self.senders is None else self.gate.room(0)
        self._interval = _interval(self._interval, number, room)
        return chunks

    def _room(self) -> tuple[int, int]:
        """Return how many events may be claimed, and how many of them that were tried in vain before."""
        if self.senders is None or self._log_is_full:
            return 0, 0
        room = self.gate.room(self.in_flight)
        if self.senders.alone:
            room = min(room, 1)
        if self._disk_nearly_full:
            room = min(room, max(0, SENT_ON_FULL_DISK - self.in_flight))
        return room, max(0, AGAIN - self.senders.busy_again)

    def send(self, claimed: list[Handed]) -> None:
        """Have the senders send what is in flight."""
        if self.senders is not None:
            self.senders.give(claimed)

    def tidy_up(self, ledger: Ledger) -> None:
        """Remove what is not needed any more."""
        if self._journals is not None and (gone := self._journals.remove_finished()):
            with ledger.transaction():
                ledger.forget_journals(gone)
        if self._directory.free() < SMALL_DISK:
            # Nothing that was imported may need more room of the disk later.
            ledger.storage.reserve()
        if self._disk_nearly_full:
            ledger.storage.give_back()
        if self._log_is_full and ledger.storage.empty_log():
            self._log_is_full = False
        if self.upkeep.may_shrink:
            self.upkeep.may_shrink = False
            ledger.storage.vacuum()

    def wake(self) -> None:
        """Look at the journals now, and commit outcomes at once for a while. From any thread, or a signal handler."""
        self.journals_pending = True
        self._prompt_until = clocks.monotonic() + PROMPT
        self.inbox.put(None)
        self._wake_ups.put(None)

    def wait(self, *, ending: bool) -> float:
        """Return for how long nothing is to be done, unless an outcome comes that is needed."""
        if self.journals_pending or (self.outcomes and (ending or self._needs_outcomes())):
            return 0.0
        if ending:
            return LINGER
        wait = max(0.0, self._next_import - clocks.monotonic())
        if self._due is not None and self.gate.room(self.in_flight) and not self._log_is_full:
            wait = min(wait, max(0.0, self._due - self._options.clock()))
        return wait

    def collect(self, wait: float) -> bool:
        """Wait for a wake-up, or for outcomes where they are needed before the next import; return whether one came."""
        came = False
        with contextlib.suppress(queue.Empty):
            if wait > LINGER and not self._needs_outcomes():
                # Senders wake nobody: what they put into the inbox shares the commit of the next import.
                self._wake_ups.get(timeout=wait)
            else:
                self._receive([self.inbox.get(timeout=wait) if wait else self.inbox.get_nowait()])
                if self.in_flight > SENDERS:  # The senders have enough to do.
                    time.sleep(LINGER)
            came = True
        self.receive_all()
        return came

    def _needs_outcomes(self) -> bool:
        """Return whether outcomes are waited for: by events that have no room, or by whoever has woken this."""
        return (
            (self._due is not None and self._due <= self._options.clock())
            or self._retries_wait
            or clocks.monotonic() < self._prompt_until
        )

    def receive_all(self) -> None:
        """Receive what the senders have put into the inbox."""
        # Nobody else takes anything out of them.
        while not self._wake_ups.empty():
            self._wake_ups.get_nowait()
        came: list[Done | None] = []
        while not self.inbox.empty():
            came.append(self.inbox.get_nowait())
        self._receive(came)

    def _receive(self, came: list[Done | None]) -> None:
        done = [each for each in came if each is not None]
        if done and self.senders is not None:
            self.outcomes += done
            self.senders.taken_back(*(event for event, _ in done))

    def has_more(self, remaining: float) -> bool:
        """Return whether so many seconds are of use at the end: something may be delivered still."""
        if self.journals_pending or self.in_flight or self.outcomes:
            return True
        if self.senders is None or self.gate.paused or self.gate.delay() >= remaining:
            return False
        return self._due is not None and self._due - self._options.clock() < remaining


def _interval(last: float, number: int, room: int) -> float:
    """
    Return after how many seconds journals are to be looked at again, so that what comes has room to be sent at once.

    What has none is pending until it has, which is one more change of its row, and it is read again.

    Args:
        last: for how long records have come.
        number: how many were found.
        room: how many events may be in flight.
    """
    wanted = last * 0.75 * room / number if room and number else IMPORT_INTERVAL
    return min(max(wanted, SHORTEST_INTERVAL), IMPORT_INTERVAL)
