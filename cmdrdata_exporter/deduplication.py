"""
Which spans of others are calls that our instrumentor has seen, so that one charge is one event.

A call may be seen by several instrumentations: ours at the SDK's seam, others around the SDK, frameworks around those.

- While our instrumentor is active it is the authority for what passes its seam (`own_calls`). A span of another is such
  a call where both have the same response id at the same time or, where one of them has no id, where the call began
  within the span's time and used as much. `docs/metering.md` has the rules in order.
- Which spans of others are one call: `reports`.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from cmdrdata_exporter import processes
from cmdrdata_exporter.reports import CAPACITY, Key, Report, bound, instruments_own_sdk

_OPENAI_SDK = re.compile(r"(?:.*\.)?openai(?:_v2|\.v1)?")
"""Scopes that instrument the openai SDK: `opentelemetry.instrumentation.openai.v1`, not `….openai_agents`."""

_TEXT = frozenset(
    {"chat.completions", "completions", "generate_content", "responses", "responses.compact"}
)
"""Endpoints that are not told apart by all who report a call."""


class Metered(NamedTuple):
    """What the seam tells of a call that passed it."""

    provider: str
    endpoint: str
    response_id: str | None
    input_tokens: int | None
    output_tokens: int | None
    span_id: int
    start: int
    end: int | None
    """None while it has not ended."""

    def may_be(self, report: Report) -> bool:
        """Say whether `report` is of this call, as far as both tell."""
        if self.end is not None and self.end < report.start:
            return False
        if None not in (self.response_id, report.response_id):
            return self.response_id == report.response_id and self.start <= report.end
        return (
            report.start <= self.start <= report.end
            and _kind(self.endpoint) == _kind(report.endpoint)
            # Of a stream that told no usage others may tell an estimate.
            and (
                (self.input_tokens is None and self.output_tokens is None)
                or (self.input_tokens or 0, self.output_tokens or 0) == report.tokens
            )
        )


def _none_open() -> Iterable[Metered]:
    return ()


class OwnCalls(processes.ForkAware):
    """
    What our instrumentor tells of itself.

    A call that ends costs one `append`. What it tells is looked through only when another instrumentation's span comes.
    """

    def __init__(self) -> None:
        self.active = False
        self.open_calls: Callable[[], Iterable[Metered]] = _none_open
        """Returns the calls that outlive the SDK's method: a framework's span may end before its stream does."""
        self._ended: deque[Metered] = deque(maxlen=CAPACITY)
        self._providers: set[str] = set()
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Start anew in a forked child, where the lock may be held by a thread that is not there."""
        # A finalizer or a signal handler may export a span in the middle of another's export.
        self._lock = threading.RLock()
        self._calls: deque[Metered] = deque()
        """The calls that ended, in that order."""
        self._claims: OrderedDict[tuple[int, int, str], None] = OrderedDict()
        """The calls that a span of a scope reports, and the scope: at most one of each."""
        self._passed: OrderedDict[tuple[Key, str, int], None] = OrderedDict()
        """These spans, with their scope and start."""
        self._free: dict[str, _Free] = {}
        """By scope, of those that have asked."""

    def metered(self, call: Metered) -> None:
        """Note that a call passed the seam and has ended."""
        self._ended.append(call)

    def covers(self, report: Report) -> bool:
        """Say whether a span reports what has passed the seam."""
        if self.active and _OPENAI_SDK.fullmatch(report.scope):
            return True
        with self._lock:
            self._sort_in()
            if self._claim(report):
                return True
        if not self.active or report.response_id is not None:
            return False
        # Its call is not found, and it has no id that would show it to be another one: better too few than two.
        return report.provider in self._providers and (
            report.provider == "openai" or not instruments_own_sdk(report.scope, report.provider)
        )

    def _sort_in(self) -> None:
        """Take what has been noted since the last time."""
        while True:
            try:
                call = self._ended.popleft()
            except IndexError:
                break
            # Frameworks call whatever speaks the protocol by the protocol's name.
            self._providers.update((call.provider, "openai"))
            self._calls.append(call)
            for scope, free in tuple(self._free.items()):
                if (call.start, call.span_id, scope) not in self._claims:
                    free.add(call)
        while len(self._calls) > CAPACITY:
            oldest = self._calls.popleft()
            for free in tuple(self._free.values()):
                free.remove(oldest)

    def _claim(self, report: Report) -> bool:
        """
        Find the call that a span reports, and have it reported by no other span of its scope.

        Some servers use one response id again and again, and calls at one time may use the same number of tokens.
        Since each span takes one call, there are as many events as calls even where the wrong two are paired.
        """
        # One span may come twice, through two exporters: its call is still its own.
        span = (report.span, report.scope, report.start)
        if span in self._passed:
            return True
        free = self._free.get(report.scope)
        if free is None:
            free = self._free[report.scope] = _Free()
            for call in tuple(self._calls):
                free.add(call)
        open_calls = [
            call
            for call in self.open_calls()
            if (call.start, call.span_id, report.scope) not in self._claims
        ]
        for found in (free.with_its_id(report), free.at_its_time(report)):
            calls = [call for call in chain(found, open_calls) if call.may_be(report)]
            if calls:
                # Of several the one that began first: so each of their spans finds one.
                call = min(calls, key=_start)
                free.remove(call)
                self._claims[call.start, call.span_id, report.scope] = None
                self._passed[span] = None
                bound(self._claims, CAPACITY)
                bound(self._passed, CAPACITY)
                return True
        return False


class _Free:
    """The calls that no span of one scope reports yet, by what a span tells of its call; each list by start."""

    def __init__(self) -> None:
        self._by_id: dict[str, list[Metered]] = {}
        self._by_usage: dict[tuple[object, ...], list[Metered]] = {}

    def _lists(self, call: Metered) -> Iterator[tuple[dict[Any, list[Metered]], object]]:
        if call.response_id is not None:
            yield self._by_id, call.response_id
        told = call.input_tokens is not None or call.output_tokens is not None
        tokens = (call.input_tokens or 0, call.output_tokens or 0) if told else None
        yield self._by_usage, (call.response_id is not None, _kind(call.endpoint), tokens)

    def add(self, call: Metered) -> None:
        """Add a call that has ended."""
        for lists, key in self._lists(call):
            insort(lists.setdefault(key, []), call, key=_place)

    def remove(self, call: Metered) -> None:
        """Remove one, if it is here."""
        for lists, key in self._lists(call):
            calls = lists.get(key, [])
            position = bisect_left(calls, _place(call), key=_place)
            if position < len(calls) and _place(calls[position]) == _place(call):
                del calls[position]
                if not calls:
                    del lists[key]

    def with_its_id(self, report: Report) -> Iterator[Metered]:
        """Return the first that has the response id of a span and may be its call."""
        for call in tuple(self._by_id.get(report.response_id or "", ())):
            if call.may_be(report):
                yield call
                return

    def at_its_time(self, report: Report) -> Iterator[Metered]:
        """Return the first of each kind that began since the span did. With two ids, the ids would decide."""
        for has_id in (False,) if report.response_id is not None else (False, True):
            for tokens in (report.tokens, None):
                calls = self._by_usage.get((has_id, _kind(report.endpoint), tokens), [])
                position = bisect_left(calls, report.start, key=_start)
                # By position, since a finalizer may change the list meanwhile.
                yield from calls[position : position + 1]


def _kind(endpoint: str) -> str:
    """Return the endpoint as all who report a call tell it."""
    return "text" if endpoint in _TEXT else endpoint


def _start(call: Metered) -> int:
    return call.start


def _place(call: Metered) -> tuple[int, int]:
    return call.start, call.span_id


own_calls = OwnCalls()
"""What passed the seam of this process."""
