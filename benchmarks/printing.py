"""Tables that are Markdown too, and what they were measured on."""

from __future__ import annotations

import platform
from pathlib import Path


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a table that is Markdown too."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, [widths[0] * "-", *("-" * (w - 1) + ":" for w in widths[1:])], *rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        print("|", " | ".join(cells), "|")
    print()


def cpu() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
