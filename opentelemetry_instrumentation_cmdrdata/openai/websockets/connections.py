"""
The WebSocket connections of the SDK: one row per resource that has a `connect`.

To meter another one, add its row, and a function to `frames` for each frame that tells something new.
What an older SDK lacks is a row that nothing meets. A connection itself is a span; what is charged is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.websockets import charged, frames, readings
from opentelemetry_instrumentation_cmdrdata.openai.websockets.frames import Observe
from opentelemetry_instrumentation_cmdrdata.openai.websockets.requests import CREATE, DECIDE


@dataclass(frozen=True, eq=False, kw_only=True)
class Connection:
    """What is to be known of the connections of a resource."""

    name: str
    """How a client reaches the resource; `connect` is its method."""
    bills: str
    """What is charged, in words."""
    endpoints: tuple[Endpoint, ...]
    """What is charged: each makes events of its own."""
    asked: Mapping[str, Endpoint]
    """What is charged of what the application asks for, by the type of the frame that it sends."""
    endpoint: Endpoint
    """Of the span of a connection, which makes no event."""
    frames: Mapping[str, Observe]
    """What is done with a frame that tells something, by its type."""
    joins: str | None = None
    """The argument of `connect` that has the id of a session which is there already."""


def _connection(name: str, path: str) -> Endpoint:
    return Endpoint(name=f"{name}.connect", path=path, read=readings.read_nothing, is_charged=False)


_REALTIME: Mapping[str, Observe] = {
    "session.created": frames.realtime_session_began,
    "session.updated": frames.realtime_session_updated,
    # Of the beta.
    "transcription_session.created": frames.realtime_session_began,
    "transcription_session.updated": frames.realtime_session_updated,
    "response.created": frames.realtime_response_began,
    "response.done": frames.realtime_response_ended,
    "conversation.item.input_audio_transcription.completed": frames.realtime_transcribed,
    "error": frames.refused,
}
_LIVE: Mapping[str, Observe] = {
    "session.started": frames.live_session_told,
    "session.updated": frames.live_session_told,
    "session.usage.updated": frames.live_session_used,
    "session.closed": frames.live_session_ended,
    "response.event": frames.delegated_response_told,
    "decision.event": frames.decided,
    "error": frames.refused,
}
_RESPONSES: Mapping[str, Observe] = {
    **dict.fromkeys(
        ("response.created", "response.queued", "response.in_progress"), frames.response_told
    ),
    **dict.fromkeys(
        ("response.completed", "response.incomplete", "response.failed"), frames.response_ended
    ),
    "error": frames.responses_error,
}
_TRANSLATIONS: Mapping[str, Observe] = {
    "session.created": frames.translation_session_told,
    "session.updated": frames.translation_session_told,
    "session.closed": frames.translation_session_ended,
}

_OF_REALTIME = "the tokens of each response, and of each transcript of what was heard"
_OF_LIVE = "the seconds of the session, and the tokens of what it delegates"
_OF_RESPONSES = "as `responses`: the tokens of each response, and calls of the provider's own tools"

CONNECTIONS = (
    *(
        Connection(
            name=name,
            bills=_OF_REALTIME,
            endpoints=(charged.REALTIME, charged.TRANSCRIPTION),
            asked={CREATE: charged.REALTIME},
            endpoint=_connection("realtime", "/realtime"),
            frames=_REALTIME,
        )
        for name in ("realtime", "beta.realtime")
    ),
    Connection(
        name="realtime.translations",
        bills="each session; the provider tells nothing of its usage",
        endpoints=(charged.TRANSLATIONS,),
        asked={},
        endpoint=_connection("realtime.translations", "/realtime/translations"),
        frames=_TRANSLATIONS,
    ),
    *(
        Connection(
            name=name,
            bills=_OF_LIVE,
            endpoints=(charged.LIVE, charged.LIVE_RESPONSES, charged.LIVE_DECISIONS),
            asked={CREATE: charged.LIVE_RESPONSES, DECIDE: charged.LIVE_DECISIONS},
            endpoint=_connection(name, path),
            frames=_LIVE,
            joins=joins,
        )
        for name, path, joins in (
            ("live", "/live/sessions", None),
            ("live.sideband", "/live/sessions/{}/attach", "session_id"),
            ("live.forks", "/live/sessions/{}/fork", None),
        )
    ),
    *(
        Connection(
            name=name,
            bills=_OF_RESPONSES,
            endpoints=(charged.RESPONSES,),
            asked={CREATE: charged.RESPONSES},
            endpoint=_connection("responses", "/responses"),
            frames=_RESPONSES,
        )
        for name in ("responses", "beta.responses")
    ),
)

BY_NAME = {connection.name: connection for connection in CONNECTIONS}
