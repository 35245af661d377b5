"""Applications, a Collector, a broker, two gateways, one ledger: each call once, whatever is killed."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.engines.collector import Collector
from tests.engines.kafka import Broker
from tests.fleet.gateways import GatewayProcess, recorded, usage, wait_for
from tests.fleet.metered import TOGETHER

APART = 10_000_000
"""The numbers of the calls of one application are so far from those of the next."""
PATIENCE = 600.0
"""Seconds until the last event is in the ledger."""


class Application:
    """An application of metered.py, and the calls that it may rely on."""

    def __init__(
        self, directory: Path, kind: str, first: int, *arguments: str, **variables: str
    ) -> None:
        self._said = directory / f"{kind}-{first}.txt"
        self._log = directory / f"{kind}-{first}.log"
        self.first, self.calls = first, 0
        with self._said.open("wb") as said, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fleet.metered", kind, str(first), *arguments],
                env=os.environ | variables,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=log,
            )

    def call(self, number: int) -> None:
        """Have it make so many more calls."""
        assert self._process.poll() is None, self._log.read_text()
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % number)
        self._process.stdin.flush()
        self.calls += number

    def acknowledged(self) -> set[int]:
        """Let it end; return the numbers of its calls."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(PATIENCE)
        assert status == 0, self._log.read_text()
        return set(map(int, self._said.read_text().split()))

    def kill(self) -> None:
        """End it, where something has failed."""
        self._process.kill()
        self._process.wait()


class Chain:
    """All that is between the applications and the ledger."""

    def __init__(self, directory: Path, database: str, broker: Broker, stack: ExitStack) -> None:
        self._directory, self._database, self._broker, self._stack = (
            directory,
            database,
            broker,
            stack,
        )
        self._numbers = itertools.count()
        self._spans = broker.topic("otlp_spans", config={"max.message.bytes": "6291456"})
        self.events = broker.topic("usage")
        self.collector = Collector(directory, broker.servers, self._spans)
        self.collector.start()
        stack.callback(self.collector.kill)
        self._gateways = [self._gateway(), self._gateway()]

    def _gateway(self) -> GatewayProcess:
        gateway = GatewayProcess(
            self._database,
            self._directory / f"gateway-{next(self._numbers)}.log",
            *("--window", "1"),
            *("--spans-topic", f"kafka://{self._broker.servers}/{self._spans}"),
            *("--events-topic", f"kafka://{self._broker.servers}/{self.events}"),
        )
        self._stack.callback(gateway.kill)
        return gateway

    def must_run(self) -> None:
        """Fail where a gateway has ended by itself."""
        for gateway in self._gateways:
            assert gateway.process.poll() is None, gateway.log

    def kill(self, victim: str) -> None:
        """Kill -9 a part of it, and start it again."""
        if victim == "collector":
            self.collector.kill()
            self.collector.start()
        elif victim == "broker":
            self._broker.kill()
            self._broker.start()
        else:
            place = int(victim)
            self.must_run()
            self._gateways[place].kill()
            self._gateways[place] = self._gateway()


def calls_of(database: str) -> Counter[str]:
    """Return how often each call is in the ledger: an event by its id, a span by the id of its response."""
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT source, id, response_id FROM fleet_events").fetchall()
    return Counter(response if source == "span" else event for source, event, response in rows)


def tokens_of(database: str) -> dict[tuple[str, str | None], int]:
    """Return the tokens of each customer, apart by whether spans told them, as `cmdrdata usage` says."""
    return {
        (row["customer"], row["source"]): row["units"]["total_tokens"]
        for row in usage(database, "customer,source")
    }


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is ended after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((8, 2_000), id="short", marks=pytest.mark.timeout(600)),
        pytest.param((40, 100_000), id="long", marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_every_acknowledged_call_is_in_the_ledger_once(
    size: tuple[int, int], database: str, mortal: Broker, tmp_path: Path, stack: ExitStack
) -> None:
    """With gateways, Collector and broker killed at random, each acknowledged call is in the ledger, and none twice."""
    kills, calls = size
    seed = int(os.environ.get("CHAIN_SEED") or random.SystemRandom().randrange(2**32))
    print("CHAIN_SEED", seed)
    randomly = random.Random(seed)
    chain = Chain(tmp_path, database, mortal, stack)
    endpoint = f"kafka://{mortal.servers}/{chain.events}"
    applications = [
        *(
            Application(
                *(tmp_path, "events", place * APART),
                CMDRDATA_ENDPOINT=endpoint,
                CMDRDATA_SPOOL_DIR=str(tmp_path / f"spool-{place}"),
                CMDRDATA_PROBE_INTERVAL="1",
            )
            for place in (1, 2)
        ),
        *(Application(tmp_path, "spans", place * APART, chain.collector.url) for place in (3, 4)),
    ]
    for application in applications:
        stack.callback(application.kill)
    victims = ["0", "1", "collector", "broker"] * (kills // 4)
    randomly.shuffle(victims)
    each_time = calls // len(applications) // len(victims) // TOGETHER * TOGETHER
    began = time.monotonic()
    for victim in victims:
        for application in applications:
            application.call(each_time)
        # Somewhere in the middle of that.
        until = recorded(database) + randomly.randrange(1, each_time * len(applications) // 2)
        wait_for(lambda until=until: recorded(database) >= until, PATIENCE)
        chain.kill(victim)
    rest = calls // len(applications) - each_time * len(victims)
    for application in applications:
        application.call(rest // TOGETHER * TOGETHER)
    acknowledged = [application.acknowledged() for application in applications]
    for application, numbers in zip(applications, acknowledged, strict=True):
        assert set(range(application.first, application.first + application.calls)) == numbers
    expected = Counter(f"{number:032x}" for numbers in acknowledged[:2] for number in numbers)
    expected.update(f"chatcmpl-{number}" for numbers in acknowledged[2:] for number in numbers)
    wait_for(lambda: recorded(database) >= len(expected), PATIENCE)
    print(f"{len(expected)} calls, {len(victims)} kills, {time.monotonic() - began:.0f} s")
    chain.must_run()
    assert expected == calls_of(database)
    customers = Counter(
        (f"c{number % 7}", source)
        for numbers, source in zip(acknowledged, (None, None, "span", "span"), strict=True)
        for number in numbers
    )
    assert {of: 15 * number for of, number in customers.items()} == tokens_of(database)
