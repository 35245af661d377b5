"""The headers of a record, as whoever produces it writes them and a gateway reads them."""

from __future__ import annotations

KEY = "Idempotency-Key"
"""The event's id."""
HOST = "CmdrData-Host"
"""The name of the host that recorded the event."""
REPORT = "CmdrData-Report"
"""In the place of `KEY`: the value is no event, but what a host says of itself."""
