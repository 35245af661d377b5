"""Reading what the provider says, whatever it says."""

from __future__ import annotations

import base64
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from opentelemetry_instrumentation_cmdrdata.openai.answers import (
    read_chat,
    read_chat_chunk,
    read_embeddings,
    read_response,
    read_speech,
)
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS
from opentelemetry_instrumentation_cmdrdata.openai.parameters import request_attributes
from opentelemetry_instrumentation_cmdrdata.openai.usage import Reading, count, read_usage

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
    assert reading.has_usage is (reader is read_speech)


@pytest.mark.parametrize("reader", [read_chat, read_embeddings])
@pytest.mark.parametrize("shape", [dict, SimpleNamespace], ids=["dict", "object"])
def test_shapes(reader: Any, shape: Any) -> None:
    """Objects and dicts are read alike, and numbers that a compatible server sent as strings."""
    reading = Reading()
    reader(reading, shape(model="m", usage=shape(prompt_tokens="11", total_tokens=11.0)))
    assert reading.has_usage
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


@pytest.mark.parametrize("encoded", [False, True], ids=["list", "base64"])
@pytest.mark.parametrize("number", [1, 2, 3, 1536])
def test_dimensions(number: int, encoded: bool) -> None:
    """How many dimensions embeddings have is read of the answer, whichever way it is encoded."""
    floats = struct.pack(f"{number}f", *[0.5] * number)
    embedding = base64.b64encode(floats).decode() if encoded else [0.5] * number
    reading = Reading()
    read_embeddings(reading, {"data": [{"embedding": embedding}, {"embedding": embedding}]})
    assert reading.attributes["gen_ai.embeddings.dimension.count"] == number


@pytest.mark.parametrize("embedding", [None, "", [], 7, {}])
def test_no_dimensions(embedding: object) -> None:
    """An embedding that is none has no dimensions, which is not zero."""
    reading = Reading()
    read_embeddings(reading, {"data": [{"embedding": embedding}]})
    assert "gen_ai.embeddings.dimension.count" not in reading.attributes


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


@pytest.mark.parametrize("last", ["1", 1.0, None, [], {}, "one", -1, 2**70])
def test_choices_with_odd_indexes(last: object) -> None:
    """A choice whose index is no number is read by its place; no chunk is lost for it."""
    reading = Reading()
    for index in (last, last):
        read_chat_chunk(
            reading,
            {
                "id": "c",
                "choices": [
                    {"index": 0, "finish_reason": None},
                    {"index": index, "finish_reason": None},
                ],
            },
        )
        read_chat_chunk(reading, {"id": "c", "choices": [{"index": index, "finish_reason": None}]})
    read_chat_chunk(
        reading,
        {
            "choices": [
                {"index": 0, "finish_reason": "stop"},
                {"index": index, "finish_reason": "length"},
            ],
            "usage": {"prompt_tokens": 3},
        },
    )
    assert {0: "stop", 1: "length"} == reading.finish_reasons
    assert 3 == reading.attributes["gen_ai.usage.input_tokens"]


INPUT, OUTPUT, TOTAL = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "cmdrdata.usage.total_tokens",
)


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([(5, 1, 6), (5, 7, 12)], {INPUT: 5, OUTPUT: 7, TOTAL: 12}),
        ([(5, 7, 12), (0, 0, 0)], {INPUT: 5, OUTPUT: 7, TOTAL: 12}),
        ([(0, 0, 0)], {INPUT: 0, OUTPUT: 0, TOTAL: 0}),
        ([(0, 0, 0), (5, 7, 12)], {INPUT: 5, OUTPUT: 7, TOTAL: 12}),
        ([(5, 0, 5), (None, 7, None)], {INPUT: 5, OUTPUT: 7}),
        ([(5, 7, 12), (None, None, None)], {INPUT: 5, OUTPUT: 7, TOTAL: 12}),
        ([(5, 7, 12), (None, None, 12)], {INPUT: 5, OUTPUT: 7, TOTAL: 12}),
    ],
)
def test_several_reports(reports: list[tuple[int | None, ...]], expected: dict[str, int]) -> None:
    """Of several reports the last one counts; zeros and gaps take nothing away, and no sum is stale."""
    reading = Reading()
    for report in reports:
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        read_usage(reading, dict(zip(names, report, strict=True)))
    assert expected == reading.attributes
    assert reading.has_usage


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 502, "message": "m"}, ("502", "m")),
        ({"code": "c", "type": "t", "message": "m"}, ("c", "m")),
        ({"code": None, "type": "t"}, ("t", "the answer is an error")),
        ({"message": "m"}, ("_OTHER", "m")),
        ("over_capacity", ("_OTHER", "over_capacity")),
        ({}, None),
        ({"code": [], "message": 5}, ("_OTHER", "5")),
        ("", None),
        (None, None),
        (False, None),
    ],
)
def test_errors(error: object, expected: tuple[str, str] | None) -> None:
    """An error in an answer is one where it says something."""
    reading = Reading()
    read_chat(reading, {"error": error})
    assert expected == reading.error


def test_a_part_of_a_report() -> None:
    """A report that lacks a total adds to the one before, whose breakdowns stay; a whole one replaces them."""
    reading = Reading()
    whole = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    read_usage(reading, {**whole, "prompt_tokens_details": {"cached_tokens": 2}})
    read_usage(reading, {"prompt_tokens": 5})
    assert {INPUT: 5, OUTPUT: 7, "gen_ai.usage.cache_read.input_tokens": 2} == reading.attributes
    read_usage(reading, whole)
    assert {INPUT: 5, OUTPUT: 7, TOTAL: 12} == reading.attributes


USED = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize(
    "more",
    [
        {"usage": USED},
        {"x_groq": {"usage": USED}},
        {"choices": [{"index": 0, "finish_reason": None, "usage": USED}]},
    ],
)
def test_usage_in_the_middle(more: dict[str, Any]) -> None:
    """A chunk that looks like one more piece of text is read where it has usage, wherever that is."""
    reading = Reading()
    piece = {"id": "c", "choices": [{"index": 0, "finish_reason": None}]}
    for chunk in (piece, {**piece, **more}, piece):
        read_chat_chunk(reading, chunk)
    assert reading.attributes == {
        "gen_ai.response.id": "c",
        INPUT: 3,
        OUTPUT: 4,
        TOTAL: 7,
    }


def test_an_error_in_the_middle() -> None:
    """A chunk that looks like one more piece of text is read where it has an error."""
    reading = Reading()
    piece = {"id": "c", "choices": [{"index": 0, "finish_reason": None}]}
    for chunk in (piece, {**piece, "error": {"message": "m"}}):
        read_chat_chunk(reading, chunk)
    assert ("_OTHER", "m") == reading.error


@pytest.mark.parametrize(
    ("output", "total", "reasoning", "expected"),
    [
        (50, 60, 30, 30),
        (50, 60, 50, 50),
        (50, 90, 30, None),
        (50, None, 30, None),
        (20, 30, 30, None),
        (None, 10, 0, None),
    ],
)
def test_reasoning_beside_the_totals(
    output: int | None, total: int | None, reasoning: int, expected: int | None
) -> None:
    """Reasoning tokens are part of the output only where the sum has no room for them beside it."""
    reading = Reading()
    read_usage(
        reading,
        {
            "prompt_tokens": 10,
            "completion_tokens": output,
            "total_tokens": total,
            "reasoning_tokens": reasoning,
        },
    )
    assert expected == reading.attributes.get("gen_ai.usage.reasoning.output_tokens")
