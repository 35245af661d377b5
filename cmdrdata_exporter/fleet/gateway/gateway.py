"""A gateway: all its parts, how they start and how they end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cmdrdata_exporter import clocks, processes
from cmdrdata_exporter.delivery import Transport
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.fleet.arrivals import Arrival
from cmdrdata_exporter.fleet.gateway.access import Access
from cmdrdata_exporter.fleet.gateway.brokers import Topic
from cmdrdata_exporter.fleet.gateway.exports import Exports
from cmdrdata_exporter.fleet.gateway.forwarding import Forwarding
from cmdrdata_exporter.fleet.gateway.health import Health
from cmdrdata_exporter.fleet.gateway.ledgers import Ledger, Open
from cmdrdata_exporter.fleet.gateway.limits import Limits
from cmdrdata_exporter.fleet.gateway.members import Member
from cmdrdata_exporter.fleet.gateway.otlp_grpc import GrpcIntake
from cmdrdata_exporter.fleet.gateway.otlp_http import Intake
from cmdrdata_exporter.fleet.gateway.shelf import Settler, Shelf
from cmdrdata_exporter.fleet.gateway.shelving import Shelving
from cmdrdata_exporter.fleet.gateway.topics import Events, Spans
from cmdrdata_exporter.fleet.gateway.upkeep import Upkeep
from cmdrdata_exporter.fleet.gateway.watching import Counts, Pages

SETTLE = 0.25
"""Seconds between two rounds that settle calls."""
STOP = 10.0
"""Seconds that the end may take, about."""

Address = tuple[str, int]


@dataclass(frozen=True)
class Plan:
    """What a gateway takes, and how."""

    url: str
    """Of the ledger's database."""
    http: Address | None = None
    grpc: Address | None = None
    pages: Address | None = None
    """Where the pages are that tell how it is, beside those at `http`."""
    spans: Topic | None = None
    events: Topic | None = None
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    window: float = 2.0
    """Seconds that a span waits for others of its call."""
    post: Transport | None = None
    """Sends an event on to CmdrData; None: events stay in the ledger."""


class Gateway:
    """
    One process's gateway. `start` begins, `stop` ends it.

    Args:
        plan: what it takes.
        open_ledger: opens the ledger.
        read_options: returns the options of librdkafka that the user has set.
    """

    def __init__(
        self, plan: Plan, open_ledger: Open, read_options: Callable[[], Mapping[str, str]]
    ) -> None:
        self._plan = plan
        self._open = open_ledger
        self.counts = Counts()
        self._pages = Pages(self.counts, self._gauges, self.troubles)
        self._shelving = Shelving(Shelf(plan.url))
        self._exports = Exports(self._shelving, plan.access, plan.limits, self.counts)
        self._takes_spans = any((plan.http, plan.grpc, plan.spans))
        self._settling = Settling(plan, open_ledger, self.counts)
        self._upkeep = Upkeep(open_ledger, self.counts)
        self._forwarding = None
        if plan.post is not None:
            self._forwarding = Forwarding(open_ledger, plan.post, self.counts)
        self._members: list[Member] = []
        if plan.spans is not None:
            spans = Spans(plan.spans, Shelf(plan.url), self.counts)
            self._members.append(
                Member(
                    plan.spans, spans, open_ledger, read_options, counts=self.counts, intake="spans"
                )
            )
        if plan.events is not None:
            events = Events(plan.events, open_ledger, self.counts)
            self._members.append(
                Member(
                    plan.events,
                    events,
                    open_ledger,
                    read_options,
                    counts=self.counts,
                    intake="events",
                )
            )
        self.http: Intake | None = None
        self.grpc: GrpcIntake | None = None
        self.pages: Intake | None = None
        self._stopping = False

    def start(self) -> None:
        """
        Make the tables, listen, and join the groups.

        Raises:
            ConfigurationError: something cannot be used as it was asked for.
            psycopg.Error: the database cannot be reached, or written.
            OSError: nobody can listen at an address.
        """
        plan = self._plan
        ledger = self._open()
        try:
            ledger.connect()
        finally:
            ledger.close()
        if plan.http is not None:
            self.http = self._intake(plan.http, self._exports)
        if plan.pages is not None:
            self.pages = self._intake(plan.pages, None)
        if plan.grpc is not None:
            self.grpc = GrpcIntake(plan.grpc, self._exports)
        if self._takes_spans:
            self._shelving.start()
            self._settling.start()
        others = (self._upkeep, self._forwarding, *self._members, self.http, self.grpc, self.pages)
        for part in others:
            if part is not None:
                part.start()

    def _intake(self, address: Address, exports: Exports | None) -> Intake:
        return Intake(address, self._pages, exports, self._plan.limits, self.counts)

    def stop(self) -> bool:
        """Take no more, finish what was begun, leave the groups; return whether all of it ended in time."""
        self._stopping = True
        deadline = clocks.monotonic() + STOP
        for member in self._members:
            member.stop()
        ending = [part for part in (self.http, self.grpc) if part is not None]
        for part in ending:
            part.stop(max(0.1, deadline - clocks.monotonic()))
        in_time = True
        if self._takes_spans:
            in_time = self._shelving.stop(max(0.1, deadline - clocks.monotonic()))
            in_time &= self._settling.stop(max(0.1, deadline - clocks.monotonic()))
        if self._forwarding is not None:
            in_time &= self._forwarding.stop(max(0.1, deadline - clocks.monotonic()))
        in_time &= self._upkeep.stop(max(0.1, deadline - clocks.monotonic()))
        for member in self._members:
            in_time &= member.wait(max(0.1, deadline - clocks.monotonic()))
        # The last one, so that whoever watches sees the end.
        if self.pages is not None:
            self.pages.stop(0.1)
        return in_time

    def described(self) -> list[str]:
        """Return what it takes, for its log."""
        found: list[str] = []
        if self.http is not None:
            found.append(f"OTLP/HTTP at port {self.http.server_port}")
        if self.grpc is not None:
            found.append(f"OTLP/gRPC at port {self.grpc.port}")
        if self.pages is not None:
            found.append(f"its own pages at port {self.pages.server_port}")
        found += [
            f"the topic {each.topic.name} of {each.intake}, group {each.topic.group}"
            for each in self._members
        ]
        if self._plan.post is not None:
            found.append("events are sent on to CmdrData")
        return found

    def troubles(self) -> list[str]:
        """Return what keeps the gateway from taking something now, a line each."""
        found = ["this gateway ends"] if self._stopping else []
        sends = self._forwarding is None or self._forwarding.health.works
        if not (self._shelving.works and self._settling.health.works and sends):
            found.append("the ledger cannot be written")
        found += [member.trouble for member in self._members if member.trouble is not None]
        return found

    def _gauges(self) -> Mapping[str, Mapping[str, float]]:
        found: dict[str, dict[str, float]] = {"in_flight_bytes": {"": self._exports.room.used}}
        intakes = {"http": self.http, "grpc": self.grpc}
        found["connections"] = {
            name: it.connections for name, it in intakes.items() if it is not None
        }
        if self._takes_spans:
            found["waiting_spans"] = {"": self._settling.waiting}
        if self._members:
            found["partitions"] = {each.intake: each.partitions for each in self._members}
            found["lag_records"] = {each.intake: each.lag for each in self._members}
        return found


class Settling:
    """
    The thread that settles calls.

    Args:
        plan: how.
        open_ledger: opens the ledger.
        counts: where to count.
    """

    def __init__(self, plan: Plan, open_ledger: Open, counts: Counts) -> None:
        self._open = open_ledger
        self._ledger: Ledger | None = None
        self._settler = Settler(plan.url, self._store, window=plan.window)
        self._counts = counts
        self._stop = threading.Event()
        self._ended = threading.Event()
        self.health = Health(
            counts,
            "settling",
            fault="calls cannot be settled",
            waits="calls wait to be settled, and none is lost",
            again="calls are settled again",
        )
        self.waiting = 0
        """How many spans waited lately, in all gateways together."""

    def start(self) -> None:
        """Start the thread."""
        processes.start_thread(self._run, name="cmdrdata-gateway-settling")

    def stop(self, seconds: float) -> bool:
        """End after the round that goes on; say whether it ended in time. What waits is settled by another one."""
        self._stop.set()
        return self._ended.wait(seconds)

    def _store(self, arrivals: Sequence[Arrival]) -> int:
        if self._ledger is None:
            self._ledger = self._open()
        return self._ledger.store(arrivals)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            wait = SETTLE
            try:
                self._round()
                self.health.worked()
                failures = 0
            except Exception as error:  # noqa: BLE001 - the thread must live
                self.health.failed(error)
                self._close()
                wait, failures = backoff(failures), failures + 1
            self._stop.wait(wait)
        self._settler.close()
        self._close()
        self._ended.set()

    def _round(self) -> None:
        done = self._settler.round()
        self.waiting = self._settler.waiting()
        self._counts.add("calls", done.calls)
        self._counts.add("calls_repeated", done.calls - done.charges)
        self._counts.add("events", done.new, source="span")
        self._counts.add("events_repeated", done.stored - done.new, source="span")

    def _close(self) -> None:
        if self._ledger is not None:
            ledger, self._ledger = self._ledger, None
            ledger.close()
