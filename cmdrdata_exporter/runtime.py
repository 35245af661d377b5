"""
What a process has one of: its deliveries by destination, the exporter that meters it, and the time that its end takes.

Exporters of one destination share its delivery. What lies below has state of its own: `faults` counts, `processes`
knows who is told of forks, `customer` what a context carries, `delivery` the threads that destinations share.
"""

from __future__ import annotations

import itertools
import logging
import math
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cmdrdata_exporter import announcement, clocks, processes
from cmdrdata_exporter.delivery import Outcome
from cmdrdata_exporter.delivery.destination import HTTP, KAFKA, LOCAL, Destination
from cmdrdata_exporter.delivery.http.client import Client
from cmdrdata_exporter.delivery.local import LocalDelivery
from cmdrdata_exporter.delivery.memory import MemoryDelivery
from cmdrdata_exporter.delivery.options import SENDERS, Options
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.file_systems import UnsafeDirectoryError
from cmdrdata_exporter.processes import SHUTDOWN_TIMEOUT
from cmdrdata_exporter.settings import (
    CMDRDATA_API_KEY,
    CMDRDATA_ENABLED,
    CMDRDATA_ENDPOINT,
    CMDRDATA_KAFKA_OPTIONS,
    ConfigurationError,
    Settings,
)
from cmdrdata_exporter.telemetry import Telemetry
from cmdrdata_exporter.unattributed import Unattributed
from cmdrdata_exporter.version import USER_AGENT

if TYPE_CHECKING:
    # It needs SQLite, which a Python may lack.
    from cmdrdata_exporter.delivery.durable import DurableDelivery
    from cmdrdata_exporter.delivery.kafka.client import Client as KafkaClient
    from cmdrdata_exporter.exporter import CmdrDataSpanExporter

BuiltDelivery: TypeAlias = "DurableDelivery | LocalDelivery | MemoryDelivery"

_SHUTDOWN_WINDOW = 10.0
"""`shutdown` and the exit within this many seconds share one timeout."""


class Runtime(processes.ForkAware):
    """The exporter's state in one process."""

    def __init__(self) -> None:
        self.default: CmdrDataSpanExporter | None = None
        """Meters the calls of this process that no other exporter is named for."""
        self.shutdown_timeout = SHUTDOWN_TIMEOUT
        """Seconds that the exit of the process waits."""
        self.unattributed = Unattributed()
        self.announced: set[str] = set()
        self._settings: dict[tuple[Path | None, Destination], Settings] = {}
        """Of each destination the newest: a key that was rotated takes the place of the one before."""
        self._built: dict[tuple[Path, Destination], tuple[BuiltDelivery, Telemetry]] = {}
        self._numbers = itertools.count()
        self._waited = 0.0
        """Seconds that the end of the process has waited so far."""
        self._waited_until = -math.inf
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self.lock = threading.RLock()

    @property
    def deliveries(self) -> list[BuiltDelivery]:
        """Those of all destinations."""
        return [delivery for delivery, _ in self._built.values()]

    def delivery(self, settings: Settings) -> tuple[BuiltDelivery, Telemetry | None]:
        """
        Return the delivery of a destination and what measures it: the same ones for the same destination.

        Raises:
            ConfigurationError: the spool directory must not be used.
        """
        if settings.spool_dir is None:
            return LocalDelivery(), None  # Metering is switched off: it will get nothing.
        key = settings.spool_dir, settings.target
        with self.lock:
            self._settings[key] = settings
            if key not in self._built:
                telemetry = self.telemetry(settings.target)
                delivery = build(settings, telemetry)
                self._built[key] = delivery, telemetry
                telemetry.watch(delivery)
            return self._built[key]

    def telemetry(self, target: Destination) -> Telemetry:
        """Return what measures one more delivery."""
        return Telemetry(*target, next(self._numbers))

    def newest(self, settings: Settings) -> Settings:
        """Return the settings that are the newest of their destination."""
        return self._settings.get((settings.spool_dir, settings.target), settings)

    def make_default(self, exporter: CmdrDataSpanExporter, shutdown_timeout: float) -> None:
        """Have `exporter` meter this process, whose exit waits as long as that one does."""
        with self.lock:
            self.default = exporter
            self.shutdown_timeout = shutdown_timeout

    def wait(self, wait: Callable[[float], object], timeout: float) -> None:
        """Call `wait` with what is left of the seconds that an end of the process may take."""
        began = clocks.monotonic()
        if began - self._waited_until > _SHUTDOWN_WINDOW:
            self._waited = 0.0
        try:
            wait(max(0.0, timeout - self._waited))
        finally:
            self._waited_until = clocks.monotonic()
            self._waited += self._waited_until - began

    def close(self) -> None:
        """Deliver what is left when the process ends."""
        with ExitStack() as stack:
            # Each is closed, whatever comes of the others.
            for delivery in self.deliveries:
                stack.callback(self.wait, delivery.close, self.shutdown_timeout)


process = Runtime()
"""That of this process."""


def close() -> None:
    """Deliver what is left when the process ends."""
    process.close()


# When this module is imported, so that it runs after whatever ends calls and spans at the exit.
processes.at_exit(close, priority=100)


def announce(level: int, message: str, *args: object, aloud: bool = True) -> None:
    """
    Say how metering starts, once in a process. Never raises.

    Args:
        level: of the log's record.
        message: with a `%s` for each of `args`.
        aloud: whether it goes to stderr where the log does not show it.
    """
    line = message % args if args else message
    if line not in process.announced:
        process.announced.add(line)
        announcement.show(level, message, *args, aloud=aloud)


def announce_destination(settings: Settings, delivery: BuiltDelivery, *, default: bool) -> None:
    """
    Say where events go and are kept, and what becomes of those without a customer.

    Args:
        settings: of the exporter.
        delivery: where it puts its events.
        default: whether it meters the process.
    """
    if not settings.enabled:
        announce(
            logging.INFO,
            "CmdrData usage metering is switched off by %s: calls make spans and no usage events",
            CMDRDATA_ENABLED,
        )
        return
    is_local = settings.target.kind == LOCAL
    local = f". Neither {CMDRDATA_API_KEY} nor {CMDRDATA_ENDPOINT} is set, so usage events " + (
        "are sent nowhere"
        if isinstance(delivery, LocalDelivery)
        else "stay on this machine: cmdrdata usage shows them"
    )
    announce(
        logging.WARNING if is_local else logging.INFO,
        "CmdrData usage metering: destination %s, %s, events without a customer are %s%s",
        settings.destination,
        _kept(delivery),
        "held" if settings.unattributed == "hold" else "sent with customer_id null",
        local if is_local else "",
        # Of the many accounts that clients may bring along only the log has all.
        aloud=default or len(process.deliveries) == 1,
    )


def options(settings: Settings, telemetry: Telemetry | None = None) -> Options:
    """Return how the destination of `settings` is drained, and `telemetry` told of each attempt."""
    how = Options(
        post=None,
        drains=settings.drain == "thread",
        hold_ambiguous=settings.ambiguous == "hold",
        probe_interval=settings.probe_interval,
        totals_by_day_for=settings.totals_by_day_for,
        total_by=settings.total_by,
        index_events=settings.index_events,
    )
    if settings.target.kind not in TRANSPORTS:
        return how
    note = None if telemetry is None else telemetry.note
    client = TRANSPORTS[settings.target.kind](settings, note)
    # Of the transports to those who want to know.
    report = getattr(client, "report", None)
    return replace(how, post=client.post, reset=client.reset, report=report)


def _http(settings: Settings, note: Callable[[Outcome, float], None] | None) -> Client:
    return Client(
        settings.endpoint or "",
        lambda: process.newest(settings).read_key(),
        USER_AGENT,
        connections=SENDERS,
        clock=clocks.wall,
        proxy=settings.proxy,
        note=note,
    )


def _kafka(settings: Settings, note: Callable[[Outcome, float], None] | None) -> KafkaClient:
    # What it needs is an extra.
    from cmdrdata_exporter.delivery.kafka import client

    servers, _, topic = (settings.endpoint or "").removeprefix("kafka://").partition("/")
    if (why := client.refusal(servers, settings.read_kafka_options())) is not None:
        raise ConfigurationError(f"{CMDRDATA_KAFKA_OPTIONS}: {why}")
    return client.Client(
        servers, topic, lambda: process.newest(settings).read_kafka_options(), note=note
    )


TRANSPORTS: dict[
    str, Callable[[Settings, Callable[[Outcome, float], None] | None], Client | KafkaClient]
] = {HTTP: _http, KAFKA: _kafka}
"""What makes the transport to a kind of destination. Of a kind without one the events stay where they are kept."""


def prepare_directory(settings: Settings) -> Directory:
    """
    Return the directory of the destination of `settings`.

    Raises:
        ConfigurationError: it must not be used.
        OSError: it cannot be written.
    """
    try:
        return Directory.prepare(settings.spool_dir or Path(), *settings.target)
    except UnsafeDirectoryError as error:
        raise ConfigurationError(f"the spool directory cannot be used: {error}") from None


def build(settings: Settings, telemetry: Telemetry) -> BuiltDelivery:
    """
    Return a delivery that keeps events on the disk or, where nothing can be written, in memory.

    Args:
        settings: of its destination.
        telemetry: what reports of each attempt.

    Raises:
        ConfigurationError: the directory must not be used.
    """
    how = options(settings, telemetry)
    try:
        import sqlite3
    except ImportError as error:
        return _in_memory(
            how, f"this Python was built without SQLite ({error})", "Use one that has it"
        )
    del sqlite3
    try:
        directory = prepare_directory(settings)
    except OSError as error:
        return _in_memory(
            how,
            f"the spool directory {settings.spool_dir} cannot be used ({error.strerror or error})",
            "Set CMDRDATA_SPOOL_DIR to a directory that can be written",
        )
    from cmdrdata_exporter.delivery.durable import DurableDelivery

    delivery = DurableDelivery(directory, how, fsync=settings.durability == "fsync")
    # uWSGI loads the application in a process whose threads never run, and which must not keep others from draining.
    if "uwsgi" not in sys.modules:
        delivery.start()
    return delivery


def _in_memory(how: Options, reason: str, remedy: str) -> BuiltDelivery:
    announce(
        logging.WARNING,
        "CmdrData: %s: usage events are kept in memory, and what is not delivered when this process ends goes to its "
        "log. %s",
        reason,
        remedy,
    )
    if how.post is None:
        return LocalDelivery()
    return MemoryDelivery(how)


def _kept(delivery: BuiltDelivery) -> str:
    if isinstance(delivery, LocalDelivery | MemoryDelivery):
        return "kept in memory"
    return f"kept in {delivery.directory.path}"
