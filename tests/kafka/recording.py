"""Records events, and prints the number of each; or delivers what is left, and prints how many were ambiguous."""

from __future__ import annotations

import itertools
import json
import sys

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from tests.delivery.samples import wait_for


def _left(delivery: DurableDelivery) -> int:
    """Return how many events are to be delivered, whoever recorded them."""
    with LedgerReader(delivery.directory) as ledger:
        counts = ledger.counts()
    return counts["pending"] + counts["in_flight"]


def main() -> None:
    """Run the program."""
    delivery = CmdrDataSpanExporter()._delivery
    assert isinstance(delivery, DurableDelivery)
    if sys.argv[1] == "rest":
        wait_for(lambda: _left(delivery) == 0, timeout=50)
        with LedgerReader(delivery.directory) as ledger:
            print(ledger.counts()["ambiguous"])
        return
    for number in itertools.count(int(sys.argv[1])):
        customer = f"c{number % 7}"
        header = Header(
            customer, "m", "chat.completions", "reported", {"input_tokens": 1}, "2026-11-21"
        )
        body = json.dumps({"customer_id": customer, "n": number}, separators=(",", ":"))
        delivery.record(f"{number:032x}", header, body.encode())
        print(number, flush=True)


main()
