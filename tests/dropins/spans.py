"""What an application sets up of OpenTelemetry: here, spans that go to a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult


class _ToFile(SpanExporter):
    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Add a line for each span."""
        with self._path.open("a") as file:
            for span in spans:
                attributes = dict(span.attributes or {})
                nanoseconds = (span.end_time or 0) - (span.start_time or 0)
                context = span.get_span_context()
                line = [f"{context.span_id if context else 0:016x}", attributes, nanoseconds / 1e9]
                file.write(json.dumps(line) + "\n")
        return SpanExportResult.SUCCESS


def write_spans(path: str) -> None:
    """Have the spans of this process written to a file, a line of JSON each."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_ToFile(path)))
    trace.set_tracer_provider(provider)
