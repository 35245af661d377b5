"""The states of events in the ledger of a fleet, as they are stored: those of a local one, and the settled ones."""

from __future__ import annotations

from cmdrdata_exporter.delivery.spool import schema

STATES = (*schema.STATES, "delivered", "dropped")
DELIVERED, DROPPED = STATES.index("delivered"), STATES.index("dropped")
OPEN = (schema.PENDING, schema.IN_FLIGHT, schema.HELD, schema.DEAD)
"""The states that are not final; `state < 4` in indexes."""
