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
    message: dict[str, Any] = {**RESPONSE["output"][0], "status": "in_progress", "content": []}
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": message},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": "hel", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "lo", "logprobs": []},
        {"type": f"response.{last}", "response": {**RESPONSE, "status": last, **changes}},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


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


COMPLETION: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_700_000_003,
    "model": "gpt-3.5-turbo-instruct:20230824-v2",
    "choices": [{"text": "hello", "index": 0, "logprobs": None, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
}


def completion_chunks(*, usage: Any = COMPLETION["usage"]) -> list[dict[str, Any]]:
    """Return the chunks of a streamed legacy completion; without `usage` as where the caller did not ask for it."""
    head: dict[str, Any] = {k: COMPLETION[k] for k in ("id", "object", "created", "model")}
    chunks: list[dict[str, Any]] = [
        {
            **head,
            "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": reason}],
        }
        for text, reason in (("hel", None), ("lo", None), ("", "length"))
    ]
    return (
        chunks
        if usage is None
        else [*({**c, "usage": None} for c in chunks), {**head, "choices": [], "usage": usage}]
    )


COMPACTION: dict[str, Any] = {
    "id": "resp_2",
    "object": "response.compaction",
    "created_at": 1_700_000_004,
    "output": [],
    "usage": {
        "input_tokens": 139,
        "input_tokens_details": {"cached_tokens": 11, "cache_write_tokens": 0},
        "output_tokens": 43,
        "output_tokens_details": {"reasoning_tokens": 6},
        "total_tokens": 182,
    },
}

DECISION: dict[str, Any] = {
    "id": "decision_1",
    "object": "decision",
    "created_at": 1_700_000_005,
    "model": "gpt-6-luna-2026-10-01",
    "answers": [{"type": "predicate", "name": "spam", "probability": 0.25}],
    "usage": {
        "input_tokens": 31,
        "input_tokens_details": {"cached_tokens": 13, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 34,
    },
}

MODERATION: dict[str, Any] = {
    "id": "modr-1",
    "model": "omni-moderation-2024-09-26",
    "results": [
        {"flagged": flagged, "categories": {"hate": flagged}, "category_scores": {"hate": 0.5}}
        for flagged in (False, True)
    ],
}

IMAGE_USAGE: dict[str, Any] = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 1056,
    "output_tokens_details": {"text_tokens": 16, "image_tokens": 1040},
    "total_tokens": 1106,
}

IMAGES: dict[str, Any] = {
    "created": 1_700_000_006,
    "background": "opaque",
    "output_format": "png",
    "quality": "high",
    "size": "1024x1536",
    "data": [{"b64_json": "AAAA"}, {"b64_json": "BBBB"}],
    "usage": IMAGE_USAGE,
}

PAINTED: dict[str, Any] = {"created": 1_700_000_007, "data": [{"url": "https://images.test/1"}]}
"""Images of a model that counts no tokens."""


def image_events(kind: str) -> list[dict[str, Any]]:
    """Return the events of streamed images of a kind, `image_generation` or `image_edit`."""
    look = {
        "created_at": 1_700_000_006,
        "background": "opaque",
        "output_format": "png",
        "quality": "high",
        "size": "1024x1536",
    }
    return [
        *(
            {
                "type": f"{kind}.partial_image",
                "b64_json": "AAAA",
                "partial_image_index": index,
                **look,
            }
            for index in range(2)
        ),
        {"type": f"{kind}.completed", "b64_json": "BBBB", **look, "usage": IMAGE_USAGE},
    ]


TRANSCRIPTION_USAGE: dict[str, Any] = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
    "output_tokens": 6,
    "total_tokens": 20,
}


def transcription_events() -> list[dict[str, Any]]:
    """Return the events of a streamed transcription."""
    return [
        {"type": "transcript.text.delta", "delta": "hello "},
        {"type": "transcript.text.delta", "delta": "there"},
        {"type": "transcript.text.done", "text": "hello there", "usage": TRANSCRIPTION_USAGE},
    ]


SPEECH_EVENTS: list[dict[str, Any]] = [
    {"type": "speech.audio.delta", "audio": "AAAA"},
    {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 8, "output_tokens": 101, "total_tokens": 109},
    },
]

GRADER_RUN: dict[str, Any] = {
    "reward": 0.5,
    "metadata": {
        "name": "grader",
        "type": "score_model",
        "errors": {},
        "execution_time": 0.25,
        "scores": {},
        "token_usage": 77,
        "sampled_model_name": "gpt-4o-2024-08-06",
    },
    "sub_rewards": {},
    "model_grader_token_usage_per_model": {},
}
