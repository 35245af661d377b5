"""
Measure the delivery: how fast it is, what it costs the application, what it holds, how soon it begins.

    tox -e benchmark-delivery                # all of it, some 15 minutes
    tox -e benchmark-delivery -- --quick     # a look, less exact, without a backlog of a million
    tox -e benchmark-delivery -- --write docs/performance.md

Whatever depends on the machine is compared with something bare that is measured in turns with it: connections that post
and do nothing else, an append of the same bytes, the same process that does not drain.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import spool
from backend import Backend
from delivering import BareLoop, BareThreads, Delivering
from drawing import bars
from ours import DEAD, ELSEWHERE
from printing import Page, Target, load, table, targets
from processes import Process
from reading import Reading
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

CPU_TARGET, RATE_TARGET = 1.2, 0.9
"""The most processor time for an event, and the least rate, as parts of those of bare connections."""
BESIDE_TARGET = 1.5
"""The most that p99 of `record` may be beside a drainer at work, as a part of that without one."""
CONNECTIONS_TARGET, THREADS_TARGET = 2, 4
"""The most connections to a backend that answers nothing, and threads that a delivery to a dead one adds."""
RECORD_TARGETS = (25, 60, 200)
"""Microseconds that recording an event may take on an idle machine, by percentile."""
BUSY_TARGET = 1.2
"""The most that recording may take beside a busy thread, as a ratio to a bare append there."""
MEMORY_TARGET, START_TARGET, FRESH_TARGET = 60 << 20, 2.0, 1.0
"""The most bytes with any backlog, seconds until the first POST, and seconds from `export` to POST for 95 in 100."""

Report = dict[str, Any]


class Turn(NamedTuple):
    """What one turn of posting came to, once connections are open and threads at work."""

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
        self.endpoint = f"http://127.0.0.1:{self.port}/events"
        # Names the directory of a spool that other processes fill and read.
        os.environ["BENCHMARK_BACKEND"] = self.endpoint

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
        return Process(Delivering, str(path), self.endpoint)


# Posting

LOOP, THREADS, OURS = "a bare loop", "bare threads", "ours"
"""The loop is a floor, with a tenth of the threads' cost: it neither reads nor writes a disk."""


def measure_posting(ground: Ground, rounds: int, quick: bool) -> Report:
    """Have bare connections and our delivery post the same events, in turns; return turns by latency and name."""
    number = 4000
    path = ground.spool()
    processes = {
        LOOP: Process(BareLoop, ground.port),
        THREADS: Process(BareThreads, ground.port),
        OURS: ground.delivering(path),
    }
    records = Process(Delivering, str(path), ground.endpoint, False)
    turns: dict[str, dict[str, list[Turn]]] = {}
    first = 0
    for latency in LATENCIES[:1] if quick else LATENCIES:
        each = turns[f"{latency * 1000:.0f} ms"] = {name: [] for name in processes}
        ground.backend.ask("reset", latency)
        if not first:
            processes[OURS].ask("start")
            processes[OURS].ask("record", first)
            processes[OURS].ask("flush")
            records.ask("start")
            first += 1
        for _ in range(rounds):
            for name, process in processes.items():
                ground.backend.ask("reset", latency)
                if name == OURS:
                    spool.settle_on_disk()
                    used = -process.ask("used")
                    # By another process: what recording takes is not what delivering takes.
                    records.ask("record", first, number)
                    wait_for(lambda: ground.backend.ask("number") >= number, 60)
                    time.sleep(2 * latency + 0.1)
                    used += process.ask("used")
                else:
                    used = process.ask("post", first, number)
                first += number
                seconds = ground.backend.ask("last") - ground.backend.ask("first")
                each[name].append(Turn((number - 1) / seconds, used / number * 1e6))
    for process in (records, *processes.values()):
        process.kill()
    return turns


def show_posting(page: Page, turns: Report) -> list[Target]:
    """Show rates and processor time, and return our targets."""
    rows: list[list[str]] = []
    found: list[Target] = []
    for latency, each in turns.items():
        best = {
            name: Turn(max(turn.rate for turn in of), min(turn.cpu for turn in of))
            for name, of in each.items()
        }
        rows += [
            [
                f"{name}, {latency}",
                f"{turn.rate:,.0f}",
                f"{turn.rate / best[LOOP].rate:.2f}",
                f"{turn.cpu:,.0f}",
                f"{turn.cpu / best[LOOP].cpu:.2f}",
            ]
            for name, turn in best.items()
        ]
        pairs = list(zip(each[OURS], each[THREADS], strict=True))
        found += [
            Target(
                f"delivery, {latency}: CPU for an event, to that of {THREADS}",
                best[OURS].cpu / best[THREADS].cpu,
                CPU_TARGET,
                [mine.cpu / bare.cpu for mine, bare in pairs],
            ),
            *(
                Target(
                    f"delivery, {latency}: rate, to that of {name}",
                    best[OURS].rate / best[name].rate,
                    RATE_TARGET,
                    [
                        mine.rate / bare.rate
                        for mine, bare in zip(each[OURS], each[name], strict=True)
                    ],
                    at_least=True,
                )
                for name in (THREADS, LOOP)
            ),
        ]
    header = ["backend takes", "events/s", "to the loop's", "CPU µs for an event", "to the loop's"]
    page.show("delivery: posting", table(header, rows), load() + "\n")
    return found


# Beside a drainer at work

PACES = (250, 50)
"""Events a second."""


def measure_beside(ground: Ground, rounds: int, quick: bool) -> Report:
    """Record at a pace where the process delivers, and where it does not; return by pace what each record took."""
    ground.backend.ask("reset", LATENCIES[0])
    path = ground.spool()
    processes = {
        "off": Process(Delivering, str(path), ELSEWHERE, False),
        "delivers": ground.delivering(path),
    }
    for process in processes.values():
        process.ask("start")
    report: Report = {}
    first = 0
    for pace in PACES:
        seconds = (2 if quick else 4) * (1 if pace > 100 else 2)
        report[str(pace)] = {name: [] for name in processes}
        for _ in range(rounds):
            for name, process in processes.items():
                taken, used = process.ask("paced", first, pace, seconds)
                first += 10_000
                report[str(pace)][name].append(
                    [*(percentile(taken, part) / 1000 for part in PERCENTILES[:2]), used * 1e6]
                )
                if name == "delivers":
                    process.ask("flush")
    for process in processes.values():
        process.kill()
    return report


def show_beside(page: Page, report: Report) -> list[Target]:
    """Show what recording takes where the process delivers, and return our target."""
    rows: list[list[str]] = []
    for pace, each in report.items():
        least = {
            name: [min(column) for column in zip(*of, strict=True)] for name, of in each.items()
        }
        rows += [
            [f"{pace} events/s, drainer {'at work' if name == 'delivers' else name}"]
            + [f"{figure:,.0f}" for figure in figures]
            for name, figures in least.items()
        ]
    pace = str(PACES[0])
    pairs = zip(report[pace]["delivers"], report[pace]["off"], strict=True)
    beside, off = (min(of[1] for of in report[pace][name]) for name in ("delivers", "off"))
    header = ["least of all rounds", "record p50 µs", "record p99 µs", "CPU µs for an event"]
    page.show("delivery: recording beside it", table(header, rows), load() + "\n", about=False)
    return [
        Target(
            f"`record` at {pace}/s beside a drainer at work: p99, to that with the drainer off",
            beside / off,
            BESIDE_TARGET,
            [mine[1] / alone[1] for mine, alone in pairs],
        )
    ]


# Dead backends


def measure_dead(ground: Ground, rounds: int, quick: bool) -> Report:  # noqa: ARG001 - a part's
    """Return the threads and connections of a delivery to a backend that is not there, or never answers."""
    report: Report = {}
    seconds = 5 if quick else 15
    for name, endpoint in (("refuses connections", DEAD), ("never answers", ground.endpoint)):
        # Longer than an attempt may take.
        ground.backend.ask("reset", 3600.0)
        process = Process(Delivering, str(ground.spool()), endpoint)
        before = process.ask("threads", 0.1)
        process.ask("start")
        process.ask("record", 0, 1000)
        threads = process.ask("threads", seconds) - before
        most, opened = ground.backend.ask("connections")
        process.kill()
        report[name] = {"threads": threads, "most": most, "opened": opened}
    return report


def show_dead(page: Page, report: Report) -> list[Target]:
    """Show what is there of threads and connections, and return our targets."""
    header = ["the backend", "threads added", "connections at once", "connections opened"]
    rows = [[name, *(str(number) for number in each.values())] for name, each in report.items()]
    page.show("delivery: dead backends", table(header, rows), about=False)
    connections = Target(
        "a backend that never answers: connections at once",
        report["never answers"]["most"],
        CONNECTIONS_TARGET,
        digits=0,
    )
    return [connections] + [
        Target(f"a backend that {name}: threads added", each["threads"], THREADS_TARGET, digits=0)
        for name, each in report.items()
    ]


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


def show_recording(page: Page, report: Report) -> list[Target]:
    """Show what recording takes, and return our targets."""
    texts: list[str] = []
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
            texts.append(table([*header, *(f"p{100 * p:g} ratio" for p in PERCENTILES)], rows))
    page.show("delivery: recording", *texts, load() + "\n", about=False)
    found: list[Target] = []
    for name in (RECORD, EXPORT):
        found += [
            Target(f"{name}, {situation}: p{100 * part:g} µs", taken, limit, digits=0)
            for situation in SITUATIONS[:2]
            for part, taken, limit in zip(
                PERCENTILES, report["process"][situation][name], RECORD_TARGETS, strict=True
            )
        ]
        busy = report["process"][SITUATIONS[2]]
        found.append(
            Target(
                f"{name}, {SITUATIONS[2]}: p99, to a bare append's",
                busy[name][1] / busy[APPEND][1],
                BUSY_TARGET,
            )
        )
    return found


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


def show_backlogs(page: Page, report: Report) -> list[Target]:
    """Show memory and start by backlog, and return our targets."""
    rows: list[list[str]] = []
    for number in report["ledger"]:
        cells = [f"{int(number):,}"]
        for place in PLACES:
            begun = report[place][number]
            cells += [
                f"{begun['most'] / 2**20:.1f}",
                f"{(begun['most'] - begun['before']) / 2**20:.1f}",
                f"{begun['start']:.2f}",
                f"{begun['rate']:,.0f}",
            ]
        rows.append(cells)
    what = ("MiB", "MiB more than before", "seconds", "events/s")
    header = [f"{place}, {each}" for place in PLACES for each in what]
    all_of_it = rows[-1][0]
    page.show(
        "delivery: backlogs",
        table(["events that wait", *header], rows),
        f"Import: {report['imported_per_second']:,.0f} events/s; "
        f"`status` of {all_of_it} events: {report['counts'] * 1000:,.0f} ms.\n",
        about=False,
    )
    found: list[Target] = []
    for place in PLACES:
        *_, last = report[place].values()
        what = f"{all_of_it} events in {place}"
        found += [
            Target(f"{what}: MiB of memory", last["most"] / 2**20, MEMORY_TARGET >> 20, digits=1),
            Target(f"{what}: seconds until the first POST", last["start"], START_TARGET),
        ]
    return found


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


def show_idle(page: Page, report: Report) -> list[Target]:
    """Show how soon events are posted and what idle processes cost, and return our target."""
    half, most = (percentile(report["fresh"], part) for part in (0.5, 0.95))
    rows = [
        ["from `export` to POST, p50", f"{half * 1000:.0f} ms"],
        ["from `export` to POST, p95", f"{most * 1000:.0f} ms"],
    ]
    rows += [
        [f"a process that {what}", f"{part * 100:.2f} % of a processor"]
        for what, part in report["idle"].items()
    ]
    page.show("delivery: at rest", table(["on an idle host", ""], rows), about=False)
    return [Target("on an idle host: p95 of seconds from `export` to POST", most, FRESH_TARGET)]


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
                ("of the last day, by hour", ("hour",), spool.last_day()),
            )
        }
    return report


def _asked(path: Path, what: str, *arguments: object) -> Any:
    """Have a process of its own read a ledger three times, and return the median."""
    process = Process(Reading, str(path))
    answers = [process.ask(what, *arguments) for _ in range(3)]
    process.end()
    return median(answers)


def show_reports(page: Page, report: Report) -> list[Target]:
    """Show what usage reports take, which has no target."""
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
    page.show("delivery: usage reports", table(["events", "rows", *titles], rows), about=False)
    return []


# All of it


def draw(report: Report) -> str:
    """Return charts of rates, of recording and of memory, of what was measured."""
    charts: dict[str, dict[str, float]] = {}
    for latency, turns in report.get("posting", {}).items():
        charts[f"events per second, the backend takes {latency}"] = {
            shown: max(turn.rate for turn in turns[name])
            for name, shown in ((LOOP, LOOP), (THREADS, THREADS), (OURS, "CmdrData"))
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
    parser.add_argument("--rounds", type=int, help="turns of each contender; default: 8")
    parser.add_argument("--quick", action="store_true", help="few rounds and small backlogs")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part alone")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk")  # noqa: S108
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write what was measured there")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="tables into PAGE, chart beside")
    options = parser.parse_args()
    quick: bool = options.quick
    rounds: int = options.rounds or (3 if quick else 8)
    page = Page(options.write, ("opentelemetry-sdk", "urllib3", "h11", "orjson"), rounds)
    report: Report = {"about": page.about}
    found: dict[str, list[Target]] = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        ground = Ground(Path(directory))
        for name, (measure, show) in PARTS.items():
            if name in (options.only or PARTS):
                report[name] = measure(ground, rounds, quick)
                found[name] = show(page, report[name])
        ground.backend.kill()
    for title, parts in TITLES.items():
        if shown := [target for part in parts for target in found.get(part, ())]:
            page.show(title, targets(shown), about=False)
    if options.json:
        (options.json / "delivery.json").write_text(json.dumps(report, indent=1))
    if not options.only:
        page.draw(draw(report), "-delivery.svg")


Show = Callable[[Page, Report], list[Target]]
PARTS: dict[str, tuple[Callable[[Ground, int, bool], Report], Show]] = {
    "posting": (measure_posting, show_posting),
    "beside": (measure_beside, show_beside),
    "dead": (measure_dead, show_dead),
    "recording": (measure_recording, show_recording),
    "backlogs": (measure_backlogs, show_backlogs),
    "idle": (measure_idle, show_idle),
    "reports": (measure_reports, show_reports),
}
TITLES = {
    "delivery: targets": ("posting", "beside", "dead"),
    "delivery: other targets": ("recording", "backlogs", "idle"),
}
"""The tables of targets, and the parts that each is of."""

if __name__ == "__main__":
    main()
