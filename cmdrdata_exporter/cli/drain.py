"""`cmdrdata drain`: a process of its own that delivers, where the application should not."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
from pathlib import Path

import click

from cmdrdata_exporter.cli.destination import location_options, no_ledger_option
from cmdrdata_exporter.cli.sending import delivery_of, left, report
from cmdrdata_exporter.cli.service import log_to_stderr, signals_to_end
from cmdrdata_exporter.delivery.durable import DurableDelivery

SHUTDOWN_TIMEOUT = 4.0
"""Seconds that the end may take, before a last commit."""
LOOK = 1.0
"""Seconds between two checks whether this process leads."""

_logger = logging.getLogger("cmdrdata")


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
    log_to_stderr()
    signals = signals_to_end()
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
