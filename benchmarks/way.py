"""
Print the way of one call: the functions of ours that it passes, from the SDK to the POST, thread by thread.

    python benchmarks/way.py             # in an environment with openai, as that of `tox -e benchmark`

A function is counted each time it is entered. What is entered again at once is printed once, with how often.
"""

from __future__ import annotations

import _thread
import argparse
import atexit
import contextlib
import io
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import groupby, pairwise
from types import FrameType
from typing import Any, NamedTuple

from backend import Backend
from printing import table
from processes import Process

PACKAGES = ("opentelemetry_instrumentation_cmdrdata/", "cmdrdata_exporter/")


class Step(NamedTuple):
    """One function that was entered."""

    file: str
    function: str
    depth: int
    """How many functions of ours were entered and not left."""


class Way:
    """What is entered of ours, by thread, while `is_on`."""

    def __init__(self) -> None:
        self.is_on = False
        self.steps: dict[str, list[Step]] = {}
        self._files: dict[str, str | None] = {}

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a function that is entered: for `sys.setprofile`."""
        if not self.is_on or event != "call" or (file := self._ours(frame)) is None:
            return
        depth, above, outermost = 0, frame.f_back, frame
        while above is not None:
            if self._ours(above) is not None:
                depth += 1
                # What starts all threads tells none of them apart.
                if _name(above) != "start_thread.run":
                    outermost = above
            above = above.f_back
        thread = threading.current_thread()
        name = (
            "the caller"
            if thread is threading.main_thread()
            else f"{_name(outermost)} ({thread.name})"
        )
        self.steps.setdefault(name, []).append(Step(file, _name(frame), depth))

    def _ours(self, frame: FrameType) -> str | None:
        """Return the file of a function, if it is ours and no comprehension."""
        code = frame.f_code
        if code.co_name.endswith(("comp>", "genexpr>")):
            return None
        if code.co_filename not in self._files:
            _, found, path = code.co_filename.rpartition(
                next((each for each in PACKAGES if each in code.co_filename), "\\0")
            )
            self._files[code.co_filename] = found + path if found else None
        return self._files[code.co_filename]


def _name(frame: FrameType) -> str:
    code = frame.f_code
    name = code.co_qualname if sys.version_info >= (3, 11) else code.co_name
    return name.replace("<locals>.", "")


def follow_new_threads(way: Way) -> None:
    """Have threads followed that are not made by `threading`: ours are not."""
    start: Callable[..., int] = _thread.start_new_thread

    def followed(function: Callable[..., object], arguments: tuple[Any, ...], *more: Any) -> int:
        def run(*values: Any, **named: Any) -> None:
            sys.setprofile(way.note)
            function(*values, **named)

        return start(run, arguments, *more)

    _thread.start_new_thread = followed


def one_call(way: Way) -> None:
    """Make calls until whatever happens once has happened, then one that is followed to its POST."""
    spool = tempfile.mkdtemp()
    # After what the exporter does at the exit, which is registered later.
    atexit.register(shutil.rmtree, spool)
    backend = Process(Backend)
    os.environ["CMDRDATA_SPOOL_DIR"] = spool
    os.environ["BENCHMARK_BACKEND"] = f"http://127.0.0.1:{backend.ask('port')}/events"
    # They read the environment, and start threads.
    from contenders import DELIVERING, HEALTHY
    from measuring import CALL, Memory, httpx2

    installed = DELIVERING[HEALTHY]()
    client = installed.client(api_key="sk-bench", http_client=httpx2.Client(transport=Memory(0)))
    for _ in range(3):
        client.chat.completions.create(**CALL)
    installed.rest()
    backend.ask("reset", 0.0)
    way.is_on = True
    sys.setprofile(way.note)
    client.chat.completions.create(**CALL)
    sys.setprofile(None)
    until = time.monotonic() + 10
    while not backend.ask("number"):
        assert time.monotonic() < until, "the event was not posted"
        time.sleep(0.01)
    # Its outcome is committed.
    time.sleep(0.2)
    way.is_on = False
    installed.rest()
    backend.kill()


def figures(name: str, steps: list[Step]) -> list[str]:
    """Return the row of a thread."""
    files = [step.file for step in steps]
    return [
        name,
        str(len(steps)),
        str(len({(step.file, step.function) for step in steps})),
        str(len(set(files))),
        str(sum(one != other for one, other in pairwise(files))),
        str(1 + max(step.depth for step in steps)),
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="print the figures alone")
    options = parser.parse_args()
    way = Way()
    follow_new_threads(way)
    # What is said when metering starts would stand before the table.
    logging.disable()
    with contextlib.redirect_stderr(io.StringIO()):
        one_call(way)
    header = ["thread", "calls", "functions", "files", "changes of file", "deepest"]
    print(table(header, [figures(name, steps) for name, steps in way.steps.items()]))
    if options.short:
        return
    for name, steps in way.steps.items():
        print(f"\n{name}")
        least = min(step.depth for step in steps)
        for step, again in groupby(steps):
            times = sum(1 for _ in again)
            indent = "  " * (step.depth - least + 1)
            print(f"{indent}{step.function}  {step.file}{f'  {times} times' if times > 1 else ''}")


if __name__ == "__main__":
    main()
