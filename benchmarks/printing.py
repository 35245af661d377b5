"""What a benchmark found: tables in Markdown, targets that were met or not, and the page that has them."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import quantiles


@dataclass(frozen=True)
class Target:
    """
    One figure and what it should be.

    Args:
        what: was measured.
        value: the figure, of the least of all rounds unless `what` says otherwise.
        limit: the most that it should be.
        rounds: the figure of each round, whose quartiles show how far they differ.
        at_least: whether `limit` is the least that it should be.
        digits: of the figures, after the point.
    """

    what: str
    value: float
    limit: float
    rounds: Sequence[float] = ()
    at_least: bool = False
    digits: int = 2

    @property
    def is_met(self) -> bool:
        """Whether the figure is what it should be."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def cells(self) -> list[str]:
        """Return the row of a table."""
        quartiles = quantiles(self.rounds) if len(self.rounds) > 1 else ()
        shown = [f"{number:,.{self.digits}f}" for number in (self.value, *quartiles)]
        sign = "≥" if self.at_least else "≤"
        return [
            self.what,
            *shown,
            *[""] * (4 - len(shown)),
            f"{sign} {self.limit:,.{self.digits}f}",
            "pass" if self.is_met else "FAIL",
        ]


def targets(found: Sequence[Target]) -> str:
    """Return a table of figures beside what they should be."""
    header = ["target", "measured", "quartile 1", "median", "quartile 3", "should be", ""]
    return table(header, [target.cells() for target in found])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = [widths[0] * "-", *("-" * (width - 1) + ":" for width in widths[1:])]
    lines: list[str] = []
    for row in (header, rule, *rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


class Page:
    """
    What is printed, part by part, and written into a page between the markers of each part.

    Args:
        path: the page, with a chart beside it; None: it is printed alone.
        about: the distributions that matter, if they are installed.
        rounds: how often.
    """

    def __init__(self, path: Path | None, about: Sequence[str], rounds: int) -> None:
        self._path = path
        versions: list[str] = []
        for name in about:
            with contextlib.suppress(PackageNotFoundError):
                versions.append(f"{name} {version(name)}")
        python = f"Python {platform.python_version()}"
        self.about = (
            f"Measured on {datetime.now(timezone.utc):%Y-%m-%d} with {python} on {os.cpu_count()} CPUs "
            f"({_processor()}), {', '.join(versions)}; {rounds} rounds."
        )

    def show(self, part: str, *texts: str, about: bool = True) -> None:
        """Print a part and, where the page has markers for it, write it there."""
        text = "\n".join((self.about + "\n", *texts) if about else texts)
        print(f"\n## {part}\n{text}", flush=True)
        if self._path is None:
            return
        begin, end = f"<!-- measured: {part} -->\n", "<!-- end -->\n"
        page = self._path.read_text()
        written, number = re.subn(
            f"{re.escape(begin)}.*?{end}",
            lambda _: f"{begin}\n{text}\n{end}",
            page,
            flags=re.DOTALL,
        )
        assert number == 1, f"{self._path} has {number} places for {part}"
        self._path.write_text(written)

    def draw(self, chart: str, suffix: str) -> None:
        """Draw beside the page, in a file that is called as it is, with `suffix`."""
        if self._path is not None:
            self._path.with_name(self._path.stem + suffix).write_text(chart)


def load() -> str:
    """Return how busy the machine is, which every time depends on."""
    one, five, fifteen = os.getloadavg()
    return f"Load of the machine: {one:.1f}, {five:.1f}, {fifteen:.1f} programs."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
