"""What reads the content of one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry_instrumentation_cmdrdata.content import Message, Part


class Reader:
    """
    Reads the content of one call: the request when it is made, the answer whole or chunk by chunk.

    A subclass is called with the body of the request.
    """

    __slots__ = ("input_messages", "system_instructions", "tool_definitions")

    def __init__(self) -> None:
        self.system_instructions: list[Part] = []
        self.input_messages: list[Message] = []
        self.tool_definitions: list[dict[str, Any]] = []

    def answer(self, body: object) -> None:
        """Read a whole answer."""
        raise NotImplementedError

    def chunk(self, chunk: object) -> None:
        """Read a chunk of a streamed answer."""
        raise NotImplementedError

    def output(self, reasons: Sequence[str]) -> list[Message]:
        """Return what the model said, none where it said nothing; `reasons` are why it stopped, if that is known."""
        raise NotImplementedError
