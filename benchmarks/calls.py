"""
Measure what each contender adds to a call of the SDK, print it as a table and draw it.

    tox -e benchmark                     # all of it, some 20 minutes; draws docs/performance.svg
    tox -e benchmark -- --quick          # a look, less exact

Every contender has a process of its own. They take turns, the bare SDK first, so that a machine whose speed changes
does not change the result. What a contender adds is its least time over all rounds less that of the bare SDK: a turn
that something else held up tells about the machine. The quartiles of the rounds show how much of that there was.

Ours delivers as an application's does: into a spool directory on the disk, and three ways of draining it are compared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import quantiles
from typing import Any

from backend import Backend
from contenders import BARE, CONTENDERS, DELIVERING, DOWN, HEALTHY, OFFICIAL, OURS, UNTRACED
from drawing import bars
from measuring import SCENARIOS, ready
from printing import cpu, print_table
from processes import Process

TARGETS = ((OURS, "plain", 0.75), (UNTRACED, "plain", 0.45), (OURS, "stream of 100", 0.30))
"""The most that ours may add to a call, as a part of what the official instrumentation adds."""
BESIDE_TARGET = 0.90
"""The same for the calling thread of a process that delivers to a healthy backend."""
RATE_TARGET = 0.8
"""The same for the whole process of an application at the rate of `AT_A_RATE`."""
AT_A_RATE = {"rate": 50.0, "latency": 0.2}
"""Calls a second, and seconds that each takes: an application of asyncio that is alive, not busy."""
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
    turns, bare = (results[name][scenario].microseconds for name in (contender, BARE))
    return min(turns) - min(bare)


def added_per_chunk(results: Results, contender: str) -> float:
    """Return the microseconds that a contender adds to a chunk, whatever it adds to the call."""
    long, short = (added(results, contender, f"stream of {n}") for n in ("1,000", "100"))
    return (long - short) / 900


def verdict(what: str, target: float, ours: Turns, official: Turns, bare: Turns) -> str:
    """Return a line that says what ours adds as a part of what the official instrumentation adds."""
    least = min(bare.microseconds)
    part = (min(ours.microseconds) - least) / (min(official.microseconds) - least)
    rounds = zip(ours.microseconds, official.microseconds, bare.microseconds, strict=True)
    parts = [(mine - alone) / (theirs - alone) for mine, theirs, alone in rounds if theirs > alone]
    low, _, high = quantiles(parts or [0.0, 0.0])
    return (
        f"{'pass' if part <= target else 'FAIL'}  {what}: {part:.2f} of what the official instrumentation adds "
        f"(quartiles of rounds {low:.2f} to {high:.2f}); target {target:.2f}"
    )


def print_calls(results: Results) -> None:
    """Print what each contender adds, and whether our targets are met."""
    rows: list[list[str]] = []
    for name, turns in results.items():
        if name == BARE:
            cells = [f"{min(turns[s.name].microseconds):.0f}" for s in SCENARIOS]
            rows.append([f"{name}, all of it", *cells, ""])
            continue
        cells = [
            f"{added(results, name, s.name):.0f}" if turns[s.name].records else "not recorded"
            for s in SCENARIOS
        ]
        streamed = turns["stream of 100"].records > 0
        rows.append([name, *cells, f"{added_per_chunk(results, name):.2f}" if streamed else ""])
    print_table(["added µs per call", *(s.name for s in SCENARIOS), "per chunk"], rows)
    for name, scenario, target in TARGETS:
        turns = (results[each][scenario] for each in (name, OFFICIAL, BARE))
        print(verdict(f"{name}, {scenario}", target, *turns))


# Calls while events are delivered


def measure_beside(processes: Mapping[str, Process], rounds: int) -> dict[str, dict[str, Turns]]:
    """Have every contender make calls in a row, and return what they took the calling thread, and all threads."""
    results = {name: {"thread": Turns(), "process": Turns()} for name in processes}
    for _ in range(rounds):
        for name, process in processes.items():
            thread, whole = process.ask("beside", 1.0)
            results[name]["thread"].microseconds.append(thread)
            results[name]["process"].microseconds.append(whole)
    return results


def print_beside(results: Mapping[str, Mapping[str, Turns]]) -> None:
    """Print what each contender adds to calls in a row."""
    rows = [
        [name, *(f"{_added(results, name, who):.0f}" for who in ("thread", "process"))]
        for name in results
        if name != BARE
    ]
    print_table(["added µs per plain call, in a row", "calling thread", "all threads"], rows)
    turns = (results[name]["thread"] for name in (HEALTHY, OFFICIAL, BARE))
    print(verdict(f"{HEALTHY}, the calling thread", BESIDE_TARGET, *turns))


def _added(results: Mapping[str, Mapping[str, Turns]], name: str, who: str) -> float:
    return min(results[name][who].microseconds) - min(results[BARE][who].microseconds)


# An application at the rate of life


@dataclass
class AtARate(Turns):
    """What an application took per call, and how late each answer was, in milliseconds."""

    late: list[list[float]] = field(default_factory=list[list[float]])

    def percentile(self, part: float) -> float:
        """Return the least, over all rounds, of what so large a part of the calls does not exceed."""
        return min(sorted(each)[int(part * (len(each) - 1))] for each in self.late)


def measure_at_a_rate(
    processes: Mapping[str, Process], rounds: int, seconds: float
) -> dict[str, AtARate]:
    """Have every contender make calls at a rate, in turns."""
    results = {name: AtARate() for name in processes}
    for _ in range(rounds):
        for name, process in processes.items():
            used, late = process.ask("at_a_rate", AT_A_RATE["rate"], AT_A_RATE["latency"], seconds)
            results[name].microseconds.append(used)
            results[name].late.append(late)
    return results


def print_at_a_rate(results: Mapping[str, AtARate]) -> None:
    """Print what an application takes, and whether our targets are met."""
    least = min(results[BARE].microseconds)
    rows = [
        [
            f"{name}, all of it" if name == BARE else name,
            f"{min(at.microseconds) - (0 if name == BARE else least):.0f}",
            f"{at.percentile(0.5):.2f}",
            f"{at.percentile(0.99):.2f}",
        ]
        for name, at in results.items()
    ]
    title = f"asyncio, {AT_A_RATE['rate']:.0f} calls/s of {AT_A_RATE['latency'] * 1000:.0f} ms"
    print_table([title, "added CPU µs per call", "p50 ms late", "p99 ms late"], rows)
    print(
        verdict(
            f"{HEALTHY}, all threads", RATE_TARGET, *(results[n] for n in (HEALTHY, OFFICIAL, BARE))
        )
    )
    ours, theirs = (results[name].percentile(0.99) for name in (HEALTHY, OFFICIAL))
    print(
        f"{'pass' if ours <= theirs else 'FAIL'}  {HEALTHY}: 99 in 100 calls are at most {ours:.2f} ms late; "
        f"beside the official instrumentation {theirs:.2f} ms"
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
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk")  # noqa: S108
    options = parser.parse_args()
    rounds = 24 if options.quick else options.rounds

    about = [f"{cpu()}, {multiprocessing.cpu_count()} CPUs", f"Python {platform.python_version()}"]
    about += [f"{name} {version(name)}" for name in DISTRIBUTIONS]
    print("; ".join(about), f"; {rounds} rounds\n", sep="")
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="benchmark-") as spool:
        report = {"about": about, **measure_all(options, rounds, spool)}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def measure_all(options: argparse.Namespace, rounds: int, spool: str) -> dict[str, Any]:
    """Measure everything that was asked for, print it, and return all turns."""
    backend = Process(Backend)
    # Read by the processes of the contenders, which are started from now on.
    os.environ["CMDRDATA_SPOOL_DIR"] = spool
    os.environ["BENCHMARK_BACKEND"] = f"http://127.0.0.1:{backend.ask('port')}/events"
    backend.ask("reset", 0.02)
    report: dict[str, Any] = {}

    processes = {name: Process(ready, name) for name in CONTENDERS}
    calls = measure(processes, rounds)
    for name in CONTENDERS.keys() - {BARE, OURS, OFFICIAL}:
        processes.pop(name).end()
    print_calls(calls)
    report["calls"] = _turns(calls)
    # A process that delivers is busy between its turns too, so that these are measured apart.
    processes |= {name: Process(ready, name) for name in DELIVERING}
    beside = measure_beside(processes, max(3, rounds // 8))
    print()
    print_beside(beside)
    report["beside"] = _turns(beside)
    processes.pop(DOWN).end()
    at_a_rate = measure_at_a_rate(processes, max(3, rounds // 20), 4 if options.quick else 8)
    print()
    print_at_a_rate(at_a_rate)
    report["at_a_rate"] = {name: asdict(turns) for name, turns in at_a_rate.items()}
    for process in (*processes.values(), backend):
        process.end()
    if options.memory:
        number = 2_000 if options.quick else 100_000
        report["memory"] = measure_memory(number)
        print_memory(report["memory"], number)
    if options.plot:
        options.plot.write_text(draw(calls))
    return report


def _turns(results: Mapping[str, Mapping[str, Turns]]) -> dict[str, Any]:
    return {
        name: {scenario: asdict(turns) for scenario, turns in each.items()}
        for name, each in results.items()
    }


if __name__ == "__main__":
    main()
