"""
An application that meters calls, as many as it is told to, and prints the number of each that it may rely on.

    metered.py events FIRST                 events, which are in its journal when their number is printed
    metered.py spans FIRST URL              spans to a Collector, which has answered when their number is printed

Each line of its input is a number of calls. It ends with its input, events once they are in the topic.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import urllib3

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.events import encode
from tests.delivery.samples import wait_for
from tests.fleet import otlp
from tests.fleet.samples import event

TOGETHER = 5
"""Spans in one request, each of a trace of its own."""
PATIENCE = 300.0


def main() -> None:
    """Run the program."""
    kind, first = sys.argv[1], int(sys.argv[2])
    exporter = CmdrDataSpanExporter() if kind == "events" else None
    record = _to(exporter) if exporter else _through(sys.argv[3])
    for line in sys.stdin:
        for number in range(first, first + int(line)):
            record(number)
        first += int(line)
    if exporter is not None:
        delivery = exporter._delivery
        assert isinstance(delivery, DurableDelivery)
        wait_for(lambda: _left(delivery) == 0, timeout=PATIENCE)
        exporter.shutdown()


def _to(exporter: CmdrDataSpanExporter) -> Callable[[int], None]:
    """Return what records an event."""
    delivery = exporter._delivery
    assert isinstance(delivery, DurableDelivery)

    def record(number: int) -> None:
        customer, now = f"c{number % 7}", int(time.time())
        used = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        made = event(
            number, customer, timestamp=now, start_time=now, end_time=now, usage={}, **used
        )
        header = Header(customer, made.model, made.endpoint, "reported", used, "2026-11-21")
        delivery.record(made.id, header, encode(made))
        print(number, flush=True)

    return record


def _left(delivery: DurableDelivery) -> int:
    with LedgerReader(delivery.directory) as ledger:
        counts = ledger.counts()
    return counts["pending"] + counts["in_flight"]


def _through(url: str) -> Callable[[int], None]:
    """Return what sends a span: the same request again and again until it is answered, as OpenTelemetry's SDKs do."""
    pool = urllib3.PoolManager(
        retries=urllib3.Retry(
            total=None,
            backoff_factor=0.1,
            backoff_max=1,
            status_forcelist=(429, 502, 503, 504),
            allowed_methods=None,
        ),
        timeout=10.0,
    )
    waiting: list[int] = []

    def record(number: int) -> None:
        waiting.append(number)
        if len(waiting) < TOGETHER:
            return
        # Gateways remove from the ledger what ended a month ago.
        ended = time.time() - otlp.BEGAN / otlp.SECOND
        spans = (
            (
                "opentelemetry.instrumentation.openai.v1",
                otlp.span(
                    each,
                    each + 1,
                    at=(ended - 1, ended),
                    attributes=otlp.CHAT
                    | {
                        "gen_ai.response.id": f"chatcmpl-{each}",
                        "cmdrdata.customer.id": f"c{each % 7}",
                    },
                ),
            )
            for each in waiting
        )
        answer = pool.request(
            "POST",
            f"{url}/v1/traces",
            body=otlp.request(*spans).SerializeToString(),
            headers={"Content-Type": "application/x-protobuf"},
        )
        assert answer.status == 200, answer.data
        for each in waiting:
            print(each, flush=True)
        waiting.clear()

    return record


if __name__ == "__main__":
    main()
