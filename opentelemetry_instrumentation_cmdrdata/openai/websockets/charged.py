"""What is charged of what happens on a connection: an endpoint for each kind, which makes the events' names."""

from __future__ import annotations

from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS, Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.websockets import readings

REALTIME = Endpoint(
    name="realtime",
    path="/realtime",
    read=readings.read_realtime_response,
    has_choices=True,
)
TRANSCRIPTION = Endpoint(
    name="realtime.transcription",
    path="/realtime",
    read=readings.read_realtime_transcription,
)
TRANSLATIONS = Endpoint(
    name="realtime.translations", path="/realtime/translations", read=readings.read_nothing
)
LIVE = Endpoint(name="live", path="/live/sessions", read=readings.read_live_session)
LIVE_RESPONSES = Endpoint(
    name="live.responses",
    path="/live/sessions",
    operation="chat",
    read=readings.read_delegated_response,
    api_type="responses",
    has_choices=True,
)
LIVE_DECISIONS = Endpoint(name="live.decisions", path="/live/sessions", read=readings.read_decision)
RESPONSES = next(row for row in ENDPOINTS if (row.method, row.path) == ("post", "/responses"))
"""The same as over HTTP."""
