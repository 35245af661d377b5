"""The content of chats, and of legacy completions, whose answers have the same shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry_instrumentation_cmdrdata.content import Message, Part, written
from opentelemetry_instrumentation_cmdrdata.openai.content import parts
from opentelemetry_instrumentation_cmdrdata.openai.content.parts import Text
from opentelemetry_instrumentation_cmdrdata.openai.content.reading import Reader
from opentelemetry_instrumentation_cmdrdata.openai.usage import count, fields, get, items, string

_REASONING = ("reasoning_content", "reasoning")
"""DeepSeek, vLLM and others; OpenRouter and newer vLLM."""


class ChatReader(Reader):
    """Reads a chat."""

    __slots__ = ("_choices", "_sound")

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__()
        self.input_messages = self._asked(body)
        self.tool_definitions = parts.tool_definitions(body)
        self._sound = string(get(body.get("audio"), "format"))
        self._choices: dict[int, _Choice] = {}

    @staticmethod
    def _asked(body: Mapping[str, Any]) -> list[Message]:
        return [_message(fields(one)) for one in items(body.get("messages"))]

    def answer(self, body: object) -> None:
        """Read a whole answer."""
        self._choices.clear()
        self.chunk(body)

    def chunk(self, chunk: object) -> None:
        """Read a chunk, or a whole answer, whose messages are like those of a chunk."""
        for position, one in enumerate(items(get(chunk, "choices"))):
            values = fields(one)
            index = count(values.get("index"))
            key = position if index is None else index
            choice = self._choices.get(key)
            if choice is None:
                choice = self._choices[key] = _Choice(self._sound)
            choice.add(values)

    def output(self, reasons: Sequence[str]) -> list[Message]:
        """Return a message for each choice, unless none of them says anything."""
        messages = [
            self._choices[index].message(has_ended=not reasons) for index in sorted(self._choices)
        ]
        return messages if any(message["parts"] for message in messages) else []


class CompletionReader(ChatReader):
    """Reads a legacy completion."""

    __slots__ = ()

    @staticmethod
    def _asked(body: Mapping[str, Any]) -> list[Message]:
        prompt = body.get("prompt")
        prompts = [prompt] if isinstance(prompt, str) else list(items(prompt))
        if prompts and all(isinstance(token, int) for token in prompts):
            prompts = [prompts]
        return [
            {"role": "user", "parts": [parts.text(one)]}
            if isinstance(one, str)
            else {"role": "user", "parts": [{"type": "tokens", "tokens": parts.plain(one)}]}
            for one in prompts
        ]


def _message(values: Mapping[str, Any]) -> Message:
    """Return a message of a request."""
    role = string(values.get("role")) or "user"
    content = values.get("content")
    message: Message = {"role": role}
    if role in ("tool", "function"):
        message["role"] = "tool"
        message["parts"] = [parts.tool_call_response(values.get("tool_call_id"), content)]
    else:
        message["parts"] = [
            *(
                {"type": "reasoning", "content": said}
                for name in _REASONING
                if isinstance(said := values.get(name), str)
            ),
            *parts.parts_of(content),
            *_beside_content(values),
        ]
    if name := string(values.get("name")):
        message["name"] = name
    return message


def _beside_content(values: Mapping[str, Any]) -> list[Part]:
    found: list[Part] = []
    if (refusal := string(values.get("refusal"))) is not None:
        found.append({"type": "refusal", "content": refusal})
    if (sound := string(get(values.get("audio"), "id"))) is not None:
        found.append({"type": "file", "modality": "audio", "file_id": sound})
    for call in items(values.get("tool_calls")):
        function = fields(get(call, "function") or get(call, "custom"))
        arguments = function.get("arguments", function.get("input"))
        found.append(parts.tool_call(get(call, "id"), function.get("name"), arguments))
    if (function := values.get("function_call")) is not None:
        found.append(parts.tool_call(None, get(function, "name"), get(function, "arguments")))
    return found


class _ToolCall:
    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.arguments = Text()


class _Choice:
    """One choice of an answer, whole or so far."""

    __slots__ = (
        "_calls",
        "_calls_by_index",
        "_content",
        "_parts",
        "_reason",
        "_reasoning",
        "_refusal",
        "_role",
        "_sound",
        "_sound_format",
        "_transcript",
    )

    def __init__(self, sound_format: str | None) -> None:
        self._role = "assistant"
        self._reason: str | None = None
        self._content, self._reasoning, self._refusal = Text(), Text(), Text()
        self._parts: list[Part] = []
        """Of an answer whose content is a list."""
        self._transcript = Text()
        self._sound: list[str] = []
        self._sound_format = sound_format
        self._calls: list[_ToolCall] = []
        self._calls_by_index: dict[int, _ToolCall] = {}

    def add(self, choice: Mapping[str, Any]) -> None:
        """Add what a chunk brings of the choice."""
        if (reason := string(choice.get("finish_reason"))) is not None:
            self._reason = reason
        self._content.add(choice.get("text"))
        values = fields(choice.get("delta") or choice.get("message"))
        if not values:
            return
        self._role = string(values.get("role")) or self._role
        content = values.get("content")
        self._content.add(content)
        if not isinstance(content, str):
            self._parts += parts.parts_of(content)
        self._refusal.add(values.get("refusal"))
        for name in _REASONING:
            if isinstance(said := values.get(name), str):
                self._reasoning.add(said)
                break
        if (sound := values.get("audio")) is not None:
            self._transcript.add(get(sound, "transcript"))
            if isinstance(data := get(sound, "data"), str):
                self._sound.append(data)
        for call in items(values.get("tool_calls")):
            self._add_call(fields(call))
        if (function := values.get("function_call")) is not None:
            self._add_call({"index": -1, "function": function})

    def _add_call(self, values: Mapping[str, Any]) -> None:
        function = fields(values.get("function") or values.get("custom"))
        index, call_id = values.get("index"), string(values.get("id"))
        name = string(function.get("name"))
        call = self._call(index, call_id, name)
        call.id, call.name = call.id or call_id, call.name or name
        arguments = function.get("arguments", function.get("input"))
        # Some servers send them as an object.
        call.arguments.add(arguments if isinstance(arguments, str) else _as_json(arguments))

    def _call(self, index: object, call_id: str | None, name: str | None) -> _ToolCall:
        """Return the call that a piece belongs to: Mistral sends no index, Gemini the same one for each call."""
        if isinstance(index, int):
            known = self._calls_by_index.get(index)
        else:
            known = self._calls[-1] if self._calls and not (call_id or name) else None
            known = known or next((c for c in self._calls if call_id and c.id == call_id), None)
        if known is None or (call_id and known.id and call_id != known.id and name):
            known = _ToolCall()
            self._calls.append(known)
            if isinstance(index, int):
                self._calls_by_index[index] = known
        return known

    def message(self, *, has_ended: bool) -> Message:
        """Return the choice as a message; without a reason one `has_ended` in a way that nobody tells, or was cut."""
        said = [
            {"type": kind, "content": content}
            for kind, pieces in (
                ("reasoning", self._reasoning),
                ("text", self._content),
                ("refusal", self._refusal),
            )
            if (content := str(pieces))
        ]
        said += self._parts
        transcript = str(self._transcript)
        if self._sound or transcript:
            data = (
                parts.joined_base64(self._sound) if len(self._sound) > 1 else "".join(self._sound)
            )
            sound = parts.audio(data, self._sound_format) or {}
            said.append({**sound, "transcript": transcript} if transcript else sound)
        said += [
            parts.tool_call(call.id, call.name, str(call.arguments) or None) for call in self._calls
        ]
        message: Message = {"role": self._role, "parts": said}
        reason = self._reason or (None if has_ended else "error")
        if reason is not None:
            is_call = reason in ("tool_calls", "function_call")
            message["finish_reason"] = "tool_call" if is_call else reason
        return message


def _as_json(arguments: object) -> str | None:
    return None if arguments is None else written(parts.plain(arguments))
