"""
Among the spans of other instrumentations, which are one and the same call: the first to end is the charge.

That is the innermost, but for some streams (`Calls.claim`). Another instrumentation's span is the same call
- where it is above it in the trace (`_contains`),
- where it is right below it (`_is_inside`),
- where it has the same response id at the same time (`_has_same_response`),
- where both instrument one SDK and stand side by side, one within the other's time (`_is_beside`).
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from cmdrdata_exporter import processes

CAPACITY = 10_000
"""Calls, spans and response ids that are remembered. A call is seen by all its instrumentations within moments."""

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

Key = tuple[int, int]
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
    span: Key
    parent: Key | None
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
    def kind(self) -> tuple[Key | None, str]:
        """What it has in common with every span beside it that is the same call."""
        return self.parent, self.provider

    def contains(self, other: Report) -> bool:
        """Say whether `other` is within the time of this."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Report) -> bool:
        """Say whether both have a time in common."""
        return self.start <= other.end and other.start <= self.end


def instruments_own_sdk(scope: str, provider: str) -> bool:
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
        self._covered: OrderedDict[Key, Report | None] = OrderedDict()
        """Spans whose call is billed, with what they told where they are calls themselves."""
        self._responses: OrderedDict[tuple[int, str], Report] = OrderedDict()
        """The span that told a response first, by trace and response id, and with 0 by response id alone."""
        self._billed: deque[tuple[int, Report]] = deque()
        """The spans that were billed and may have others beside them, in the order in which they were, numbered."""
        self._number = 0
        self._beside: dict[tuple[Key | None, str], _Beside] = {}
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
            if not billed and instruments_own_sdk(report.scope, report.provider):
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
        bound(self._responses, 2 * self._capacity)
        return False

    def _is_beside(self, call: Report) -> bool:
        """
        Say whether another instrumentation of the same SDK billed the call, without that one being inside the other.

        An instrumentation that does not make its span the current one is around the others in time only.
        """
        beside = self._beside.get(call.kind)
        return (
            beside is not None
            and instruments_own_sdk(call.scope, call.provider)
            and beside.claim(call)
        )

    def _cover(self, span: ReadableSpan, call: Report | None) -> None:
        context, parent = span.get_span_context(), span.parent
        if context is not None:
            self._covered[context.trace_id, context.span_id] = call
        if parent is not None:
            self._covered.setdefault((parent.trace_id, parent.span_id), None)
        bound(self._covered, self._capacity)


def bound(remembered: OrderedDict[Any, Any], capacity: int) -> None:
    """Forget the oldest."""
    while len(remembered) > capacity:
        remembered.popitem(last=False)
