"""
Which spans are one and the same call, so that one charge is one event.

A call may be seen by several instrumentations: ours at the SDK's seam, others around the SDK, frameworks around those.

- While our instrumentor is active it is the authority for what passes its seam (`own_calls`). A span of another is such
  a call where both have the same response id at the same time or, where one of them has no id, where the call began
  within the span's time and used as much. `docs/metering.md` has the rules in order.
- Among the spans of others the first to end is the charge (`Calls.claim`): the innermost, but for some streams. Another
  instrumentation's span is the same call
  - where it is above it in the trace (`_contains`),
  - where it is right below it (`_is_inside`),
  - where it has the same response id at the same time (`_has_same_response`),
  - where both instrument one SDK and stand side by side, one within the other's time (`_is_beside`).
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan

from cmdrdata_exporter import processes

CAPACITY = 10_000
"""Calls, spans and response ids that are remembered. A call is seen by all its instrumentations within moments."""

_OPENAI_SDK = re.compile(r"(?:.*\.)?openai(?:_v2|\.v1)?")
"""Scopes that instrument the openai SDK: `opentelemetry.instrumentation.openai.v1`, not `….openai_agents`."""

_SPELLINGS = {
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "az.ai.openai": "azure.ai.openai",
    "aws": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "mistralai": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""What instrumentations call a provider, and what the conventions call it."""

_OWN_SDK = {
    "aws.bedrock": ("bedrock", "botocore"),
    "gcp.gemini": ("google_genai", "google_generativeai", "genai"),
    "gcp.vertex_ai": ("vertexai", "vertex_ai"),
    "mistral_ai": ("mistralai", "mistral_ai"),
    "x_ai": ("xai", "x_ai", "xai_sdk"),
}
"""The SDK of a provider's own, as the scopes of instrumentations name it, where that is not the provider's name."""


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
        """Say whether `report` is of this call, which had not ended before it began, as far as both tell."""
        if None not in (self.response_id, report.response_id):
            return self.response_id == report.response_id and self.start <= report.end
        return (
            report.start <= self.start <= report.end
            and (self.endpoint == report.endpoint or {self.endpoint, report.endpoint} <= _TEXT)
            # Of a stream that told no usage others may tell an estimate.
            and (
                (self.input_tokens is None and self.output_tokens is None)
                or (self.input_tokens or 0, self.output_tokens or 0) == report.tokens
            )
        )


_Key = tuple[int, int]
"""The ids of a trace and of a span in it."""


@dataclass(eq=False)
class Report:
    """What the span of another instrumentation tells of a call."""

    scope: str
    provider: str
    endpoint: str
    response_id: str | None
    tokens: tuple[int, int]
    """Those of the input and of the output."""
    span: _Key
    parent: _Key | None
    start: int
    end: int

    @classmethod
    def of(
        cls,
        span: ReadableSpan,
        *,
        provider: str,
        endpoint: str,
        response_id: object,
        tokens: tuple[int, int],
    ) -> Report:
        """Return what a span tells, of which the exporter has read the rest."""
        context, parent, scope = span.get_span_context(), span.parent, span.instrumentation_scope
        return cls(
            scope=scope.name if scope else "",
            provider=_SPELLINGS.get(provider, provider),
            endpoint=endpoint,
            response_id=response_id if isinstance(response_id, str) else None,
            tokens=tokens,
            span=(context.trace_id, context.span_id) if context else (0, 0),
            parent=(parent.trace_id, parent.span_id) if parent else None,
            start=span.start_time or 0,
            end=span.end_time or 0,
        )

    @property
    def kind(self) -> tuple[_Key | None, str]:
        """What it has in common with every span beside it that is the same call."""
        return self.parent, self.provider

    def contains(self, other: Report) -> bool:
        """Say whether `other` is within the time of this."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Report) -> bool:
        """Say whether both have a time in common."""
        return self.start <= other.end and other.start <= self.end


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
        self._by_response: dict[str, deque[Metered]] = {}
        self._claims: OrderedDict[tuple[int, int, str], _Key] = OrderedDict()
        """The span of each scope that reports a call: at most one of each."""

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
            report.provider == "openai" or not _instruments_own_sdk(report.scope, report.provider)
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
            if call.response_id is not None:
                self._by_response.setdefault(call.response_id, deque()).append(call)
        while len(self._calls) > CAPACITY:
            response_id = self._calls.popleft().response_id
            if response_id is not None:
                same = self._by_response[response_id]
                same.popleft()
                if not same:
                    del self._by_response[response_id]

    def _claim(self, report: Report) -> bool:
        """
        Find the call that a span reports, and have it reported by no other span of its scope.

        Some servers use one response id again and again, and calls at one time may use the same number of tokens.
        Since each span takes one call, there are as many events as calls even where the wrong two are paired.
        """
        open_calls = tuple(self.open_calls())
        with_its_id = self._by_response.get(report.response_id or "", deque())
        for ended in (with_its_id, self._calls):
            calls = [
                call
                for call in chain(_since(ended, report.start), open_calls)
                if call.may_be(report) and self._is_free(call, report)
            ]
            if calls:
                # Of several the one that began first: so each of their spans finds one.
                call = min(calls, key=_start)
                self._claims[call.start, call.span_id, report.scope] = report.span
                _bound(self._claims, CAPACITY)
                return True
        return False

    def _is_free(self, call: Metered, report: Report) -> bool:
        """Say whether no other span of the scope reports the call. One span may come twice, through two exporters."""
        span = self._claims.get((call.start, call.span_id, report.scope), report.span)
        return span == report.span


def _since(calls: deque[Metered], moment: int) -> Iterator[Metered]:
    """Return the calls that ended at a moment or later, the last one first."""
    # A copy, since a finalizer may add a call meanwhile.
    for call in reversed(tuple(calls)):
        if call.end is not None and call.end < moment:
            return
        yield call


def _start(call: Metered) -> int:
    return call.start


own_calls = OwnCalls()
"""What passed the seam of this process."""


def _instruments_own_sdk(scope: str, provider: str) -> bool:
    """Say whether a scope names the SDK of a provider's own: an instrumentation of it, or the SDK itself."""
    return not set(scope.split(".")).isdisjoint(_OWN_SDK.get(provider, (provider,)))


_Entry = tuple[int, int, Report]
"""The start of a span that was billed, its number below zero, and what it tells: of one start the last one is first."""


class _Beside:
    """
    Spans that were billed and have a parent and a provider in common, for those that come beside them.

    Each scope that asks has lists of its own, by start, of what is free for it: at most one of its spans is the same
    call as one of these. Of what has an id only those without one may be.
    """

    def __init__(self) -> None:
        self.reports: dict[int, Report] = {}
        """By their numbers."""
        self._free: dict[tuple[str, bool], list[_Entry]] = {}
        """By the scope that asks, and whether they have a response id."""

    def add(self, number: int, report: Report) -> None:
        """Add one that was billed."""
        self.reports[number] = report
        for (scope, has_id), free in self._free.items():
            if _may_be_free(report, scope, has_id=has_id):
                insort(free, (report.start, -number, report))

    def remove(self, number: int, report: Report) -> None:
        """Forget it."""
        del self.reports[number]
        for free in self._free.values():
            _remove(free, (report.start, -number, report))

    def claim(self, call: Report) -> bool:
        """Say whether one of them is the same call, which no other span of the scope is by that."""
        found: list[tuple[_Entry, list[_Entry]]] = []
        for has_id in (False,) if call.response_id is not None else (False, True):
            free = self._free_for(call.scope, has_id=has_id)
            position = bisect_left(free, call.start, key=_start_of)
            # What starts after its end is not within its time. By position, since a finalizer may add one meanwhile.
            while position < len(free) and free[position][0] <= call.end:
                if call.contains(free[position][2]):
                    found.append((free[position], free))
                    break
                position += 1
        if not found:
            return False
        # Of calls at the same time, the one that began next: so each of them finds one.
        entry, free = min(found, key=_first)
        _remove(free, entry)
        return True

    def _free_for(self, scope: str, *, has_id: bool) -> list[_Entry]:
        free = self._free.get((scope, has_id))
        if free is None:
            free = self._free[scope, has_id] = sorted(
                (report.start, -number, report)
                for number, report in tuple(self.reports.items())
                if _may_be_free(report, scope, has_id=has_id)
            )
        return free


def _may_be_free(report: Report, scope: str, *, has_id: bool) -> bool:
    return report.scope != scope and (report.response_id is not None) is has_id


def _start_of(entry: _Entry) -> int:
    return entry[0]


def _first(found: tuple[_Entry, object]) -> tuple[int, int]:
    return found[0][:2]


def _remove(free: list[_Entry], entry: _Entry) -> None:
    position = bisect_left(free, entry[:2], key=_place)
    if position < len(free) and free[position][2] is entry[2]:
        del free[position]


def _place(entry: _Entry) -> tuple[int, int]:
    return entry[:2]


class Calls(processes.ForkAware):
    """The calls that were billed lately from the spans of others, by one exporter. Safe to use from several threads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Start anew in a forked child, where the lock may be held by a thread that is not there."""
        # A finalizer or a signal handler may end a call in the middle of another's.
        self._lock = threading.RLock()
        self._covered: OrderedDict[_Key, Report | None] = OrderedDict()
        """Spans whose call is billed, with what they told where they are calls themselves."""
        self._responses: OrderedDict[tuple[int, str], Report] = OrderedDict()
        """The span that told a response first, by trace and response id, and with 0 by response id alone."""
        self._billed: deque[tuple[int, Report]] = deque()
        """The spans that were billed and may have others beside them, in the order in which they were, numbered."""
        self._number = 0
        self._beside: dict[tuple[_Key | None, str], _Beside] = {}
        """The same, by what they have in common with a span beside them."""

    def cover(self, span: ReadableSpan) -> None:
        """Note a span whose call is billed: what contains it is the same call."""
        with self._lock:
            self._cover(span, None)

    def propagate(self, span: ReadableSpan) -> None:
        """Note a span that is no model call: if a call inside it was billed, what contains it is covered too."""
        with self._lock:
            if self._contains(span):
                self._cover(span, None)

    def claim(self, span: ReadableSpan, report: Report) -> bool:
        """Claim the call of a span for billing. Return False if another span has claimed it before."""
        if span.get_span_context() is None:
            return True
        with self._lock:
            # In any case, since what a span tells that is passed over may be what relates the next one.
            same_response = self._has_same_response(report)
            billed = (
                self._contains(span)
                or self._is_inside(report)
                or same_response
                or self._is_beside(report)
            )
            self._cover(span, report)
            if not billed and _instruments_own_sdk(report.scope, report.provider):
                self._bill(report)
            return not billed

    def _bill(self, call: Report) -> None:
        self._number += 1
        self._billed.append((self._number, call))
        self._beside.setdefault(call.kind, _Beside()).add(self._number, call)
        while len(self._billed) > self._capacity:
            number, oldest = self._billed.popleft()
            beside = self._beside[oldest.kind]
            beside.remove(number, oldest)
            if not beside.reports:
                del self._beside[oldest.kind]

    def _contains(self, span: ReadableSpan) -> bool:
        """Say whether a span contains, or is, a call that was billed."""
        context = span.get_span_context()
        return context is not None and (context.trace_id, context.span_id) in self._covered

    def _is_inside(self, call: Report) -> bool:
        """Say whether the parent, which may end first where a stream is read, was another instrumentation's call."""
        outer = self._covered.get(call.parent) if call.parent else None
        return outer is not None and outer.scope != call.scope and outer.overlaps(call)

    def _has_same_response(self, call: Report) -> bool:
        """Say whether another instrumentation told the response. Some servers reuse ids: elsewhere, time decides."""
        if call.response_id is None:
            return False
        here, anywhere = (call.span[0], call.response_id), (0, call.response_id)
        for key, at_that_time in ((here, call.overlaps), (anywhere, call.contains)):
            first = self._responses.get(key)
            if first is not None and first.scope != call.scope and at_that_time(first):
                return True
        self._responses[here] = self._responses[anywhere] = call
        _bound(self._responses, 2 * self._capacity)
        return False

    def _is_beside(self, call: Report) -> bool:
        """
        Say whether another instrumentation of the same SDK billed the call, without that one being inside the other.

        An instrumentation that does not make its span the current one is around the others in time only.
        """
        beside = self._beside.get(call.kind)
        return (
            beside is not None
            and _instruments_own_sdk(call.scope, call.provider)
            and beside.claim(call)
        )

    def _cover(self, span: ReadableSpan, call: Report | None) -> None:
        context, parent = span.get_span_context(), span.parent
        if context is not None:
            self._covered[context.trace_id, context.span_id] = call
        if parent is not None:
            self._covered.setdefault((parent.trace_id, parent.span_id), None)
        _bound(self._covered, self._capacity)


def _bound(remembered: OrderedDict[Any, Any], capacity: int) -> None:
    """Forget the oldest."""
    while len(remembered) > capacity:
        remembered.popitem(last=False)
