"""The exporter: spans in, usage events to a delivery."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cmdrdata_exporter import call_sites, faults, runtime
from cmdrdata_exporter.announcement import NOTHING_METERED
from cmdrdata_exporter.attributes import OUR_SCOPE
from cmdrdata_exporter.bodies import LARGEST_BODY, written
from cmdrdata_exporter.customer import take_from_baggage
from cmdrdata_exporter.deduplication import own_calls
from cmdrdata_exporter.delivery import Delivery, Header
from cmdrdata_exporter.delivery.open_jobs import KeepsJobs
from cmdrdata_exporter.events import UsageEvent, customer_place
from cmdrdata_exporter.foreign import event_from_span
from cmdrdata_exporter.processes import SHUTDOWN_TIMEOUT
from cmdrdata_exporter.reports import Calls, Report
from cmdrdata_exporter.runtime import announce
from cmdrdata_exporter.settings import ConfigurationError, Settings, unknown_variables
from cmdrdata_exporter.telemetry import Telemetry
from cmdrdata_exporter.wording import plural

_logger = logging.getLogger("cmdrdata")


class CmdrDataSpanExporter(SpanExporter):
    """
    Turn GenAI spans into CmdrData usage events and deliver them.

    Beside a span pipeline it bills the spans of any GenAI instrumentation. The calls of our own instrumentation are
    handed to `charge` when they end, whatever the pipeline samples or drops, and `export` passes their spans over.
    Built without arguments it is configured by the environment (`cmdrdata_exporter.settings`), as
    `OTEL_TRACES_EXPORTER=otlp,cmdrdata` does.

    Args:
        api_key: the CmdrData key. Without key and endpoint the destination is `local`: events stay on this host.
        endpoint: the full URL to POST events to.
        account: a name for the account behind the key.
        customer_id: who pays for calls that name no customer.
        unattributed: `hold` keeps events without a customer, `send` posts them with `customer_id: null`.
        spool_dir: where events are kept until they are delivered.
        shutdown_timeout: seconds that `shutdown` and the exit of the process wait for deliveries, in all.
        meter_provider: where the metrics of `cmdrdata_exporter.telemetry` go. Default: the global one.
        delivery: takes the events, instead of the delivery that the settings ask for.
        of_process: whether it meters the calls of this process that no other exporter is named for.

    Raises:
        ConfigurationError: an argument or a variable cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        endpoint: str | None = None,
        *,
        account: str | None = None,
        customer_id: str | None = None,
        unattributed: Literal["hold", "send"] | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        shutdown_timeout: float = SHUTDOWN_TIMEOUT,
        meter_provider: MeterProvider | None = None,
        delivery: Delivery | None = None,
        of_process: bool = True,
    ) -> None:
        self.settings = Settings.read(
            api_key=api_key,
            endpoint=endpoint,
            account=account,
            customer_id=customer_id,
            unattributed=unattributed,
            spool_dir=spool_dir,
        )
        call_sites.of_all = self.settings.call_site == "true"
        for message in unknown_variables():
            announce(logging.WARNING, "CmdrData: %s", message)
        self._shutdown_timeout = shutdown_timeout
        # A delivery of the application's own is its own to measure.
        self._telemetry: Telemetry | None = None
        self._built: runtime.BuiltDelivery | None = None
        if delivery is None:
            self._built, self._telemetry = runtime.process.delivery(self.settings)
            delivery = self._built
            runtime.announce_destination(self.settings, delivery, default=of_process)
        self._delivery: Delivery = delivery
        self.keeps_jobs: KeepsJobs | None = (
            delivery if isinstance(delivery, KeepsJobs) and self.settings.enabled else None
        )
        """What keeps jobs of a provider until their end is seen, across processes."""
        if meter_provider is not None:
            self.report_to(meter_provider)
        self._shut_down = False
        self._calls = Calls()
        self.passed_over: Counter[str] = Counter()
        """How many spans of each scope reported a call that was metered already."""
        if self.settings.baggage_key is not None:
            take_from_baggage(self.settings.baggage_key)
            announce(
                logging.WARNING,
                "CmdrData: customers are taken from the Baggage key %r where the code names none: whoever calls this "
                "application can set it, unless something before it removes what comes from outside",
                self.settings.baggage_key,
            )
        if of_process:
            runtime.process.make_default(self, shutdown_timeout)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Record the charges among `spans`. Spans of our own instrumentation were recorded when their call ended."""
        if self._shut_down:
            _logger.warning(
                "CmdrDataSpanExporter is shut down and ignores %s", plural(len(spans), "span")
            )
            return SpanExportResult.FAILURE
        for span in spans:
            self._export(span)
        return SpanExportResult.SUCCESS

    @faults.guarded
    def _export(self, span: ReadableSpan) -> None:
        """Record a span of the pipeline, if it is a charge that nothing else has reported."""
        scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
        if scope == OUR_SCOPE:
            # Metered when its call ended; what contains it is the same call.
            self._calls.cover(span)
            return
        event = self._event(span)
        if event is None:
            self._calls.propagate(span)
            return
        report = Report.of(
            span,
            provider=event.provider,
            endpoint=event.endpoint,
            response_id=event.metadata.get("response_id"),
            tokens=(event.input_tokens, event.output_tokens),
        )
        if not self._calls.claim(span, report) or own_calls.covers(report):
            self._pass_over(scope)
        else:
            self._record(event, [])

    @faults.guarded
    def record(self, span: ReadableSpan) -> None:
        """Record one finished span at once, if it is a charge and metering is enabled. Never raises."""
        event = self._event(span)
        if event is not None:
            self._record(event, [])

    def charge(self, event: UsageEvent, kept: list[object]) -> None:
        """
        Record one charge at once, if metering is enabled. Never raises.

        Args:
            event: the charge.
            kept: not empty once it is recorded, see `Header.kept`: with the same list it is recorded once.
        """
        if not self.settings.enabled:
            return
        try:
            self._record(event, kept)
        except Exception as error:  # noqa: BLE001 - whatever it is
            faults.absorb(error, "the record of a charge")

    def _event(self, span: ReadableSpan) -> UsageEvent | None:
        if not self.settings.enabled:
            return None
        return event_from_span(span, customer_id=self.settings.customer_id)

    def _record(self, event: UsageEvent, kept: list[object]) -> None:
        if kept:
            return
        hold = self.settings.unattributed == "hold"
        for key in event.renamed:
            faults.report(
                f"metadata key {key}",
                "the metadata key %r is reserved; it is sent as %r",
                key,
                f"user_{key}",
            )
        if event.customer_id is None:
            runtime.process.unattributed.note(held=hold, site=event.metadata.get("call_site"))
        event, body, cut = written(event)
        if cut:
            faults.report(
                "metadata size",
                "the metadata of a usage event were too large (more than %d bytes in all); these are cut or left out: "
                "%s",
                LARGEST_BODY,
                ", ".join(cut),
            )
        header = _header(event, body, kept, hold=hold)
        # In one step of the interpreter, for a delivery that does not tell itself.
        kept.extend(map(self._delivery.record, (event.id,), (header,), (body,)))
        # Afterwards, since what was interrupted before it was kept comes again.
        if self._telemetry is not None:
            self._telemetry.recorded(header)

    def _pass_over(self, scope: str) -> None:
        self.passed_over[scope] += 1
        if self.passed_over[scope] == 1:
            _logger.info(
                "spans of %s report calls that are metered already; they make no events of their own",
                scope or "an unnamed scope",
            )

    def report_to(self, meter_provider: MeterProvider) -> None:
        """Have the metrics of the destination go to `meter_provider`, and nowhere else."""
        if self._telemetry is not None:
            self._telemetry.report(meter_provider)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """
        Deliver what was recorded so far; True only if within the time all of it was, or is held.

        Not if any event of this process could neither be kept nor sent, and is a line of its log instead.
        """
        flushed = self._delivery.flush(timeout_millis / 1000)
        if self._built is None:
            return flushed
        outcomes = self._built.outcomes()
        return flushed and not (outcomes.get("unspooled") or outcomes.get("logged"))

    def shutdown(self) -> None:
        """
        Deliver for at most five seconds; what is left stays on the disk, for the next process.

        Later `export`s are refused; calls that end later are still metered.
        """
        if not self._shut_down:
            self._shut_down = True
            runtime.process.wait(self._delivery.shutdown, self._shutdown_timeout)


class EnvironmentSpanExporter(SpanExporter):
    """
    What `OTEL_TRACES_EXPORTER=cmdrdata` builds: a `CmdrDataSpanExporter`, or one of these, which exports nothing.

    One that raised would end all of OpenTelemetry's initialisation, with the traces of the others. So a setting that
    cannot be used is told, and traces go on without us.
    """

    def __new__(cls) -> Any:
        """Return the exporter that the environment configures, if it can be built."""
        try:
            return CmdrDataSpanExporter()
        except ConfigurationError as error:
            announce(logging.ERROR, "%s %s", NOTHING_METERED, error)
            return super().__new__(cls)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - OpenTelemetry's signature
        """Do nothing."""
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - OpenTelemetry's signature
        """Return True: nothing waits."""
        return True


def current_exporter() -> CmdrDataSpanExporter:
    """Return the exporter that meters this process: the one built last, else one configured by the environment."""
    return runtime.process.default or CmdrDataSpanExporter()


def _header(event: UsageEvent, body: bytes, kept: list[object], *, hold: bool) -> Header:
    customer = event.customer_id
    hold = hold and customer is None
    units = {
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
        "total_tokens": event.total_tokens,
        **event.usage,
    }
    # By position, as `usage_event` makes its event.
    return Header(
        customer,
        event.model,
        event.endpoint,
        event.usage_status,
        units,
        _day(event.timestamp // 86400),
        hold,
        customer_place(body) if hold else None,
        event.remember,
        kept,
    )


@functools.lru_cache(maxsize=8)
def _day(number: int) -> str:
    """Return the name of a day since 1970."""
    return time.strftime("%Y-%m-%d", time.gmtime(number * 86400))
