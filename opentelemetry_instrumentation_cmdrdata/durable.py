"""
Jobs of the provider between processes: kept beside the events while their end was not seen, found when it is.

What `jobs` knows in this process goes first. Nothing here costs a call that is about no job.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from cmdrdata_exporter import faults
from cmdrdata_exporter.attributes import CUSTOMER_ID, CUSTOMER_REFUSED
from cmdrdata_exporter.delivery import open_jobs
from cmdrdata_exporter.delivery.open_jobs import KeepsJobs, OpenJob
from opentelemetry_instrumentation_cmdrdata import jobs, semconv
from opentelemetry_instrumentation_cmdrdata.ended import EndedCall
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes


class Found(NamedTuple):
    """What another process, or this one before, has said of a job that it started."""

    started: jobs.StartedJob | None = None
    unnamed: bytes | None = None
    """The key of the job where it was started without its id being told."""


def key_of(key: jobs.Key) -> bytes:
    """Return what stands for a job among those that are kept."""
    return bytes.fromhex(key.event_id("open"))


@faults.guarded
def keep(
    keeper: KeepsJobs | None, call: EndedCall, key: jobs.Key, started: jobs.StartedJob
) -> None:
    """Keep a job that a call has started, or has go on."""
    if keeper is not None and call.endpoint.polled_at is not None:
        details = {
            name.removeprefix(semconv.DETAIL_PREFIX): value for name, value in started.facts.items()
        }
        details.setdefault("session_id", key.job_id)
        path = call.endpoint.polled_at.format(key.job_id, **details)
        keeper.start_job(_open_job(call, key_of(key), key.job_id, path, started))


@faults.guarded
def keep_unnamed(keeper: KeepsJobs, call: EndedCall) -> None:
    """Keep a job whose id is not known: the provider has accepted it, and its stream was left before it told."""
    started = jobs.StartedJob(call.attribution.attributes, call.request_model, {**call.account})
    keeper.start_job(_open_job(call, os.urandom(16), None, None, started))


def _open_job(
    call: EndedCall, key: bytes, job_id: str | None, path: str | None, started: jobs.StartedJob
) -> OpenJob:
    payer = dict(started.attribution)
    if call.default_customer is not None and CUSTOMER_REFUSED not in payer:
        payer.setdefault(CUSTOMER_ID, call.default_customer)
    return OpenJob(
        key=key,
        host=call.server.address,
        port=call.server.port,
        endpoint=call.endpoint.name,
        job_id=job_id,
        path=path,
        since=call.start_time / 1e9,
        until=call.end_time / 1e9,
        model=started.request_model,
        payer=payer,
        facts=started.facts,
    )


@faults.guarded
def forget(keeper: KeepsJobs | None, key: jobs.Key) -> None:
    """Keep a job no longer: it has ended, and what it costs is recorded."""
    if keeper is not None and jobs.known.end(key):
        keeper.end_job(key_of(key))


def find(call: EndedCall, key: jobs.Key, facts: Attributes) -> Found:
    """Return what is kept of a job that was not started here, as far as this process remembers."""
    return _find(call, key, facts) or Found()


@faults.guarded
def _find(call: EndedCall, key: jobs.Key, facts: Mapping[str, Any]) -> Found | None:
    if call.keeper is None:
        return None
    kept = call.keeper.open_jobs()
    wanted = key_of(key)
    job, unnamed = next((job for job in kept if job.key == wanted), None), None
    created = facts.get(semconv.CREATED)
    if job is None and isinstance(created, int | float):
        model = facts.get(semconv.RESPONSE_MODEL)
        job = open_jobs.unnamed(kept, key.host, call.endpoint.name, created, model)
        unnamed = None if job is None else job.key
    if job is None:
        return None
    return Found(jobs.StartedJob(job.payer, job.model, dict(job.facts)), unnamed)
