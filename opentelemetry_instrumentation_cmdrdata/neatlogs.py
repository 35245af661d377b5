"""
NeatLogs' log of conversations, by the same names.

    from opentelemetry_instrumentation_cmdrdata.neatlogs import OpenAIProvider

in place of `from neatlogs.openai import OpenAIProvider`; `LLMTracker` is here, too, in place of `neatlogs.llm`'s.
Between `override()` and `undo_override()` the calls of all clients are metered and kept in the history, whenever the
clients were made. Nothing is printed, and no file is written. See `conversations` for what the history leaves out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypedDict

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata.content import Message, Part
from opentelemetry_instrumentation_cmdrdata.conversations import Conversation, Conversations
from opentelemetry_instrumentation_cmdrdata.openai import failures
from opentelemetry_instrumentation_cmdrdata.openai.content.parts import plain
from opentelemetry_instrumentation_cmdrdata.openai.usage import fields, items

_logger = logging.getLogger("cmdrdata")

_OUR_KEYS = "tk-"
"""How CmdrData's keys begin."""


class LoggedConversation(TypedDict):
    """A conversation as NeatLogs has it."""

    timestamp: str
    """When the call ended: ISO 8601, UTC."""
    model: str | None
    prompt: str | list[dict[str, Any]] | None
    """The messages of a chat, in the form of OpenAI's API; the text of a completion."""
    completion: str | None
    """The text of the first choice, None where there is none."""
    metadata: dict[str, Any]
    """`total_tokens` (None where the provider has not said so), `tags`, and `error` of a call that failed."""


class OpenAIProvider:
    """
    Keeps the last 100 conversations of all clients, as long as it overrides.

    Args:
        trace_id: the user's own name for what these calls belong to. It is `user_trace_id` in the events' metadata,
            beside the `trace_id` of OpenTelemetry.
        client: an identifier of the user's own, `client` in the events' metadata; anything but a text is left out.
        api_key: a CmdrData key, which begins with `tk-`, meters the calls for its account. A key of NeatLogs has no
            use here, and is neither kept nor sent.
        tags: are in the history, and in the events' metadata.

    Raises:
        ConfigurationError: the CmdrData key cannot be used, or `tags` is no list of texts.
    """

    def __init__(
        self,
        trace_id: str | None = None,
        client: object = None,
        api_key: str | None = None,
        tags: Sequence[str] | None = None,
    ) -> None:
        self.trace_id = trace_id
        self.client = client
        named = {"user_trace_id": trace_id, "client": client}
        self._conversations = Conversations(
            tags=tags,
            metadata={name: value for name, value in named.items() if isinstance(value, str)},
            exporter=_exporter(api_key),
        )

    @property
    def tags(self) -> list[str]:
        """The tags of the conversations from now on."""
        return self._conversations.tags

    def override(self) -> None:
        """
        Keep the calls that start from now on, of every client.

        Raises:
            ConfigurationError: a setting of the environment cannot be used.
        """
        self._conversations.start()

    def undo_override(self) -> None:
        """Keep no further calls. The history stays."""
        self._conversations.stop()

    def get_conversation_history(self, limit: int | None = None) -> list[LoggedConversation]:
        """Return the last conversations, the oldest first; as many as `limit` says, if it says so."""
        return [
            _logged(conversation)
            for conversation in self._conversations.get_conversation_history(limit or None)
        ]

    def handle_error(self, e: BaseException, kwargs: Mapping[str, Any]) -> None:
        """
        Keep a call that failed past the SDK. Those of the SDK are kept by themselves, and not once more.

        Args:
            e: what it failed with.
            kwargs: what it was given: `model`, and `messages` or `prompt`.
        """
        error = {
            "type": failures.qualified_name(e),
            "code": failures.code(e),
            "message": failures.message(e),
        }
        failed = _failed(kwargs, error, self.tags)
        for newest in self._conversations.get_conversation_history(1):
            if (newest["error"], newest["model"]) == (error, failed["model"]):
                return
        self._conversations.add(failed)


class LLMTracker(OpenAIProvider):
    """
    The tracker of NeatLogs: an `OpenAIProvider` by other names.

    Args:
        api_key: see `OpenAIProvider`.
        client: see `OpenAIProvider`.
        tags: see `OpenAIProvider`.

    Raises:
        ConfigurationError: the CmdrData key cannot be used, or `tags` is no list of texts.
    """

    def __init__(
        self,
        api_key: str | None = None,
        client: object = None,
        tags: Sequence[str] | None = None,
    ) -> None:
        super().__init__(client=client, api_key=api_key, tags=tags)

    override_api = OpenAIProvider.override
    stop_instrumenting = OpenAIProvider.undo_override

    def add_tags(self, tags: Sequence[str]) -> None:
        """
        Have the calls from now on bear these tags too.

        Raises:
            ConfigurationError: `tags` is no list of texts.
        """
        self._conversations.add_tags(tags)


def _exporter(api_key: str | None) -> CmdrDataSpanExporter | None:
    """Return what meters calls for the account of a key of ours; None where it is no such key."""
    if api_key is None:
        return None
    if str(api_key).startswith(_OUR_KEYS):
        return CmdrDataSpanExporter(api_key, of_process=False)
    _logger.info(
        "the api_key of NeatLogs has no use here and is not kept; what meters this process meters its calls. "
        "A CmdrData key begins with %s, and is best set as CMDRDATA_API_KEY",
        _OUR_KEYS,
    )
    return None


def _logged(conversation: Conversation) -> LoggedConversation:
    error = conversation["error"]
    metadata: dict[str, Any] = {
        "total_tokens": conversation["tokens"]["total"],
        "tags": conversation["tags"],
    }
    if error is not None:
        metadata["error"] = ": ".join(filter(None, (error["type"], error["message"])))
    prompt: Any = [_sent(message) for message in conversation["messages"]]
    if conversation["operation"] == "text_completion":
        texts = [message["content"] for message in prompt]
        prompt = texts[0] if len(texts) == 1 else texts
    return {
        "timestamp": conversation["timestamp"],
        "model": conversation["model"],
        "prompt": prompt or None,
        "completion": conversation["completion"],
        "metadata": metadata,
    }


def _sent(message: Message) -> dict[str, Any]:
    """Return a message in the form of OpenAI's API. A part that is neither text nor a tool's stays as it is."""
    parts: list[Part] = message["parts"]
    sent: dict[str, Any] = {"role": message["role"]}
    if "name" in message:
        sent["name"] = message["name"]
    content: list[Any] = []
    calls: list[dict[str, Any]] = []
    for part in parts:
        if part["type"] == "tool_call":
            arguments = part.get("arguments")
            written = arguments if isinstance(arguments, str) else json.dumps(arguments)
            function = {"name": part.get("name"), "arguments": written}
            calls.append({"id": part.get("id"), "type": "function", "function": function})
        elif part["type"] == "tool_call_response":
            sent["tool_call_id"] = part.get("id")
            content.append(part.get("response"))
        else:
            content.append(part["content"] if part["type"] == "text" else part)
    sent["content"] = content[0] if len(content) == 1 else content or None
    if calls:
        sent["tool_calls"] = calls
    return sent


def _failed(
    kwargs: Mapping[str, Any], error: dict[str, str | None], tags: Sequence[str]
) -> Conversation:
    model, given = kwargs.get("model"), kwargs.get("messages")
    if given is None:
        messages: list[Message] = [{"role": "user", "parts": [_text(kwargs.get("prompt"))]}]
    else:
        messages = [
            {"role": message.get("role"), "parts": [_text(message.get("content"))]}
            for message in (fields(each) for each in items(given))
            if message
        ]
    return {
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "operation": "text_completion" if given is None else "chat",
        "model": model if isinstance(model, str) else None,
        "messages": messages,
        "completion": None,
        "output": [],
        "tools": [],
        "tokens": {"input": None, "output": None, "total": None},
        "tags": list(tags),
        "customer": None,
        "trace_id": "",
        "error": error,
    }


def _text(content: object) -> Part:
    return {"type": "text", "content": plain(content)}
