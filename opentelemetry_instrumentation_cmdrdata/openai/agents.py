"""
What the endpoints of agent sessions answer: a session, its turns, and the events of both.

A turn is what is charged: once, by its own id, from the widest of the figures that are told of it. An event of its end
has the tokens of the root agent beside the turn, whose own usage is that of all its agents
(https://github.com/openai/openai-python/blob/v3.57.0/src/openai/types/beta/agent_session_turn_completed_event.py).
So a subagent's turn is no charge of its own, nor is the session, which has the sum.
The provider calls all of them best effort.

Pure and tolerant, see `usage`.
"""

from __future__ import annotations

from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.answers import read_error
from opentelemetry_instrumentation_cmdrdata.openai.usage import (
    Reading,
    count,
    get,
    items,
    put,
    read_usage,
    string,
)

# Tuples, since what a server sends for a state need not be hashable.
_ENDED = ("completed", "failed", "cancelled")
_ENDS = frozenset(f"agent.session.turn.{status}" for status in _ENDED)
_AT_REST = ("idle", "failed")
"""The states of a session in which none of its turns goes on."""


def read_session(reading: Reading, body: object) -> None:
    """Read a session: who it is, and by which model its turns are."""
    session = string(get(body, "id"))
    if session is None:
        return
    if reading.job is None:
        reading.is_news = True
    reading.job = session
    agent = get(body, "agent")
    attributes = reading.attributes
    attributes[semconv.SESSION_ID] = session
    put(attributes, semconv.AGENT_ID, get(agent, "id"), string)
    put(attributes, semconv.RESPONSE_MODEL, get(agent, "model"), string)
    put(attributes, semconv.RESPONSE_SERVICE_TIER, get(agent, "service_tier"), string)


def read_input(reading: Reading, body: object) -> None:  # noqa: ARG001 - there is none
    """Read nothing: which session it is, the path says."""
    put(reading.attributes, semconv.SESSION_ID, reading.job, string)


def read_event(reading: Reading, event: object) -> None:
    """Read an event of a session: those with the session itself, and those of the end of a turn."""
    kind = get(event, "type")
    if (session := get(event, "session")) is not None:
        read_session(reading, session)
        # One that waits for its first input is at rest as well, also where that was sent since.
        ended = get(session, "status") in _AT_REST and semconv.TURN_ID in reading.attributes
        reading.is_news |= ended and not reading.has_ended
        reading.has_ended = ended
    elif isinstance(kind, str) and kind in _ENDS:
        turn = _turn(reading, get(event, "turn"), get(event, "usage"))
        put(reading.attributes, semconv.TURN_ID, get(event, "turn_id"), string)
        if turn is not None:
            reading.show(turn)
            reading.is_news = True
    elif kind == "error":
        read_error(reading, get(event, "error"))


def read_turn(reading: Reading, body: object) -> None:
    """Read a turn that was asked for."""
    _read_turn(reading, body, None)


def read_turns(reading: Reading, body: object) -> None:
    """Read a page of turns."""
    turns = list(items(get(body, "data")))
    for turn in turns:
        if (one := _turn(reading, turn, None)) is not None:
            reading.show(one)
    # The session's, where none of them goes on and there is no other page.
    reading.has_ended = get(body, "has_more") is not True and all(
        get(turn, "status") in _ENDED for turn in turns
    )


def _turn(within: Reading, turn: object, of_root: object) -> Reading | None:
    """Return what is to be billed of a turn, None where nothing is."""
    one = Reading()
    if (model := within.attributes.get(semconv.RESPONSE_MODEL)) is not None:
        one.attributes[semconv.RESPONSE_MODEL] = model
    _read_turn(one, turn, of_root)
    return one if one.charges else None


def _read_turn(reading: Reading, turn: object, of_root: object) -> None:
    """
    Read a turn, and whether it is to be billed.

    Args:
        reading: of the turn.
        turn: as the provider has it.
        of_root: what is told beside it, which is the usage of the root agent alone.
    """
    attributes, status = reading.attributes, get(turn, "status")
    reading.job = string(get(turn, "id")) or reading.job
    reading.within = string(get(turn, "session_id"))
    for field, name in (
        ("id", semconv.TURN_ID),
        ("session_id", semconv.SESSION_ID),
        ("agent_id", semconv.AGENT_ID),
        ("status", semconv.STATUS),
    ):
        put(attributes, name, get(turn, field), string)
    put(attributes, semconv.CREATED, get(turn, "created_at"), count)
    usage = get(turn, "usage")
    read_usage(reading, of_root if usage is None else usage)
    if status not in _ENDED:
        return
    reading.has_ended = True
    if get(turn, "subagent_id") is not None or not (reading.has_usage or status == "completed"):
        return
    part = reading.due()
    if reading.has_usage:
        part[semconv.PROVISIONAL] = True
        if usage is None:
            part[semconv.USAGE_STATUS] = "partial"
