"""
How content is shortened before it leaves the process on a span or in an event. Pure.

What was cut says so where it was: `[cut: 5000 of 21384 characters]`. Data in base64 is worth nothing when it is cut, so
it is left out as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    output = budget.messages(content.output_messages)
    instructions = budget.parts(content.system_instructions)
    tools = budget.whole(content.tool_definitions)
    latest = budget.messages(content.input_messages[::-1])
    return Content(instructions, latest[::-1], output, tools)


class _Budget:
    """What is left for what comes. Everything counts, also names: of a million empty parts few are kept."""

    __slots__ = ("_of_part", "left")

    def __init__(self, bounds: Bounds) -> None:
        self._of_part = bounds.part
        self.left = bounds.total

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages as far as they fit; of the others one stands for all, with the last one's role."""
        kept: list[Message] = []
        for message in messages:
            if self.left <= 0:
                unseen = messages[len(kept) :]
                characters = sum(_size(part) for one in unseen for part in one["parts"])
                mark = f"[cut: {len(unseen)} messages, {characters} characters]"
                role = self._cut(unseen[-1]["role"])
                kept.append({"role": role, "parts": [{"type": "text", "content": mark}]})
                break
            named = {name: value for name, value in message.items() if name != "parts"}
            kept.append({**self._names(named), "parts": self.parts(message["parts"])})
        return kept

    def parts(self, parts: Sequence[Part]) -> list[Part]:
        """Return parts as far as they fit."""
        kept: list[Part] = []
        for part in parts:
            if self.left <= 0:
                unseen = parts[len(kept) :]
                mark = f"[cut: {len(unseen)} parts, {sum(map(_size, unseen))} characters]"
                kept.append({"type": "text", "content": mark})
                break
            kept.append(self._part(part))
        return kept

    def whole(self, definitions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return definitions, which are short, as far as they fit."""
        kept: list[dict[str, Any]] = []
        for definition in definitions:
            if self.left <= 0:
                mark = f"[cut: {len(definitions) - len(kept)} tools]"
                kept.append({"type": "cut", "name": mark})
                break
            kept.append(self._names(definition))
        return kept

    def _names(self, named: dict[str, Any]) -> dict[str, Any]:
        """Return what is short where nobody overdoes it."""
        shortened = {name: self._cut(value) for name, value in named.items()}
        self.left -= sum(map(_length, shortened.values()))
        return shortened

    def _part(self, part: Part) -> Part:
        shortened = self._names({name: value for name, value in part.items() if name in _NAMES})
        room = max(0, min(self._of_part, self.left))
        size = _size(part)
        self.left -= min(size, room)
        if size <= room:
            return {**part, **shortened}
        for name, value in part.items():
            if name in _NAMES:
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
