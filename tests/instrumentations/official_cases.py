"""The calls that are made under our instrumentation and under the official one, each with its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tests import replies
from tests.provider import Reply
from tests.sdk import FORMS, Form

PLAIN, RAW, STREAM = (
    next(form for form in FORMS if form.name == name) for name in ("plain", "raw", "stream")
)


@dataclass(frozen=True)
class Case:
    """A call and its answer."""

    method: str
    path: str
    reply: Reply
    arguments: dict[str, Any]
    form: Form = PLAIN
    azure: bool = False
    """Whether an Azure client makes it."""


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}


def _choice(index: int, reason: str, **message: Any) -> dict[str, Any]:
    content = {"role": "assistant", "content": "hello", **message}
    return {"index": index, "finish_reason": reason, "message": content}


def _chat(
    *choices: dict[str, Any],
    asked: dict[str, Any] | None = None,
    reply: Reply | None = None,
    **more: Any,
) -> Case:
    answer = replies.CHAT if not choices else {**replies.CHAT, "choices": list(choices)}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]
    return Case(
        "chat.completions.create",
        "/v1/chat/completions",
        reply or Reply(json=answer),
        {"model": "gpt-4o-mini", "messages": messages, **(asked or {})},
        **more,
    )


def _response(reply: Reply, form: Form = PLAIN, **asked: Any) -> Case:
    arguments = {"model": "gpt-5-mini", "input": "hello", "instructions": "Be brief.", **asked}
    return Case("responses.create", "/v1/responses", reply, arguments, form)


_STREAM = Reply(events=replies.chat_chunks())
_SILENT = Reply(events=replies.chat_chunks(usage=None))
_ASKING = {"stream_options": {"include_usage": True}}
_NOT_FOUND = Reply(status=404, json={"error": {"message": "none"}})
_FAILED: dict[str, Any] = {
    **replies.RESPONSE,
    "status": "failed",
    "error": {"code": "server_error", "message": "it broke"},
    "output": [],
}
_CUT = {
    **replies.RESPONSE,
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
}
_CALLING = {
    **replies.RESPONSE,
    "output": [
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "weather",
            "arguments": "{}",
            "status": "completed",
        }
    ],
}
_EVENTS = Reply(
    events=[
        {"type": "response.created", "response": {**replies.RESPONSE, "status": "in_progress"}},
        {"type": "response.completed", "response": replies.RESPONSE},
    ]
)

CASES = {
    "chat": _chat(),
    "chat raw": _chat(form=RAW),
    "chat with parameters": _chat(
        _choice(0, "stop"),
        _choice(1, "length"),
        asked={
            "temperature": 0.5,
            "top_p": 0.9,
            "max_completion_tokens": 64,
            "frequency_penalty": 0.25,
            "presence_penalty": -0.25,
            "seed": 7,
            "stop": ["END"],
            "n": 2,
            "service_tier": "default",
            "response_format": {"type": "json_object"},
            "reasoning_effort": "low",
        },
    ),
    "tool call": _chat(
        _choice(0, "tool_calls", content=None, tool_calls=[TOOL_CALL]), asked={"tools": [TOOL]}
    ),
    "stream": _chat(asked=_ASKING, reply=_STREAM, form=STREAM),
    "stream without usage": _chat(reply=_SILENT, form=STREAM),
    "error": _chat(reply=_NOT_FOUND),
    "azure": replace(_chat(azure=True), path="/v1/deployments/gpt-4o-mini/chat/completions"),
    "embeddings": Case(
        "embeddings.create",
        "/v1/embeddings",
        Reply(json=replies.EMBEDDINGS),
        {"model": "text-embedding-3-small", "input": ["a", "b"], "encoding_format": "float"},
    ),
    "embeddings with dimensions": Case(
        "embeddings.create",
        "/v1/embeddings",
        Reply(json=replies.EMBEDDINGS),
        {"model": "text-embedding-3-small", "input": "hello", "dimensions": 2},
    ),
    "response": _response(Reply(json=replies.RESPONSE)),
    "response with parameters": _response(
        Reply(json=replies.RESPONSE),
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=64,
        reasoning={"effort": "low"},
        text={"format": {"type": "text"}},
        previous_response_id="resp_0",
        conversation="conv_1",
        service_tier="flex",
    ),
    "response tool call": _response(Reply(json=_CALLING)),
    "response stream": _response(_EVENTS, STREAM),
    "response failed": _response(Reply(json=_FAILED)),
    "response incomplete": _response(Reply(json=_CUT)),
    "response error": _response(_NOT_FOUND),
    "fetched response": Case(
        "responses.retrieve",
        "/v1/responses/resp_1",
        Reply(json=replies.RESPONSE),
        {"response_id": "resp_1"},
    ),
}
