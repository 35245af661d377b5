"""Usage as CSV, for a spreadsheet or a database."""

from __future__ import annotations

import csv
import io

from cmdrdata_exporter.cli.terminal import Json
from cmdrdata_exporter.cli.usage.numbers import EVENTS


def usage_as_csv(found: Json) -> str:
    """
    Return what `cmdrdata usage --csv` prints: a line for each unit of each group, `customer,model,unit,amount`.

    So a unit that nobody used before adds lines, never a column. The number of events is a unit, too; whoever has no
    customer is empty.
    """
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow([*found["by"], "unit", "amount"])
    for row in found["rows"]:
        for unit, amount in {EVENTS: row[EVENTS], **row["units"], **_cost(row)}.items():
            lines.writerow([*(row[name] or "" for name in found["by"]), unit, amount])
    return written.getvalue()


def _cost(row: Json) -> Json:
    """Return what a row costs as one more unit, whose name says whether it is only the least."""
    if row.get("cost") is None:
        return {}
    return {"cost_usd_at_least" if row["cost_is_least"] else "cost_usd": row["cost"]}
