"""
Measure what each contender adds to a call of the SDK, print it as a table and draw it.

    tox -e benchmark                     # all of it, some 15 minutes; draws docs/performance.svg
    tox -e benchmark -- --quick          # a look, less exact

Every contender has a process of its own. They take turns, the bare SDK first, and each turn is compared with the bare
SDK's in the same round, so that a machine whose speed changes does not change the result. What is printed are medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from contenders import BARE, CONTENDERS, OFFICIAL, OURS, UNTRACED
from drawing import bars
from measuring import SCENARIOS, ready
from printing import cpu, print_table
from processes import Process

TARGETS = {"plain": 0.25, "stream of 100": 0.10}
"""The most that a call with span and event may add, as a part of what the official instrumentation adds."""
STREAM_TARGET = 4096
"""The most bytes that an open stream may hold beside its span."""
DISTRIBUTIONS = (
    "openai",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-genai-openai",
    "openinference-instrumentation-openai",
    "opentelemetry-instrumentation-openai",
    "cmdrdata-openai",
)


@dataclass
class Turns:
    """What one contender needed for one scenario, round by round."""

    microseconds: list[float] = field(default_factory=list[float])
    records: float = 0


Results = dict[str, dict[str, Turns]]
"""By contender and scenario."""


def measure(processes: Mapping[str, Process], rounds: int) -> Results:
    """Have every contender take its turns in every scenario."""
    results: Results = {name: {s.name: Turns() for s in SCENARIOS} for name in processes}
    for scenario in SCENARIOS:
        for _ in range(max(2, rounds // scenario.share)):
            for name, process in processes.items():
                turns = results[name][scenario.name]
                microseconds, turns.records = process.ask("time", scenario)
                turns.microseconds.append(microseconds)
    return results


def added(results: Results, contender: str, scenario: str) -> float:
    """Return the microseconds that a contender adds to a call."""
    bare = results[BARE][scenario].microseconds
    turns = results[contender][scenario].microseconds
    slower = median(turn / alone for turn, alone in zip(turns, bare, strict=True))
    return (slower - 1) * median(bare)


def added_per_chunk(results: Results, contender: str) -> float:
    """Return the microseconds that a contender adds to a chunk, whatever it adds to the call."""
    long, short = (added(results, contender, f"stream of {n}") for n in ("1,000", "100"))
    return (long - short) / 900


def part_of_official(results: Results, scenario: str) -> tuple[float, float, float]:
    """Return what our span and event add, as a part of what the official instrumentation adds: quartiles of rounds."""
    rounds = zip(
        *(results[name][scenario].microseconds for name in (OURS, OFFICIAL, BARE)), strict=True
    )
    low, middle, high = quantiles((ours - bare) / (theirs - bare) for ours, theirs, bare in rounds)
    return low, middle, high


def print_calls(results: Results) -> None:
    """Print what each contender adds, and whether our targets are met."""
    rows: list[list[str]] = []
    for name, turns in results.items():
        if name == BARE:
            cells = [f"{median(turns[s.name].microseconds):.0f}" for s in SCENARIOS]
            rows.append([f"{name}, all of it", *cells, ""])
            continue
        cells = [
            f"{added(results, name, s.name):.0f}" if turns[s.name].records else "not recorded"
            for s in SCENARIOS
        ]
        streamed = turns["stream of 100"].records > 0
        rows.append([name, *cells, f"{added_per_chunk(results, name):.2f}" if streamed else ""])
    print_table(["added µs per call", *(s.name for s in SCENARIOS), "per chunk"], rows)
    for scenario, target in TARGETS.items():
        low, middle, high = part_of_official(results, scenario)
        verdict = "pass" if middle <= target else "FAIL"
        print(
            f"{verdict}  {scenario}: span and event add {middle:.2f} (quartiles {low:.2f} to {high:.2f}) of what the "
            f"official instrumentation adds; target {target:.2f}"
        )


def draw(results: Results) -> str:
    """Return a chart of what each contender adds to a plain call and to a stream."""
    return bars(
        {
            f"µs added to a {title}": {
                name: added(results, name, scenario)
                for name, turns in results.items()
                if name != BARE and turns[scenario].records
            }
            for title, scenario in (
                ("plain call", "plain"),
                ("stream of 100 chunks", "stream of 100"),
            )
        },
        ours="CmdrData",
    )


def measure_memory(calls: int) -> dict[str, Any]:
    """Return the bytes that each contender holds for an open stream, and whether many calls leave something behind."""
    streams: dict[str, float] = {}
    # A bare span has ended when the stream is returned, and cmdrdata-openai does not know streams.
    for name in (BARE, UNTRACED, OURS, OFFICIAL, "OpenInference", "OpenLLMetry"):
        process = Process(ready, name)
        streams[name] = process.ask("open_streams", 300)
        process.end()
    bare = streams.pop(BARE)
    process = Process(ready, OURS)
    growth: list[int] = process.ask("growth", calls)
    process.end()
    return {"open_stream": {name: held - bare for name, held in streams.items()}, "growth": growth}


def print_memory(memory: Mapping[str, Any], calls: int) -> None:
    """Print what was measured of memory, and whether our target is met."""
    held: dict[str, float] = memory["open_stream"]
    print()
    print_table(["added bytes per open stream", ""], [[n, f"{b:,.0f}"] for n, b in held.items()])
    beside = held[UNTRACED]
    verdict = "pass" if beside <= STREAM_TARGET else "FAIL"
    print(
        f"{verdict}  an open stream holds {beside:,.0f} bytes beside its span; target {STREAM_TARGET:,}"
    )
    growth: list[int] = memory["growth"]
    print(f"{calls:,} calls, bytes in use after each tenth: {', '.join(f'{b:,}' for b in growth)}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200, help="turns of each contender")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--memory", action="store_true", help="also memory, with 100,000 calls")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw into FILE")
    options = parser.parse_args()
    rounds = 24 if options.quick else options.rounds

    about = [f"{cpu()}, {multiprocessing.cpu_count()} CPUs", f"Python {platform.python_version()}"]
    about += [f"{name} {version(name)}" for name in DISTRIBUTIONS]
    print("; ".join(about), f"; {rounds} rounds\n", sep="")
    processes = {name: Process(ready, name) for name in CONTENDERS if name != UNTRACED}
    results = measure(processes, rounds)
    for process in processes.values():
        process.end()
    print_calls(results)
    report: dict[str, Any] = {"about": about}
    report["calls"] = {
        name: {scenario: asdict(turns) for scenario, turns in each.items()}
        for name, each in results.items()
    }
    if options.memory:
        calls = 2_000 if options.quick else 100_000
        report["memory"] = measure_memory(calls)
        print_memory(report["memory"], calls)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    if options.plot:
        options.plot.write_text(draw(results))


if __name__ == "__main__":
    main()
