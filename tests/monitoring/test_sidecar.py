"""`cmdrdata drain` reports of what it drains, where OpenTelemetry is set up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3
from urllib3.exceptions import HTTPError

from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.ledgers import fill, record
from tests.monitoring.conftest import free_address, running, wait_for

pytestmark = pytest.mark.timeout(300)

BIN = Path(sys.executable).parent


def shown(address: str) -> dict[str, float]:
    """Return the gauges at an address by their names; empty while nobody listens there."""
    try:
        text = urllib3.request("GET", f"http://{address}/metrics", retries=False).data.decode()
    except HTTPError:
        return {}
    found = re.findall(
        r"^(cmdrdata_(?:events|delivery|jobs)_[a-z_]+)\{.*\} (\S+)$", text, re.MULTILINE
    )
    return {
        name: float(value) for name, value in found if not name.endswith(("_total", "_created"))
    }


def test_a_sidecar_tells_what_waits() -> None:
    """Where it leads, nobody else knows what is held and dead."""
    directory = Directory.prepare(Path(os.environ["CMDRDATA_SPOOL_DIR"]), None, "default")
    fill(directory, [record(1), record(2, None)], local=True)
    host, _, port = (address := free_address()).partition(":")
    variables = {
        **os.environ,
        "OTEL_EXPORTER_PROMETHEUS_HOST": host,
        "OTEL_EXPORTER_PROMETHEUS_PORT": port,
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "cmdrdata",
    }
    drain = [BIN / "cmdrdata", "drain", "--destination", "local"]
    with running(
        BIN / "opentelemetry-instrument", *drain, env=variables, stderr=subprocess.DEVNULL
    ):
        found = wait_for(lambda: "cmdrdata_events_held" in (now := shown(address)) and now)
    assert {
        "cmdrdata_delivery_durable": 1,
        "cmdrdata_delivery_paused": 0,
        "cmdrdata_events_dead": 0,
        "cmdrdata_events_held": 1,
        "cmdrdata_events_oldest_pending_seconds": 0,
        "cmdrdata_events_pending": 0,
        "cmdrdata_jobs_oldest_open_seconds": 0,
        "cmdrdata_jobs_open": 0,
    } == found
