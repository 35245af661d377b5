"""The content of the Responses API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry_instrumentation_cmdrdata.content import Message, Part
from opentelemetry_instrumentation_cmdrdata.openai.content import items, parts
from opentelemetry_instrumentation_cmdrdata.openai.content.parts import Text
from opentelemetry_instrumentation_cmdrdata.openai.content.reading import Reader
from opentelemetry_instrumentation_cmdrdata.openai.usage import fields, get, string
from opentelemetry_instrumentation_cmdrdata.openai.usage import items as items_of

_ENDED = frozenset(f"response.{state}" for state in ("completed", "incomplete", "failed"))
_DELTAS: Mapping[str, tuple[str, str, str]] = {
    "response.output_text.delta": ("content", "output_text", "text"),
    "response.refusal.delta": ("content", "refusal", "refusal"),
    "response.reasoning_text.delta": ("content", "reasoning_text", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_text", "text"),
    "response.function_call_arguments.delta": ("arguments", "", ""),
    "response.mcp_call_arguments.delta": ("arguments", "", ""),
    "response.custom_tool_call_input.delta": ("input", "", ""),
    "response.code_interpreter_call_code.delta": ("code", "", ""),
}
"""
What brings a piece of an item: into which of its fields, and, where that is a list of parts, the type of the part and
which of its fields.
"""


class ResponseReader(Reader):
    """Reads a response that is made."""

    __slots__ = ("_items", "_output")

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__()
        self._output: list[Part] = []
        """Of the response itself, once it was seen."""
        self._items: dict[object, _Item] = {}
        """What came of it before, by the place in the output."""
        self._asked(body)

    def _asked(self, body: Mapping[str, Any]) -> None:
        self._told(body)
        given = body.get("input")
        messages = map(items.message_of, [given] if isinstance(given, str) else items_of(given))
        self.input_messages = [message for message in messages if message is not None]

    def _told(self, body: Mapping[str, Any]) -> None:
        self.system_instructions = parts.parts_of(body.get("instructions"))
        self.tool_definitions = parts.tool_definitions(body)

    def answer(self, body: object) -> None:
        """Read a response."""
        output = [part for item in items_of(get(body, "output")) for part in _parts(item)]
        # One that has failed may have nothing of what came before.
        self._output = output or self._output

    def chunk(self, chunk: object) -> None:
        """Read an event of a stream."""
        values = fields(chunk)
        kind = values.get("type")
        if not isinstance(kind, str):
            return
        if kind in _ENDED:
            self.answer(values.get("response"))
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._item(values).replace(values.get("item"))
        elif kind in _DELTAS:
            self._item(values).add(_DELTAS[kind], values)

    def _item(self, event: Mapping[str, Any]) -> _Item:
        place = event.get("output_index")
        item = self._items.get(place)
        if item is None:
            item = self._items[place] = _Item()
        return item

    def output(self, reasons: Sequence[str]) -> list[Message]:
        """Return what the model said, as the one message that a response is."""
        said = self._output or [
            part for item in self._items.values() for part in items.parts_of(item.whole())
        ]
        if not said:
            return []
        message: Message = {"role": "assistant", "parts": said}
        if reasons:
            message["finish_reason"] = "tool_call" if "tool_calls" in reasons else reasons[0]
        return [message]


class FetchedResponseReader(ResponseReader):
    """Reads a response that was made before: what was asked then it does not tell, but for instructions and tools."""

    __slots__ = ()

    def _asked(self, body: Mapping[str, Any]) -> None:
        pass

    def answer(self, body: object) -> None:
        """Read a response."""
        super().answer(body)
        values = fields(body)
        self._told(values)
        if not isinstance(given := values.get("instructions"), str):
            self.system_instructions = [part for item in items_of(given) for part in _parts(item)]


def _parts(item: object) -> list[Part]:
    return items.parts_of(fields(item))


class _Item:
    """An item of the output, as far as it has come."""

    __slots__ = ("_fields", "_pieces")

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._pieces: dict[tuple[str, str, str, object], Text] = {}

    def replace(self, item: object) -> None:
        """Take the item itself, which has what came of it in pieces before."""
        self._fields = dict(fields(item))
        self._pieces.clear()

    def add(self, place: tuple[str, str, str], event: Mapping[str, Any]) -> None:
        """Add a piece to a field, or to the part of a field that the event names."""
        key = (*place, event.get("summary_index", event.get("content_index")))
        pieces = self._pieces.get(key)
        if pieces is None:
            pieces = self._pieces[key] = Text()
        pieces.add(event.get("delta"))

    def whole(self) -> Mapping[str, Any]:
        """Return the fields of the item, with what came in pieces."""
        whole = dict(self._fields)
        for (field, kind, inner, _), pieces in self._pieces.items():
            if kind:
                whole[field] = [*items_of(whole.get(field)), {"type": kind, inner: str(pieces)}]
            else:
                whole[field] = str(pieces)
        if self._pieces and string(whole.get("type")) is None:
            [(field, *_), *_] = self._pieces
            whole["type"] = {"summary": "reasoning", "arguments": "function_call"}.get(field)
        return whole
