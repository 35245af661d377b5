"""
The requests of the SDK that are not metered: what they cost, if anything, is in the price of another call.

A test over the installed SDK fails with the name of any request path that is neither here nor in `endpoints`, so that
a new endpoint announces itself. At run time such a request passes untouched and is counted.
`docs/endpoints.md` is made from this table and the others.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Unbilled(NamedTuple):
    """Requests that are not metered for the same reason."""

    title: str
    cost: str
    """What they cost, and so why they are not metered."""
    paths: tuple[str, ...]


GROUPS = (
    Unbilled(
        "Settings and administration",
        "free",
        (
            "/organization/**",
            "/projects/**",
            "/safety/**",
            "/webhook_endpoints",
            "/webhook_endpoints/{}",
            "/webhook_endpoints/{}/rotate_secret",
            "/webhook_endpoints/{}/test",
            "/webhook_event_types",
        ),
    ),
    Unbilled(
        "Files and what is kept at the provider",
        "storage, containers and searches are on the provider's own invoice: no answer tells what one costs",
        (
            "/containers",
            "/containers/{}",
            "/containers/{}/files",
            "/containers/{}/files/{}",
            "/containers/{}/files/{}/content",
            "/content_provenance_checks",
            "/conversations",
            "/conversations/{}",
            "/conversations/{}/items",
            "/conversations/{}/items/{}",
            "/files",
            "/files/{}",
            "/files/{}/content",
            "/models",
            "/models/{}",
            "/skills",
            "/skills/{}",
            "/skills/{}/content",
            "/skills/{}/versions",
            "/skills/{}/versions/{}",
            "/skills/{}/versions/{}/content",
            "/uploads",
            "/uploads/{}/cancel",
            "/uploads/{}/complete",
            "/uploads/{}/parts",
            "/vaults",
            "/vaults/{}",
            "/vaults/{}/credentials",
            "/vaults/{}/credentials/{}",
            "/vector_stores",
            "/vector_stores/{}",
            "/vector_stores/{}/file_batches",
            "/vector_stores/{}/file_batches/{}",
            "/vector_stores/{}/file_batches/{}/cancel",
            "/vector_stores/{}/file_batches/{}/files",
            "/vector_stores/{}/files",
            "/vector_stores/{}/files/{}",
            "/vector_stores/{}/files/{}/content",
            "/vector_stores/{}/search",
        ),
    ),
    Unbilled(
        "What has happened, listed, changed or deleted",
        "free: what it is about was charged when it was made",
        (
            "/audio/voice_consents",
            "/audio/voice_consents/{}",
            "/audio/voices",
            "/audio/voices/{}",
            "/batches/{}/cancel",
            "/chat/completions/{}",
            "/chat/completions/{}/messages",
            "/evals",
            "/evals/{}",
            "/evals/{}/runs/{}/cancel",
            "/evals/{}/runs/{}/output_items",
            "/evals/{}/runs/{}/output_items/{}",
            "/fine_tuning/alpha/graders/validate",
            "/fine_tuning/checkpoints/{}/permissions",
            "/fine_tuning/checkpoints/{}/permissions/{}",
            "/fine_tuning/jobs/{}/cancel",
            "/fine_tuning/jobs/{}/checkpoints",
            "/fine_tuning/jobs/{}/events",
            "/fine_tuning/jobs/{}/pause",
            "/fine_tuning/jobs/{}/resume",
            "/responses/input_tokens",
            "/responses/{}/input_items",
            "/videos/characters",
            "/videos/characters/{}",
        ),
    ),
    Unbilled(
        "What changes a job; the same paths, asked for with GET, are metered",
        "free",
        (
            "/evals/{}/runs/{}",
            "/threads/{}/runs/{}",
        ),
    ),
    Unbilled(
        "Assistants and their threads, but for the runs",
        "free: runs are charged; ChatKit's answers go to a browser, past this SDK",
        (
            "/assistants",
            "/assistants/{}",
            "/chatkit/sessions",
            "/chatkit/sessions/{}/cancel",
            "/chatkit/threads",
            "/chatkit/threads/{}",
            "/chatkit/threads/{}/items",
            "/threads",
            "/threads/{}",
            "/threads/{}/messages",
            "/threads/{}/messages/{}",
            "/threads/{}/runs/{}/cancel",
            "/threads/{}/runs/{}/steps",
            "/threads/{}/runs/{}/steps/{}",
        ),
    ),
    Unbilled(
        "Agents, but for the turns of their sessions",
        "free, or in the usage of a turn: so is what a subagent does; "
        "the turns of an automation are charged when an application asks for them",
        (
            "/agents",
            "/agents/{}",
            "/agents/automations",
            "/agents/automations/{}",
            "/agents/automations/{}/invocations",
            "/agents/automations/{}/invocations/{}",
            "/agents/automations/{}/pause",
            "/agents/automations/{}/resume",
            "/agents/environments",
            "/agents/environments/templates",
            "/agents/environments/templates/{}",
            "/agents/environments/{}",
            "/agents/environments/{}/files",
            "/agents/sessions/{}",
            "/agents/sessions/{}/artifacts",
            "/agents/sessions/{}/artifacts/{}",
            "/agents/sessions/{}/artifacts/{}/content",
            "/agents/sessions/{}/items",
            "/agents/sessions/{}/subagents",
            "/agents/sessions/{}/subagents/{}",
            "/agents/sessions/{}/subagents/{}/items",
            "/agents/sessions/{}/subagents/{}/turns",
            "/agents/sessions/{}/subagents/{}/turns/{}",
            "/agents/sessions/{}/subagents/{}/turns/{}/items",
            "/agents/sessions/{}/traces",
            "/agents/sessions/{}/turns/{}/items",
        ),
    ),
    Unbilled(
        "What prepares a realtime or Live session, lets it in or hangs it up",
        "in the price of the session, which a WebSocket connection shows; "
        "one that a browser or a telephone holds itself is not seen",
        (
            "/live/**",
            "/realtime/**",
        ),
    ),
    Unbilled(
        "Gone from the provider, but not from the oldest SDK",
        "nothing: they are not there any more",
        (
            "/edits",
            "/fine-tunes",
            "/fine-tunes/{}",
            "/fine-tunes/{}/cancel",
            "/fine-tunes/{}/events",
        ),
    ),
)

UNBILLED = tuple(path for group in GROUPS for path in group.paths)
"""Request paths; `{}` is one segment, `**` is any number of them, or none."""

_PATTERN = re.compile(
    "|".join(
        re.escape(path).replace(r"\{\}", "[^/]+").replace(r"/\*\*", "(?:/.*)?") for path in UNBILLED
    )
)


def is_unbilled(url: str) -> bool:
    """Say whether a request is known not to be metered. A query is no part of its path."""
    return _PATTERN.fullmatch(url.partition("?")[0]) is not None
