"""Events as they come to the ledger of a fleet, at a time that stands still."""

from __future__ import annotations

from typing import Any

from cmdrdata_exporter.events import UsageEvent, encode
from cmdrdata_exporter.fleet.arrivals import Arrival

NOW = 1795286000.0
"""2026-11-21T18:33:20Z."""
DAY = 86400


def event(number: int, customer: str | None = "acme", **changes: Any) -> UsageEvent:
    """Return an event whose id ends with its number, of the hour before now."""
    ended = int(NOW) - 3600 + number
    known: dict[str, Any] = {
        "id": f"{number:032x}",
        "customer_id": customer,
        "provider": "openai",
        "model": "gpt-5-mini",
        "endpoint": "chat.completions",
        "usage_status": "reported",
        "input_tokens": 1000,
        "output_tokens": 20,
        "total_tokens": 1020,
        "usage": {"cached_tokens": 512},
        "timestamp": ended,
        "start_time": (ended - 1) * 1000,
        "end_time": ended * 1000,
        "duration_ms": 1000,
    } | changes
    metadata = {
        "usage_status": known["usage_status"],
        "endpoint": known["endpoint"],
        "request_model": "gpt-5-mini",
        "service_tier": "default",
        "server_address": "api.openai.com",
        "trace_id": f"{number:032x}",
        "response_id": f"chatcmpl-{number}",
        "request_id": f"req_{number}",
    }
    return UsageEvent(**{**known, "metadata": metadata | known.get("metadata", {})})


def arrival(
    number: int,
    customer: str | None = "acme",
    *,
    host: str = "web-1",
    source: str = "event",
    **changes: Any,
) -> Arrival:
    """Return such an event as it comes."""
    made = event(number, customer, **changes)
    return Arrival(made.id, encode(made), host, source)
