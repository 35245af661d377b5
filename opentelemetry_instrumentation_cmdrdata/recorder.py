"""Where the calls of a client go: to which tracer, exporter and meters, and how their content is recorded."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from cmdrdata_exporter import CmdrDataSpanExporter, faults
from cmdrdata_exporter.attributes import OUR_SCOPE
from cmdrdata_exporter.settings import ConfigurationError, Settings
from opentelemetry_instrumentation_cmdrdata.capture import Capture
from opentelemetry_instrumentation_cmdrdata.metrics import ClientMetrics

SCOPE = OUR_SCOPE
"""The instrumentation scope of our spans, by which the exporter knows them."""

MOST_SILENT_HOSTS = 20
"""Hosts that are named in the log because their streams report no usage."""


class Recorder:
    """
    Where calls go.

    Args:
        tracer: makes the public spans.
        exporter: returns what bills calls that have no exporter of their own; asked late, when the application has had
            time to build one.
        metrics: what calls are measured by. Default: the global MeterProvider's.
    """

    def __init__(
        self,
        tracer: trace.Tracer,
        exporter: Callable[[], CmdrDataSpanExporter],
        metrics: ClientMetrics | None = None,
    ) -> None:
        self.tracer = tracer
        self._is_silent = isinstance(tracer, trace.NoOpTracer)
        self._is_proxy = isinstance(tracer, trace.ProxyTracer)
        """Whether an SDK may still be set up, whose tracer it is then."""
        self.metrics = metrics or ClientMetrics()
        self.exporter = exporter
        self._silent_hosts: set[str] = set()

    @functools.cached_property
    def content(self) -> Capture:
        """How the content of calls is recorded; set where the application says more of it than the environment."""
        try:
            return Capture(Settings.of_content())
        except ConfigurationError as error:
            faults.report("content", "no content is recorded: %s", error)
            return Capture(Settings())

    def is_tracing(self) -> bool:
        """Whether calls are to have spans now, and there may be an SDK that makes them."""
        try:
            if self._is_silent or (
                self._is_proxy
                and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
            ):
                return False
            return is_instrumentation_enabled()
        except Exception as error:  # noqa: BLE001 - the call is billed all the same
            faults.absorb(error, "the choice whether a call has a span")
            return False

    @faults.guarded
    def report_silent(self, host: str, *, asked: bool) -> None:
        """Tell the operator, once per host, that its streams report no usage and what can be done about it."""
        silent = self._silent_hosts
        if host in silent or len(silent) >= MOST_SILENT_HOSTS:
            return
        silent.add(host)
        advice = (
            " although it was asked for"
            if asked
            else ". Set CMDRDATA_STREAM_USAGE=always to ask every host for it, "
            "or pass stream_options={'include_usage': True}"
        )
        faults.say(
            logging.WARNING,
            "a stream of %s told no usage%s; such calls are recorded with usage_status missing, without tokens%s",
            host,
            advice,
            " (further hosts are not named)" if len(silent) == MOST_SILENT_HOSTS else "",
        )
