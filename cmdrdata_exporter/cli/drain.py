"""`cmdrdata drain`: a process of its own that delivers, where the application should not."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from cmdrdata_exporter.cli.destination import location_options, no_ledger_option
from cmdrdata_exporter.cli.sending import delivery_of, left, report
from cmdrdata_exporter.cli.terminal import plain
from cmdrdata_exporter.delivery.durable import DurableDelivery

SHUTDOWN_TIMEOUT = 4.0
"""Seconds that the end may take, before a last commit."""
LOOK = 1.0
"""Seconds between two checks whether this process leads."""

_logger = logging.getLogger("cmdrdata")


class _Formatter(logging.Formatter):
    """Escapes text from others, as on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return plain(super().format(record), keep="\n")


@click.command()
@location_options
@no_ledger_option
def drain(name: str | None, spool: Path | None, as_json: bool) -> None:
    """
    Deliver events until SIGTERM or SIGINT.

    A sidecar: it sends what applications record in the spool directory, in their place or beside
    them. At the signal it ends within 5 seconds. It logs to stderr.

    Example: CMDRDATA_API_KEY_FILE=/run/secrets/cmdrdata cmdrdata drain
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # A signal handler may interrupt a line that is being logged: it only puts into this queue, which is safe.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def end(number: int, _: FrameType | None) -> None:
        signals.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    delivery, description = delivery_of(spool, name)
    before = left(delivery.directory)
    _logger.info("destination %s, events kept in %s", description, delivery.directory.path)
    delivery.start()
    try:
        _watch(delivery, signals)
    finally:
        delivery.close(SHUTDOWN_TIMEOUT)
    report(before, left(delivery.directory), delivery.drainer.gate.reason, as_json)


def _watch(delivery: DurableDelivery, signals: queue.SimpleQueue[int]) -> None:
    """Wait for the signal to end; log each change of the leader."""
    logged: int | bool | None = False
    wait = 0.1
    while True:
        with contextlib.suppress(queue.Empty):
            _logger.info("%s: ending", signal.Signals(signals.get(timeout=wait)).name)
            return
        leads = delivery.drainer.leads
        now = True if leads else delivery.directory.leader()
        if now == logged:
            wait = LOOK
            continue
        logged = now
        if leads:
            _logger.info("this process is now the leader")
        elif now is not None:
            _logger.info("process %s is the leader; waiting to take over", now or "?")
