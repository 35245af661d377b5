"""
What a fleet's ledger does in a second: events stored, and `usage` over the totals of ten million.

    python benchmarks/fleet_ledger.py postgresql://postgres@127.0.0.1:5432/empty

The database must be empty. Totals are written as 50 hosts leave them in 30 days: ten million events of 500 customers,
four models and two endpoints each.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import threading
import time

import psycopg

from cmdrdata_exporter.cli.fleet import FleetPlace
from cmdrdata_exporter.cli.usage import usage_of
from cmdrdata_exporter.delivery.groups import Group
from cmdrdata_exporter.events import UsageEvent, encode
from cmdrdata_exporter.fleet.arrivals import Arrival
from cmdrdata_exporter.fleet.store import FleetLedger

EVENTS, DAYS, HOSTS = 10_000_000, 30, 50
CUSTOMERS, MODELS, ENDPOINTS = 500, 4, ("chat.completions", "responses")
UNITS = ("events", "input_tokens", "output_tokens", "total_tokens", "cached_tokens")
BATCH = 1000


def events(number: int, first: int) -> list[Arrival]:
    """Return events as they come from hosts."""
    now = int(time.time())
    made: list[Arrival] = []
    for each in range(first, first + number):
        model, endpoint = f"model-{each % MODELS}", ENDPOINTS[each % 2]
        metadata = {
            "usage_status": "reported",
            "endpoint": endpoint,
            "request_model": model,
            "server_address": "api.openai.com",
            "trace_id": f"{each:032x}",
            "response_id": f"chatcmpl-{each}",
            "request_id": f"req_{each}",
        }
        event = UsageEvent(
            id=f"{each * 2654435761 % 2**32:08x}{each:024x}",
            customer_id=f"customer-{each % CUSTOMERS}",
            provider="openai",
            model=model,
            endpoint=endpoint,
            usage_status="reported",
            input_tokens=1000 + each % 500,
            output_tokens=100,
            total_tokens=1100 + each % 500,
            usage={"cached_tokens": 512},
            metadata=metadata,
            timestamp=now,
            start_time=now * 1000,
            end_time=now * 1000,
            duration_ms=900,
        )
        made.append(Arrival(event.id, encode(event), f"host-{each % HOSTS}", "event"))
    return made


def store(url: str, writers: int, number: int, first: int) -> float:
    """Return how many events a second so many writers store."""
    parts = [events(number // writers, first + writer * number) for writer in range(writers)]
    ledgers = [FleetLedger(url) for _ in range(writers)]
    for ledger in ledgers:
        ledger.connect()

    def write(ledger: FleetLedger, part: list[Arrival]) -> None:
        for begin in range(0, len(part), BATCH):
            ledger.store(part[begin : begin + BATCH])

    threads = [
        threading.Thread(target=write, args=each) for each in zip(ledgers, parts, strict=True)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for ledger in ledgers:
        ledger.close()
    return number / seconds


def fill(url: str) -> int:
    """Write the totals of ten million events; return how many rows that are."""
    combinations = itertools.product(range(CUSTOMERS), range(MODELS), ENDPOINTS)
    groups = [
        Group(f"customer-{customer}", f"model-{model}", endpoint, "reported", "openai")
        for customer, model, endpoint in combinations
    ]
    each = EVENTS // (len(groups) * DAYS)
    with psycopg.connect(url, autocommit=True) as connection:
        with connection.cursor().copy(
            f"COPY fleet_groups (number, {', '.join(Group._fields)}) FROM STDIN".encode()
        ) as copy:
            for group in groups:
                copy.write_row((group.number, *group))
        connection.execute(
            "INSERT INTO fleet_totals SELECT current_date - d, number, unit,"
            " CASE unit WHEN 'events' THEN %s ELSE %s * (50 + d + number %% 1000) END"
            " FROM fleet_groups, generate_series(1, %s) AS d, unnest(%s::text[]) AS unit WHERE provider = 'openai'",
            (each, each, DAYS, list(UNITS)),
        )
        connection.execute("VACUUM ANALYZE")
        [(rows,)] = connection.execute("SELECT count(*) FROM fleet_totals")
    return rows


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    url = parser.parse_args().url
    for writers, first in ((1, 0), (2, 10_000_000)):
        print(f"{writers} writing: {store(url, writers, 20_000, first):,.0f} events/s")
    print(f"{fill(url):,} rows of totals")
    place = FleetPlace.of(url)
    for by in (["customer"], ["customer", "model"], ["day"], ["model", "day"]):
        took: list[float] = []
        for _ in range(5):
            began = time.perf_counter()
            usage_of(place, by)
            took.append(time.perf_counter() - began)
        print(f"usage by {','.join(by)}: {statistics.median(took):.2f} s")


if __name__ == "__main__":
    main()
