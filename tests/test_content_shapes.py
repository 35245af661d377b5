"""From OpenAI's shapes to the messages of the conventions: whole values, by literals."""

from __future__ import annotations

import base64
import copy
import json
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

import pytest

from opentelemetry_instrumentation_cmdrdata.bounds import Bounds, bounded
from opentelemetry_instrumentation_cmdrdata.content import Content, written
from opentelemetry_instrumentation_cmdrdata.openai.content.chat import ChatReader, CompletionReader
from opentelemetry_instrumentation_cmdrdata.openai.content.parts import Text, plain, tool_call
from opentelemetry_instrumentation_cmdrdata.openai.content.reading import Reader
from opentelemetry_instrumentation_cmdrdata.openai.content.responses import (
    FetchedResponseReader,
    ResponseReader,
)

REQUIRED: dict[str, dict[str, type]] = {
    "text": {"content": str},
    "reasoning": {"content": str},
    "tool_call": {"name": str},
    "tool_call_response": {"response": object},
    "server_tool_call": {"name": str, "server_tool_call": dict},
    "server_tool_call_response": {"server_tool_call_response": dict},
    "blob": {"modality": str, "content": str},
    "file": {"modality": str, "file_id": str},
    "uri": {"modality": str, "uri": str},
    "compaction": {},
}
"""
What each type of part must have, by gen-ai-input-messages.json and gen-ai-output-messages.json of
https://github.com/open-telemetry/semantic-conventions-genai/tree/6fd0d763/model/gen-ai; others need only a type.
"""


def valid(content: Content) -> Content:
    """Check content against the conventions' schemas, and that it is JSON; return it."""
    assert json.loads(written(content)) == [list(part) for part in content]
    for message in (*content.input_messages, *content.output_messages):
        assert isinstance(message["role"], str)
        assert isinstance(message.get("name", ""), str)
        for part in message["parts"]:
            for name, kind in REQUIRED.get(part["type"], {"type": str}).items():
                assert isinstance(part[name], kind), part
            if part["type"].startswith("server_tool_call"):
                assert isinstance(part[part["type"]]["type"], str)
            if part["type"] == "uri":
                assert not part["uri"].startswith("data:")
    for part in content.system_instructions:
        assert part["type"] != "text" or isinstance(part["content"], str)
    for tool in content.tool_definitions:
        assert isinstance(tool["type"], str)
        assert isinstance(tool["name"], str)
    return content


def content(reader: Reader, *reasons: str) -> Content:
    """Return what a reader has read, checked."""
    return valid(
        Content(
            reader.system_instructions,
            reader.input_messages,
            reader.output(reasons),
            reader.tool_definitions,
        )
    )


def asked(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message of a chat's request as it is recorded."""
    [recorded] = content(ChatReader({"messages": [message]})).input_messages
    return recorded


PNG = base64.b64encode(b"png").decode()

CHAT_PARTS: list[tuple[Any, dict[str, Any]]] = [
    ({"type": "text", "text": "hi"}, {"type": "text", "content": "hi"}),
    (
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "blob", "modality": "image", "content": PNG, "mime_type": "image/png"},
    ),
    (
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg%3E"}},
        {
            "type": "blob",
            "modality": "image",
            "content": base64.b64encode(b"<svg>").decode(),
            "mime_type": "image/svg+xml",
        },
    ),
    (
        {"type": "image_url", "image_url": {"url": "https://images.test/1.png"}},
        {"type": "uri", "modality": "image", "uri": "https://images.test/1.png"},
    ),
    (
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "blob", "modality": "audio", "content": "AAAA", "mime_type": "audio/wav"},
    ),
    (
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "modality": "document", "file_id": "file-1"},
    ),
    (
        {
            "type": "file",
            "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
        },
        {
            "type": "blob",
            "modality": "document",
            "content": "AAAA",
            "mime_type": "application/pdf",
            "filename": "a.pdf",
        },
    ),
    ({"type": "refusal", "refusal": "no"}, {"type": "refusal", "content": "no"}),
    ({"type": "hologram", "beam": [1, None]}, {"type": "hologram", "beam": [1, None]}),
    ({"beam": 1}, {"type": "unknown", "beam": 1}),
    ({"type": "text", "text": 5}, {"type": "openai.text", "text": 5}),
]


@pytest.mark.parametrize(("part", "expected"), CHAT_PARTS)
def test_parts(part: Any, expected: dict[str, Any]) -> None:
    """Each type of part is that of the conventions, or stays what it is."""
    assert asked({"role": "user", "content": [part]}) == {"role": "user", "parts": [expected]}


def test_messages_with_tools() -> None:
    """Calls of tools and what they answered are related by their ids, in today's shape and the deprecated one."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "g", "input": "not JSON"}}
    assert asked({"role": "assistant", "content": None, "tool_calls": [call, custom]}) == {
        "role": "assistant",
        "parts": [
            {"type": "tool_call", "id": "call_1", "name": "f", "arguments": {"a": 1}},
            {"type": "tool_call", "id": "call_2", "name": "g", "arguments": "not JSON"},
        ],
    }
    assert asked({"role": "tool", "tool_call_id": "call_1", "content": "5"}) == {
        "role": "tool",
        "parts": [{"type": "tool_call_response", "id": "call_1", "response": "5"}],
    }
    assert asked({"role": "function", "name": "f", "content": "5"}) == {
        "role": "tool",
        "parts": [{"type": "tool_call_response", "response": "5"}],
        "name": "f",
    }
    function = {"name": "f", "arguments": "{}"}
    assert asked({"role": "assistant", "function_call": function, "audio": {"id": "a_1"}}) == {
        "role": "assistant",
        "parts": [
            {"type": "file", "modality": "audio", "file_id": "a_1"},
            {"type": "tool_call", "name": "f", "arguments": {}},
        ],
    }


def test_what_is_read_belongs_to_nobody() -> None:
    """What the application changes later, or a hook, changes nothing of the other's."""
    part = {"type": "hologram", "beam": [1]}
    reader = ChatReader({"messages": [{"role": "user", "content": [part]}]})
    part["beam"] = [2]
    [message] = reader.input_messages
    assert message["parts"] == [{"type": "hologram", "beam": [1]}]
    message["parts"][0]["beam"].append(3)
    assert part == {"type": "hologram", "beam": [2]}


def test_tools() -> None:
    """Tools go by their type and name; those of the provider by their type."""
    tools: list[dict[str, Any]] = [
        {"type": "function", "function": {"name": "f", "parameters": {}}},
        {"type": "custom", "custom": {"name": "g"}},
        {"type": "function", "name": "h"},
        {"type": "mcp", "server_label": "files"},
        {"type": "web_search"},
    ]
    reader = ChatReader({"tools": tools, "functions": [{"name": "old"}]})
    assert content(reader).tool_definitions == [
        {"type": "function", "name": "f"},
        {"type": "custom", "name": "g"},
        {"type": "function", "name": "h"},
        {"type": "mcp", "name": "files"},
        {"type": "web_search", "name": "web_search"},
        {"type": "function", "name": "old"},
    ]


def streamed(*deltas: Any, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the output of a chat that came in deltas, each of choice 0, or of the choice of a pair."""
    reader = ChatReader(body or {})
    for delta in deltas:
        index, inner = cast("tuple[int, Any]", delta if isinstance(delta, tuple) else (0, delta))
        reader.chunk({"choices": [{"index": index, "delta": inner}]})
    return content(reader).output_messages


def call(**fields: Any) -> dict[str, Any]:
    """Return a delta with a piece of a call of a tool."""
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {"tool_calls": [{**fields, "function": function}]}


def called(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    """Return the part of a call of a tool."""
    return {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}


STREAMS: dict[str, tuple[list[Any], list[dict[str, Any]]]] = {
    "by index": (
        [
            call(index=0, id="c1", name="f", arguments=""),
            call(index=1, id="c2", name="g", arguments='{"b"'),
            call(index=0, arguments='{"a": 1}'),
            call(index=1, arguments=": 2}"),
        ],
        [called("c1", "f", {"a": 1}), called("c2", "g", {"b": 2})],
    ),
    "without an index": (
        [
            call(id="c1", name="f", arguments='{"a": 1}'),
            call(id="c2", name="g", arguments='{"b"'),
            call(arguments=": 2}"),
        ],
        [called("c1", "f", {"a": 1}), called("c2", "g", {"b": 2})],
    ),
    "one index for all": (
        [
            call(index=0, id="c1", name="f", arguments='{"a": 1}'),
            call(index=0, id="c2", name="f", arguments='{"a": 2}'),
        ],
        [called("c1", "f", {"a": 1}), called("c2", "f", {"a": 2})],
    ),
    "arguments as an object": (
        [call(index=0, id="c1", name="f", arguments={"a": 1})],
        [called("c1", "f", {"a": 1})],
    ),
    "cut arguments": (
        [call(index=0, id="c1", name="f", arguments='{"a"')],
        [called("c1", "f", '{"a"')],
    ),
    "reasoning": (
        [{"reasoning_content": "hm"}, {"reasoning_content": "m"}, {"content": "yes"}],
        [{"type": "reasoning", "content": "hmm"}, {"type": "text", "content": "yes"}],
    ),
    "refusal": (
        [{"refusal": "I "}, {"refusal": "won't"}],
        [{"type": "refusal", "content": "I won't"}],
    ),
    "function_call": (
        [{"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}}],
        [{"type": "tool_call", "name": "f", "arguments": {}}],
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str) -> None:
    """A stream is put together whole."""
    deltas, expected = STREAMS[name]
    assert streamed(*deltas) == [{"role": "assistant", "parts": expected}]


def test_several_choices() -> None:
    """Each choice is a message, in the order of their indexes, whichever came first."""
    assert streamed((1, {"content": "b"}), (0, {"content": "a"}), (1, {"content": "B"})) == [
        {"role": "assistant", "parts": [{"type": "text", "content": text}]} for text in ("a", "bB")
    ]


def test_sound() -> None:
    """Sound comes in pieces that are padded each for itself, with what is said in it."""
    pieces = [base64.b64encode(data).decode() for data in (b"a", b"bc")]
    deltas = [
        {"audio": {"id": "a_1", "transcript": "he"}},
        *({"audio": {"data": piece}} for piece in pieces),
        {"audio": {"transcript": "llo"}},
    ]
    assert streamed(*deltas, body={"audio": {"format": "pcm16"}}) == [
        {
            "role": "assistant",
            "parts": [
                {
                    "type": "blob",
                    "modality": "audio",
                    "mime_type": "audio/pcm16",
                    "content": base64.b64encode(b"abc").decode(),
                    "transcript": "hello",
                }
            ],
        }
    ]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("tool_calls", "tool_call"),
        ("function_call", "tool_call"),
        (None, "error"),
    ],
)
def test_finish_reasons(reason: str | None, expected: str) -> None:
    """Reasons are those of the conventions; a choice that did not end is an error."""
    reader = ChatReader({})
    message = {"role": "assistant", "content": "a"}
    reader.answer({"choices": [{"index": 0, "message": message, "finish_reason": reason}]})
    [output] = content(reader, "any").output_messages
    assert output["finish_reason"] == expected


def test_tokens_as_a_prompt() -> None:
    """A prompt may be a text, texts, or the tokens of one or of several."""
    for prompt, parts in (
        ("a", [[{"type": "text", "content": "a"}]]),
        (["a", "b"], [[{"type": "text", "content": "a"}], [{"type": "text", "content": "b"}]]),
        ([1, 2], [[{"type": "tokens", "tokens": [1, 2]}]]),
        ([[1], [2]], [[{"type": "tokens", "tokens": [1]}], [{"type": "tokens", "tokens": [2]}]]),
    ):
        messages = content(CompletionReader({"prompt": prompt})).input_messages
        assert messages == [{"role": "user", "parts": expected} for expected in parts]


# --- Responses --------------------------------------------------------------------------------

ITEMS: list[tuple[dict[str, Any], str, list[dict[str, Any]]]] = [
    (
        {"role": "developer", "content": "be brief"},
        "developer",
        [{"type": "text", "content": "be brief"}],
    ),
    (
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                {"type": "input_image", "file_id": "file-1"},
                {"type": "input_file", "file_url": "https://files.test/a.pdf"},
            ],
        },
        "user",
        [
            {"type": "text", "content": "look"},
            {"type": "blob", "modality": "image", "content": PNG, "mime_type": "image/png"},
            {"type": "file", "modality": "image", "file_id": "file-1"},
            {"type": "uri", "modality": "document", "uri": "https://files.test/a.pdf"},
        ],
    ),
    (
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        "assistant",
        [called("c1", "f", {"a": 1})],
    ),
    (
        {"type": "function_call_output", "call_id": "c1", "output": "5"},
        "tool",
        [{"type": "tool_call_response", "id": "c1", "response": "5"}],
    ),
    (
        {"type": "computer_call", "call_id": "c1", "action": {"type": "click", "x": 1}},
        "assistant",
        [called("c1", "computer", {"type": "click", "x": 1})],
    ),
    (
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        "assistant",
        [{"type": "reasoning", "content": "hm"}],
    ),
    (
        {
            "type": "web_search_call",
            "id": "ws_1",
            "action": {"type": "search", "query": "otters"},
        },
        "assistant",
        [
            {
                "type": "server_tool_call",
                "id": "ws_1",
                "name": "web_search",
                "server_tool_call": {
                    "type": "web_search",
                    "action": {"type": "search", "query": "otters"},
                },
            }
        ],
    ),
    (
        {
            "type": "mcp_call",
            "id": "mcp_1",
            "name": "read",
            "server_label": "files",
            "arguments": '{"path": "/a"}',
            "output": "text",
        },
        "assistant",
        [
            {
                "type": "server_tool_call",
                "id": "mcp_1",
                "name": "read",
                "server_tool_call": {
                    "type": "mcp",
                    "server_label": "files",
                    "arguments": {"path": "/a"},
                },
            },
            {
                "type": "server_tool_call_response",
                "id": "mcp_1",
                "server_tool_call_response": {"type": "mcp", "output": "text"},
            },
        ],
    ),
    (
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "AAAA"},
        "assistant",
        [{"type": "compaction", "id": "cmp_1"}],
    ),
    (
        {"type": "item_reference", "id": "msg_1"},
        "assistant",
        [{"type": "item_reference", "id": "msg_1"}],
    ),
]


@pytest.mark.parametrize(("item", "role", "parts"), ITEMS)
def test_items(item: dict[str, Any], role: str, parts: list[dict[str, Any]]) -> None:
    """Each item of the input is a message; the same item in the output is parts of the one message."""
    reader = ResponseReader({"input": [item], "instructions": "be brief"})
    reader.answer({"output": [item]})
    read = content(reader, "tool_calls")
    assert read.input_messages == [{"role": role, "parts": parts}]
    assert read.output_messages == [
        {"role": "assistant", "parts": parts, "finish_reason": "tool_call"}
    ]
    assert read.system_instructions == [{"type": "text", "content": "be brief"}]


def event(kind: str, **fields: Any) -> dict[str, Any]:
    """Return an event of a response's stream."""
    return {"type": f"response.{kind}", **fields}


CUT = [
    event("output_item.added", output_index=0, item={"type": "reasoning", "summary": []}),
    event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="h"),
    event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="m"),
    event("output_item.added", output_index=1, item={"type": "message", "content": []}),
    event("output_text.delta", output_index=1, content_index=0, delta="yes"),
    event("refusal.delta", output_index=1, content_index=1, delta="no"),
    event(
        "output_item.added",
        output_index=2,
        item={"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""},
    ),
    event("function_call_arguments.delta", output_index=2, delta='{"a"'),
]
CUT_PARTS = [
    {"type": "reasoning", "content": "hm"},
    {"type": "text", "content": "yes"},
    {"type": "refusal", "content": "no"},
    called("c1", "f", '{"a"'),
]


def test_a_response_in_pieces() -> None:
    """Without a final response there is what came in pieces; an item that is done replaces its pieces."""
    reader = ResponseReader({})
    for chunk in CUT:
        reader.chunk(chunk)
    expected = {"role": "assistant", "parts": CUT_PARTS, "finish_reason": "error"}
    assert content(reader, "error").output_messages == [expected]
    done = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
    reader.chunk(event("output_item.done", output_index=2, item=done))
    [message] = content(reader).output_messages
    assert message["parts"][3:] == [called("c1", "f", {"a": 1})]


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_the_final_response_prevails(end: str) -> None:
    """The response of the last event is the output, unless it has none though something came."""
    reader = ResponseReader({})
    for chunk in CUT:
        reader.chunk(chunk)
    reader.chunk(event(end, response={"output": []}))
    [message] = content(reader).output_messages
    assert message["parts"] == CUT_PARTS
    output = [{"type": "message", "content": [{"type": "output_text", "text": "whole"}]}]
    reader.chunk(event(end, response={"output": output}))
    [message] = content(reader).output_messages
    assert message["parts"] == [{"type": "text", "content": "whole"}]


def test_a_fetched_response() -> None:
    """A response that is asked for again tells its instructions and tools; its input is none of that call's."""
    reader = FetchedResponseReader({"input": "no"})
    body = {"output": [], "instructions": "be brief", "tools": [{"type": "web_search"}]}
    reader.answer(body)
    assert content(reader) == Content(
        [{"type": "text", "content": "be brief"}],
        [],
        [],
        [{"type": "web_search", "name": "web_search"}],
    )


@pytest.mark.parametrize(
    "odd", [None, 5, "text", [], {}, [None], {"choices": [None]}, {"output": 5}]
)
@pytest.mark.parametrize("kind", [ChatReader, CompletionReader, ResponseReader])
def test_odd_values(kind: type[Any], odd: Any) -> None:
    """What is none of the API's shapes is passed over."""
    reader = kind({"messages": odd, "prompt": odd, "input": odd, "tools": odd, "instructions": odd})
    reader.chunk(odd)
    reader.chunk({"type": "response.output_item.done", "item": odd})
    reader.chunk({"choices": [{"index": odd, "delta": {"tool_calls": odd, "content": odd}}]})
    reader.answer(odd)
    content(reader)


# --- Bounds and costs -------------------------------------------------------------------------


def message(*texts: str, role: str = "user") -> dict[str, Any]:
    """Return a message of texts."""
    return {"role": role, "parts": [{"type": "text", "content": text} for text in texts]}


def test_the_bound_of_a_part() -> None:
    """Text is cut; an object becomes text; data is left out; what a part is stays."""
    given = Content(
        [],
        [
            {
                "role": "user",
                "parts": [
                    {"type": "text", "content": "x" * 30},
                    {"type": "blob", "modality": "image", "content": "x" * 30},
                    {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"a": "x" * 30}},
                    {
                        "type": "server_tool_call",
                        "name": "s",
                        "server_tool_call": {"type": "s", "a": "x" * 30},
                    },
                    {"type": "text", "content": "x" * 20},
                ],
            }
        ],
        [],
        [],
    )
    [recorded] = valid(bounded(given, Bounds(20, 1000))).input_messages
    assert recorded["parts"] == [
        {"type": "text", "content": "x" * 20 + "[cut: 10 of 30 characters]"},
        {"type": "blob", "modality": "image", "content": "[cut: 30 characters]"},
        {
            "type": "tool_call",
            "id": "c1",
            "name": "f",
            "arguments": '{"a":"' + "x" * 14 + "[cut: 18 of 38 characters]",
        },
        {
            "type": "server_tool_call",
            "name": "s",
            "server_tool_call": {
                "type": "s",
                "cut": '{"type":"s","a":"' + "x" * 3 + "[cut: 29 of 49 characters]",
            },
        },
        {"type": "text", "content": "x" * 20},
    ]


def test_the_bound_of_a_call() -> None:
    """Of a whole call the output comes first, then the instructions, then the latest messages."""
    given = Content(
        [{"type": "text", "content": "i" * 10}],
        [message("a" * 10), message("b" * 10), message("c" * 10), message("d" * 10)],
        [message("o" * 10, role="assistant")],
        [],
    )
    assert valid(bounded(given, Bounds(100, 68))) == Content(
        [{"type": "text", "content": "i" * 10}],
        [
            message("[cut: 2 messages, 20 characters]"),
            message("c" * 5 + "[cut: 5 of 10 characters]"),
            message("d" * 10),
        ],
        [message("o" * 10, role="assistant")],
        [],
    )
    assert bounded(given, Bounds(100, 109)) == given


@pytest.mark.parametrize("where", ["input_messages", "output_messages"])
@pytest.mark.parametrize(
    "messages",
    [
        [message("", role="user")] * 10_000,
        [message(*[""] * 10_000)],
        [message("a", role="x" * 100_000)],
        [{**message("a"), "name": "x" * 100_000}],
        [{"role": "user", "parts": [{"type": "tool_call", "id": "x" * 100_000, "name": ""}]}],
        [{"role": "user", "parts": [{"type": "tool_call", "name": "x" * 90}] * 10_000}],
    ],
    ids=["messages", "parts", "role", "name", "id", "names"],
)
def test_everything_is_bounded(where: str, messages: list[Any]) -> None:
    """Not only texts: also what is short elsewhere, and how many there are of it."""
    given = Content([], [], [], [])._replace(**{where: messages})
    assert len(written(bounded(given, Bounds(100, 1000)))) < 10_000


def test_what_holds_itself() -> None:
    """It ends where it would begin anew, and takes no time; what no request takes is not looked into."""
    own: dict[str, Any] = {"a": 1}
    own |= {"itself": own, "again": [own, own]}
    assert plain(own) == {"a": 1, "itself": "...", "again": ["...", "..."]}
    assert plain({"client": SimpleNamespace(api_key="sk-secret")}) == {"client": "..."}


def test_deep_arguments() -> None:
    """They are shortened where they are too deep to be copied or written."""
    depth = 900
    part = tool_call("c1", "f", "[" * depth + "]" * depth)
    assert written(copy.deepcopy(part)).count("[") == 51


def test_halves_of_surrogate_pairs() -> None:
    """What cannot be encoded is escaped, so that an exporter can send it."""
    assert written(["é\ud83d"]) == '["\\u00e9\\ud83d"]'
    assert written(["é"]) == '["é"]'


def _memory_of(pieces: int) -> tuple[float, int]:
    """Return the seconds for a chunk of a long stream, and the bytes that are kept of it."""
    delta = {"content": ""}
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    reader = ChatReader({})
    texts = [f"{number:08}" for number in range(pieces)]
    begin = time.process_time()
    for text in texts:
        delta["content"] = text
        reader.chunk(chunk)
    seconds = (time.process_time() - begin) / pieces
    del texts
    return seconds, len(reader.output(())[0]["parts"][0]["content"])


def test_the_time_of_a_long_stream() -> None:
    """A chunk of a stream of 10,000 takes as long as one of 1,000."""
    short = min(_memory_of(1_000)[0] for _ in range(5))
    long, length = min(_memory_of(10_000) for _ in range(3))
    assert length == 80_000
    assert long < 5 * short


def test_the_memory_of_a_long_stream() -> None:
    """What is kept of 10,000 pieces is hardly more than their text."""
    text = Text()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000):
            text.add(f"{number:08}")
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(str(text)) == 80_000
    # Its last pieces, up to 511, are objects of their own.
    assert kept < 80_000 + 512 * 100
