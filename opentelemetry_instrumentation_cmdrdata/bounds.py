"""
How content is shortened before it leaves the process on a span or in an event. Pure.

What was cut says so where it was: `[cut: 5000 of 21384 characters]`. Data in base64 is worth nothing when it is cut, so
it is left out as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry_instrumentation_cmdrdata.content import Content, Message, Part, written


class Bounds(NamedTuple):
    """How much is recorded, in characters."""

    part: int
    """Of one part of a message."""
    total: int
    """Of a whole call. What the model said comes first, then the instructions, then the latest messages."""


def bounded(content: Content, bounds: Bounds) -> Content:
    """Return the content within bounds; what is not changed is shared."""
    budget = _Budget(bounds)
    output = [budget.message(message) for message in content.output_messages]
    instructions = budget.parts(content.system_instructions)
    tools = budget.whole(content.tool_definitions)
    kept: list[Message] = []
    rest = list(content.input_messages)
    while rest and budget.left > 0:
        kept.append(budget.message(rest.pop()))
    if rest:
        characters = sum(_size(part) for message in rest for part in message["parts"])
        mark = f"[cut: {len(rest)} messages, {characters} characters]"
        kept.append({"role": rest[0]["role"], "parts": [{"type": "text", "content": mark}]})
    return Content(instructions, kept[::-1], output, tools)


class _Budget:
    """What is left for the parts that come."""

    __slots__ = ("_of_part", "left")

    def __init__(self, bounds: Bounds) -> None:
        self._of_part = bounds.part
        self.left = bounds.total

    def message(self, message: Message) -> Message:
        return {**message, "parts": self.parts(message["parts"])}

    def parts(self, parts: Iterable[Part]) -> list[Part]:
        kept: list[Part] = []
        unseen = characters = 0
        for part in parts:
            if self.left > 0:
                kept.append(self._part(part))
            else:
                unseen, characters = unseen + 1, characters + _size(part)
        if unseen:
            mark = f"[cut: {unseen} parts, {characters} characters]"
            kept.append({"type": "text", "content": mark})
        return kept

    def whole(self, definitions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return definitions, which are short, as far as they fit."""
        kept: list[dict[str, Any]] = []
        for definition in definitions:
            if self.left <= 0:
                mark = f"[cut: {len(definitions) - len(kept)} tools]"
                kept.append({"type": "cut", "name": mark})
                break
            kept.append({key: self._cut(value) for key, value in definition.items()})
            self.left -= sum(map(_length, definition.values()))
        return kept

    def _part(self, part: Part) -> Part:
        room = min(self._of_part, self.left)
        size = _size(part)
        self.left -= min(size, room)
        if size <= room:
            return part
        shortened: Part = {}
        for name, value in part.items():
            if name in _NAMES:
                shortened[name] = self._cut(value)
                continue
            length = _length(value)
            if length <= room:
                shortened[name] = value
            elif name == "content" and part["type"] == "blob":
                shortened[name] = f"[cut: {length} characters]"
            elif name in _OBJECTS:
                # The conventions want an object, with its type.
                kind = value.get("type", "unknown")
                shortened[name] = {"type": kind, "cut": _cut(written(value), room)}
            else:
                shortened[name] = _cut(value if isinstance(value, str) else written(value), room)
            room -= min(length, room)
        return shortened

    def _cut(self, value: Any) -> Any:
        return (
            _cut(value, self._of_part)
            if isinstance(value, str) and len(value) > self._of_part
            else value
        )


_NAMES = frozenset(("type", "id", "name", "modality", "mime_type", "generic_type"))
"""What is short, and says what a part is."""
_OBJECTS = frozenset(("server_tool_call", "server_tool_call_response"))


def _size(part: Part) -> int:
    return sum(_length(value) for name, value in part.items() if name not in _NAMES)


def _length(value: object) -> int:
    return len(value) if isinstance(value, str) else 0 if value is None else len(written(value))


def _cut(text: str, room: int) -> str:
    return f"{text[:room]}[cut: {len(text) - room} of {len(text)} characters]"
