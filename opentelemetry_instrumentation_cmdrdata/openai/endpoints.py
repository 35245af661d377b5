"""
The calls that are metered: one row per endpoint.

To meter another one, add its row, and a function to `answers` if its answers have a shape of their own.
What is not metered is listed in `unbilled`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from opentelemetry_instrumentation_cmdrdata.openai import agents, answers
from opentelemetry_instrumentation_cmdrdata.openai.content.chat import ChatReader, CompletionReader
from opentelemetry_instrumentation_cmdrdata.openai.content.reading import Reader
from opentelemetry_instrumentation_cmdrdata.openai.content.responses import (
    FetchedResponseReader,
    ResponseReader,
)
from opentelemetry_instrumentation_cmdrdata.openai.usage import Reading

Read = Callable[[Reading, object], object]


@dataclass(frozen=True, eq=False, kw_only=True)
class Endpoint:
    """What is to be known of an endpoint of the provider."""

    name: str
    """`metadata.endpoint` of its events."""
    path: str
    """As the SDK has it in `options.url`, without a query; `{}` is one segment."""
    read: Read
    """Reads an answer."""
    read_chunk: Read | None = None
    """Reads a chunk of a streamed answer, where the endpoint streams."""
    method: str = "post"
    operation: str = ""
    """`gen_ai.operation.name` of its spans, where the conventions have one. Default: the endpoint's own name."""
    api_type: str | None = None
    """`openai.api.type` of its spans."""
    has_choices: bool = False
    """Whether its answers end for a reason, one per choice."""
    tells_usage_if_asked: bool = False
    """Whether its streams report usage only with `stream_options.include_usage`."""
    polls: bool = False
    """Whether it asks for a job that exists: a charge only if that has ended, and was not billed before."""
    lists: bool = False
    """Whether it polls many jobs at once: each that a page shows to have ended is a charge."""
    goes_on: bool = False
    """Whether the id in its path is that of a job which goes on, or of whose parts it shows a page."""
    polled_at: str | None = None
    """Of what starts a job: the path that shows its end. `{}` is its id, `{thread_id}` a detail of it."""
    backgrounds: bool = False
    """Whether it starts a job only with `background`."""
    binary: bool = False
    """Whether its answers are sound or film, which nothing can be read from unless they are events."""
    is_free: bool = False
    is_charged: bool = True
    """Whether it is what a charge is for; else it is what such things are in: a connection."""
    details: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    """Metadata of its events as it is while nothing else is known."""
    echoes: tuple[str, ...] = ()
    """Request parameters that its events carry as metadata."""
    characters: str | None = None
    """The parameter that is charged by its characters."""
    default_model: str | None = None
    """The model that answers a request without one."""
    content: Callable[[Mapping[str, Any]], Reader] | None = None
    """Makes what reads the content of a call, from the body of its request; None where the conventions have none."""
    resources: tuple[str, ...] = ()
    """The resources of a client whose methods request it. Default: that of the endpoint's own name."""

    @cached_property
    def span_operation(self) -> str:
        """`gen_ai.operation.name` of its spans."""
        if self.lists and not self.operation:
            return f"{self.name}.list"
        return self.operation or (f"{self.name}.retrieve" if self.polls else self.name)

    def starts_job(self, body: Mapping[str, object]) -> bool:
        """Whether a request with this body starts a job."""
        return self.polled_at is not None and (
            not self.backgrounds or body.get("background") is True
        )

    @cached_property
    def is_conventional(self) -> bool:
        """Whether the conventions have its operation, with attributes for what is requested."""
        return self.span_operation in _CONVENTIONAL


_CONVENTIONAL = frozenset({"chat", "text_completion", "embeddings", "fetch_response"})
_IMAGE_ECHOES = ("size", "quality", "style")
_AUDIO_ECHOES = ("language", "response_format")
_AUDIO_DETAILS = {"language": "auto", "response_format": "json"}

ENDPOINTS = (
    Endpoint(
        name="chat.completions",
        path="/chat/completions",
        operation="chat",
        read=answers.read_chat,
        read_chunk=answers.read_chat_chunk,
        api_type="chat_completions",
        has_choices=True,
        tells_usage_if_asked=True,
        content=ChatReader,
        resources=("chat.completions", "beta.chat.completions"),
    ),
    Endpoint(
        name="completions",
        path="/completions",
        operation="text_completion",
        read=answers.read_chat,
        read_chunk=answers.read_chat_chunk,
        has_choices=True,
        tells_usage_if_asked=True,
        content=CompletionReader,
    ),
    Endpoint(
        name="responses",
        path="/responses",
        operation="chat",
        read=answers.read_response,
        read_chunk=answers.read_response_event,
        api_type="responses",
        has_choices=True,
        content=ResponseReader,
        resources=("responses", "beta.responses"),
        polled_at="/responses/{}",
        backgrounds=True,
    ),
    Endpoint(
        name="responses",
        method="get",
        path="/responses/{}",
        operation="fetch_response",
        read=answers.read_fetched_response,
        read_chunk=answers.read_fetched_response_event,
        api_type="responses",
        content=FetchedResponseReader,
        polls=True,
    ),
    Endpoint(
        name="responses",
        path="/responses/{}/cancel",
        operation="responses.cancel",
        read=answers.read_fetched_response,
        api_type="responses",
        polls=True,
    ),
    Endpoint(
        name="responses.compact",
        path="/responses/compact",
        operation="chat",
        read=answers.read_answer,
        api_type="responses",
        content=ResponseReader,
        resources=("responses", "beta.responses"),
    ),
    Endpoint(
        name="embeddings",
        path="/embeddings",
        operation="embeddings",
        read=answers.read_embeddings,
    ),
    Endpoint(name="decisions", path="/decisions", read=answers.read_answer),
    Endpoint(name="moderations", path="/moderations", read=answers.read_moderation, is_free=True),
    Endpoint(
        name="images.generate",
        path="/images/generations",
        read=answers.read_images,
        read_chunk=answers.read_images_event,
        details={"operation": "generate", "image_count": 0},
        echoes=_IMAGE_ECHOES,
        resources=("images",),
    ),
    Endpoint(
        name="images.edit",
        path="/images/edits",
        read=answers.read_images,
        read_chunk=answers.read_images_event,
        details={"operation": "edit", "image_count": 0},
        echoes=_IMAGE_ECHOES,
        resources=("images",),
    ),
    Endpoint(
        name="images.create_variation",
        path="/images/variations",
        read=answers.read_images,
        details={"operation": "create_variation", "image_count": 0},
        echoes=_IMAGE_ECHOES,
        resources=("images",),
        default_model="dall-e-2",
    ),
    Endpoint(
        name="audio.transcriptions",
        path="/audio/transcriptions",
        read=answers.read_transcription,
        read_chunk=answers.read_transcription_event,
        details={"operation": "transcription", **_AUDIO_DETAILS},
        echoes=_AUDIO_ECHOES,
    ),
    Endpoint(
        name="audio.translations",
        path="/audio/translations",
        read=answers.read_transcription,
        details={"operation": "translation", **_AUDIO_DETAILS},
        echoes=_AUDIO_ECHOES,
    ),
    Endpoint(
        name="audio.speech",
        path="/audio/speech",
        read=answers.read_speech,
        read_chunk=answers.read_speech_event,
        binary=True,
        details={"operation": "speech"},
        echoes=("voice", "response_format"),
        characters="input",
    ),
    Endpoint(
        name="fine_tuning.alpha.graders",
        path="/fine_tuning/alpha/graders/run",
        read=answers.read_grader_run,
    ),
    # Jobs: what starts one is no charge yet, what shows its end is.
    Endpoint(name="batches", path="/batches", read=answers.read_batch, polled_at="/batches/{}"),
    Endpoint(name="batches", method="get", path="/batches/{}", read=answers.read_batch, polls=True),
    Endpoint(
        name="fine_tuning.jobs",
        path="/fine_tuning/jobs",
        read=answers.read_fine_tuning_created,
        polled_at="/fine_tuning/jobs/{}",
    ),
    Endpoint(
        name="fine_tuning.jobs",
        method="get",
        path="/fine_tuning/jobs/{}",
        read=answers.read_fine_tuning,
        polls=True,
    ),
    *(
        Endpoint(
            name="beta.threads.runs",
            path=path,
            operation=f"beta.threads.{operation}",
            read=answers.read_run,
            read_chunk=answers.read_run_event,
            polls=polls,
            resources=("beta.threads", "beta.threads.runs"),
            polled_at=None if polls else "/threads/{thread_id}/runs/{}",
        )
        for path, operation, polls in (
            ("/threads/runs", "create_and_run", False),
            ("/threads/{}/runs", "runs", False),
            ("/threads/{}/runs/{}/submit_tool_outputs", "runs.submit_tool_outputs", True),
        )
    ),
    Endpoint(
        name="beta.threads.runs",
        method="get",
        path="/threads/{}/runs/{}",
        read=answers.read_run,
        polls=True,
    ),
    *(
        Endpoint(
            name="videos",
            path=path,
            operation=operation,
            read=answers.read_video,
            polled_at="/videos/{}",
        )
        for path, operation in (
            ("/videos", "videos"),
            ("/videos/{}/remix", "videos.remix"),
            ("/videos/edits", "videos.edit"),
            ("/videos/extensions", "videos.extend"),
        )
    ),
    Endpoint(name="videos", method="get", path="/videos/{}", read=answers.read_video, polls=True),
    Endpoint(
        name="videos",
        method="get",
        path="/videos/{}/content",
        operation="videos.download_content",
        read=answers.read_video_download,
        polls=True,
        binary=True,
    ),
    Endpoint(
        name="evals.runs",
        path="/evals/{}/runs",
        read=answers.read_eval_run,
        polled_at="/evals/{eval_id}/runs/{}",
    ),
    # A session of an agent is one in whose turns it is charged.
    *(
        Endpoint(
            name="agents.sessions",
            method=method,
            path=path,
            operation=f"agents.sessions.{operation}",
            read=read,
            read_chunk=agents.read_event,
            polls=polls,
            goes_on=goes_on,
            polled_at=None if polls else "/agents/sessions/{session_id}/turns",
            resources=(
                "beta.agents.sessions",
                "beta.agents.sessions.events",
                "beta.agents.sessions.turns",
            ),
        )
        for method, path, operation, read, polls, goes_on in (
            ("post", "/agents/sessions", "create", agents.read_session, False, False),
            ("post", "/agents/sessions/{}/events", "input", agents.read_input, False, True),
            ("get", "/agents/sessions/{}/events", "stream", agents.read_input, True, False),
            ("get", "/agents/sessions/{}/turns/{}", "turn", agents.read_turn, True, False),
        )
    ),
    Endpoint(
        name="evals.runs",
        method="get",
        path="/evals/{}/runs/{}",
        read=answers.read_eval_run,
        polls=True,
    ),
    *(
        Endpoint(
            name=name,
            method="get",
            path=path,
            read=answers.pages_of(read),
            polls=True,
            lists=True,
        )
        for name, path, read in (
            ("batches", "/batches", answers.read_batch),
            ("fine_tuning.jobs", "/fine_tuning/jobs", answers.read_fine_tuning),
            ("beta.threads.runs", "/threads/{}/runs", answers.read_run),
            ("videos", "/videos", answers.read_video),
            ("evals.runs", "/evals/{}/runs", answers.read_eval_run),
        )
    ),
    Endpoint(
        name="agents.sessions",
        method="get",
        path="/agents/sessions/{}/turns",
        operation="agents.sessions.turns",
        read=agents.read_turns,
        polls=True,
        lists=True,
        goes_on=True,
    ),
)

_BY_REQUEST = {
    (endpoint.method, endpoint.path): (endpoint, None)
    for endpoint in ENDPOINTS
    if "{}" not in endpoint.path
}
_TEMPLATES = tuple(
    (endpoint.method, re.compile(endpoint.path.replace("{}", "([^/]+)")), endpoint)
    for endpoint in ENDPOINTS
    if "{}" in endpoint.path
)


def find(method: str, path: str) -> tuple[Endpoint, str | None] | None:
    """
    Return the row of a request, and the id in its path that comes last; None where it is not metered.

    A query (`?beta=true`) is no part of the path.
    """
    found = _BY_REQUEST.get((method, path))
    # As the SDK writes most of its requests.
    return _find(method.lower(), path.partition("?")[0]) if found is None else found


def _find(method: str, path: str) -> tuple[Endpoint, str | None] | None:
    found = _BY_REQUEST.get((method, path))
    if found is not None:
        return found
    for of_method, template, candidate in _TEMPLATES:
        if of_method == method and (match := template.fullmatch(path)):
            return candidate, match.groups()[-1]
    return None
