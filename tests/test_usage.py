"""Reading what the provider says, whatever it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from opentelemetry_instrumentation_cmdrdata.answers import (
    read_chat,
    read_chat_chunk,
    read_embeddings,
    read_response,
    read_response_event,
)
from opentelemetry_instrumentation_cmdrdata.endpoints import ENDPOINTS
from opentelemetry_instrumentation_cmdrdata.parameters import request_attributes
from opentelemetry_instrumentation_cmdrdata.usage import Reading, count

READERS = [read_chat, read_chat_chunk, read_response, read_response_event, read_embeddings]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "body",
    [
        None,
        "a string",
        7,
        [],
        {},
        {"choices": None, "usage": None, "output": None, "data": None},
        {
            "choices": [None, 5, {"index": "0", "finish_reason": 7}],
            "usage": "none",
            "model": 5,
            "id": None,
        },
        {"usage": {"prompt_tokens": None, "completion_tokens": {}, "prompt_tokens_details": 5}},
        {"type": "response.completed", "response": None},
        {"type": ["response.completed"]},
        {
            "status": 5,
            "output": [None],
            "conversation": "c",
            "incomplete_details": [],
            "error": "x",
        },
    ],
)
def test_anything(reader: Any, body: object) -> None:
    """Nothing that a provider answers makes a reader raise, or report usage that is not there."""
    reading = Reading()
    reader(reading, body)
    assert not reading.reported


@pytest.mark.parametrize("reader", [read_chat, read_embeddings])
@pytest.mark.parametrize("shape", [dict, SimpleNamespace], ids=["dict", "object"])
def test_shapes(reader: Any, shape: Any) -> None:
    """Objects and dicts are read alike, and numbers that a compatible server sent as strings."""
    reading = Reading()
    reader(reading, shape(model="m", usage=shape(prompt_tokens="11", total_tokens=11.0)))
    assert reading.reported
    assert reading.attributes == {
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 11,
        "cmdrdata.usage.total_tokens": 11,
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (7, 7),
        ("7", 7),
        (7.0, 7),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        (-1, None),
        (7.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("seven", None),
        ("-7", None),
        ("9" * 30, None),
        (None, None),
        ([], None),
    ],
)
def test_counts(value: object, expected: int | None) -> None:
    """Only what is surely a number of units is one."""
    assert count(value) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {}),
        ({"n": 1, "service_tier": "auto"}, {}),
        ({"n": 3}, {"gen_ai.request.choice.count": 3}),
        ({"model": None, "temperature": None, "stop": None}, {}),
        ({"model": 5, "temperature": "hot", "max_tokens": "many", "seed": True}, {}),
        ({"seed": -5}, {"gen_ai.request.seed": -5}),
        ({"stop": ["a", "b", 5]}, {"gen_ai.request.stop_sequences": ("a", "b")}),
        ({"max_completion_tokens": 5}, {"gen_ai.request.max_tokens": 5}),
        ({"reasoning_effort": "high"}, {"gen_ai.request.reasoning.level": "high"}),
        ({"reasoning": {"effort": None}}, {}),
        ({"response_format": {"type": "json_schema"}}, {"gen_ai.output.type": "json"}),
        ({"response_format": "text"}, {}),
        ({"text": {"verbosity": "low"}}, {}),
        ({"conversation": "conv_1"}, {"gen_ai.conversation.id": "conv_1"}),
        ({"conversation": {"id": "conv_2"}}, {"gen_ai.conversation.id": "conv_2"}),
        (
            {"prompt": {"id": "pmpt_1", "version": "2", "variables": {"secret": "x"}}},
            {"gen_ai.prompt.name": "pmpt_1", "gen_ai.prompt.version": "2"},
        ),
        (
            {
                "prompt": "a text",
                "messages": [{"content": "a text"}],
                "input": "a text",
                "user": "x",
            },
            {},
        ),
    ],
)
def test_requests(parameters: dict[str, Any], expected: dict[str, Any]) -> None:
    """Parameters become the attributes of the conventions; what the user wrote to the model never does."""
    assert request_attributes(ENDPOINTS[0], parameters) == expected
