"""
Every WebSocket connection that is metered: how it is made, what is played on it, and what must be recorded of it.

A connection that the installed version of the SDK lacks has no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.sdk import VERSION
from tests.websocket import Await, Frame

CUSTOMER = "acme"


@dataclass(frozen=True)
class Part:
    """What is charged of a session: its span and its event."""

    endpoint: str
    operation: str
    model: str
    request_model: str
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further attributes of its span."""
    tokens: tuple[int, int, int] = (0, 0, 0)
    usage: dict[str, Any] = field(default_factory=dict[str, Any])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    status: str = "reported"
    first_token: bool = False
    is_cut: bool = False
    """Whether its end never came."""
    error: str | None = None
    """The class of the exception that ended it."""

    @property
    def span(self) -> tuple[str, dict[str, Any]]:
        """Name and attributes of its span."""
        name, _, _ = self.operation.partition("/")
        attributes = {
            "gen_ai.operation.name": name,
            "gen_ai.provider.name": "openai",
            "server.address": "127.0.0.1",
            "gen_ai.request.model": self.request_model,
            "gen_ai.request.stream": True,
            "cmdrdata.customer.id": CUSTOMER,
            **self.attributes,
        }
        if self.first_token:
            attributes["first_chunk"] = True
        if self.error is not None:
            attributes["error.type"] = self.error
        return f"{name} {self.request_model}", attributes

    @property
    def event(self) -> dict[str, Any]:
        """Its event, as `metering.steady` has it."""
        event: dict[str, Any] = {
            "customer_id": CUSTOMER,
            "model": self.model,
            "input_tokens": self.tokens[0],
            "output_tokens": self.tokens[1],
            "total_tokens": self.tokens[2],
            "provider": "openai",
            "metadata": {
                "usage_status": self.status,
                "endpoint": self.endpoint,
                "request_model": self.request_model,
                "service_tier": None,
                "server_address": "127.0.0.1",
                "usage": self.usage,
                **self.metadata,
            },
            "version": "0.1.0",
            "error": {
                "occurred": self.error is not None,
                "type": None if self.error is None else "connection_error",
                "code": None,
                "message": None if self.error is None else self.error.rpartition(".")[2],
            },
            "request": {"streaming": True, "retry_count": 0, "success": self.error is None},
        }
        if self.first_token:
            event["first_token"] = True
        return event

    def lost(self, error: str) -> Part:
        """Return what is recorded of it where the connection was lost."""
        return replace(self, error=error) if self.is_cut else self


@dataclass(frozen=True)
class Case:
    """A connection: how it is made, what is played on it, and what must be recorded of it."""

    name: str
    """Of the resource that makes it."""
    arguments: dict[str, Any]
    operation: str
    """Of its own span."""
    requests: Sequence[Mapping[str, Any]]
    """What the application sends when it is connected."""
    frames: Sequence[Frame]
    """A whole session."""
    parts: Sequence[Part]
    """What is charged of the whole session, in the order of its ends."""
    cut: int
    """After how many frames there is something of which the end has not come."""
    cut_parts: Sequence[Part]
    """What is charged of the session that is left there."""
    since: tuple[int, int]

    @property
    def steps(self) -> list[Frame | Await]:
        """What the provider does."""
        return [*(Await(str(one["type"])) for one in self.requests), *self.frames]

    @property
    def span(self) -> tuple[str, dict[str, Any]]:
        """Name and attributes of the connection's span."""
        model = self.arguments.get("model")
        attributes = {
            "gen_ai.operation.name": self.operation,
            "gen_ai.provider.name": "openai",
            "server.address": "127.0.0.1",
            "cmdrdata.customer.id": CUSTOMER,
        }
        if model is None:
            return self.operation, attributes
        return f"{self.operation} {model}", {**attributes, "gen_ai.request.model": model}


# --- Realtime ---------------------------------------------------------------------------------

_HEARD: Frame = {
    "type": "conversation.item.input_audio_transcription.completed",
    "event_id": "event_4",
    "item_id": "item_1",
    "content_index": 0,
    "transcript": "What is the secret?",
    "usage": {
        "type": "tokens",
        "input_tokens": 14,
        "output_tokens": 3,
        "total_tokens": 17,
        "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
    },
}
_HEARD_SECONDS: Frame = {
    **_HEARD,
    "event_id": "event_5",
    "item_id": "item_2",
    "usage": {"type": "duration", "seconds": 8.5},
}
_ANSWER: Frame = {
    "type": "response.done",
    "event_id": "event_7",
    "response": {
        "object": "realtime.response",
        "id": "resp_1",
        "status": "completed",
        "conversation_id": "conv_1",
        "output": [{"id": "item_3", "type": "message", "role": "assistant", "content": []}],
        "usage": {
            "input_tokens": 100,
            "output_tokens": 20,
            "total_tokens": 120,
            "input_token_details": {
                "text_tokens": 30,
                "audio_tokens": 60,
                "image_tokens": 10,
                "cached_tokens": 35,
                "cached_tokens_details": {
                    "text_tokens": 10,
                    "audio_tokens": 20,
                    "image_tokens": 5,
                },
            },
            "output_token_details": {"text_tokens": 5, "audio_tokens": 15},
        },
    },
}
_INTERRUPTED: Frame = {
    "type": "response.done",
    "event_id": "event_9",
    "response": {
        "object": "realtime.response",
        "id": "resp_2",
        "status": "cancelled",
        "status_details": {"type": "cancelled", "reason": "turn_detected"},
        "conversation_id": "conv_1",
        "output": [],
        "usage": {"input_tokens": 120, "output_tokens": 7, "total_tokens": 127},
    },
}


def created(response_id: str) -> Frame:
    """Return the frame with which a response of the Realtime API begins."""
    return {
        "type": "response.created",
        "event_id": f"event_{response_id}",
        "response": {
            "object": "realtime.response",
            "id": response_id,
            "status": "in_progress",
            "conversation_id": "conv_1",
            "output": [],
            "usage": None,
        },
    }


def _piece(response_id: str) -> Frame:
    return {
        "type": "response.output_audio.delta",
        "event_id": "event_6",
        "response_id": response_id,
        "item_id": "item_3",
        "output_index": 0,
        "content_index": 0,
        "delta": "AAAA",
    }


REALTIME_SESSION: Frame = {
    "type": "session.created",
    "event_id": "event_1",
    "session": {
        "type": "realtime",
        "id": "sess_1",
        "model": "gpt-realtime-2025-08-28",
        "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}},
    },
}
_TRANSCRIPT = Part(
    endpoint="realtime.transcription",
    operation="realtime.transcription",
    model="gpt-4o-transcribe",
    request_model="gpt-4o-transcribe",
    attributes={
        "gen_ai.usage.input_tokens": 14,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.text.input_tokens": 4,
        "gen_ai.usage.audio.input_tokens": 10,
    },
    tokens=(14, 3, 17),
    usage={"text_input_tokens": 4, "audio_input_tokens": 10},
    metadata={"item_id": "item_1", "session_id": "sess_1"},
)
_RESPONSE = Part(
    endpoint="realtime",
    operation="realtime",
    model="gpt-realtime-2025-08-28",
    request_model="gpt-realtime",
    attributes={
        "gen_ai.response.model": "gpt-realtime-2025-08-28",
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.conversation.id": "conv_1",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.text.input_tokens": 30,
        "gen_ai.usage.audio.input_tokens": 60,
        "gen_ai.usage.image.input_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 35,
        "gen_ai.usage.text.cache_read.input_tokens": 10,
        "gen_ai.usage.audio.cache_read.input_tokens": 20,
        "gen_ai.usage.image.cache_read.input_tokens": 5,
        "gen_ai.usage.text.output_tokens": 5,
        "gen_ai.usage.audio.output_tokens": 15,
    },
    tokens=(100, 20, 120),
    usage={
        "text_input_tokens": 30,
        "audio_input_tokens": 60,
        "image_input_tokens": 10,
        "cache_read_input_tokens": 35,
        "text_cache_read_input_tokens": 10,
        "audio_cache_read_input_tokens": 20,
        "image_cache_read_input_tokens": 5,
        "text_output_tokens": 5,
        "audio_output_tokens": 15,
    },
    metadata={"response_id": "resp_1", "finish_reason": "stop", "session_id": "sess_1"},
    first_token=True,
)
_CUT_RESPONSE = replace(
    _RESPONSE,
    attributes={
        "gen_ai.response.model": "gpt-realtime-2025-08-28",
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.finish_reasons": ("error",),
        "gen_ai.conversation.id": "conv_1",
    },
    tokens=(0, 0, 0),
    usage={},
    metadata={**_RESPONSE.metadata, "finish_reason": None},
    status="partial",
    is_cut=True,
)

REALTIME = Case(
    name="realtime",
    arguments={"model": "gpt-realtime"},
    operation="realtime.connect",
    requests=[{"type": "response.create"}],
    frames=[
        REALTIME_SESSION,
        {"type": "input_audio_buffer.committed", "event_id": "event_2", "item_id": "item_1"},
        created("resp_1"),
        _HEARD,
        _piece("resp_1"),
        _HEARD_SECONDS,
        _ANSWER,
        # What the provider begins by itself, since somebody spoke.
        created("resp_2"),
        _INTERRUPTED,
    ],
    parts=[
        _TRANSCRIPT,
        replace(
            _TRANSCRIPT,
            attributes={"cmdrdata.usage.audio_seconds": 8.5},
            tokens=(0, 0, 0),
            usage={"audio_seconds": 8.5},
            metadata={"item_id": "item_2", "session_id": "sess_1"},
        ),
        _RESPONSE,
        replace(
            _RESPONSE,
            attributes={
                "gen_ai.response.model": "gpt-realtime-2025-08-28",
                "gen_ai.response.id": "resp_2",
                "gen_ai.response.finish_reasons": ("error",),
                "gen_ai.conversation.id": "conv_1",
                "gen_ai.usage.input_tokens": 120,
                "gen_ai.usage.output_tokens": 7,
            },
            tokens=(120, 7, 127),
            usage={},
            metadata={"response_id": "resp_2", "finish_reason": None, "session_id": "sess_1"},
            first_token=False,
        ),
    ],
    cut=5,
    cut_parts=[_TRANSCRIPT, _CUT_RESPONSE],
    since=(2, 54),
)

BETA_REALTIME = replace(
    REALTIME,
    name="beta.realtime",
    frames=[
        {
            "type": "session.created",
            "event_id": "event_1",
            "session": {
                "id": "sess_1",
                "model": "gpt-realtime-2025-08-28",
                "input_audio_transcription": {"model": "gpt-4o-transcribe"},
            },
        },
        *REALTIME.frames[1:],
    ],
    since=(1, 66),
)

# --- Translations -----------------------------------------------------------------------------

TRANSLATION = Part(
    endpoint="realtime.translations",
    operation="realtime.translations",
    model="gpt-translate-2026-01-01",
    request_model="gpt-translate",
    attributes={"gen_ai.response.model": "gpt-translate-2026-01-01"},
    metadata={"session_id": "sess_2"},
    status="missing",
)
TRANSLATIONS = Case(
    name="realtime.translations",
    arguments={"model": "gpt-translate"},
    operation="realtime.translations.connect",
    requests=[],
    frames=[
        {
            "type": "session.created",
            "event_id": "event_1",
            "session": {
                "id": "sess_2",
                "type": "translation",
                "expires_at": 1_900_000_000,
                "model": "gpt-translate-2026-01-01",
                "audio": {"output": {"language": "de"}},
            },
        },
        {"type": "session.output_transcript.delta", "event_id": "event_2", "delta": "Hallo"},
        {"type": "session.closed", "event_id": "event_3"},
    ],
    parts=[TRANSLATION],
    cut=2,
    cut_parts=[replace(TRANSLATION, is_cut=True)],
    since=(3, 57),
)

# --- Live -------------------------------------------------------------------------------------

LIVE_SESSION: dict[str, Any] = {
    "id": "live_1",
    "expires_at": 1_900_000_000,
    "model": "gpt-live-1",
    "status": "active",
}
_DELEGATED: dict[str, Any] = {
    "id": "resp_7",
    "object": "response",
    "model": "gpt-5-mini-2025-08-07",
    "created_at": 1_700_000_002,
    "output": [],
}


def used(seconds: float) -> Frame:
    """Return the frame that tells what a Live session has used so far."""
    return {
        "type": "session.usage.updated",
        "event_id": f"event_{seconds}",
        "usage": {"seconds": seconds, "active_seconds": int(seconds) - 2, "paused_seconds": 2},
    }


LIVE_PART = Part(
    endpoint="live",
    operation="live",
    model="gpt-live-1",
    request_model="gpt-live-1",
    attributes={
        "gen_ai.response.model": "gpt-live-1",
        "gen_ai.response.finish_reasons": ("close_requested",),
        "cmdrdata.usage.session_seconds": 21,
        "cmdrdata.usage.active_seconds": 19,
        "cmdrdata.usage.paused_seconds": 2,
    },
    usage={"session_seconds": 21, "active_seconds": 19, "paused_seconds": 2},
    metadata={"session_id": "live_1", "finish_reason": "close_requested"},
)
CUT_LIVE_PART = replace(
    LIVE_PART,
    attributes={
        "gen_ai.response.model": "gpt-live-1",
        "gen_ai.response.finish_reasons": ("error",),
        "cmdrdata.usage.session_seconds": 12,
        "cmdrdata.usage.active_seconds": 10,
        "cmdrdata.usage.paused_seconds": 2,
    },
    usage={"session_seconds": 12, "active_seconds": 10, "paused_seconds": 2},
    metadata={"session_id": "live_1", "finish_reason": None},
    status="partial",
    is_cut=True,
)
_DELEGATED_PART = Part(
    endpoint="live.responses",
    operation="chat",
    model="gpt-5-mini-2025-08-07",
    request_model="gpt-5-mini-2025-08-07",
    attributes={
        "openai.api.type": "responses",
        "gen_ai.response.id": "resp_7",
        "gen_ai.response.model": "gpt-5-mini-2025-08-07",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 23,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.usage.reasoning.output_tokens": 5,
    },
    tokens=(23, 12, 35),
    usage={"cache_read_input_tokens": 8, "reasoning_output_tokens": 5},
    metadata={
        "response_id": "resp_7",
        "created": 1_700_000_002,
        "finish_reason": "stop",
        "session_id": "live_1",
    },
)
_DECISION_PART = Part(
    endpoint="live.decisions",
    operation="live.decisions",
    model="gpt-decide-1",
    request_model="gpt-decide-1",
    attributes={
        "gen_ai.response.model": "gpt-decide-1",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 1,
    },
    tokens=(9, 1, 10),
    usage={"cache_read_input_tokens": 0, "reasoning_output_tokens": 0},
    metadata={"session_id": "live_1"},
)


def _delegated(kind: str, **response: Any) -> Frame:
    return {
        "type": "response.event",
        "event_id": f"event_{kind}",
        "delegation_id": "delegation_1",
        "event": {"type": f"response.{kind}", "response": {**_DELEGATED, **response}},
    }


LIVE = Case(
    name="live",
    arguments={},
    operation="live.connect",
    requests=[{"type": "session.start", "session": {"model": "gpt-live-1"}}],
    frames=[
        {"type": "session.started", "event_id": "event_1", "session": LIVE_SESSION},
        used(3),
        _delegated("created", status="in_progress"),
        {
            "type": "response.event",
            "event_id": "event_delta",
            "delegation_id": "delegation_1",
            "event": {"type": "response.output_text.delta", "delta": "the secret"},
        },
        {
            "type": "decision.event",
            "event_id": "event_decision",
            "delegation_id": "delegation_2",
            "event": {
                "type": "decision.completed",
                "decision": {
                    "answers": [],
                    "model": "gpt-decide-1",
                    "usage": {
                        "input_tokens": 9,
                        "input_tokens_details": {"cached_tokens": 0},
                        "output_tokens": 1,
                        "output_tokens_details": {"reasoning_tokens": 0},
                        "total_tokens": 10,
                    },
                },
            },
        },
        used(12),
        _delegated(
            "completed",
            status="completed",
            output=[{"type": "message"}],
            usage={
                "input_tokens": 23,
                "output_tokens": 12,
                "total_tokens": 35,
                "input_tokens_details": {"cached_tokens": 8},
                "output_tokens_details": {"reasoning_tokens": 5},
            },
        ),
        {
            "type": "session.closed",
            "event_id": "event_9",
            "reason": "close_requested",
            "session": LIVE_SESSION,
            "usage": used(21)["usage"],
        },
    ],
    parts=[_DECISION_PART, _DELEGATED_PART, LIVE_PART],
    cut=6,
    cut_parts=[
        _DECISION_PART,
        CUT_LIVE_PART,
        replace(
            _DELEGATED_PART,
            attributes={
                "openai.api.type": "responses",
                "gen_ai.response.id": "resp_7",
                "gen_ai.response.model": "gpt-5-mini-2025-08-07",
                "gen_ai.response.finish_reasons": ("error",),
            },
            tokens=(0, 0, 0),
            usage={},
            metadata={**_DELEGATED_PART.metadata, "finish_reason": None},
            status="partial",
            is_cut=True,
        ),
    ],
    since=(3, 57),
)

# --- Responses --------------------------------------------------------------------------------

ANSWER: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5-mini-2025-08-07",
    "created_at": 1_700_000_002,
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def answer(kind: str, response_id: str = "resp_1", **fields: Any) -> Frame:
    """Return a frame that brings a response of the Responses API."""
    lane = {"stream_id": fields.pop("stream_id")} if "stream_id" in fields else {}
    response = {**ANSWER, "id": response_id, **fields}
    return {"type": f"response.{kind}", "sequence_number": 1, "response": response, **lane}


def completed(response_id: str = "resp_1", **fields: Any) -> Frame:
    """Return the frame that brings a response of the Responses API with its usage."""
    usage = {
        "input_tokens": 23,
        "output_tokens": 12,
        "total_tokens": 35,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    known: dict[str, Any] = {"status": "completed", "output": [message], "usage": usage}
    return answer("completed", response_id, **{**known, **fields})


_ANSWER_PART = Part(
    endpoint="responses",
    operation="chat",
    model="gpt-5-mini-2025-08-07",
    request_model="gpt-5-mini",
    attributes={
        "openai.api.type": "responses",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.model": "gpt-5-mini-2025-08-07",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 23,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.usage.reasoning.output_tokens": 5,
    },
    tokens=(23, 12, 35),
    usage={"cache_read_input_tokens": 8, "reasoning_output_tokens": 5},
    metadata={"response_id": "resp_1", "created": 1_700_000_002, "finish_reason": "stop"},
    first_token=True,
)
RESPONSES = Case(
    name="responses",
    arguments={},
    operation="responses.connect",
    requests=[
        {
            "type": "response.create",
            "model": "gpt-5-mini",
            "input": "What is the secret?",
            "max_output_tokens": 64,
        }
    ],
    frames=[
        answer("created", status="in_progress"),
        answer("in_progress", status="in_progress"),
        {
            "type": "response.output_text.delta",
            "sequence_number": 3,
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": "the secret",
            "logprobs": [],
        },
        completed(),
        # What nobody asked for, as after steering.
        answer("created", "resp_2", status="in_progress"),
        answer(
            "incomplete",
            "resp_2",
            status="incomplete",
            incomplete_details={"reason": "max_output_tokens"},
            usage={"input_tokens": 40, "output_tokens": 2, "total_tokens": 42},
        ),
    ],
    parts=[
        _ANSWER_PART,
        replace(
            _ANSWER_PART,
            request_model="gpt-5-mini-2025-08-07",
            attributes={
                "openai.api.type": "responses",
                "gen_ai.response.id": "resp_2",
                "gen_ai.response.model": "gpt-5-mini-2025-08-07",
                "gen_ai.response.finish_reasons": ("length",),
                "gen_ai.usage.input_tokens": 40,
                "gen_ai.usage.output_tokens": 2,
            },
            tokens=(40, 2, 42),
            usage={},
            metadata={"response_id": "resp_2", "created": 1_700_000_002, "finish_reason": "length"},
            first_token=False,
        ),
    ],
    cut=3,
    cut_parts=[
        replace(
            _ANSWER_PART,
            attributes={
                "openai.api.type": "responses",
                "gen_ai.request.max_tokens": 64,
                "gen_ai.response.id": "resp_1",
                "gen_ai.response.model": "gpt-5-mini-2025-08-07",
                "gen_ai.response.finish_reasons": ("error",),
            },
            tokens=(0, 0, 0),
            usage={},
            metadata={**_ANSWER_PART.metadata, "finish_reason": None},
            status="partial",
            is_cut=True,
        )
    ],
    since=(2, 54),
)

CASES = tuple(
    case
    for case in (
        REALTIME,
        BETA_REALTIME,
        TRANSLATIONS,
        LIVE,
        # The one that joins a session sends no start.
        replace(
            LIVE,
            name="live.sideband",
            arguments={"session_id": "live_1"},
            operation="live.sideband.connect",
            requests=[],
        ),
        replace(
            LIVE,
            name="live.forks",
            arguments={"session_id": "live_0"},
            operation="live.forks.connect",
            requests=[{"type": "session.start", "session": {}}],
        ),
        RESPONSES,
        replace(RESPONSES, name="beta.responses"),
    )
    if case.since <= VERSION
)
"""Those that the installed SDK has."""
