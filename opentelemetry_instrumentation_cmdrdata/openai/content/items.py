"""The items of the Responses API, from OpenAI's shapes to parts by the conventions. Pure and tolerant, see `usage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry_instrumentation_cmdrdata.content import Message, Part
from opentelemetry_instrumentation_cmdrdata.openai.content import parts
from opentelemetry_instrumentation_cmdrdata.openai.usage import fields, items, string

_CALLS: Mapping[str, tuple[str, ...]] = {
    "function_call": ("arguments",),
    "custom_tool_call": ("input",),
    "computer_call": ("action", "actions"),
    "local_shell_call": ("action",),
    "shell_call": ("action",),
    "apply_patch_call": ("operation",),
}
"""The calls of tools that the application executes, and where their arguments are."""

_SERVER_CALLS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "web_search_call": (("action",), ("results",)),
    "file_search_call": (("queries",), ("results",)),
    "code_interpreter_call": (("code", "container_id"), ("outputs",)),
    "image_generation_call": (("action", "revised_prompt"), ("result",)),
    "mcp_call": (("server_label", "arguments"), ("output", "error")),
    "mcp_list_tools": (("server_label",), ("tools", "error")),
    "tool_search_call": (("arguments",), ()),
}
"""The calls of tools that the provider executes: what they were asked, and what they answered."""

_OUTPUT = "_output"


def message_of(item: object) -> Message | None:
    """Return an item of the input as a message, None where it says nothing that can be read."""
    if isinstance(item, str):
        return {"role": "user", "parts": [parts.text(item)]}
    values = fields(item)
    said = parts_of(values)
    if not said:
        return None
    kind = values.get("type")
    is_output = isinstance(kind, str) and kind.endswith(_OUTPUT)
    role = string(values.get("role")) or ("tool" if is_output else "assistant")
    return {"role": role, "parts": said}


def parts_of(values: Mapping[str, Any]) -> list[Part]:
    """Return the parts that the fields of an item are: of a message several, of what a tool did its call and answer."""
    kind = string(values.get("type")) or "message"
    if kind == "message":
        return parts.parts_of(values.get("content"))
    if kind == "reasoning":
        # What is encrypted is not to be read.
        return [
            parts.part_of(part)
            for name in ("summary", "content")
            for part in items(values.get(name))
        ]
    if kind == "compaction":
        said: Part = {"type": kind}
        return [{**said, "id": values["id"]} if isinstance(values.get("id"), str) else said]
    if kind in _CALLS:
        arguments = next((values[n] for n in _CALLS[kind] if values.get(n) is not None), None)
        name = values.get("name") or kind.removesuffix("_call")
        return [parts.tool_call(values.get("call_id", values.get("id")), name, arguments)]
    if kind in _SERVER_CALLS:
        return _server_call(kind, values)
    if kind.endswith(_OUTPUT):
        return [parts.tool_call_response(values.get("call_id"), values.get("output"))]
    return [parts.generic(values)]


def _server_call(kind: str, values: Mapping[str, Any]) -> list[Part]:
    asked, answered = (
        {name: parts.plain(values[name]) for name in names if values.get(name) is not None}
        for names in _SERVER_CALLS[kind]
    )
    tool = kind.removesuffix("_call")
    if "arguments" in asked:
        asked["arguments"] = parts.parsed(asked["arguments"])
    identity = {"id": values["id"]} if isinstance(values.get("id"), str) else {}
    call: Part = {
        "type": "server_tool_call",
        **identity,
        "name": string(values.get("name")) or tool,
        "server_tool_call": {"type": tool, **asked},
    }
    if not answered:
        return [call]
    response = {"type": tool, **answered}
    return [
        call,
        {"type": "server_tool_call_response", **identity, "server_tool_call_response": response},
    ]
