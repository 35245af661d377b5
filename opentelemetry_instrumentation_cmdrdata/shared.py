"""
What others may see, too: parts of WebSocket sessions, such as a response or a Live session.

Several connections may show the same one: of one process or of two, at the same time or one after the other, since a
session can be observed and joined. Who shows it has one call and one event, whose id is made of the host and the
provider's id.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cmdrdata_exporter import faults, processes

if TYPE_CHECKING:
    from opentelemetry_instrumentation_cmdrdata.call import Call

CAPACITY = 10_000
"""Parts that are known to have been billed here."""
REMEMBERED = 7 * 24 * 3600
"""Seconds in which the event of a part is known by its id. Its observers see it at the same time, or within hours."""


class Identity(NamedTuple):
    """What a part is known by, in every process."""

    host: str
    endpoint: str
    part_id: str

    @property
    def event_id(self) -> str:
        """The id of its event."""
        return hashlib.sha256("\0".join(self).encode("utf-8", "replace")).hexdigest()[:32]


class Parts(processes.ForkAware):
    """The parts that are open, and those that were billed here lately. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: weakref.WeakValueDictionary[Identity, Call] = weakref.WeakValueDictionary()
        self._watching: weakref.WeakKeyDictionary[Call, int] = weakref.WeakKeyDictionary()
        """How many connections show each that is open."""
        self._billed: OrderedDict[Identity, tuple[object, bool]] = OrderedDict()
        """By whom, and whether it was billed whole."""

    def join(self, identity: Identity, begin: Callable[[], Call]) -> Call:
        """
        Return the call of a part: the one that another connection shows already, else one that `begin` makes.

        In one step, since the provider tells all who watch at the same time.
        """
        with self._lock:
            call = self._open.get(identity)
            if call is None or call.has_ended:
                call = self._open[identity] = begin()
                self._watching[call] = 0
            self._watching[call] = self._watching.get(call, 0) + 1
            return call

    def leave(self, identity: Identity, call: Call, *, is_whole: bool) -> bool:
        """Say whether a part goes on, since another connection shows it that one leaves before its end."""
        with self._lock:
            if self._open.get(identity) is not call:
                return False
            self._watching[call] = left = self._watching.get(call, 1) - 1
            if left > 0 and not is_whole:
                return True
            del self._open[identity]
            return False

    def claim(self, identity: Identity, by: object, *, is_whole: bool) -> bool:
        """Claim a part for billing; the same claimant may claim it again, after a signal handler has interrupted it."""
        with self._lock:
            owner, was_whole = self._billed.setdefault(identity, (by, is_whole))
            while len(self._billed) > CAPACITY:
                self._billed.popitem(last=False)
        if owner is by:
            return True
        if not was_whole:
            faults.report(
                "billed before its end",
                "a session or response of %s was billed when its connection broke, and went on; "
                "what it has used since is not billed",
                identity.host,
            )
        return False

    def after_fork_child(self) -> None:
        """Leave what is open to the parent; another thread may have held the lock."""
        self._lock = threading.RLock()
        self._open.clear()


parts = Parts()
"""Those of this process."""

processes.notify_of_forks(parts)
