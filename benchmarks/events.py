"""
Measure the index of events: what an event costs when it is imported, its bytes, and how long it takes to find one.

    python benchmarks/events.py [--events 1000000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random as Chance
from statistics import median
from typing import Any

from spool import BODY, HEADER

from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.options import INDEX_EVENTS
from cmdrdata_exporter.delivery.spool.directory import INDEX, Directory
from cmdrdata_exporter.delivery.spool.index import Index
from cmdrdata_exporter.delivery.spool.index_view import IndexReader
from cmdrdata_exporter.delivery.spool.indexed import IndexedEvent, Wanted
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.records import encode_event

DELIVERED = Outcome(Verdict.DELIVERED, "HTTP 201")
PART = 300
"""How many events are imported in a transaction, where many wait."""
FEW = 4
"""How many where 10 come in a second."""
LOOKS = 200
"""How often each kind of id is looked for."""


def records(number: int, chance: Chance) -> Iterator[bytes]:
    """Yield events of usual size, of 1,000 customers, each with ids of its own, three in a trace."""
    now = int(time.time())
    trace = ""
    for each in range(number):
        customer = f"customer-{each % 1000:04d}"
        event_id, response = chance.randbytes(16).hex(), chance.randbytes(15).hex()[:29]
        if each % 3 == 0:
            trace = chance.randbytes(16).hex()
        body = (
            BODY.replace(b"0123456789abcdef0123456789abcdef", event_id.encode())
            .replace(b"B9MHDbslfkBeAs8l4bebGdFOJ6PeG", response.encode())
            .replace(b"3defa82929f15b575c9ff5dc68fa4dab", trace.encode())
            .replace(b"customer-0001", customer.encode())
            .replace(b'"usage_status"', b'"request_id":"req_%s","usage_status"' % trace.encode())
            .replace(b'"timestamp":1795285579', b'"timestamp":%d' % (now - (number - each) // 100))
        )
        yield encode_event(event_id, replace(HEADER, customer=customer), body)


def deliver(directory: Directory, number: int, most: int, part: int) -> float:
    """Import and deliver events; return the CPU seconds of that."""
    made = list(records(number, Chance(1)))  # noqa: S311
    ledger = Ledger(directory, index=Index(directory, most))
    began = time.process_time()
    for start in range(0, number, part):
        with ledger.transaction():
            claimed = ledger.import_records(
                "1-1-1.journal", start + 1, made[start : start + part], [], time.time(), room=part
            )
        with ledger.transaction():
            ledger.record_outcomes([(event, DELIVERED) for event in claimed], time.time())
    spent = time.process_time() - began
    ledger.close()
    return spent


def fill(directory: Directory, number: int) -> None:
    """Import and deliver many events, without measuring it."""
    made = records(number, Chance(1))  # noqa: S311
    ledger = Ledger(directory, index=Index(directory, INDEX_EVENTS))
    inside: Any = ledger
    inside._db.execute("PRAGMA synchronous = OFF")  # noqa: SLF001 - only to be there sooner
    for start in range(0, number, 5000):
        part = [record for _, record in zip(range(min(5000, number - start)), made, strict=False)]
        with ledger.transaction():
            claimed = ledger.import_records(
                "1-1-1.journal", start + 1, part, [], time.time(), room=5000
            )
            ledger.record_outcomes([(event, DELIVERED) for event in claimed], time.time())
    ledger.close()


def size(directory: Directory) -> int:
    """Return the bytes of the index."""
    return sum(path.stat().st_size for path in directory.path.glob(f"{INDEX}*"))


def look(directory: Directory, question: Callable[[IndexReader], list[IndexedEvent]]) -> float:
    """Return the milliseconds of one question, the opening of the files included."""
    began = time.perf_counter()
    with IndexReader(directory) as reader:
        assert question(reader)
        # As a command does.
        assert reader.about().there
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    number: int = parser.parse_args().events
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as place:

        def new(name: str) -> Directory:
            return Directory.prepare(Path(place) / name, "https://host/events", "default")

        for part, count in ((PART, 30_000), (FEW, 4_000)):
            costs: dict[int, list[float]] = {0: [], INDEX_EVENTS: []}
            for turn in range(3):
                for most, found in costs.items():
                    directory = new(f"{part}-{most}-{turn}")
                    found.append(1e6 * deliver(directory, count, most, part) / count)
            without, with_ = (min(found) for found in costs.values())
            print(
                f"{part:4} events at once: {without:5.1f} us of CPU each, {with_:5.1f} with the index"
                f" (+{with_ - without:.1f})"
            )
        directory = new("many")
        fill(directory, number)
        print(f"{number:,} events: {size(directory) / number:.0f} bytes each")
        with IndexReader(directory) as reader:
            some = Chance(2).sample(reader.newest(20_000), LOOKS)  # noqa: S311
        for name, column, length in (
            ("event id", "id", 32),
            ("beginning of it", "id", 12),
            ("response id", "response_id", 99),
            ("request id", "request_id", 99),
            ("trace id", "trace_id", 99),
        ):
            texts = [str(getattr(event, column))[:length] for event in some]
            spent = sorted(look(directory, partial(IndexReader.find, text=text)) for text in texts)
            print(f"by {name:15}: {median(spent):5.1f} ms, at most {spent[-1]:.1f}")
        for name, question in (
            ("newest 100", partial(IndexReader.newest, limit=100)),
            (
                "of a customer",
                partial(IndexReader.newest, limit=100, wanted=Wanted(customer="customer-0007")),
            ),
            (
                "of the first hour",
                partial(
                    IndexReader.newest,
                    limit=100,
                    wanted=Wanted(until=some[0].at - number // 100 + 3600),
                ),
            ),
        ):
            print(f"{name:18}: {look(directory, question):5.1f} ms")


if __name__ == "__main__":
    main()
