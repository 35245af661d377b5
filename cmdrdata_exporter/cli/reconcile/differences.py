"""What differs between both sides, and how much of it is explained so far. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict

from cmdrdata_exporter.cli.reconcile.lines import Group
from cmdrdata_exporter.cli.reconcile.rows import Cause, Row
from cmdrdata_exporter.cli.reconcile.surfaces import REQUESTS

_DATED = re.compile(r"-(\d{4}-\d\d-\d\d|\d{4})$")


class Differences:
    """
    The differences of rows: each cause takes from what is left of them.

    Args:
        rows: both sides.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.at = {row.group: row for row in rows}
        self.left: dict[tuple[Group, str], float] = {
            (row.group, unit): pair.difference
            for row in rows
            for unit, pair in row.units.items()
            if unit != REQUESTS and pair.difference
        }
        """What is not explained yet."""
        self.causes: dict[Group, list[Cause]] = defaultdict(list)
        self.in_jobs: dict[Group, int] = defaultdict(int)
        """The requests that are jobs which nobody has seen to end, as far as that is known."""

    def short(self, row: Row) -> dict[str, float]:
        """Return what is missing here of each unit, as far as nothing explains it."""
        return {unit: -left for unit, left in self._left_of(row).items() if left < 0}

    def more(self, group: Group) -> dict[str, float]:
        """Return what is more here than there."""
        return {unit: left for unit, left in self._left_of(self.at[group]).items() if left > 0}

    def requests(self, row: Row) -> float:
        """Return how many more requests they count than there are calls and open responses; 0 where it is not known."""
        pair = row.units.get(REQUESTS)
        return 0 if pair is None else max(0, -pair.difference - self.in_jobs[row.group])

    def move(self, row: Row, other: Group, code: str, text: str, back: str) -> None:
        """Have what is more in another group make up for what is missing in a row, once."""
        short, more = self.short(row), self.more(other)
        moved = {unit: min(amount, more[unit]) for unit, amount in short.items() if unit in more}
        if not moved:
            return
        for unit, amount in moved.items():
            self.left[row.group, unit] += amount
            self.left[other, unit] -= amount
        self.causes[row.group].append(Cause(code, text, amounts=moved))
        self.causes[other].append(Cause(code, back, amounts=moved))

    def explain(self, row: Row, *, more: bool = False) -> None:
        """Take what is left of a row for explained."""
        for unit in self.more(row.group) if more else self.short(row):
            self.left[row.group, unit] = 0

    def rows(self) -> list[Row]:
        """Return the rows with what is known of them."""
        known: list[Row] = []
        for row in self.at.values():
            left = self._left_of(row)
            requests = self.requests(row)
            if any(amount < 0 for amount in left.values()) and requests:
                left[REQUESTS] = -requests
            known.append(row._replace(causes=tuple(self.causes[row.group]), unexplained=left))
        return known

    def _left_of(self, row: Row) -> dict[str, float]:
        left = {unit: self.left.get((row.group, unit), 0) for unit in row.units}
        return {unit: amount for unit, amount in left.items() if amount}


class Grouping:
    """
    Groups, by what is compared.

    Args:
        by: the dimensions.
    """

    def __init__(self, by: tuple[str, ...]) -> None:
        self.by = by

    def value(self, group: Group, name: str) -> str | None:
        """Return the value of a dimension; None where that is not compared by."""
        return group[self.by.index(name)] if name in self.by else None

    def model(self, group: Group) -> str:
        """Return the model; empty where there is none."""
        return self.value(group, "model") or ""

    def day(self, group: Group) -> dt.date | None:
        """Return the day, None where it is a month or nothing."""
        day = self.value(group, "day")
        return dt.date.fromisoformat(day) if day is not None and len(day) == 10 else None

    def replaced(self, group: Group, name: str, value: str) -> Group:
        """Return the group that has another value of a dimension."""
        return tuple(
            value if one == name else there for one, there in zip(self.by, group, strict=True)
        )

    def undated(self, group: Group) -> Group:
        """Return the group whose model has no date in its name."""
        return self.replaced(group, "model", undated(self.model(group)))


def undated(model: str) -> str:
    """Return the name of a model without its date, `gpt-4o` of `gpt-4o-2024-08-06`."""
    return _DATED.sub("", model)
