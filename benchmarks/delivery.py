"""
Measure the delivery: how fast it is, what it costs the application, what it holds, how soon it begins.

    tox -e benchmark-delivery                # all of it, some 10 minutes; draws docs/performance-delivery.svg
    tox -e benchmark-delivery -- --quick     # a look, less exact, without a backlog of a million

Whatever depends on the machine is compared with something bare that is measured in turns with it: connections of
http.client with one that posts, an append of the same bytes with one that records. What is printed are medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import spool
from backend import Backend
from delivering import Bare, Delivering, Reading
from drawing import bars
from printing import cpu, print_table
from processes import Process
from recording import APPEND, CONTENDERS, EXPORT, QUEUE, RECORD, Recording

LATENCIES = (0.02, 0.05)
"""Seconds that the backend takes for an event."""
BACKLOGS = (0, 10_000, 100_000, 1_000_000)
PLACES = ("ledger", "journals")
"""Where the events of a backlog are: imported, or not yet."""
MODES = {"process": False, "fsync": True}
"""`CMDRDATA_DURABILITY`, and whether an event is on the disk itself when it is recorded."""
SITUATIONS = ("in a row", "4 threads, 250/s each", "beside a busy thread")
PERCENTILES = (0.5, 0.99, 0.999)

RATE_TARGET, CPU_TARGET = 0.75, 400
"""The least part of the bare connections' rate, and the most µs of processor time for an event."""
RECORD_TARGETS = (25, 60, 200)
"""Microseconds that recording an event may take on an idle machine, by percentile."""
BUSY_TARGET = 1.2
"""The most that recording may take beside a busy thread, as a ratio to a bare append there."""
MEMORY_TARGET, START_TARGET, FRESH_TARGET = 60 << 20, 2.0, 1.0
"""The most bytes with any backlog, seconds until the first POST, and seconds from `export` to POST for 95 in 100."""

Report = dict[str, Any]


class Turn(NamedTuple):
    """What one turn of posting came to."""

    rate: float
    """Events per second."""
    cpu: float
    """Microseconds of processor time for an event."""


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that so large a part of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "this takes too long"
        time.sleep(0.02)


class Ground:
    """
    Where everything is measured: a backend, and directories on a disk.

    Args:
        path: a directory for the spools, each of which is removed after use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spools = 0
        self.backend = Process(Backend)
        self.port: int = self.backend.ask("port")

    def spool(self) -> Path:
        """Return a new spool directory, after removing the last one and whatever is being written."""
        self.clear()
        self._spools += 1
        return self._path / f"spool-{self._spools}"

    def clear(self) -> None:
        """Remove the spools that were used."""
        for path in self._path.iterdir():
            shutil.rmtree(path)

    def delivering(self, path: Path) -> Process:
        """Return a process that is about to drain a spool."""
        spool.settle_on_disk()
        return Process(Delivering, str(path), self.port)


# Posting


def post(ground: Ground, latency: float, number: int, *, bare: bool) -> Turn:
    """Post so many events, recorded before, over bare connections or by our delivery."""
    ground.backend.ask("reset", latency)
    if bare:
        process = Process(Bare, ground.port)
    else:
        path = ground.spool()
        spool.fill_journals(path, number)
        process = ground.delivering(path)
    used: float = process.ask("used")
    began: float = process.ask("start", *((number,) if bare else ()))
    wait_for(lambda: ground.backend.ask("number") >= number, 30 + number * latency)
    ended = max(ground.backend.ask("times").values())
    time.sleep(2 * latency)
    used = process.ask("used") - used
    process.kill()
    return Turn(number / (ended - began), used / number * 1e6)


def measure_posting(ground: Ground, rounds: int, quick: bool) -> Report:
    """Take turns, bare connections first."""
    number = 1000 if quick else 4000
    turns: dict[str, list[tuple[Turn, Turn]]] = {}
    for latency in LATENCIES:
        turns[f"{latency * 1000:.0f} ms"] = [
            (
                post(ground, latency, number, bare=True),
                post(ground, latency, number, bare=False),
            )
            for _ in range(rounds)
        ]
    return turns


def print_posting(turns: Report) -> None:
    """Print rates and processor time, and whether our targets are met."""
    rows: list[list[str]] = []
    verdicts: list[str] = []
    for latency, pairs in turns.items():
        rate = [ours[0] / bare[0] for bare, ours in pairs]
        low, middle, high = quantiles(rate) if len(rate) > 1 else rate * 3
        spent = median(ours[1] for _, ours in pairs)
        rows.append(
            [
                latency,
                *(f"{median(turn[0] for turn in each):,.0f}" for each in zip(*pairs, strict=True)),
                f"{middle:.2f}",
                *(f"{median(turn[1] for turn in each):,.0f}" for each in zip(*pairs, strict=True)),
                f"{median(ours[1] / bare[1] for bare, ours in pairs):.2f}",
            ]
        )
        verdicts += [
            f"{verdict(middle >= RATE_TARGET)}  {latency}: {middle:.2f} (quartiles {low:.2f} to {high:.2f}) "
            f"of the rate of bare connections; target {RATE_TARGET:.2f}",
            f"{verdict(spent <= CPU_TARGET)}  {latency}: {spent:.0f} µs of processor time for an event; "
            f"target {CPU_TARGET}",
        ]
    print_table(
        [
            "backend takes",
            *("bare, events/s", "ours, events/s", "ratio"),
            *("bare, CPU µs", "ours, CPU µs", "ratio"),
        ],
        rows,
    )
    print("\n".join(verdicts), end="\n\n")


# Recording


def measure_recording(ground: Ground, rounds: int, quick: bool) -> Report:
    """Have all contenders record, in turns; return percentiles in µs by mode, situation and contender."""
    scale = 0.25 if quick else 1.0
    taken: dict[str, dict[str, dict[str, list[int]]]] = {
        mode: {situation: {} for situation in SITUATIONS} for mode in MODES
    }
    for mode, fsync in MODES.items():
        # A queue in memory knows no durability.
        names = [name for name in CONTENDERS if not (fsync and name == QUEUE)]
        path = ground.spool()
        path.mkdir()
        processes = {
            name: Process(Recording, name, str(path / str(number)), fsync)
            for number, name in enumerate(names)
        }
        requests: dict[str, tuple[float, ...]] = {
            "in_a_row": (int((500 if fsync else 5000) * scale),),
            "at_a_rate": (4, 250, 4 * scale),
            "beside_a_busy_thread": (int(400 * scale),),
        }
        for situation, (measurement, arguments) in zip(SITUATIONS, requests.items(), strict=True):
            for _ in range(rounds):
                for name, process in processes.items():
                    taken[mode][situation].setdefault(name, []).extend(
                        process.ask(measurement, *arguments)
                    )
        for process in processes.values():
            process.kill()
    return {
        mode: {
            situation: {
                name: [percentile(times, part) / 1000 for part in PERCENTILES]
                for name, times in each.items()
            }
            for situation, each in situations.items()
        }
        for mode, situations in taken.items()
    }


def print_recording(report: Report) -> None:
    """Print what recording takes, and whether our targets are met."""
    for mode, situations in report.items():
        for situation, taken in situations.items():
            alone = taken[APPEND]
            rows = [
                [
                    name,
                    *(f"{microseconds:,.1f}" for microseconds in each),
                    *(f"{mine / bare:.1f}" for mine, bare in zip(each, alone, strict=True)),
                ]
                for name, each in taken.items()
            ]
            header = [f"µs, {mode}, {situation}", "p50", "p99", "p99.9"]
            print_table([*header, *(f"p{100 * p:g} ratio" for p in PERCENTILES)], rows)
    for name in (RECORD, EXPORT):
        for situation in SITUATIONS[:2]:
            taken = report["process"][situation][name]
            met = all(mine <= most for mine, most in zip(taken, RECORD_TARGETS, strict=True))
            print(
                f"{verdict(met)}  {name}, {situation}: {', '.join(f'{t:.0f}' for t in taken)} µs; "
                f"target {', '.join(map(str, RECORD_TARGETS))} on an idle machine"
            )
        busy = report["process"][SITUATIONS[2]]
        ratio = busy[name][1] / busy[APPEND][1]
        print(
            f"{verdict(ratio <= BUSY_TARGET)}  {name}, {SITUATIONS[2]}: p99 is {ratio:.2f} of a bare append's; "
            f"target {BUSY_TARGET}"
        )
    print()


# Backlogs


def measure_backlogs(ground: Ground, rounds: int, quick: bool) -> Report:  # noqa: ARG001 - a part's
    """Return what each backlog does to memory and to the start, and how fast the largest was imported."""
    report: Report = {place: {} for place in PLACES}
    for number in BACKLOGS[:3] if quick else BACKLOGS:
        for place in PLACES:
            path = ground.spool()
            if place == "ledger":
                seconds = spool.fill_ledger(path, number)
                report["imported_per_second"] = number / seconds
                report["counts"] = _asked(path, "counts")
            else:
                spool.fill_journals(path, number)
            report[place][number] = _begun(ground, path, empty=not number)
    return report


def _begun(ground: Ground, path: Path, *, empty: bool) -> dict[str, float]:
    """Return the seconds until the first POST; of the five seconds after it the most bytes and events per second."""
    ground.backend.ask("reset", LATENCIES[0])
    process = ground.delivering(path)
    before, _ = process.ask("resident")
    began = process.ask("start")
    if empty:
        process.ask("record", 1)
    wait_for(lambda: ground.backend.ask("first") is not None, 120)
    first = ground.backend.ask("first") - began
    time.sleep(5)
    rate = ground.backend.ask("number") / 5
    _, most = process.ask("resident")
    process.kill()
    return {"start": first, "before": before, "most": most, "rate": rate}


def print_backlogs(report: Report) -> None:
    """Print memory and start by backlog, and whether our targets are met."""
    rows: list[list[str]] = []
    for number in report["ledger"]:
        cells = [f"{int(number):,}"]
        for place in PLACES:
            begun = report[place][number]
            cells += [
                f"{begun['most'] / 2**20:.1f}",
                f"{begun['start']:.2f}",
                f"{begun['rate']:,.0f}",
            ]
        rows.append(cells)
    header = [f"{place}, {what}" for place in PLACES for what in ("MiB", "seconds", "events/s")]
    print_table(["events that wait", *header], rows)
    none, all_of_it = rows[0][0], rows[-1][0]
    for place in PLACES:
        first, *_, last = report[place].values()
        print(
            f"{verdict(last['most'] <= MEMORY_TARGET)}  {all_of_it} events in {place}: "
            f"{last['most'] / 2**20:.1f} MiB, {(last['most'] - first['most']) / 2**20:.1f} more than with {none} and "
            f"{(last['most'] - last['before']) / 2**20:.1f} more than before the start; "
            f"target {MEMORY_TARGET >> 20} MiB"
        )
        print(
            f"{verdict(last['start'] <= START_TARGET)}  {all_of_it} events in {place}: first POST after "
            f"{last['start']:.2f} s; target {START_TARGET:.0f} s"
        )
    print(
        f"import: {report['imported_per_second']:,.0f} events/s; "
        f"`status` of {all_of_it} events: {report['counts'] * 1000:,.0f} ms\n"
    )


# Idle


def measure_idle(ground: Ground, rounds: int, quick: bool) -> Report:  # noqa: ARG001 - a part's
    """Return how soon events are posted on an idle host, and what two idle processes cost."""
    events, seconds = (10, 10) if quick else (60, 60)
    ground.backend.ask("reset", LATENCIES[0])
    path = ground.spool()
    leads = ground.delivering(path)
    leads.ask("start")
    recorded: dict[str, float] = {}
    for number in range(events):
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - no secret
        recorded[spool.event(number)[0]] = leads.ask("record", number)
    wait_for(lambda: ground.backend.ask("number") >= events, 30)
    posted = ground.backend.ask("times")
    follows = ground.delivering(path)
    follows.ask("start")
    time.sleep(1)
    used = [process.ask("used") for process in (leads, follows)]
    time.sleep(seconds)
    idle = [
        (process.ask("used") - before) / seconds
        for process, before in zip((leads, follows), used, strict=True)
    ]
    leads.kill()
    follows.kill()
    return {
        "fresh": [posted[event_id] - began for event_id, began in recorded.items()],
        "idle": dict(zip(("leads", "follows"), idle, strict=True)),
    }


def print_idle(report: Report) -> None:
    """Print how soon events are posted, what idle processes cost, and whether our target is met."""
    half, most = (percentile(report["fresh"], part) for part in (0.5, 0.95))
    print(
        f"{verdict(most <= FRESH_TARGET)}  from `export` to POST on an idle host: p50 {half * 1000:.0f} ms, "
        f"p95 {most * 1000:.0f} ms; target {FRESH_TARGET * 1000:.0f} ms"
    )
    for what, part in report["idle"].items():
        print(f"an idle process that {what}: {part * 100:.2f} % of a processor")
    print()


# Reports


def measure_reports(ground: Ground, rounds: int, quick: bool) -> Report:  # noqa: ARG001 - a part's
    """Return what usage reports over so many events take."""
    report: Report = {}
    for size in (1_000_000,) if quick else (1_000_000, 10_000_000):
        path = ground.spool()
        rows = spool.fill_totals(path, size)
        spool.settle_on_disk()
        report[f"{size:,}"] = {"rows": rows} | {
            title: _asked(path, "report", by, since)
            for title, by, since in (
                ("by customer", ("customer",), None),
                ("by customer and model", ("customer", "model"), None),
                ("by day", ("day",), None),
                ("of the last day", ("customer",), spool.last_day(size)),
            )
        }
    return report


def _asked(path: Path, what: str, *arguments: object) -> Any:
    """Have a process of its own read a ledger three times, and return the median."""
    process = Process(Reading, str(path))
    answers = [process.ask(what, *arguments) for _ in range(3)]
    process.end()
    return median(answers)


def print_reports(report: Report) -> None:
    """Print what usage reports take."""
    rows: list[list[str]] = []
    for size, each in report.items():
        times = {title: value for title, value in each.items() if title != "rows"}
        rows.append(
            [
                size,
                f"{each['rows']:,}",
                *(f"{s * 1000:,.0f} ms, {n:,} lines" for s, n in times.values()),
            ]
        )
    titles = [title for title in next(iter(report.values())) if title != "rows"]
    print_table(["events", "rows", *titles], rows)


# All of it


def verdict(met: bool) -> str:
    """Return how a target was met, as the first word of a line."""
    return "pass" if met else "FAIL"


def draw(report: Report) -> str:
    """Return charts of rates, of recording and of memory, of what was measured."""
    charts: dict[str, dict[str, float]] = {}
    for latency, pairs in report.get("posting", {}).items():
        charts[f"events per second, the backend takes {latency}"] = {
            "bare connections": median(bare[0] for bare, _ in pairs),
            "CmdrData": median(ours[0] for _, ours in pairs),
        }
    if "recording" in report:
        situation = SITUATIONS[0]
        taken = report["recording"]["process"][situation]
        names = {
            APPEND: APPEND,
            QUEUE: "BatchSpanProcessor",
            RECORD: "CmdrData: record",
            EXPORT: "CmdrData: export",
        }
        charts[f"µs to record an event, {situation}, p50"] = {
            shown: taken[name][0] for name, shown in names.items()
        }
    if "backlogs" in report:
        charts["MiB of memory, by the number of events that wait in the ledger"] = {
            f"CmdrData: {int(number):,}": begun["most"] / 2**20
            for number, begun in report["backlogs"]["ledger"].items()
        }
    return bars(charts, ours="CmdrData")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--quick", action="store_true", help="few rounds and small backlogs")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part alone")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk")  # noqa: S108
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw into FILE")
    options = parser.parse_args()
    quick: bool = options.quick
    rounds = 2 if quick else options.rounds

    about = [f"{cpu()}, {multiprocessing.cpu_count()} CPUs", f"Python {platform.python_version()}"]
    about += [f"SQLite {sqlite3.sqlite_version}"]
    about += [f"{name} {version(name)}" for name in ("urllib3", "opentelemetry-sdk")]
    print("; ".join(about), f"; {rounds} rounds\n", sep="")
    report: Report = {"about": about}
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        ground = Ground(Path(directory))
        for name, (measure, show) in PARTS.items():
            if not options.only or name in options.only:
                report[name] = measure(ground, rounds, quick)
                show(report[name])
        ground.backend.kill()
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    if options.plot:
        options.plot.write_text(draw(report))


PARTS: dict[str, tuple[Callable[[Ground, int, bool], Report], Callable[[Report], None]]] = {
    "posting": (measure_posting, print_posting),
    "recording": (measure_recording, print_recording),
    "backlogs": (measure_backlogs, print_backlogs),
    "idle": (measure_idle, print_idle),
    "reports": (measure_reports, print_reports),
}

if __name__ == "__main__":
    main()
