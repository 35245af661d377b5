"""
Stand-ins for OpenAI and for CmdrData on loopback, as far as `cmdrdata demo` needs them.

Each is a server with one method, `answer`, which turns a request into a reply; the HTTP around it
is shared.

    with OpenAIStandIn() as openai, CmdrDataStandIn("tk-…") as cmdrdata:
        run(base_url=f"{openai.url}/v1", endpoint=f"{cmdrdata.url}/api/events")
        print(cmdrdata.events)
"""

from __future__ import annotations

import base64
import json
import struct
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cmdrdata_exporter import processes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

Json = dict[str, Any]

SERVED_MODELS = {
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "text-embedding-3-small": "text-embedding-3-small",
}


class Reply(NamedTuple):
    """What goes back: a status, a media type and the body in the pieces it is written in."""

    status: int
    media_type: str
    pieces: list[str]


def json_reply(status: int, body: Json) -> Reply:
    """Reply with one JSON document."""
    return Reply(status, "application/json", [json.dumps(body)])


class StandIn(ThreadingHTTPServer):
    """An HTTP server on a free loopback port for as long as its `with` block runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)

    def server_bind(self) -> None:
        """Bind without HTTPServer's reverse lookup of the host name, which can take seconds."""
        TCPServer.server_bind(self)

    @property
    def url(self) -> str:
        """Scheme, host and port, without a trailing slash."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        """Serve from a thread, polled so often that leaving costs nothing."""
        processes.start_thread(self.serve_forever, 0.01)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving and free the port."""
        self.shutdown()
        self.server_close()

    def answer(self, path: str, headers: Mapping[str, str], body: Json) -> Reply:
        """Turn a POST into its reply; may be called from several threads."""
        raise NotImplementedError


class _Connection(BaseHTTPRequestHandler):
    """One keep-alive connection to a stand-in."""

    protocol_version = "HTTP/1.1"
    # Head and body are two writes: with Nagle's algorithm the second waits 40 ms for an ACK.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Read a JSON request, write the stand-in's reply."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = cast("StandIn", self.server).answer(self.path, dict(self.headers.items()), body)
        pieces = [piece.encode() for piece in reply.pieces]
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.media_type)
        self.send_header("Content-Length", str(sum(map(len, pieces))))
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Keep the terminal for the demo."""


class CmdrDataStandIn(StandIn):
    """A backend that accepts events sent with the right key and remembers them."""

    def __init__(self, api_key: str) -> None:
        super().__init__()
        self.api_key = api_key
        self.events: list[Json] = []

    def answer(self, path: str, headers: Mapping[str, str], body: Json) -> Reply:
        """Accept one event."""
        if path != "/api/events":
            return json_reply(404, {"error": "not found"})
        if headers.get("Authorization") != f"Bearer {self.api_key}":
            return json_reply(401, {"error": "unknown key"})
        self.events.append(body)
        return json_reply(201, {"status": "created"})


class OpenAIStandIn(StandIn):
    """An OpenAI that answers chats and embeddings with made-up content and token counts."""

    def answer(self, path: str, headers: Mapping[str, str], body: Json) -> Reply:  # noqa: ARG002
        """Route by path; as at OpenAI, an unknown model is a 404 too."""
        if path not in ("/v1/chat/completions", "/v1/embeddings"):
            return _refusal(f"Invalid URL (POST {path})", code=None)
        if body["model"] not in SERVED_MODELS:
            message = f"The model `{body['model']}` does not exist or you do not have access to it."
            return _refusal(message, code="model_not_found")
        if path == "/v1/embeddings":
            return _embeddings(body)
        return _streamed_chat(body) if body.get("stream") else _chat(body)


def _refusal(message: str, code: str | None) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return json_reply(404, {"error": error})


def _words(body: Json) -> list[str]:
    """Make up a reply, so that the calls can be told apart."""
    question: str = body["messages"][-1]["content"]
    return f"You said {question!r} and I have nothing to add.".split()


def _chat_usage(body: Json) -> Json:
    """
    Count a word as a token; cached and reasoning tokens are parts of the totals, as at OpenAI.

    The cached part stands for a long system prompt.
    """
    prompt = 1024 + sum(len(message["content"].split()) for message in body["messages"])
    completion = 64 + len(_words(body))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 64,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _chat_head(body: Json, kind: str) -> Json:
    """Return what a completion and each of its chunks begin with."""
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": SERVED_MODELS[body["model"]],
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _chat(body: Json) -> Reply:
    message = {"role": "assistant", "content": " ".join(_words(body)), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    completion = _chat_head(body, "chat.completion")
    return json_reply(200, completion | {"choices": [choice], "usage": _chat_usage(body)})


def _streamed_chat(body: Json) -> Reply:
    """Reply in chunks; the usage comes last, in a chunk without choices, and only if asked for."""
    head = _chat_head(body, "chat.completion.chunk")
    options: Json = body.get("stream_options") or {}
    asked_for_usage = options.get("include_usage")
    if asked_for_usage:
        head["usage"] = None

    def chunk(delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return head | {"choices": [choice]}

    chunks = [chunk({"role": "assistant", "content": "", "refusal": None})]
    chunks += [chunk({"content": word + " "}) for word in _words(body)]
    chunks += [chunk({}, finish_reason="stop")]
    if asked_for_usage:
        chunks += [head | {"choices": [], "usage": _chat_usage(body)}]
    documents = [*map(json.dumps, chunks), "[DONE]"]
    return Reply(200, "text/event-stream", [f"data: {document}\n\n" for document in documents])


def _embeddings(body: Json) -> Reply:
    """Embed each text in three dimensions; base64 of floats is what the SDK asks for."""
    texts: list[str] = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vector: list[float] | str = [0.25, -0.5, 1.0]
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
    tokens = sum(len(text.split()) for text in texts)
    return json_reply(
        200,
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index in range(len(texts))
            ],
            "model": SERVED_MODELS[body["model"]],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
    )
