"""
Which spans are one and the same call, so that one charge is one event.

A call may be seen by several instrumentations: ours at the SDK's seam, others around the SDK, frameworks around those.

- While our instrumentor is active it is the authority for what passes its seam (`own_calls`). A span of another is such
  a call where both have the same response id at the same time or, where one of them has no id, where the call began
  within the span's time and used as much. `docs/metering.md` has the rules in order.
- Among the spans of others the first to end is the charge: the innermost, but for some streams. Another
  instrumentation's span is the same call where it is above it in the trace or right below it, where it has the same
  response id at the same time, or where both instrument one SDK and stand side by side, one within the other's time.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
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
    beside: set[str] = field(default_factory=set[str])
    """The scopes whose span beside this one is the same call: at most one of each."""

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
        self._billed: deque[Report] = deque(maxlen=self._capacity)
        """The spans that were billed, in the order of their ends."""

    def cover(self, span: ReadableSpan) -> None:
        """Note a span whose call is billed: what contains it is the same call."""
        with self._lock:
            self._cover(span, None)

    def pass_up(self, span: ReadableSpan) -> None:
        """Note a span that is no call: what contains it contains whatever calls are inside it."""
        with self._lock:
            if self._contains(span):
                self._cover(span, None)

    def is_billed(self, span: ReadableSpan, report: Report) -> bool:
        """Say whether the call of a span is billed already; if not, it is from now on."""
        if span.get_span_context() is None:
            return False
        with self._lock:
            # In any case, since what a span tells that is passed over may be what relates the next one.
            same_response = self._is_told(report)
            billed = (
                self._contains(span)
                or self._is_inside(report)
                or same_response
                or self._is_beside(report)
            )
            self._cover(span, report)
            if not billed:
                self._billed.append(report)
            return billed

    def _contains(self, span: ReadableSpan) -> bool:
        """Say whether a span contains, or is, a call that was billed."""
        context = span.get_span_context()
        return context is not None and (context.trace_id, context.span_id) in self._covered

    def _is_inside(self, call: Report) -> bool:
        """Say whether the parent, which may end first where a stream is read, was another instrumentation's call."""
        outer = self._covered.get(call.parent) if call.parent else None
        return outer is not None and outer.scope != call.scope and outer.overlaps(call)

    def _is_told(self, call: Report) -> bool:
        """Say whether another instrumentation told the response. Some servers reuse ids: elsewhere, time decides."""
        if call.response_id is None:
            return False
        here, anywhere = (call.span[0], call.response_id), (0, call.response_id)
        for key, at_that_time in ((here, call.overlaps), (anywhere, call.contains)):
            told = self._responses.get(key)
            if told is not None and told.scope != call.scope and at_that_time(told):
                return True
        self._responses[here] = self._responses[anywhere] = call
        _bound(self._responses, 2 * self._capacity)
        return False

    def _is_beside(self, call: Report) -> bool:
        """
        Say whether another instrumentation of the same SDK billed the call, without that one being inside the other.

        An instrumentation that does not make its span the current one is around the others in time only.
        """
        if not _instruments_own_sdk(call.scope, call.provider):
            return False
        nearest: Report | None = None
        # By position, since a finalizer may add a call meanwhile.
        for position in range(1, len(self._billed) + 1):
            other = self._billed[-position]
            if other.end < call.start:
                break
            if (
                other.parent == call.parent
                and other.provider == call.provider
                and other.scope != call.scope
                and call.scope not in other.beside
                and None in (other.response_id, call.response_id)
                and _instruments_own_sdk(other.scope, other.provider)
                and call.contains(other)
                # Of calls at the same time, the one that began next: so each of them finds one.
                and (nearest is None or other.start < nearest.start)
            ):
                nearest = other
        if nearest is None:
            return False
        nearest.beside.add(call.scope)
        return True

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
