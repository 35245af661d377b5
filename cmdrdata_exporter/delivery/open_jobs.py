"""
Jobs of a provider whose end was not seen yet, as they are kept beside the events: without content, without a key.

They say who pays for a job where another process than the one that started it sees its end, and which jobs nobody has
asked for. The ledger keeps them in a table of their own; `cmdrdata jobs` shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

KEPT = 30 * 86400.0
"""Seconds for which an open job is kept; a provider keeps a response for as long."""
SLACK = 2.0
"""Seconds by which the clock of a provider, which tells whole ones, may differ from ours."""


class OpenJob(NamedTuple):
    """A job that a call has started."""

    key: bytes
    """16 bytes that stand for the host and the id; random ones where the id is not known."""
    host: str
    port: int
    endpoint: str
    """`metadata.endpoint` of its event."""
    job_id: str | None
    """The provider's id. None where the answer of the call ended before it told one."""
    path: str | None
    """What shows its end, asked for with GET, as the SDK has it; None without an id."""
    since: float
    """Unix seconds of the start of the call."""
    until: float
    """Unix seconds when its end was not seen."""
    model: str | None
    """As it was requested."""
    payer: Mapping[str, Any]
    """The attributes that say who pays."""
    facts: Mapping[str, Any]
    """Attributes of the event that the end of the job may not repeat."""


@runtime_checkable
class KeepsJobs(Protocol):
    """A delivery that keeps open jobs, across restarts and for the other processes of its directory."""

    def start_job(self, job: OpenJob) -> None:
        """Keep a job. Never raises."""
        ...

    def end_job(self, key: bytes) -> None:
        """Forget a job: it was billed, or is not to be. Never raises."""
        ...

    def open_jobs(self) -> list[OpenJob]:
        """Return what is known of open jobs now, by whichever process: the oldest first."""
        ...


def to_json(job: OpenJob) -> dict[str, Any]:
    """Return what a record has of a job, but for its key."""
    return {name: value for name, value in job._asdict().items() if name != "key"}


def from_json(key: bytes, fields: Any) -> OpenJob:
    """
    Return the job of a record; what a later version adds is left out.

    Raises:
        ValueError: it is none.
        LookupError: it lacks something.
        TypeError: likewise.
    """
    values: dict[str, Any] = {name: fields[name] for name in OpenJob._fields if name != "key"}
    if not all(isinstance(value, _TYPES[name]) for name, value in values.items()):
        raise ValueError("not an open job")
    return OpenJob(key, **values)


_NUMBER, _MAYBE = (int, float), (str, type(None))
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("host", "endpoint"), str),
    **dict.fromkeys(("job_id", "path", "model"), _MAYBE),
    **dict.fromkeys(("port", "since", "until"), _NUMBER),
    **dict.fromkeys(("payer", "facts"), dict),
}


def unnamed(
    jobs: Iterable[OpenJob], host: str, endpoint: str, created: float, model: str | None
) -> OpenJob | None:
    """
    Return the job that was started without its id being told, and is the one that was created then.

    None where several fit that are not of one payer: whose it is, is not guessed.

    Args:
        jobs: in question.
        host: of the provider.
        endpoint: of the job.
        created: Unix seconds, by the provider.
        model: that answered.
    """
    fitting = [
        job
        for job in jobs
        if job.job_id is None
        and (job.host, job.endpoint) == (host, endpoint)
        and job.since - SLACK <= created <= job.until + SLACK
        and (job.model is None or model is None or _is_version(model, job.model))
    ]
    if not fitting or any(job.payer != fitting[0].payer for job in fitting):
        return None
    return fitting[0]


def _is_version(model: str, asked: str) -> bool:
    """Say whether a model that answered is one that was asked for, or a dated version of it: not `gpt-4o-mini`."""
    rest = model.removeprefix(asked)
    return model.startswith(asked) and (not rest or (rest[0] == "-" and rest[1:2].isdecimal()))
