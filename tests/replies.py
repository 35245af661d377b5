"""Answers of the provider, whole and streamed, with numbers that cannot be mistaken for one another."""

from __future__ import annotations

from typing import Any

CHAT_USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 3, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 4,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 2,
        "rejected_prediction_tokens": 1,
    },
}

CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_001,
    "model": "gpt-4o-mini-2024-07-18",
    "service_tier": "default",
    "system_fingerprint": "fp_1",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
    ],
    "usage": CHAT_USAGE,
}


def chat_chunks(*, usage: Any = CHAT_USAGE) -> list[dict[str, Any]]:
    """Return the chunks of a streamed chat completion; without `usage` as where the caller did not ask for it."""
    head: dict[str, Any] = {
        k: CHAT[k] for k in ("id", "created", "model", "service_tier", "system_fingerprint")
    }
    head["object"] = "chat.completion.chunk"
    chunks: list[dict[str, Any]] = [
        {
            **head,
            "choices": [
                {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            ],
        },
        *(
            {**head, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
            for piece in ("hel", "lo")
        ),
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    return (
        chunks
        if usage is None
        else [*({**c, "usage": None} for c in chunks), {**head, "choices": [], "usage": usage}]
    )


RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_700_000_002,
    "status": "completed",
    "model": "gpt-5-mini-2025-08-07",
    "service_tier": "default",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hello", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "error": None,
    "incomplete_details": None,
    "usage": {
        "input_tokens": 23,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 35,
    },
}


def response_events(last: str = "completed", **changes: Any) -> list[dict[str, Any]]:
    """Return the events of a streamed response that ends in the state `last`."""
    begun: dict[str, Any] = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
    item = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return [
        {"type": "response.created", "sequence_number": 0, "response": begun},
        {"type": "response.in_progress", "sequence_number": 1, "response": begun},
        {
            "type": "response.output_text.delta",
            "sequence_number": 2,
            **item,
            "delta": "hel",
            "logprobs": [],
        },
        {
            "type": "response.output_text.delta",
            "sequence_number": 3,
            **item,
            "delta": "lo",
            "logprobs": [],
        },
        {
            "type": f"response.{last}",
            "sequence_number": 4,
            "response": {**RESPONSE, "status": last, **changes},
        },
    ]


EMBEDDINGS: dict[str, Any] = {
    "object": "list",
    "model": "text-embedding-3-small-v2",
    "data": [
        {"object": "embedding", "index": index, "embedding": [0.5, 0.25]} for index in range(2)
    ],
    "usage": {"prompt_tokens": 9, "total_tokens": 9},
}

REFUSAL = {
    "error": {
        "message": "Incorrect API key provided: sk-proj-abcdefgh1234.",
        "code": "invalid_api_key",
    }
}
"""The body of a 401, which quotes the key it was given."""
