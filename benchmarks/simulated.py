"""
Measure what each contender adds to a call on a simulated processor: the same figures on every machine, however busy.

    tox -e benchmark-simulated           # valgrind must be installed

Cachegrind counts the instructions and the misses of the caches: two of 32 KB for instructions and data, one of 512 KB
behind them. The SDK's own work between two calls evicts the caches, so what a call touches counts as much as what it
executes. The times are made of the counts by `COSTS`, which give what a quiet machine shows.
System calls count as what leads to them, not what the kernel does in them.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ours
from contenders import BARE, FLOOR, OFFICIAL, OURS, UNTRACED
from measuring import SCENARIOS, Worker
from printing import table

COMPARED = (BARE, FLOOR, UNTRACED, OURS, OFFICIAL)
COSTS = {"Ir": 0.08e-3, "L1": 4e-3, "L2": 13e-3}
"""Microseconds of an instruction, of a miss of the first caches, and of one of the second."""
CALLS = {"plain": 60, "raw": 60, "async": 60, "stream of 100": 16}
"""How many calls of each scenario are counted, after half as many that are not."""

_CACHES = ("--I1=32768,8,64", "--D1=32768,8,64", "--LL=524288,8,64")


def call(contender: str, scenario: str, number: int) -> None:
    """Make calls, and end the process at once: what its end takes is no call's."""
    ours.without_drainer()
    worker = Worker(contender)
    (kind,) = (each for each in SCENARIOS if each.name == scenario)
    worker.run(kind, CALLS[scenario] // 2)
    gc.collect()
    gc.disable()
    worker.run(kind, number)
    os._exit(0)


def counts(contender: str, scenario: str) -> Mapping[str, float]:
    """Return what one call counts: what a process with calls does beyond one that makes none."""
    number = CALLS[scenario]
    none, some = (_counted(contender, scenario, each) for each in (0, number))
    found = {event: (some[event] - none[event]) / number for event in some}
    return {
        "Ir": found["Ir"],
        "L1": sum(found[event] for event in ("I1mr", "D1mr", "D1mw")),
        "L2": sum(found[event] for event in ("ILmr", "DLmr", "DLmw")),
    }


def _counted(contender: str, scenario: str, number: int) -> Mapping[str, int]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        written = Path(directory) / "counts"
        subprocess.run(
            [
                "valgrind",
                "--tool=cachegrind",
                "--cache-sim=yes",
                *_CACHES,
                f"--cachegrind-out-file={written}",
                sys.executable,
                __file__,
                *("--call", contender, scenario, str(number)),
            ],
            check=True,
            # What is said when metering starts would stand between the tables.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "BENCHMARK_BACKEND": ours.ELSEWHERE,
                "CMDRDATA_SPOOL_DIR": directory,
                "PYTHONHASHSEED": "0",
            },
        )
        lines = dict(
            line.split(": ", 1) for line in written.read_text().splitlines() if ": " in line
        )
    return dict(zip(lines["events"].split(), map(int, lines["summary"].split()), strict=True))


def show(scenario: str) -> str:
    """Return the table of a scenario."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        each = pool.map(functools.partial(counts, scenario=scenario), COMPARED)
        found = dict(zip(COMPARED, each, strict=True))
    bare = found.pop(BARE)
    added = {name: {key: each[key] - bare[key] for key in each} for name, each in found.items()}
    times = {name: sum(each[key] * COSTS[key] for key in COSTS) for name, each in added.items()}
    rows = [
        [
            name,
            *(f"{added[name][key]:,.0f}" for key in COSTS),
            f"{times[name]:.0f}",
            f"{times[name] / times[OFFICIAL]:.2f}",
        ]
        for name in added
    ]
    header = [scenario, "instructions", "misses of L1", "misses of L2", "µs", "to the official one"]
    return table(header, rows)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", action="append", choices=CALLS, help="default: all")
    parser.add_argument("--call", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        contender, scenario, number = options.call
        call(contender, scenario, int(number))
    for scenario in options.scenario or CALLS:
        print(f"\n{show(scenario)}", flush=True)


if __name__ == "__main__":
    main()
