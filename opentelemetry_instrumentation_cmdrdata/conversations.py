"""
The recent conversations with the model, in memory.

    from opentelemetry_instrumentation_cmdrdata.conversations import Conversations

    with Conversations(tags=["support"]) as conversations:
        client.chat.completions.create(...)
        conversations.get_conversation_history(limit=10)

While a `Conversations` listens, the calls of all clients of the process are kept in it, with their content: chats,
responses and completions, synchronous and asynchronous, streamed and whole, answered and failed. Their spans have the
content too. No file is written and nothing is printed; no event has content.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypedDict, cast

from opentelemetry.trace import format_trace_id

from cmdrdata_exporter import CmdrDataSpanExporter, ConfigurationError
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, semconv
from opentelemetry_instrumentation_cmdrdata.content import Message
from opentelemetry_instrumentation_cmdrdata.ended import Failure, FinishedCall
from opentelemetry_instrumentation_cmdrdata.openai.listeners import listeners

if TYPE_CHECKING:
    from typing_extensions import Self

MOST = 100
"""Conversations that are kept, unless said otherwise: the last ones."""

_OPERATIONS = ("chat", "text_completion")


class Tokens(TypedDict):
    """What a call used, None where the provider has not said so."""

    input: int | None
    output: int | None
    total: int | None


class Conversation(TypedDict):
    """One call: what was asked, and what came of it."""

    timestamp: str
    """When it ended: ISO 8601, UTC."""
    operation: str
    """`chat` or `text_completion`."""
    model: str | None
    """The model that was asked."""
    messages: list[Message]
    """What was sent, by the GenAI conventions: each message has a `role` and `parts`; first the system's, if any."""
    completion: str | None
    """The text of the first choice; of a stream that was cut, what came. None where there is no text."""
    output: list[Message]
    """All choices, with the tools that they call."""
    tools: list[dict[str, Any]]
    """Type and name of each tool that was offered."""
    tokens: Tokens
    tags: list[str]
    customer: str | None
    trace_id: str
    """That of its span and its event, 32 hexadecimal digits."""
    error: dict[str, str | None] | None
    """How it failed: `type`, `code`, and the `message` without secrets."""


class Conversations:
    """
    The last conversations. Its methods may be called from any thread.

    Args:
        most: how many are kept.
        tags: are in each of them, and in the `metadata` of their events.
        metadata: goes into the `metadata` of the events, too.
        exporter: meters the calls, where another than the process's own is to.

    Raises:
        ConfigurationError: `most` is no positive number, or `tags` are no texts.
    """

    def __init__(
        self,
        *,
        most: int = MOST,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        exporter: CmdrDataSpanExporter | None = None,
    ) -> None:
        if most < 1:
            raise ConfigurationError(f"most is {most}; expected is a number from 1 on")
        self._conversations: deque[Conversation] = deque(maxlen=most)
        self._metadata = dict(metadata or {})
        self.tags: list[str] = _texts(tags or [])
        self.exporter = exporter

    def add_tags(self, tags: Sequence[str]) -> None:
        """
        Have the conversations from now on bear these tags too.

        Raises:
            ConfigurationError: they are no list of texts.
        """
        self.tags += [tag for tag in _texts(tags) if tag not in self.tags]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What goes into the events' metadata."""
        return {**self._metadata, "tags": list(self.tags)} if self.tags else self._metadata

    def start(self) -> None:
        """
        Listen to all calls that start from now on, of clients that were made before, too.

        If no `CmdrDataInstrumentor` is active, one is, for as long as anybody listens.

        Raises:
            ConfigurationError: a setting of the environment cannot be used.
        """
        instrumentor = CmdrDataInstrumentor()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(exporter=self.exporter)
            instrumentor.stands_in = instrumentor.is_instrumented_by_opentelemetry
        listeners[id(self)] = self

    def stop(self) -> None:
        """Listen no longer. What was kept stays; calls that started before are kept when they end."""
        listeners.pop(id(self), None)
        instrumentor = CmdrDataInstrumentor()
        if instrumentor.stands_in and not listeners:
            instrumentor.uninstrument()

    def __enter__(self) -> Self:
        """Listen until the `with` ends."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no longer."""
        self.stop()

    def observe(self, finished: FinishedCall) -> None:
        """Keep a call that has ended, if it is a conversation."""
        if finished.call.endpoint.span_operation in _OPERATIONS:
            self._conversations.append(_conversation(finished, self.tags))

    def add(self, conversation: Conversation) -> None:
        """Keep a conversation that was had elsewhere."""
        self._conversations.append(conversation)

    def get_conversation_history(self, limit: int | None = None) -> list[Conversation]:
        """
        Return the conversations so far, the oldest first: copies, to be kept and changed.

        Args:
            limit: how many, the newest; None for all that are kept.

        Raises:
            ValueError: `limit` is negative.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit is {limit}; expected is how many conversations to return")
        kept = list(self._conversations.copy())
        return copy.deepcopy(kept if limit is None else kept[len(kept) - min(limit, len(kept)) :])


def _texts(tags: object) -> list[str]:
    if isinstance(tags, (list, tuple, set, frozenset)):
        given = list(cast("Iterable[object]", tags))
        texts = [tag for tag in given if isinstance(tag, str)]
        if len(texts) == len(given):
            return texts
    kind = type(cast("object", tags)).__name__
    raise ConfigurationError(f"tags is of type {kind}; expected is a list of texts")


def _conversation(finished: FinishedCall, tags: Sequence[str]) -> Conversation:
    call, content = finished.call, finished.content
    output = [] if content is None else content.output_messages
    messages = [] if content is None else content.input_messages
    if content is not None and content.system_instructions:
        messages = [{"role": "system", "parts": content.system_instructions}, *messages]
    return {
        "timestamp": datetime.fromtimestamp(call.end_time / 1e9, timezone.utc).isoformat(),
        "operation": call.endpoint.span_operation,
        "model": call.request_model,
        "messages": messages,
        "completion": text_of(output[0]) if output else None,
        "output": output,
        "tools": [] if content is None else content.tool_definitions,
        "tokens": _tokens(finished.facts),
        "tags": list(tags),
        "customer": call.attribution.customer(call.default_customer),
        "trace_id": format_trace_id(call.trace_id),
        "error": None if call.failure is None else error_of(call.failure),
    }


def _tokens(facts: Mapping[str, Any]) -> Tokens:
    given, made = facts.get(semconv.INPUT_TOKENS), facts.get(semconv.OUTPUT_TOKENS)
    total = facts.get(semconv.TOTAL_TOKENS)
    if total is None and given is not None and made is not None:
        total = given + made
    return {"input": given, "output": made, "total": total}


def error_of(failure: Failure) -> dict[str, str | None]:
    """Return what a conversation says of a call's failure."""
    return {"type": failure.type, "code": failure.code, "message": failure.message}


def text_of(message: Message) -> str | None:
    """Return the text of a message; None where it has none, because it only calls tools for instance."""
    texts = [part["content"] for part in message["parts"] if part.get("type") == "text"]
    return "".join(texts) if texts else None
