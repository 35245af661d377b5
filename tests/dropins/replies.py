"""Answers that the pages' programs get, besides those of `tests.replies`."""

from __future__ import annotations

from typing import Any

from tests import replies
from tests.provider import Reply

REFUSED = Reply(status=429, json={"error": {"message": "slow down", "code": "busy"}})

_CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}
_ASKED: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [_CALL]}
TOOL_CALL: dict[str, Any] = {
    **replies.CHAT,
    "choices": [{"index": 0, "finish_reason": "tool_calls", "message": _ASKED}],
}


def tool_chunks() -> list[dict[str, Any]]:
    """Return the chunks of a streamed call of a tool, whose arguments come in two pieces."""
    first, *_, last = replies.chat_chunks()
    pieces: list[dict[str, Any]] = [
        {"index": 0, **_CALL, "function": {"name": "weather", "arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Paris"}'}},
    ]
    choices: list[dict[str, Any]] = [
        *({"delta": {"tool_calls": [piece]}, "finish_reason": None} for piece in pieces),
        {"delta": {}, "finish_reason": "tool_calls"},
    ]
    return [*({**first, "choices": [{"index": 0, **choice}]} for choice in choices), last]
