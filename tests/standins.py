"""
Stand-ins on loopback for the services around us: OpenAI, Anthropic, and the CmdrData backend.

Each is a real HTTP server, so that a program under test needs nothing but a base URL, and each
keeps the requests it answered:

    with OpenAIStandIn() as openai:
        client = OpenAI(base_url=openai.url, api_key="sk-standin")
        ...
        assert ["/v1/chat/completions"] == [request.path for request in openai.requests]

Every answer reports the same usage, in numbers that cannot be mistaken for each other: 11 input
tokens (of which 5 cached, 2 written to the cache, 1 audio), 7 output tokens (of which 3 reasoning,
1 audio) and 9 tokens for embeddings.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from typing_extensions import Self

Json = dict[str, Any]

REFUSED_KEY = "sk-refused"
CREATED = 1_700_000_000
MODEL_DATES = {"gpt-4.1-mini": "gpt-4.1-mini-2025-04-14", "o4-mini": "o4-mini-2025-04-16"}
CHAT_USAGE: Json = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2, "audio_tokens": 1},
    "completion_tokens_details": {
        "reasoning_tokens": 3,
        "audio_tokens": 1,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
EMBEDDINGS_USAGE: Json = {"prompt_tokens": 9, "total_tokens": 9}
RESPONSES_USAGE: Json = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 18,
}
MESSAGES_USAGE: Json = {
    "input_tokens": 11,
    "cache_read_input_tokens": 5,
    "cache_creation_input_tokens": 2,
    "output_tokens": 7,
}


@dataclass(frozen=True)
class Request:
    """A request as it arrived; `number` counts them from 1, and makes the ids of the answers."""

    number: int
    path: str
    headers: dict[str, str]
    body: Json


@dataclass(frozen=True)
class Answer:
    """A JSON answer or, with `events`, a stream of server-sent events: name (or None) and data."""

    body: Json | None = None
    status: int = 200
    events: Sequence[tuple[str | None, Json | str]] = ()


class Handler(BaseHTTPRequestHandler):
    """Hand each request to the stand-in, and send its answer."""

    protocol_version = "HTTP/1.1"
    # Headers and body leave in two writes: else each answer waits for a delayed ACK.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer a POST."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = self.path.partition("?")[0]
        answer = cast("StandIn", self.server).take(path, headers, json.loads(content))
        if answer.events:
            content_type, text = "text/event-stream", sse(answer.events)
        else:
            content_type, text = "application/json", json.dumps(answer.body)
        self.send_response(answer.status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base's name)
        """Keep the test's output clean."""


class StandIn(ThreadingHTTPServer):
    """Answer JSON requests on a port of its own, and remember them."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[Request] = []
        self._answer = answer
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def origin(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, path: str, headers: dict[str, str], body: Json) -> Answer:
        """Remember a request, and answer it."""
        with self._lock:
            request = Request(len(self.requests) + 1, path, headers, body)
            self.requests.append(request)
        return self._answer(request)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def sse(events: Iterable[tuple[str | None, Json | str]]) -> str:
    """Encode events for the wire; a string is sent as it is (`[DONE]`)."""
    return "".join(
        (f"event: {name}\n" if name else "")
        + f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"
        for name, data in events
    )


def is_refused(request: Request) -> bool:
    """Tell whether the request brings the refused key, in either of the providers' ways."""
    keys = (request.headers.get("authorization"), request.headers.get("x-api-key"))
    return any(key in (REFUSED_KEY, f"Bearer {REFUSED_KEY}") for key in keys)


# --- OpenAI -----------------------------------------------------------------------------------


class OpenAIStandIn(StandIn):
    """
    Answer chat completions, responses and embeddings, plain and streamed.

    A request that offers tools gets a call of the first one, until it brings a tool's result; one
    that asks for a JSON schema gets JSON that fits it. The Responses API ends as the model's name
    asks for: `incomplete` or `failed`. The key `sk-refused` is refused with 401.
    """

    def __init__(self) -> None:
        super().__init__(answer_as_openai)

    @property
    def url(self) -> str:
        """What clients take as `base_url`."""
        return f"{self.origin}/v1"


def answer_as_openai(request: Request) -> Answer:
    """Answer as api.openai.com does."""
    if is_refused(request):
        message = "Incorrect API key provided."
        error = {"type": "invalid_request_error", "code": "invalid_api_key", "param": None}
        return Answer({"error": {"message": message, **error}}, status=401)
    row = OPENAI_ENDPOINTS.get(request.path)
    if row is None:
        message = f"Unknown request URL: {request.path}"
        return Answer({"error": {"message": message, "code": "unknown_url"}}, status=404)
    return row(request)


def chat_completion(request: Request) -> Answer:
    """Answer a chat completion, streamed when asked; usage in a stream only when asked for."""
    body = request.body
    message, finish_reason = chat_message(body)
    common: Json = {
        "id": f"chatcmpl-{request.number}",
        "created": CREATED,
        "model": MODEL_DATES.get(body["model"], body["model"]),
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
        return Answer(
            {**common, "object": "chat.completion", "choices": [choice], "usage": CHAT_USAGE}
        )

    options: Json = body.get("stream_options") or {}
    include_usage = options.get("include_usage")

    def chunk(choices: Sequence[Json], usage: Json | None = None) -> tuple[None, Json]:
        data: Json = {**common, "object": "chat.completion.chunk", "choices": choices}
        return None, {**data, "usage": usage} if include_usage else data

    tool_calls = [{"index": i, **call} for i, call in enumerate(message.get("tool_calls", ()))]
    delta: Json = {**message, "tool_calls": tool_calls} if tool_calls else message
    chunks = [
        chunk([{"index": 0, "delta": delta, "finish_reason": None}]),
        chunk([{"index": 0, "delta": {}, "finish_reason": finish_reason}]),
    ]
    if include_usage:
        chunks.append(chunk([], CHAT_USAGE))
    return Answer(events=[*chunks, (None, "[DONE]")])


def chat_message(body: Json) -> tuple[Json, str]:
    """Return the assistant's message and its finish reason."""
    tools = [tool["function"] for tool in body.get("tools") or ()]
    if tools and body["messages"][-1]["role"] != "tool":
        arguments = json.dumps(example(tools[0]["parameters"]))
        function = {"name": tools[0]["name"], "arguments": arguments}
        calls = [{"id": "call_1", "type": "function", "function": function}]
        # A forced call ends with "stop", a free one with "tool_calls".
        forced = isinstance(body.get("tool_choice"), dict)
        message: Json = {"role": "assistant", "content": None, "tool_calls": calls}
        return message, "stop" if forced else "tool_calls"
    response_format: Json = body.get("response_format") or {}
    schema = response_format.get("json_schema")
    content = json.dumps(example(schema["schema"])) if schema else "hello"
    return {"role": "assistant", "content": content}, "stop"


def example(schema: Json) -> Any:
    """Return a value that fits a simple JSON schema."""
    values: Json = {"string": "hello", "integer": 1, "number": 1.5, "boolean": True, "array": []}
    if schema.get("type") == "object":
        properties = cast("dict[str, Json]", schema.get("properties", {}))
        return {name: example(property_) for name, property_ in properties.items()}
    return values[schema["type"]]


def embeddings(request: Request) -> Answer:
    """Answer an embedding of two dimensions; base64 (the SDK's own default) of the same floats."""
    body = request.body
    as_base64 = body.get("encoding_format") == "base64"
    vector = "AACAPwAAAEA=" if as_base64 else [1.0, 2.0]
    texts = cast("str | list[str]", body["input"])
    count = len(texts) if isinstance(texts, list) else 1
    data = [{"object": "embedding", "index": i, "embedding": vector} for i in range(count)]
    return Answer(
        {"object": "list", "data": data, "model": body["model"], "usage": EMBEDDINGS_USAGE}
    )


def responses(request: Request) -> Answer:
    """Answer a response, streamed when asked."""
    body = request.body
    status = body["model"] if body["model"] in ("incomplete", "failed") else "completed"
    conversation = body.get("conversation")
    response: Json = {
        "id": f"resp_{request.number}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": MODEL_DATES.get(body["model"], body["model"]),
        "conversation": {"id": conversation} if conversation else None,
        "reasoning": body.get("reasoning"),
        "text": body.get("text", {"format": {"type": "text"}}),
        "service_tier": "default",
        "error": {"code": "server_error", "message": "failed"} if status == "failed" else None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": response_output(body),
        "parallel_tool_calls": True,
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata", {}),
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "usage": RESPONSES_USAGE,
    }
    if not body.get("stream"):
        return Answer(response)
    started: Json = {**response, "status": "in_progress", "output": [], "usage": None}
    steps: list[tuple[str, Json]] = [("response.created", {"response": started})]
    for i, item in enumerate(response["output"]):
        steps.append(("response.output_item.added", {"output_index": i, "item": item}))
        steps.extend(response_text_steps(i, item))
        steps.append(("response.output_item.done", {"output_index": i, "item": item}))
    steps.append((f"response.{status}", {"response": response}))
    return Answer(
        events=[
            (name, {"type": name, "sequence_number": number, **data})
            for number, (name, data) in enumerate(steps)
        ]
    )


def response_output(body: Json) -> list[Json]:
    """Return the output items: a message, or a call of the first tool offered."""
    tools = [tool for tool in body.get("tools") or () if tool["type"] == "function"]
    items = cast("list[Json] | str", body["input"])
    answered = isinstance(items, list) and items[-1].get("type") == "function_call_output"
    if tools and not answered:
        arguments = json.dumps(example(tools[0]["parameters"]))
        call = {"call_id": "call_1", "name": tools[0]["name"], "arguments": arguments}
        return [{"type": "function_call", "id": "fc_1", "status": "completed", **call}]
    content: list[Json] = [{"type": "output_text", "text": "hello", "annotations": []}]
    message = {"id": "msg_1", "role": "assistant", "status": "completed", "content": content}
    return [{"type": "message", **message}]


def response_text_steps(output_index: int, item: Json) -> list[tuple[str, Json]]:
    """Return the events between an item's start and its end."""
    at: Json = {"item_id": item["id"], "output_index": output_index}
    if item["type"] == "function_call":
        delta = {"delta": item["arguments"]}
        done = {"arguments": item["arguments"], "name": item["name"]}
        return [
            ("response.function_call_arguments.delta", {**at, **delta}),
            ("response.function_call_arguments.done", {**at, **done}),
        ]
    at["content_index"] = 0
    part: Json = item["content"][0]
    return [
        ("response.content_part.added", {**at, "part": {**part, "text": ""}}),
        ("response.output_text.delta", {**at, "delta": part["text"], "logprobs": []}),
        ("response.output_text.done", {**at, "text": part["text"], "logprobs": []}),
        ("response.content_part.done", {**at, "part": part}),
    ]


OPENAI_ENDPOINTS: dict[str, Callable[[Request], Answer]] = {
    "/v1/chat/completions": chat_completion,
    "/v1/embeddings": embeddings,
    "/v1/responses": responses,
}


# --- Anthropic --------------------------------------------------------------------------------


class AnthropicStandIn(StandIn):
    """
    Answer messages, plain and streamed.

    The key `sk-refused` is refused with 401.
    """

    def __init__(self) -> None:
        super().__init__(answer_as_anthropic)


def answer_as_anthropic(request: Request) -> Answer:
    """Answer as api.anthropic.com does."""
    if is_refused(request):
        error = {"type": "authentication_error", "message": "invalid x-api-key"}
        return Answer({"type": "error", "error": error}, status=401)
    content: list[Json] = [{"type": "text", "text": "hello"}]
    stop: Json = {"stop_reason": "end_turn", "stop_sequence": None}
    message: Json = {
        "id": f"msg_{request.number}",
        "type": "message",
        "role": "assistant",
        "model": request.body["model"],
        "content": content,
        **stop,
        "usage": MESSAGES_USAGE,
    }
    if not request.body.get("stream"):
        return Answer(message)
    started: Json = {**message, "content": [], "usage": {**MESSAGES_USAGE, "output_tokens": 1}}
    steps: list[tuple[str, Json]] = [
        ("message_start", {"message": started}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "hello"}}),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": stop, "usage": {"output_tokens": 7}}),
        ("message_stop", {}),
    ]
    return Answer(events=[(name, {"type": name, **data}) for name, data in steps])


# --- CmdrData ---------------------------------------------------------------------------------


class CmdrDataStandIn(StandIn):
    """Accept every usage event."""

    def __init__(self) -> None:
        super().__init__(lambda _: Answer({"status": "accepted"}, status=201))

    @property
    def url(self) -> str:
        """Where events are posted."""
        return f"{self.origin}/api/events"

    @property
    def events(self) -> list[Json]:
        """The events in the order in which they arrived."""
        return [request.body for request in self.requests if request.path == "/api/events"]
