"""
What a frame does to a session: it begins something that is charged, tells of it, or ends it.

One function for each kind; `connections` says which frames it is for. Each may be called again with the same frame,
where a signal handler has interrupted it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.answers import read_error
from opentelemetry_instrumentation_cmdrdata.openai.usage import get, put, string
from opentelemetry_instrumentation_cmdrdata.openai.websockets import charged
from opentelemetry_instrumentation_cmdrdata.openai.websockets.requests import CREATE, DECIDE

if TYPE_CHECKING:
    from opentelemetry_instrumentation_cmdrdata.call import Call
    from opentelemetry_instrumentation_cmdrdata.openai.websockets.session import Session

Observe = Callable[["Session", object], None]


# --- Realtime ---------------------------------------------------------------------------------


def realtime_session_began(session: Session, frame: object) -> None:
    """Note a session: after the SDK has connected anew it is another one, which ends nothing of the first."""
    session_id = string(get(get(frame, "session"), "id"))
    if session_id != session.id:
        session.cut()
    session.id = session_id
    realtime_session_updated(session, frame)


def realtime_session_updated(session: Session, frame: object) -> None:
    """Note the models of a session: of its responses, and of the transcripts of what it hears."""
    told = get(frame, "session")
    session.model = string(get(told, "model")) or session.model
    heard = get(get(get(told, "audio"), "input"), "transcription")
    if heard is None:
        heard = get(told, "input_audio_transcription")  # Of the beta.
    session.transcription_model = string(get(heard, "model")) or session.transcription_model


def realtime_response_began(session: Session, frame: object) -> None:
    """Begin a response, whoever asked for it: the application, or the provider when it heard somebody end."""
    _realtime_response(session, frame)


def realtime_response_ended(session: Session, frame: object) -> None:
    """End a response, whatever its status."""
    if (call := _realtime_response(session, frame)) is not None:
        session.end(call)


def _realtime_response(session: Session, frame: object) -> Call | None:
    response = get(frame, "response")
    response_id = string(get(response, "id"))
    call = session.part(charged.REALTIME, response_id, None, CREATE, of=response)
    if call is not None:
        put(call.reading.attributes, semconv.RESPONSE_MODEL, session.model, string)
        call.read(response)
    return call


def realtime_transcribed(session: Session, frame: object) -> None:
    """Charge a transcript, which a model of its own has made."""
    item, index = get(frame, "item_id"), get(frame, "content_index")
    part_id = None if string(item) is None else f"{item}:{index or 0}"
    call = session.part(charged.TRANSCRIPTION, part_id, session.transcription_model)
    if call is not None:
        call.read(frame)
        session.end(call)


def refused(session: Session, frame: object) -> None:
    """Take back what the application asked for, where an error says that it was refused."""
    error = get(frame, "error")
    event_id = get(error, "event_id") or get(error, "client_event_id")
    event_id = event_id or get(frame, "client_event_id")
    if string(event_id) is not None:
        request = session.requests.take(event_id=event_id)
    elif get(error, "code") == "conversation_already_has_active_response":
        request = session.requests.take(kind=CREATE, event_id=None)
    else:
        request = None
    if request is not None:
        session.refuse(request, error)


# --- Live -------------------------------------------------------------------------------------


def live_session_told(session: Session, frame: object) -> None:
    """Begin the session; after the SDK has connected anew it may be another one."""
    told = get(frame, "session")
    session.began(string(get(told, "id")))
    session.model = string(get(told, "model")) or session.model
    call = session.part(charged.LIVE, session.id)
    if call is not None:
        put(call.reading.attributes, semconv.RESPONSE_MODEL, session.model, string)


def live_session_used(session: Session, frame: object) -> None:
    """Note what the session has used so far."""
    if (call := session.part(charged.LIVE, session.id)) is not None:
        call.read(frame)


def live_session_ended(session: Session, frame: object) -> None:
    """End the session, with all that it used."""
    live_session_told(session, frame)
    if (call := session.part(charged.LIVE, session.id)) is not None:
        call.read(frame)
        session.end(call)


def delegated_response_told(session: Session, frame: object) -> None:
    """Observe an event of a response that the session has delegated."""
    event = get(frame, "event")
    kind, response = get(event, "type"), get(event, "response")
    if not isinstance(kind, str) or response is None:
        return
    response_id, model = string(get(response, "id")), string(get(response, "model"))
    call = session.part(charged.LIVE_RESPONSES, response_id, model, CREATE, of=response)
    if call is not None:
        call.read(frame)
        if kind in _ENDS:
            session.end(call)


_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))


def decided(session: Session, frame: object) -> None:
    """Charge a decision that the session has delegated. It has no id but that of the frame."""
    decision = get(get(frame, "event"), "decision")
    if decision is None:
        return
    asked = get(frame, "delegation_id") is None and get(frame, "trigger_id") is None
    call = session.part(
        charged.LIVE_DECISIONS,
        string(get(frame, "event_id")),
        string(get(decision, "model")),
        DECIDE if asked else None,
    )
    if call is not None:
        call.read(frame)
        session.end(call)


# --- Responses --------------------------------------------------------------------------------


def response_told(session: Session, frame: object) -> None:
    """Begin a response, or observe what is told of it."""
    _response(session, frame)


def response_ended(session: Session, frame: object) -> None:
    """End a response."""
    if (call := _response(session, frame)) is not None:
        session.end(call)


def _response(session: Session, frame: object) -> Call | None:
    response = get(frame, "response")
    call = session.part(
        charged.RESPONSES,
        string(get(response, "id")),
        string(get(response, "model")),
        CREATE,
        of=response,
        lane=string(get(frame, "stream_id")),
    )
    if call is not None:
        call.read_part(frame)
    return call


def responses_error(session: Session, frame: object) -> None:
    """
    End the response of a lane, or take back what was asked for in it: an error names its lane only.

    One of a response's stream has a number in it. One with a status instead is about what was sent meanwhile, and the
    response goes on.
    """
    lane = string(get(frame, "stream_id"))
    error = get(frame, "error")
    call = session.in_lane(lane)
    is_of_request = get(frame, "status") is not None and get(frame, "sequence_number") is None
    if call is not None and not is_of_request:
        read_error(call.reading, error)
        session.end(call, cut=True)
    elif (request := session.requests.take(kind=CREATE, lane=lane)) is not None:
        session.refuse(request, error)


# --- Translations -----------------------------------------------------------------------------


def translation_session_told(session: Session, frame: object) -> None:
    """Begin the session, of whose usage nothing is ever told."""
    told = get(frame, "session")
    session.began(string(get(told, "id")))
    session.model = string(get(told, "model")) or session.model
    call = session.part(charged.TRANSLATIONS, session.id)
    if call is not None:
        call.is_complete = True  # Whenever it ends, it has told all that it will.
        put(call.reading.attributes, semconv.RESPONSE_MODEL, session.model, string)


def translation_session_ended(session: Session, frame: object) -> None:  # noqa: ARG001 - it tells nothing else
    """End the session."""
    if (call := session.part(charged.TRANSLATIONS, session.id)) is not None:
        session.end(call)
