"""
How `cmdrdata jobs --poll` asks the provider for jobs: by the openai SDK, observed as the application's own calls are.

So what a job costs, and whose it is, is found out in one place. The key is the application's; it goes to the host that
it is meant for, to no other one, and never over plain HTTP but to this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from cmdrdata_exporter.cli.base_url import OPENAI, require_safe
from cmdrdata_exporter.cli.destination import Refusal, settings_of
from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.options import Options
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.exporter import CmdrDataSpanExporter

TIMEOUT = 30.0
"""Seconds that an answer may take."""
PAGES = 1000
"""Pages of one job, the turns of a session, that are read at most."""

BILLED, ENDED, RUNNING = "billed", "ended", "running"
NOT_FOUND, REFUSED, UNREACHABLE = "not found", "refused", "unreachable"
UNREADABLE = "unreadable"
OTHER_HOST, UNKNOWN_ID = "other host", "unknown id"

POLL_WORDS = {
    RUNNING: "still running.",
    ENDED: "ended without a charge, or billed before.",
    NOT_FOUND: "not found: deleted there, or of another project than the key's.",
    REFUSED: "refused: the provider does not accept OPENAI_API_KEY for them.",
    UNREACHABLE: "not answered: the provider cannot be reached, or fails.",
    UNREADABLE: "answered with something else than a job; see whether a newer release can read it.",
    OTHER_HOST: "of another host: set OPENAI_BASE_URL and OPENAI_API_KEY to those of that host.",
}
"""What is said of jobs that were asked for, by what came of it."""
_FAILED = frozenset((NOT_FOUND, REFUSED, UNREACHABLE, UNREADABLE, OTHER_HOST))
_OF_ALL = frozenset((REFUSED, UNREACHABLE))
"""What may be so of all jobs, since all go to the same place with the same key."""
ENOUGH = 3
"""Jobs in a row of which that is so, after which no other one is asked for: one alone may be of a key's limits."""

_BETAS = {"beta.threads.runs": "assistants=v2", "agents.sessions": "agents=v1"}
"""The header `OpenAI-Beta` that the methods of the SDK send with a request, without which the provider refuses it."""


class Asked(NamedTuple):
    """What came of asking for a job."""

    outcome: str
    events: int = 0
    """How many were recorded."""

    @property
    def failed(self) -> bool:
        """Whether it is as unknown as before."""
        return self.outcome in _FAILED


class _Recording(DurableDelivery):
    """Records what is found out, for whoever sends; counts it."""

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory, Options(post=None, drains=False))
        self.events = 0
        self.ended = 0

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """See `Delivery.record`."""
        super().record(event_id, header, body)
        self.events += 1

    def end_job(self, key: bytes) -> None:
        """See `KeepsJobs.end_job`."""
        super().end_job(key)
        self.ended += 1


def ask(directory: Directory, jobs: Sequence[OpenJob]) -> dict[bytes, Asked]:
    """
    Ask for jobs, and return what came of it by their keys.

    Raises:
        Refusal: there is no key, no SDK, or the base URL must not be used.
    """
    key, base_url = _access()
    if not jobs:
        return {}
    delivery = _Recording(directory)
    try:
        exporter = CmdrDataSpanExporter(delivery=delivery, of_process=False)
        # Who started a job has said who pays, also where that was nobody.
        exporter.settings = replace(exporter.settings, customer_id=None)
        return dict(_ask(_client(key, base_url, exporter), base_url, delivery, jobs))
    finally:
        delivery.close(0.0)


def _access() -> tuple[str, str]:
    """Return the key, and where it is for."""
    if find_spec("openai") is None:
        raise Refusal("--poll needs the openai package; run the command where the application runs")
    settings_of(None)  # It refuses where nothing would be recorded.
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        raise Refusal("OPENAI_API_KEY is not set; --poll asks with the key of the application")
    base_url = os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI
    require_safe(base_url, "OPENAI_BASE_URL")
    return key, base_url


def _client(key: str, base_url: str, exporter: CmdrDataSpanExporter) -> Any:
    from opentelemetry_instrumentation_cmdrdata import TrackedOpenAI
    from opentelemetry_instrumentation_cmdrdata.openai.keywords import HEADER, Attribution

    headers = cast("dict[str, str]", {HEADER: Attribution(exporter=exporter)})
    return TrackedOpenAI(
        api_key=key, base_url=base_url, timeout=TIMEOUT, max_retries=1, default_headers=headers
    )


def _ask(
    client: Any, base_url: str, delivery: _Recording, jobs: Sequence[OpenJob]
) -> Iterator[tuple[bytes, Asked]]:
    host, failures = urlsplit(base_url).hostname, list[str]()
    with client:
        for job in jobs:
            if job.path is None:
                yield job.key, Asked(UNKNOWN_ID)
            elif job.host != host:
                yield job.key, Asked(OTHER_HOST)
            elif len(failures) >= ENOUGH:
                yield job.key, Asked(failures[-1])
            else:
                before, ended = delivery.events, delivery.ended
                error = _get(client, job.path, _BETAS.get(job.endpoint))
                events = delivery.events - before
                done = BILLED if events else ENDED if delivery.ended > ended else RUNNING
                yield job.key, Asked(error or done, events)
                failures = [*failures, error] if error in _OF_ALL else []


def _get(client: Any, path: str, beta: str | None) -> str | None:
    """Ask for a job, page by page where there are several; return what has failed."""
    import openai

    headers = {} if beta is None else {"OpenAI-Beta": beta}
    after: str | None = None
    try:
        for _ in range(PAGES):
            options: dict[str, Any] = {"headers": headers}
            if after is not None:
                options["params"] = {"after": after}
            body = client.get(path, cast_to=object, options=options)
            after = _next(body)
            if after is None:
                break
    except openai.NotFoundError:
        return NOT_FOUND
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        return REFUSED
    except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError):
        return UNREACHABLE
    except (openai.OpenAIError, ValueError):
        return UNREADABLE  # Refused as it was asked, or no JSON.
    return None


def _next(body: Any) -> str | None:
    """Return what the next page comes after, None where there is none."""
    if not isinstance(body, dict):
        return None
    page = cast("dict[str, Any]", body)
    items: Any = page.get("data")
    if page.get("has_more") is not True or not isinstance(items, list) or not items:
        return None
    last: Any = cast("list[Any]", items)[-1]
    return cast("dict[str, Any]", last).get("id") if isinstance(last, dict) else None
