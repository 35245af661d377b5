"""Reading what the provider says, whatever it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from opentelemetry_instrumentation_cmdrdata.answers import (
    read_chat,
    read_embeddings,
    read_response,
    read_speech,
)
from opentelemetry_instrumentation_cmdrdata.endpoints import ENDPOINTS
from opentelemetry_instrumentation_cmdrdata.parameters import request_attributes
from opentelemetry_instrumentation_cmdrdata.usage import Reading, count

READERS = sorted(
    {read for row in ENDPOINTS for read in (row.read, row.read_chunk) if read is not None},
    key=lambda read: read.__name__,
)


@pytest.mark.parametrize("reader", READERS, ids=lambda read: read.__name__)
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
    # What sound costs is in its request.
    assert reading.reported is (reader is read_speech)


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


SEARCH = {"type": "web_search_call"}
DRAWING = {
    "type": "image_generation_call",
    "svg_usage": {"model": "draw", "input_tokens": 3, "output_tokens": 5},
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"output": [{"type": "message"}, None, {"type": 5}]}, {}),
        ({"tool_usage": {"web_search": {"num_requests": 0}}}, {"web_search_calls": 0}),
        (
            {"tool_usage": {"web_search": {"num_requests": 3}}, "output": [SEARCH]},
            {"web_search_calls": 3},
        ),
        (
            {"output": [SEARCH, SEARCH, {"type": "file_search_call"}]},
            {"web_search_calls": 2, "file_search_calls": 1, "counted": True},
        ),
        (
            {
                "tool_usage": {"web_search": {"num_requests": 3}},
                "output": [SEARCH, {"type": "code_interpreter_call"}],
            },
            {"web_search_calls": 3, "code_interpreter_calls": 1, "counted": True},
        ),
        (
            {
                "tool_usage": {"image_gen": {"input_tokens": 7, "output_tokens": 11}},
                "output": [DRAWING, DRAWING],
            },
            {
                "image_generation_calls": 2,
                "image_generation_input_tokens": 7,
                "image_generation_output_tokens": 11,
                "svg_input_tokens": 6,
                "svg_output_tokens": 10,
                "counted": True,
            },
        ),
    ],
)
def test_tools_of_the_provider(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """What the provider's own tools cost is taken as it is told, else their calls are counted, and it says so."""
    reading = Reading()
    read_response(reading, answer)
    prefix = "cmdrdata.usage."
    assert expected == {
        name.removeprefix(prefix): value
        for name, value in reading.attributes.items()
        if name.startswith(prefix)
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
