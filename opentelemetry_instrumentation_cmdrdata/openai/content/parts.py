"""
The parts of messages, from OpenAI's shapes to the conventions'.

Pure and tolerant, see `usage`: what is of a type that is not known is taken over as it is. Nothing that is returned
belongs to the application.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel

from opentelemetry_instrumentation_cmdrdata.content import Part
from opentelemetry_instrumentation_cmdrdata.openai.usage import fields, get, items, string

_DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
_DEEPEST = 50
"""Levels of nesting that are taken over: more is hard to write, and to copy."""


def plain(value: object, within: tuple[int, ...] = ()) -> Any:
    """
    Return a copy of a JSON value; of an SDK object the fields that it has.

    Of anything else nothing: no request takes it, and what hangs on an object of the application is not for telemetry.
    What holds itself, or is nested too deeply, ends in `...`.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if len(within) > _DEEPEST or id(value) in within:
        return "..."
    inside = (*within, id(value))
    if isinstance(value, (list, tuple)):
        return [plain(one, inside) for one in cast("list[object]", value)]
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value).items()
        return {str(key): plain(one, inside) for key, one in entries}
    if isinstance(value, BaseModel):
        return {key: plain(one, inside) for key, one in fields(value).items() if one is not None}
    return "..."


def parsed(arguments: object) -> Any:
    """Return the arguments of a tool, which the model writes as JSON, as they are meant; else as they are written."""
    if not isinstance(arguments, str):
        return plain(arguments)
    try:
        return plain(json.loads(arguments))
    except (ValueError, RecursionError):
        return arguments


def text(content: str) -> Part:
    """Return a part of text."""
    return {"type": "text", "content": content}


def tool_call(call_id: object, name: object, arguments: object) -> Part:
    """Return the call of a tool that the application executes."""
    part: Part = {"type": "tool_call", "name": string(name) or ""}
    if isinstance(call_id, str):
        part["id"] = call_id
    if arguments is not None:
        part["arguments"] = parsed(arguments)
    return part


def tool_call_response(call_id: object, output: object) -> Part:
    """Return what the application's tool has answered: a text, or parts."""
    is_list = isinstance(output, (list, tuple))
    response: Any = parts_of(cast("object", output)) if is_list else plain(output)
    part: Part = {"type": "tool_call_response", "response": response}
    if isinstance(call_id, str):
        part["id"] = call_id
    return part


def parts_of(content: object) -> list[Part]:
    """Return the parts of a message's content, which is a text or a list."""
    if isinstance(content, str):
        return [text(content)]
    return [part_of(part) for part in items(content)]


def part_of(part: object) -> Part:
    """Return one part of a content."""
    if isinstance(part, str):
        return text(part)
    values = fields(part)
    kind = values.get("type")
    convert = _PARTS.get(kind) if isinstance(kind, str) else None
    converted = None if convert is None else convert(values)
    return generic(values) if converted is None else converted


def generic(values: Mapping[str, Any]) -> Part:
    """Return what the conventions have no type for, as it is; by another type where theirs is something else."""
    part: Part = {key: plain(value) for key, value in values.items() if value is not None}
    kind = str(part.get("type") or "unknown")
    part["type"] = f"openai.{kind}" if kind in _CONVENTIONAL else kind
    return part


def _saying(kind: str, field: str) -> Callable[[Mapping[str, Any]], Part | None]:
    """Return what makes a part of a kind of the text in a field."""

    def convert(values: Mapping[str, Any]) -> Part | None:
        said = values.get(field)
        return {"type": kind, "content": said} if isinstance(said, str) else None

    return convert


def _image(values: Mapping[str, Any]) -> Part | None:
    given = values.get("image_url")
    return media("image", given if isinstance(given, str) else get(given, "url"), values)


def _audio(values: Mapping[str, Any]) -> Part | None:
    given = fields(values.get("input_audio"))
    return audio(given.get("data"), given.get("format"))


def _file(values: Mapping[str, Any]) -> Part | None:
    given = fields(values["file"]) if values.get("file") is not None else values
    part = media("document", given.get("file_url") or given.get("file_data"), given)
    if part is not None and isinstance(name := given.get("filename"), str):
        part["filename"] = name
    return part


def audio(data: object, sound_format: object) -> Part | None:
    """Return a part of sound, None where there is none."""
    if not isinstance(data, str):
        return None
    part: Part = {"type": "blob", "modality": "audio", "content": data}
    if isinstance(sound_format, str):
        part["mime_type"] = f"audio/{sound_format}"
    return part


def media(modality: str, source: object, given: Mapping[str, Any]) -> Part | None:
    """
    Return a part that is not text.

    Args:
        modality: what it is, unless a type in its data says otherwise.
        source: a URL, which may hold the data, or bare data in base64.
        given: may have a `file_id`.
    """
    if not isinstance(source, str):
        file_id = given.get("file_id")
        if not isinstance(file_id, str):
            return None
        return {"type": "file", "modality": modality, "file_id": file_id}
    begun = _DATA_URL.match(source)
    if begun is None:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", source):
            return {"type": "uri", "modality": modality, "uri": source}
        return {"type": "blob", "modality": modality, "content": source}
    mime_type, data = begun[1].lower(), source[begun.end() :]
    if ";base64" not in begun[2].lower():
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    part: Part = {"type": "blob", "modality": _modality(mime_type, modality), "content": data}
    if mime_type:
        part["mime_type"] = mime_type
    return part


def _modality(mime_type: str, otherwise: str) -> str:
    kind = mime_type.partition("/")[0]
    return kind if kind in ("image", "audio", "video") else otherwise


_CONVENTIONAL = frozenset(
    (
        *("text", "reasoning", "compaction", "blob", "file", "uri", "tool_call"),
        *("tool_call_response", "server_tool_call", "server_tool_call_response"),
    )
)
"""The types of parts of which the conventions say what is in them."""
_PARTS: Mapping[str, Callable[[Mapping[str, Any]], Part | None]] = {
    "text": _saying("text", "text"),
    "input_text": _saying("text", "text"),
    "output_text": _saying("text", "text"),
    "summary_text": _saying("reasoning", "text"),
    "reasoning_text": _saying("reasoning", "text"),
    "refusal": _saying("refusal", "refusal"),
    "image_url": _image,
    "input_image": _image,
    "input_audio": _audio,
    "file": _file,
    "input_file": _file,
}


def joined_base64(pieces: list[str]) -> str:
    """Return as one what came in pieces, of which each may be padded."""
    try:
        return base64.b64encode(b"".join(map(base64.b64decode, pieces))).decode()
    except binascii.Error:
        return "".join(pieces)


def tool_definitions(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return type and name of each tool of a request, or of a response that repeats them.

    One without a name of its own, as those of the provider are, goes by its type.
    """
    definitions: list[dict[str, Any]] = []
    for tool in items(body.get("tools")):
        values = fields(tool)
        kind = string(values.get("type")) or "function"
        of_kind = values.get(kind)
        name = string(get(of_kind, "name")) or string(values.get("name"))
        name = name or string(values.get("server_label")) or kind
        definitions.append({"type": kind, "name": name})
    definitions.extend(
        {"type": "function", "name": name}
        for function in items(body.get("functions"))
        if (name := string(get(function, "name")))
    )
    return definitions


class Text:
    """A text that comes in pieces. Adding one takes constant time, and what is kept is hardly more than the text."""

    __slots__ = ("_joined", "_pieces")

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._pieces: list[str] = []

    def add(self, piece: object) -> None:
        """Add a piece, unless it is no text."""
        if isinstance(piece, str) and piece:
            self._pieces.append(piece)
            if len(self._pieces) == 512:
                # A string of its own costs more than the few letters in it.
                self._joined.append("".join(self._pieces))
                self._pieces.clear()

    def __str__(self) -> str:
        return "".join((*self._joined, *self._pieces))
