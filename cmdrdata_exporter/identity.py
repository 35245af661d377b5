"""
Which spans are one and the same call, so that one charge is one event.

A call may be seen by several instrumentations: ours at the SDK's seam, others around the SDK, frameworks around those.

- While our instrumentor is active it is the authority for what passes its seam (`seam`): spans of others that
  instrument the openai SDK make no event, nor do spans of a provider that the seam has metered, unless their scope
  instruments that provider's own SDK.
- Among the spans of others the first to end is the charge: the innermost, but for some streams. Another
  instrumentation's span is the same call where it is above it in the trace or right below it, where it has the same
  response id at the same time, or where both instrument one SDK and stand side by side, one within the other's time.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from cmdrdata_exporter import processes

CAPACITY = 10_000
"""Spans and response ids that are remembered. A call is seen by all its instrumentations within moments."""

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


class Seam:
    """What our instrumentor tells of itself."""

    def __init__(self) -> None:
        self.active = False
        self._providers: set[str] = set()

    def metered(self, provider: str) -> None:
        """Note that a call to `provider` passed the seam."""
        if provider not in self._providers:
            # Frameworks call whatever speaks the protocol by the protocol's name.
            self._providers.update((provider, "openai"))

    def covers(self, scope: str, provider: str) -> bool:
        """Say whether a span of `scope` about `provider` reports what has passed the seam."""
        if not self.active:
            return False
        if _OPENAI_SDK.fullmatch(scope):
            return True
        provider = _SPELLINGS.get(provider, provider)
        if provider not in self._providers:
            return False
        return provider == "openai" or not _instruments_own_sdk(scope, provider)


seam = Seam()
"""The seam of this process."""


def _instruments_own_sdk(scope: str, provider: str) -> bool:
    """Say whether a scope names the SDK of a provider's own: an instrumentation of it, or the SDK itself."""
    return not set(scope.split(".")).isdisjoint(_OWN_SDK.get(provider, (provider,)))


_Key = tuple[int, int]
"""The ids of a trace and of a span in it."""


@dataclass(eq=False)
class _Call:
    """What is remembered of a span that is a call."""

    scope: str
    provider: str
    response_id: str | None
    trace_id: int
    parent: _Key | None
    start: int
    end: int
    beside: set[str] = field(default_factory=set[str])
    """The scopes whose span beside this one is the same call: at most one of each."""

    def contains(self, other: _Call) -> bool:
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: _Call) -> bool:
        return self.start <= other.end and other.start <= self.end


class Calls:
    """The calls that were billed lately from the spans of others, by one exporter. Safe to use from several threads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self.forked()
        processes.renew_after_fork(self)

    def forked(self) -> None:
        """Start anew in a forked child, where the lock may be held by a thread that is not there."""
        # A finalizer or a signal handler may end a call in the middle of another's.
        self._lock = threading.RLock()
        self._covered: OrderedDict[_Key, _Call | None] = OrderedDict()
        """Spans whose call is billed, with what they told where they are calls themselves."""
        self._responses: OrderedDict[tuple[int, str], _Call] = OrderedDict()
        """The span that told a response first, by trace and response id, and with 0 by response id alone."""
        self._billed: deque[_Call] = deque(maxlen=self._capacity)
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

    def is_billed(self, span: ReadableSpan, provider: str, response_id: object) -> bool:
        """Say whether the call of a span is billed already; if not, it is from now on."""
        context, scope = span.get_span_context(), span.instrumentation_scope
        if context is None:
            return False
        call = _Call(
            scope.name if scope else "",
            _SPELLINGS.get(provider, provider),
            response_id if isinstance(response_id, str) else None,
            context.trace_id,
            (span.parent.trace_id, span.parent.span_id) if span.parent else None,
            span.start_time or 0,
            span.end_time or 0,
        )
        with self._lock:
            # In any case, since what a span tells that is passed over may be what relates the next one.
            same_response = self._is_told(call)
            billed = (
                self._contains(span)
                or self._is_inside(call)
                or same_response
                or self._is_beside(call)
            )
            self._cover(span, call)
            if not billed:
                self._billed.append(call)
            return billed

    def _contains(self, span: ReadableSpan) -> bool:
        """Say whether a span contains, or is, a call that was billed."""
        context = span.get_span_context()
        return context is not None and (context.trace_id, context.span_id) in self._covered

    def _is_inside(self, call: _Call) -> bool:
        """Say whether the parent, which may end first where a stream is read, was another instrumentation's call."""
        outer = self._covered.get(call.parent) if call.parent else None
        return outer is not None and outer.scope != call.scope and outer.overlaps(call)

    def _is_told(self, call: _Call) -> bool:
        """Say whether another instrumentation told the response. Some servers reuse ids: elsewhere, time decides."""
        if call.response_id is None:
            return False
        here, anywhere = (call.trace_id, call.response_id), (0, call.response_id)
        for key, at_that_time in ((here, call.overlaps), (anywhere, call.contains)):
            told = self._responses.get(key)
            if told is not None and told.scope != call.scope and at_that_time(told):
                return True
        self._responses[here] = self._responses[anywhere] = call
        _bound(self._responses, 2 * self._capacity)
        return False

    def _is_beside(self, call: _Call) -> bool:
        """
        Say whether another instrumentation of the same SDK billed the call, without that one being inside the other.

        An instrumentation that does not make its span the current one is around the others in time only.
        """
        if not _instruments_own_sdk(call.scope, call.provider):
            return False
        nearest: _Call | None = None
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

    def _cover(self, span: ReadableSpan, call: _Call | None) -> None:
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
