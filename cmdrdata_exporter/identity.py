"""
Which spans are one and the same call, so that one charge is one event.

A call may be seen by several instrumentations: ours at the SDK's seam, others around the SDK, frameworks around those.

- While our instrumentor is active it is the authority for what passes its seam (`seam`): spans of others that
  instrument the openai SDK make no event, nor do spans of a provider that the seam has metered, unless their scope
  instruments that provider's own SDK.
- Among the spans of others the innermost is the charge: one that contains it in the trace is the same call, and so is
  another instrumentation's with the same response id at the same time.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict

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
        return provider == "openai" or not set(scope.split(".")).intersection(
            _OWN_SDK.get(provider, (provider,))
        )


seam = Seam()
"""The seam of this process."""


class Calls:
    """The calls that were billed lately from the spans of others, by one exporter. Safe to use from several threads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self.forked()
        processes.renew_after_fork(self)

    def forked(self) -> None:
        """Start anew in a forked child, where the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()
        self._covered: OrderedDict[tuple[int, int], None] = OrderedDict()
        """Spans whose call is billed: their own, or one inside them."""
        self._responses: OrderedDict[tuple[int, str], tuple[str, int, int]] = OrderedDict()
        """Scope, start and end of the span that a response was billed from, by trace and response id."""

    def cover(self, span: ReadableSpan) -> None:
        """Note a span whose call is billed: what contains it is the same call."""
        with self._lock:
            self._cover(span)

    def contains(self, span: ReadableSpan) -> bool:
        """Say whether a span contains, or is, a call that was billed; if so, what contains it does too."""
        with self._lock:
            context = span.get_span_context()
            if context is None or (context.trace_id, context.span_id) not in self._covered:
                return False
            self._cover(span)
            return True

    def repeats(self, span: ReadableSpan, response_id: object) -> bool:
        """Say whether another instrumentation's span was billed for the same response at the same time."""
        context, scope = span.get_span_context(), span.instrumentation_scope
        if context is None or not isinstance(response_id, str):
            return False
        key = context.trace_id, response_id
        name = scope.name if scope else ""
        start, end = span.start_time or 0, span.end_time or 0
        with self._lock:
            billed = self._responses.get(key)
            if billed is not None and billed[0] != name and start <= billed[2] and billed[1] <= end:
                return True
            self._responses[key] = name, start, end
            if len(self._responses) > self._capacity:
                self._responses.popitem(last=False)
            return False

    def _cover(self, span: ReadableSpan) -> None:
        for context in (span.get_span_context(), span.parent):
            if context is not None:
                self._covered[context.trace_id, context.span_id] = None
        while len(self._covered) > self._capacity:
            self._covered.popitem(last=False)
