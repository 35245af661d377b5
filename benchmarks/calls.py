"""
Measure what each contender adds to a call of the SDK, print it as tables and draw it.

    tox -e benchmark                     # all of it; then the delivery's targets, a call's way, the code's size
    tox -e benchmark -- --quick          # what has targets alone, less exact
    tox -e benchmark -- --write docs/performance.md

Every contender has a process of its own. They take turns, the bare SDK first, so that a machine whose speed changes
does not change the result. What a contender adds is its least time over all rounds less that of the bare SDK: a turn
that something else held up tells about the machine. The quartiles of the rounds show how much of that there was.

Ours delivers as an application's does: into a spool directory on the disk, and three ways of draining it are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backend import Backend
from contenders import (
    BARE,
    CONTENDERS,
    DOWN,
    FLOOR,
    HEALTHY,
    OFFICIAL,
    OURS,
    UNTRACED,
)
from drawing import bars
from measuring import SCENARIOS, Scenario, ready
from printing import Page, Target, load, table, targets
from processes import Process

TARGETS = (
    (OURS, "plain", 0.75),
    (UNTRACED, "plain", 0.45),
    (OURS, "raw", 0.75),
    (OURS, "async", 0.75),
    (OURS, "stream of 100", 0.30),
)
"""The most that ours may add to a call, as a part of what the official instrumentation adds."""
BESIDE_TARGET = 0.90
"""The same for the calling thread of a process that delivers to a healthy backend."""
RATE_TARGET = 0.8
"""The same for the whole process of an application at the rate of `AT_A_RATE`."""
LATE_TARGET = 1.05
"""The most that the lateness of its answers may be, as a part of the official one's: no worse, but for noise."""
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
WITH_TARGETS = (BARE, FLOOR, UNTRACED, OURS, OFFICIAL)
"""The contenders of a quick look."""


@dataclass
class Turns:
    """What one contender needed for one scenario, round by round."""

    microseconds: list[float] = field(default_factory=list[float])
    records: float = 0


Results = dict[str, dict[str, Turns]]
"""By contender and scenario."""


def measure(
    processes: Mapping[str, Process], scenarios: Sequence[Scenario], rounds: int
) -> Results:
    """Have every contender take its turns in every scenario."""
    results: Results = {name: {s.name: Turns() for s in scenarios} for name in processes}
    for scenario in scenarios:
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


def compared(what: str, limit: float, ours: Turns, official: Turns, bare: Turns) -> Target:
    """Return what ours adds as a part of what the official instrumentation adds."""
    least = min(bare.microseconds)
    part = (min(ours.microseconds) - least) / (min(official.microseconds) - least)
    rounds = zip(ours.microseconds, official.microseconds, bare.microseconds, strict=True)
    parts = [(mine - alone) / (theirs - alone) for mine, theirs, alone in rounds if theirs > alone]
    return Target(what, part, limit, parts)


def calls_table(results: Results) -> str:
    """Return what each contender adds to each kind of call."""
    scenarios = list(results[BARE])
    per_chunk = "stream of 1,000" in scenarios
    rows: list[list[str]] = []
    for name, turns in results.items():
        if name == BARE:
            cells = [f"{min(turns[each].microseconds):.0f}" for each in scenarios]
            rows.append([f"{name}, all of it", *cells, *[""] * per_chunk])
            continue
        cells = [
            f"{added(results, name, each):.0f}" if turns[each].records else "not recorded"
            for each in scenarios
        ]
        if per_chunk:
            streamed = turns["stream of 100"].records > 0
            cells.append(f"{added_per_chunk(results, name):.2f}" if streamed else "")
        rows.append([name, *cells])
    return table(["added µs per call", *scenarios, *["per chunk"] * per_chunk], rows)


def calls_targets(results: Results) -> list[Target]:
    """Return what ours adds to each kind of call that has a target."""
    return [
        compared(
            f"{name}, {scenario}: CPU added, to the official one's",
            limit,
            *(results[each][scenario] for each in (name, OFFICIAL, BARE)),
        )
        for name, scenario, limit in TARGETS
    ]


# Calls while events are delivered

Beside = dict[str, dict[str, Turns]]
"""By contender and thread."""


def measure_beside(processes: Mapping[str, Process], rounds: int) -> Beside:
    """Have every contender make calls in a row, and return what they took the calling thread, and all threads."""
    results: Beside = {name: {"thread": Turns(), "process": Turns()} for name in processes}
    for _ in range(rounds):
        for name, process in processes.items():
            thread, whole = process.ask("beside", 0.6)
            results[name]["thread"].microseconds.append(thread)
            results[name]["process"].microseconds.append(whole)
    return results


def beside_table(*results: Beside) -> str:
    """Return what each contender adds to calls in a row, each compared with the bare SDK beside it."""
    rows = [
        [
            name,
            *(
                f"{min(turns.microseconds) - min(each[BARE][who].microseconds):.0f}"
                for who, turns in threads.items()
            ),
        ]
        for each in results
        for name, threads in each.items()
        if name != BARE
    ]
    return table(["added CPU µs per plain call, in a row", "calling thread", "all threads"], rows)


# An application at the rate of life


@dataclass
class AtARate(Turns):
    """What an application took per call, and how late each answer was, in milliseconds."""

    late: list[list[float]] = field(default_factory=list[list[float]])

    def percentiles(self, part: float) -> list[float]:
        """Return, for each round, what so large a part of the calls does not exceed."""
        return [sorted(each)[int(part * (len(each) - 1))] for each in self.late]


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


def at_a_rate_table(results: Mapping[str, AtARate]) -> str:
    """Return what an application takes with each contender."""
    least = min(results[BARE].microseconds)
    rows = [
        [
            f"{name}, all of it" if name == BARE else name,
            f"{min(at.microseconds) - (0 if name == BARE else least):.0f}",
            f"{min(at.percentiles(0.5)):.2f}",
            f"{min(at.percentiles(0.99)):.2f}",
        ]
        for name, at in results.items()
    ]
    title = f"asyncio, {AT_A_RATE['rate']:.0f} calls/s of {AT_A_RATE['latency'] * 1000:.0f} ms"
    return table([title, "added CPU µs per call", "p50 ms late", "p99 ms late"], rows)


def at_a_rate_targets(results: Mapping[str, AtARate]) -> list[Target]:
    """Return what an application takes with ours, beside what it takes with the official instrumentation."""
    ours, official = results[HEALTHY], results[OFFICIAL]
    cpu = f"{HEALTHY}, 50 calls/s: CPU of all threads added, to the official one's"
    found = [compared(cpu, RATE_TARGET, ours, official, results[BARE])]
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        mine, theirs = ours.percentiles(part), official.percentiles(part)
        found.append(
            Target(
                f"{HEALTHY}, 50 calls/s: {name} of lateness, to the official one's",
                min(mine) / min(theirs),
                LATE_TARGET,
                [one / other for one, other in zip(mine, theirs, strict=True)],
            )
        )
    return found


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


def memory_text(memory: Mapping[str, Any], calls: int) -> list[str]:
    """Return what was measured of memory."""
    held: dict[str, float] = memory["open_stream"]
    beside = Target(
        "bytes that an open stream holds beside its span", held[UNTRACED], STREAM_TARGET, digits=0
    )
    growth = ", ".join(f"{used:,}" for used in memory["growth"])
    return [
        table(["added bytes per open stream", ""], [[n, f"{b:,.0f}"] for n, b in held.items()]),
        targets([beside]),
        f"{calls:,} calls, bytes in use after each tenth: {growth}.\n",
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="turns of each contender; default: 300")
    parser.add_argument("--quick", action="store_true", help="few rounds of what has targets")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write every turn there")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="tables into PAGE, chart beside")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk")  # noqa: S108
    options = parser.parse_args()
    rounds: int = options.rounds or (80 if options.quick else 300)
    page = Page(options.write, DISTRIBUTIONS, rounds)
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="benchmark-") as spool:
        report = {"about": page.about, **measure_all(options, page, rounds, spool)}
    if options.json:
        (options.json / "calls.json").write_text(json.dumps(report, indent=1))


def measure_all(options: argparse.Namespace, page: Page, rounds: int, spool: str) -> dict[str, Any]:
    """Measure everything that was asked for, show it, and return all turns."""
    quick: bool = options.quick
    backend = Process(Backend)
    # Read by the processes of the contenders, which are started from now on.
    os.environ["CMDRDATA_SPOOL_DIR"] = spool
    os.environ["BENCHMARK_BACKEND"] = f"http://127.0.0.1:{backend.ask('port')}/events"
    backend.ask("reset", 0.02)
    report: dict[str, Any] = {}

    processes = {name: Process(ready, name) for name in (WITH_TARGETS if quick else CONTENDERS)}
    scenarios = [each for each in SCENARIOS if each.has_target or not quick]
    calls = measure(processes, scenarios, rounds)
    for name in processes.keys() - {BARE, OURS, OFFICIAL}:
        processes.pop(name).end()
    page.show("calls", calls_table(calls), load() + "\n")
    report["calls"] = _turns(calls)
    found = calls_targets(calls)

    # A process that delivers is busy between its turns too, so that these are measured apart.
    processes[HEALTHY] = Process(ready, HEALTHY)
    beside = measure_beside(processes, max(4, rounds // 8))
    down = Process(ready, DOWN)
    without = measure_beside({BARE: processes[BARE], DOWN: down}, max(4, rounds // 20))
    down.kill()
    page.show("beside", beside_table(beside, without), load() + "\n", about=False)
    report["beside"] = _turns(beside) | {"backend is down": _turns(without)}
    found[1:1] = [
        compared(
            f"{HEALTHY}, plain: CPU of the calling thread added, to the official one's",
            BESIDE_TARGET,
            *(beside[name]["thread"] for name in (HEALTHY, OFFICIAL, BARE)),
        )
    ]

    processes.pop(OURS).end()
    at_a_rate = measure_at_a_rate(processes, max(8, rounds // 10), 1.5 if quick else 3.0)
    page.show("at a rate", at_a_rate_table(at_a_rate), load() + "\n", about=False)
    report["at_a_rate"] = {name: asdict(turns) for name, turns in at_a_rate.items()}
    found += at_a_rate_targets(at_a_rate)
    for process in (*processes.values(), backend):
        process.end()
    page.show("targets of calls", targets(found), about=False)

    if not quick:
        number = 100_000
        report["memory"] = measure_memory(number)
        page.show("memory", *memory_text(report["memory"], number), about=False)
    page.draw(draw(calls), ".svg")
    return report


def _turns(results: Mapping[str, Mapping[str, Turns]]) -> dict[str, Any]:
    return {
        name: {scenario: asdict(turns) for scenario, turns in each.items()}
        for name, each in results.items()
    }


if __name__ == "__main__":
    main()
