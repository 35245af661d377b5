"""
How long `cmdrdata reconcile` takes for a month of 100,000 calls, and whether it finds exactly what is missing.

    python -m benchmarks.reconcile [CALLS]

Both sides are fabricated, with known gaps (`tests.usage_months`). Once theirs comes as files, once from a stand-in of
the usage API on loopback, which pages and limits its rate at times. It ends with status 1 if anything else is found.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.cli.test_reconcile import differing, record_in, write
from tests.usage_api import KEY, UsageServer
from tests.usage_months import FIRST, GAPS, LAST, Month

CALLS = 100_000


def main() -> None:
    """Print how long it takes, either way."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    with tempfile.TemporaryDirectory() as folder:
        spool, month = Path(folder, "spool"), Month(calls)
        record_in(Directory.prepare(spool, None, "default"), month)
        files = write(Path(folder), month)
        found = [_timed(f"{len(month.records):,} events, files", spool, *files)]
        with UsageServer(
            month.provider, limits_each=10, limit=(429, {"Retry-After-Ms": "10"})
        ) as server:
            options = ("--from-api", "--base-url", server.url, "--since", FIRST, "--until", LAST)
            found.append(_timed(f"{len(month.records):,} events, API", spool, *options))
    if any(one != list(GAPS) for one in found):
        raise SystemExit("what was found is not what is missing")


def _timed(name: str, spool: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run the command in a process of its own; print how long it takes, and return the rows that differ."""
    command = [sys.executable, "-c", "from cmdrdata_exporter.cli import main; main()", "reconcile"]
    environment = {**os.environ, "CMDRDATA_SPOOL_DIR": str(spool), "OPENAI_ADMIN_KEY": KEY}
    begin, spent = time.perf_counter(), _spent()
    done = subprocess.run(
        [*command, "--json", *arguments], check=True, capture_output=True, env=environment
    )
    took = time.perf_counter() - begin
    print(f"{name}: {took:.2f} s, of which the process ran {_spent() - spent:.2f} s")
    return differing(json.loads(done.stdout))


def _spent() -> float:
    """Return the seconds of CPU that the programs have taken that were run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
