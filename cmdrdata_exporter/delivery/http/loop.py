"""
One thread that makes many attempts at once, for all destinations of a process.

It waits for all connections together, and does a little whenever one of them is ready. What blocks when a connection
is opened, names, proxies and TLS, is done in another thread meanwhile.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from urllib3.exceptions import ConnectTimeoutError

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.attempts import Attempt, Put, Source
from cmdrdata_exporter.delivery.http.answers import classify_failure
from cmdrdata_exporter.delivery.http.connections import Connection
from cmdrdata_exporter.descriptors import OpenFile

MOST = 128
"""How many attempts are under way at once."""
LONGEST_WAIT = 1.0
"""Seconds after which the thread looks around where nothing happens, and ends where there is nothing to do."""
LINGER = 0.005
"""Seconds in which further answers are waited for where nothing waits to be sent, so that they share a wake-up."""
AFTER_FAILURE = 0.1
"""Seconds of rest after a failure of its own, which may come again: no descriptor is left, for one."""


@dataclass(slots=True)
class _Exchange:
    """What an attempt has under way."""

    request: bytes = b""
    connection: Connection | None = None


class Loop(processes.ForkAware):
    """Attempts that are under way. `serve` may be called from any thread."""

    def __init__(self) -> None:
        self._bell: _Bell | None = None
        """The thread's, while there is one."""
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Begin anew in a forked child: the attempts are its parent's."""
        self._lock = threading.Lock()
        self._runs = False
        self._hang_up()
        self._waits = False
        """Whether the thread may be waiting."""
        self._inbox: deque[Source | tuple[Attempt, Connection | Outcome]] = deque()
        self._sources: dict[Source, None] = {}
        """Those that may have an attempt to make."""
        self._finished: dict[Source, None] = {}
        """Those that have outcomes to pass on."""
        self._active: dict[Attempt, _Exchange] = {}
        self._by_descriptor: dict[int, Attempt] = {}
        self._soonest = 0.0
        """No deadline comes before this one."""

    def serve(self, source: Source, put: Put) -> bool:
        """Ask a source for attempts until it has none; say whether there is a thread that does."""
        with self._lock:
            if not self._runs:
                if not put(lambda: self._run(put)):
                    return False
                self._runs = True
            self._tell(source)
            return True

    def end(self, client: Any) -> None:
        """See `attempts.Loop`: its connections are no threads, and may stay."""

    def _tell(self, item: Source | tuple[Attempt, Connection | Outcome]) -> None:
        """Give the thread something to do. Called under the lock."""
        self._inbox.append(item)
        if self._waits and self._bell is not None:
            self._waits = False
            self._bell.ring()

    # The thread

    def _run(self, put: Put) -> None:
        # Not epoll: its descriptor may be closed and become another one's, as any other.
        poll = select.poll()
        is_busy = True
        while self._goes_on(is_busy):
            try:
                if self._bell is None or not self._bell.is_intact():
                    with self._lock:
                        self._hang_up()
                        self._bell = _Bell(poll)
                is_busy = self._wait(poll, self._bell)
                self._turn(poll, put)
            except BaseException:  # noqa: BLE001, PERF203 - a thread that ends would take its events with it
                faults.report("sender", "usage events were interrupted", exc_info=True)
                is_busy = True
                self._interrupt()
                time.sleep(AFTER_FAILURE)

    def _hang_up(self) -> None:
        """Let go of the bell. Called under the lock."""
        if self._bell is not None:
            self._bell.close()
        self._bell = None

    def _wait(self, poll: Any, bell: _Bell) -> bool:
        """Wait until there is something to do, and say whether there is."""
        with self._lock:
            seconds = 0.0 if self._inbox else LONGEST_WAIT
            if self._active:
                seconds = max(0.0, min(seconds, self._soonest - clocks.monotonic()))
            self._waits = seconds > 0
        ready = poll.poll(seconds * 1000)
        self._waits = False
        if self._may_linger({descriptor for descriptor, _ in ready}, bell):
            time.sleep(LINGER)
            ready = poll.poll(0)
        now = clocks.monotonic()
        for descriptor, _ in ready:
            if descriptor == bell.descriptor:
                bell.silence()
            elif descriptor in self._by_descriptor:
                self._advance(poll, self._by_descriptor[descriptor], now)
            else:
                poll.unregister(descriptor)
        return bool(ready)

    def _may_linger(self, ready: set[int], bell: _Bell) -> bool:
        """Say whether some have answered, others are about to, and nobody waits for that."""
        return (
            0 < len(ready) < len(self._active)
            and bell.descriptor not in ready
            and not any(attempt.source.has_waiting for attempt in self._active)
        )

    def _goes_on(self, is_busy: bool) -> bool:
        if is_busy or self._active:
            return True
        with self._lock:
            self._runs = bool(self._inbox)
            if not self._runs:
                # Before another thread has its own.
                self._hang_up()
            return self._runs

    def _turn(self, poll: Any, put: Put) -> None:
        while self._inbox:
            item = self._inbox.popleft()
            if not isinstance(item, tuple):
                self._sources[item] = None
            elif item[0] in self._active:
                self._connected(poll, *item)
            elif isinstance(item[1], Connection):
                item[0].client.keep(item[1])
        if (now := clocks.monotonic()) >= self._soonest:
            self._give_up(poll, now)
        while self._sources and len(self._active) < MOST:
            # Each in turn.
            for source in list(self._sources):
                attempt = source.next_attempt()
                if attempt is None:
                    del self._sources[source]
                else:
                    self._begin(poll, put, attempt)
        for source in self._finished:
            source.hand_over()
        self._finished.clear()

    def _begin(self, poll: Any, put: Put, attempt: Attempt) -> None:
        client, event = attempt.client, attempt.event
        exchange = self._active[attempt] = _Exchange()
        self._soonest = min(self._soonest, attempt.deadline)
        request = client.request(event.id, event.body)
        if isinstance(request, Outcome):
            self._finish(attempt, request)
            return
        exchange.request = request
        if (connection := client.take()) is not None:
            self._connected(poll, attempt, connection)
            return

        def connect() -> None:
            found = client.connect(max(0.0, attempt.deadline - clocks.monotonic()))
            with self._lock:
                self._tell((attempt, found))

        if not put(connect):
            # At the end of the interpreter, which starts no thread any more.
            connect()

    def _connected(self, poll: Any, attempt: Attempt, found: Connection | Outcome) -> None:
        if isinstance(found, Outcome):
            self._finish(attempt, found)
            return
        exchange = self._active[attempt]
        exchange.connection = found
        self._by_descriptor[found.descriptor] = attempt
        found.begin(exchange.request, attempt.deadline)
        poll.register(found.descriptor, select.POLLIN | (select.POLLOUT if found.unsent else 0))

    def _advance(self, poll: Any, attempt: Attempt, now: float) -> None:
        connection = self._active[attempt].connection
        if connection is None:
            timeout = ConnectTimeoutError("no connection in time")
            self._finish(attempt, classify_failure(timeout, sent=False))
            return
        had_more = connection.unsent
        found = connection.advance(now)
        if found is not None:
            if self._by_descriptor.get(connection.descriptor) is attempt:
                del self._by_descriptor[connection.descriptor]
                poll.unregister(connection.descriptor)
            event = attempt.event
            self._finish(attempt, attempt.client.outcome(connection, found, event.id, event.body))
            return
        self._soonest = min(self._soonest, connection.deadline)
        if had_more and not connection.unsent:
            poll.register(connection.descriptor, select.POLLIN)

    def _give_up(self, poll: Any, now: float) -> None:
        """End the attempts whose time is over."""
        self._soonest = now + LONGEST_WAIT
        for attempt, exchange in list(self._active.items()):
            connection = exchange.connection
            deadline = attempt.deadline if connection is None else connection.deadline
            if now >= deadline:
                self._advance(poll, attempt, now)
            else:
                self._soonest = min(self._soonest, deadline)

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        del self._active[attempt]
        source = attempt.source
        source.finish(attempt, attempt.client.noted(outcome, attempt.began))
        self._sources[source] = self._finished[source] = None

    def _interrupt(self) -> None:
        """End all attempts."""
        self._by_descriptor.clear()
        for attempt, exchange in list(self._active.items()):
            if exchange.connection is not None:
                exchange.connection.close()
            sent = exchange.connection is not None
            self._finish(attempt, Outcome(Verdict.RETRY, "interrupted", ambiguous=sent))


class _Bell:
    """Wakes the thread that waits. Its descriptors, too, may be closed and become another one's."""

    def __init__(self, poll: Any) -> None:
        self._files = [OpenFile(descriptor) for descriptor in os.pipe()]
        self.descriptor, self._end = (file.descriptor for file in self._files)
        poll.register(self.descriptor, select.POLLIN)

    def is_intact(self) -> bool:
        """Say whether its descriptors are its own."""
        return all(file.is_ours for file in self._files)

    def ring(self) -> None:
        """Wake the thread. So does the end of a pipe, in whose place there may be something else by now."""
        if self.is_intact():
            os.write(self._end, b"!")
        else:
            self.close()

    def silence(self) -> None:
        """Be ready for another time."""
        if self.is_intact():
            os.read(self.descriptor, 64)

    def close(self) -> None:
        """Let go of it."""
        for file in self._files:
            file.close()
