"""The exporter: spans in, usage events to a delivery."""

from __future__ import annotations

import functools
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Literal

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cmdrdata_exporter import faults, processes, unattributed
from cmdrdata_exporter.attributes import OUR_SCOPE
from cmdrdata_exporter.customer import take_from_baggage
from cmdrdata_exporter.delivery import Delivery, Header
from cmdrdata_exporter.delivery.http import Client
from cmdrdata_exporter.delivery.local import LocalDelivery
from cmdrdata_exporter.delivery.memory import MemoryDelivery
from cmdrdata_exporter.events import UsageEvent, encode, event_from_span
from cmdrdata_exporter.identity import Calls, seam
from cmdrdata_exporter.settings import Settings
from cmdrdata_exporter.version import USER_AGENT

_logger = logging.getLogger("cmdrdata")

SHUTDOWN_TIMEOUT = 5.0
"""Seconds that the end of the process waits for deliveries, in all."""
_ONE_END = 10.0
"""Seconds between `shutdown` and the exit within which both are taken for one end of the process."""
_SENDERS = 4


class CmdrDataSpanExporter(SpanExporter):
    """
    Turn GenAI spans into CmdrData usage events and deliver them.

    Beside a span pipeline it bills the spans of any GenAI instrumentation; for the calls of our own instrumentation,
    `CmdrDataInstrumentor` hands each finished call to `record`, whatever the pipeline samples or drops, and `export`
    passes those spans over.
    Built without arguments it is configured by the environment (`cmdrdata_exporter.settings`), as
    `OTEL_TRACES_EXPORTER=otlp,cmdrdata` does.

    Args:
        api_key: the CmdrData key. Without key and endpoint the destination is `local`: events stay in this process.
        endpoint: the full URL to POST events to.
        account: a name for the account behind the key.
        customer_id: who pays for calls that name no customer.
        unattributed: `hold` keeps events without a customer, `send` posts them with `customer_id: null`.
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
        delivery: Delivery | None = None,
        of_process: bool = True,
    ) -> None:
        global _latest
        self.settings = Settings.read(
            api_key=api_key,
            endpoint=endpoint,
            account=account,
            customer_id=customer_id,
            unattributed=unattributed,
        )
        self._delivery = delivery or _delivery(self.settings)
        self._shut_down = False
        self._calls = Calls()
        self.passed_over: Counter[str] = Counter()
        """How many spans of each scope reported a call that was metered already."""
        if self.settings.baggage_key is not None:
            take_from_baggage(self.settings.baggage_key)
            _logger.warning(
                "Customers are taken from the Baggage key %r where the code names none: whoever calls this application "
                "can set it, unless something before it removes what comes from outside",
                self.settings.baggage_key,
            )
        if of_process:
            with _lock:
                _latest = self

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Record the charges among `spans`. Spans of our own instrumentation were recorded when their call ended."""
        if self._shut_down:
            _logger.warning("CmdrDataSpanExporter is shut down and ignores %d spans", len(spans))
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
            self._calls.pass_up(span)
            return
        billed = self._calls.is_billed(span, event.provider, event.metadata.get("response_id"))
        if billed or seam.covers(scope, event.provider):
            self._pass_over(scope)
        else:
            self._record(event)

    @faults.guarded
    def record(self, span: ReadableSpan) -> None:
        """Record one finished span at once, if it is a charge and metering is enabled. Never raises."""
        event = self._event(span)
        if event is not None:
            self._record(event)

    def _event(self, span: ReadableSpan) -> UsageEvent | None:
        if not self.settings.enabled:
            return None
        return event_from_span(span, customer_id=self.settings.customer_id)

    def _record(self, event: UsageEvent) -> None:
        for key in event.renamed:
            faults.report(
                f"metadata key {key}",
                "the metadata key %r is reserved; it is sent as %r",
                key,
                f"user_{key}",
            )
        if event.customer_id is None:
            unattributed.note(held=self.settings.unattributed == "hold")
        self._delivery.record(event.id, _header(event), encode(event))

    def _pass_over(self, scope: str) -> None:
        self.passed_over[scope] += 1
        if self.passed_over[scope] == 1:
            _logger.info(
                "spans of %s report calls that are metered already; they make no events of their own",
                scope or "an unnamed scope",
            )

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver what was recorded so far; True only if within the time all of it was."""
        return self._delivery.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Deliver for at most five seconds. Later `export`s are refused; calls that end later are still metered."""
        if not self._shut_down:
            self._shut_down = True
            _wait(self._delivery.flush)


def current_exporter() -> CmdrDataSpanExporter:
    """Return the exporter that meters this process: the one built last, else one configured by the environment."""
    return _latest or CmdrDataSpanExporter()


_latest: CmdrDataSpanExporter | None = None
_deliveries: dict[Settings, LocalDelivery | MemoryDelivery] = {}
_lock = threading.RLock()
_waited = 0.0
"""Seconds that the end of the process has waited so far."""
_waited_until = -math.inf


def _wait(wait: Callable[[float], object]) -> None:
    """Call `wait` with what is left of the seconds that an end of the process may take."""
    global _waited, _waited_until
    began = time.monotonic()
    if began - _waited_until > _ONE_END:
        _waited = 0.0
    try:
        wait(max(0.0, SHUTDOWN_TIMEOUT - _waited))
    finally:
        _waited_until = time.monotonic()
        _waited += _waited_until - began


def _close_deliveries() -> None:
    """Deliver what is left when the process ends."""
    with ExitStack() as stack:
        # Each is closed, whatever comes of the others.
        for delivery in _deliveries.values():
            stack.callback(_wait, delivery.close)


# When this module is imported, so that it runs after whatever ends calls and spans at the exit.
processes.at_exit(_close_deliveries, priority=100)


def _after_fork_in_child() -> None:
    """Replace the lock, which another thread of the parent may have held."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _delivery(settings: Settings) -> LocalDelivery | MemoryDelivery:
    """Return the delivery for `settings`, the same one for the same settings, so that two exporters share it."""
    with _lock:
        if settings in _deliveries:
            return _deliveries[settings]
        hold = settings.unattributed == "hold"
        if settings.endpoint is None:
            delivery = LocalDelivery()
            if settings.enabled:
                _logger.warning(
                    "Neither CMDRDATA_API_KEY nor CMDRDATA_ENDPOINT is set: usage events stay in the memory of this "
                    "process and end with it"
                )
        else:
            client = Client(
                settings.endpoint,
                settings.read_key,
                USER_AGENT,
                # One more for a flush that sends itself.
                connections=_SENDERS + 1,
                clock=time.time,
                proxy=settings.proxy,
            )
            delivery = MemoryDelivery(
                client.post, reset=client.reset, hold_unattributed=hold, senders=_SENDERS
            )
        _logger.info(
            "CmdrData usage metering: destination %s, events without a customer are %s%s",
            settings.destination,
            "held" if hold else "sent with customer_id null",
            "" if settings.enabled else ", disabled by CMDRDATA_ENABLED=false",
        )
        _deliveries[settings] = delivery
        return delivery


def _header(event: UsageEvent) -> Header:
    return Header(
        customer=event.customer_id,
        model=event.model,
        endpoint=event.endpoint,
        status=event.usage_status,
        units={
            "input_tokens": event.input_tokens,
            "output_tokens": event.output_tokens,
            "total_tokens": event.total_tokens,
            **event.usage,
        },
        day=_day(event.timestamp // 86400),
    )


@functools.lru_cache(maxsize=8)
def _day(number: int) -> str:
    """Return the name of a day since 1970."""
    return time.strftime("%Y-%m-%d", time.gmtime(number * 86400))
