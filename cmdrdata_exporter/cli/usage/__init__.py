"""
`cmdrdata usage`: the usage that was recorded, by whatever a ledger sums it by.

    numbers.py   reads the ledgers: the one way to the numbers, which all that shows them takes
    report.py    a table for a reader, with bars where there is room; `layout.py` says where what stands
    table.py     the same as CSV, a line for each unit
    focus.py     the same as FOCUS, a line for each charge; `meters.py` splits usage so that nothing is in two lines
    costs.py     what it costs, which all of these show, too
    command.py   the options
"""

from __future__ import annotations

from cmdrdata_exporter.cli.usage.numbers import incomplete, usage_of
from cmdrdata_exporter.cli.usage.report import show_usage

__all__ = ["incomplete", "show_usage", "usage_of"]
