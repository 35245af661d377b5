"""One change of a fleet's ledger: a transaction, with what it adds to the totals."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import NamedTuple

from cmdrdata_exporter.fleet.connection import Connection
from cmdrdata_exporter.fleet.totals import Totals

DAY = 86400.0


class Change(NamedTuple):
    """What is done in one transaction."""

    connection: Connection
    totals: Totals
    """Written at its end."""
    now: float
    """In Unix seconds."""

    def day(self, ago: float = 0.0) -> dt.date:
        """Return the UTC day so many days ago."""
        return dt.datetime.fromtimestamp(self.now - ago * DAY, dt.timezone.utc).date()

    def note(self, facts: Mapping[str, object]) -> None:
        """Write down what readers, and other gateways, should know."""
        self.connection.cursor().executemany(
            "INSERT INTO fleet_facts VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [(name, json.dumps(value)) for name, value in sorted(facts.items())],
        )
