"""
What was said in a call: prompts, answers and tools, by the JSON schemas of the GenAI conventions.

Pure. Read only where it is asked for: see `capture`. How it is shortened for spans and events is in `bounds`.
https://github.com/open-telemetry/semantic-conventions-genai/tree/6fd0d763/model/gen-ai
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

Part = dict[str, Any]
"""A part of a message: its `type`, and what a part of that type has: a text's `content`, for instance."""
Message = dict[str, Any]
"""A message: its `role` and its `parts`; a `name` where it has one. One of the output has a `finish_reason` too."""


class Content(NamedTuple):
    """
    The content of one call, in dicts and lists that are nobody else's.

    What does not occur is an empty list.
    """

    system_instructions: list[Part]
    """Instructions that the API takes apart from the messages: `instructions` of the Responses API."""
    input_messages: list[Message]
    """In the order in which they were sent; those of a chat with its system messages."""
    output_messages: list[Message]
    """One for each choice. Of a stream that was cut: what came."""
    tool_definitions: list[dict[str, Any]]
    """Type and name of each tool that the model was offered; the conventions advise against the rest."""


def written(value: object) -> str:
    """Return JSON that can be encoded whatever text is in it: halves of surrogate pairs are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), default=str)
    return text
