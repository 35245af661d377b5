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
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypedDict, cast

from opentelemetry.trace import format_trace_id

from cmdrdata_exporter import CmdrDataSpanExporter, ConfigurationError, processes
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, semconv
from opentelemetry_instrumentation_cmdrdata.bounds import Bounds, bounded
from opentelemetry_instrumentation_cmdrdata.content import Content, Message
from opentelemetry_instrumentation_cmdrdata.ended import Failure, FinishedCall
from opentelemetry_instrumentation_cmdrdata.openai.listeners import listeners

if TYPE_CHECKING:
    from typing_extensions import Self

MOST = 100
"""Conversations that are kept, unless said otherwise: the last ones."""
MOST_BYTES = 16 << 20
"""Bytes of memory that they may take, unless said otherwise."""

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


class Conversations(processes.ForkAware):
    """
    The last conversations. Its methods may be called from any thread.

    Args:
        most: how many are kept.
        most_bytes: of memory that all of them may take; for more the oldest ones go. One that is larger by itself is
            shortened as on spans, and the data in it left out.
        tags: are in each of them, and in the `metadata` of their events.
        metadata: goes into the `metadata` of the events, too.
        exporter: meters the calls, where another than the process's own is to.

    Raises:
        ConfigurationError: `most` or `most_bytes` is no positive number, or `tags` are no texts.
    """

    def __init__(
        self,
        *,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        exporter: CmdrDataSpanExporter | None = None,
    ) -> None:
        if most < 1:
            raise ConfigurationError(f"most is {most}; expected is a number from 1 on")
        if most_bytes < 1:
            raise ConfigurationError(f"most_bytes is {most_bytes}; expected is a number from 1 on")
        self._most, self._most_bytes, self._bytes = most, most_bytes, 0
        self._conversations: deque[tuple[int, Conversation]] = deque()
        """The oldest first, each with the bytes that it takes."""
        self._lock = threading.RLock()
        self._metadata = dict(metadata or {})
        self.tags: list[str] = _texts(tags or [])
        self.exporter = exporter
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Go on in a forked child; another thread may have held the lock."""
        self._lock = threading.RLock()

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
            self.add(_conversation(finished, self.tags))

    def add(self, conversation: Conversation) -> None:
        """Keep a conversation, which is nobody else's; be it one that was had elsewhere."""
        taken = _bytes_of(conversation)
        if taken > self._most_bytes:
            conversation = _shortened(conversation, self._most_bytes)
            taken = _bytes_of(conversation)
        with self._lock:
            self._conversations.append((taken, conversation))
            self._bytes += taken
            while len(self._conversations) > self._most or (
                self._bytes > self._most_bytes and len(self._conversations) > 1
            ):
                self._bytes -= self._conversations.popleft()[0]

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
        with self._lock:
            kept = [conversation for _, conversation in self._conversations]
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


def _bytes_of(value: object) -> int:
    """Return the bytes of memory that a value of dicts, lists and texts takes."""
    taken, inside = sys.getsizeof(value), tuple[object, ...]()
    if isinstance(value, dict):
        entries = cast("dict[object, object]", value)
        inside = (*entries.keys(), *entries.values())
    elif isinstance(value, list):
        inside = tuple(cast("list[object]", value))
    return taken + sum(map(_bytes_of, inside))


_BYTES_OF_CHARACTER = 16
"""At most four of a text's own; the rest for dicts and lists with little in them."""


def _shortened(conversation: Conversation, most_bytes: int) -> Conversation:
    """Return a conversation that takes no more bytes, where that can be: one without content is what it is."""
    most = most_bytes // _BYTES_OF_CHARACTER
    content = bounded(
        Content([], conversation["messages"], conversation["output"], conversation["tools"]),
        Bounds(most, most),
    )
    shortened: Conversation = {
        **conversation,
        "messages": content.input_messages,
        "output": content.output_messages,
        "tools": content.tool_definitions,
        "completion": text_of(content.output_messages[0]) if content.output_messages else None,
    }
    if _bytes_of(shortened) <= most_bytes:
        return shortened
    return {**conversation, "messages": [], "output": [], "tools": [], "completion": None}


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
