"""
What is billed of a call: from what was read of its answer to usage events.

Pure, but for the jobs that are claimed. A call makes one event; where it is about jobs of the provider, one for each
part of a job that is due and was not billed before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cmdrdata_exporter import UsageEvent
from cmdrdata_exporter.attributes import (
    BREAKDOWNS,
    CUSTOMER_ID,
    CUSTOMER_REFUSED,
    CUSTOMER_REFUSED_VALUE,
    METADATA_PREFIX,
)
from cmdrdata_exporter.events import add_users_keys, error_type, first_token_ms, reserved
from cmdrdata_exporter.scrubbing import scrubbed
from opentelemetry_instrumentation_cmdrdata import durable, jobs, semconv, shared
from opentelemetry_instrumentation_cmdrdata.ended import EndedCall, Failure
from opentelemetry_instrumentation_cmdrdata.openai import failures
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.exchange import Exchange
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes, Reading

Recorded = defaultdict[tuple[str, str], list[object]]
"""Of each part of each job, empty for a plain call: a list that is not empty once its charge was recorded."""


def charges(
    call: EndedCall,
    reading: Reading,
    facts: Attributes,
    usage_status: str,
    recorded: Recorded,
) -> Iterable[tuple[UsageEvent, list[object]]]:
    """
    Return the charges of a call, each with the list that says whether it was recorded. A part of a job is claimed.

    Args:
        call: has ended.
        reading: of its answer.
        facts: the attributes that were read, and what else is known of the answer by its end.
        usage_status: what is known of the usage.
        recorded: what was recorded before, where the end of the call was interrupted.
    """
    if reading.job is not None or call.endpoint.lists:
        return of_jobs(call, reading, facts, recorded)
    if call.starts_job and call.keeper is not None and usage_status == "partial":
        # It goes on, and is billed when its end is seen.
        if call.attribution.tracked:
            durable.keep_unnamed(call.keeper, call)
        return ()
    if (
        call.attribution.tracked
        and call.endpoint.is_charged
        and (
            reading.shared is None
            or shared.parts.claim(
                reading.shared, recorded["", ""], is_whole=usage_status != "partial"
            )
        )
    ):
        payer = call.attribution.attributes
        event_id, remember = call.event_id, 0
        if reading.shared is not None:
            event_id, remember = reading.shared.event_id, shared.REMEMBERED
        event = usage_event(call, facts, payer, usage_status, event_id, remember=remember)
        return ((event, recorded["", ""]),)
    return ()


def of_jobs(
    call: EndedCall, reading: Reading, facts: Attributes, recorded: Recorded
) -> Iterator[tuple[UsageEvent, list[object]]]:
    """
    Return the charges of the jobs that an answer shows, or a stream so far; see `charges`.

    Those that have ended are forgotten, those that go on are kept, once their charges are recorded.
    """
    oldest = call.end_time / 1e9 - jobs.LISTED_AGE if call.endpoint.lists else 0.0
    for job in reading.listed:
        yield from _of_job(call, job, job.attributes, recorded, oldest)
    if call.endpoint.lists:
        if reading.has_ended and reading.job is not None:
            durable.forget(call.keeper, jobs.Key(call.server.address, reading.job))
    else:
        yield from _of_job(call, reading, facts, recorded)


def _of_job(
    call: EndedCall,
    reading: Reading,
    facts: Attributes,
    recorded: Recorded,
    oldest: float = 0.0,
) -> Iterator[tuple[UsageEvent, list[object]]]:
    """
    Return the charges of what is due of a job. Who started it pays for it, whoever asks.

    Args:
        call: that shows the job.
        reading: of the job.
        facts: what was read of it, and what is known of the call.
        recorded: see `charges`.
        oldest: when a job that was not started here must have been created at the earliest.
    """
    if reading.job is None:
        return
    facts = {**call.account, **facts}
    key = jobs.Key(call.server.address, reading.job)
    of_starter = key if reading.within is None else jobs.Key(key.host, reading.within)
    if facts.get(semconv.CREATED, oldest) < oldest and not jobs.known.has_started(of_starter):
        return
    tracked, attribution = call.attribution.tracked, call.attribution.attributes
    tracked = tracked and jobs.known.is_tracked(of_starter)
    if not (call.endpoint.polls or reading.within) and not (call.endpoint.goes_on and call.failure):
        started = jobs.StartedJob(attribution, call.request_model, _lasting(facts))
        jobs.known.start(key, started, tracked=tracked)
        if tracked and not reading.has_ended:
            started = jobs.known.starter(key) or started
            durable.keep(call.keeper, call, key, started)
    found: durable.Found | None = None
    for part, of_part in reading.charges.items() if tracked else ():
        job = jobs.known.claim(key, part, recorded[reading.job, part])
        if job is None:
            continue
        billed, model = {**facts, **of_part}, call.request_model
        payer: Mapping[str, Any] = attribution
        started = job.started or jobs.known.starter(of_starter)
        if started is None:
            found = found or durable.find(call, of_starter, billed)
            started = found.started
        if started is not None:
            # What started it is what spends, not the code that asks how it goes, nor the key that it asks with.
            billed.pop(semconv.CALL_SITE, None)
            account = {name: started.facts[name] for name in _ACCOUNT if name in started.facts}
            billed = {**started.facts, **billed, **account}
            payer, model = started.attribution, model or started.request_model
        elif call.endpoint.lists:
            # A page shows the jobs of all customers: whose this one is, the caller has not said.
            payer = {}
        has_units = any(name.startswith(semconv.UNIT_PREFIX) for name in billed)
        usage_status = billed.get(semconv.USAGE_STATUS) or (
            "reported" if reading.has_usage or has_units else "missing"
        )
        event = usage_event(
            call._replace(request_model=model),
            billed,
            payer,
            usage_status,
            key.event_id(part),
            remember=jobs.REMEMBERED,
        )
        yield event, recorded[reading.job, part]
    if reading.has_ended:
        # Only now: what has come before is recorded.
        durable.forget(call.keeper, key)
        if found is not None and found.unnamed is not None and call.keeper is not None:
            call.keeper.end_job(found.unnamed)


_ACCOUNT = (semconv.OPENAI_ORGANIZATION, semconv.OPENAI_PROJECT, semconv.OPENAI_KEY_HASH)


def _lasting(facts: Attributes) -> Attributes:
    """Return what the end of a job is billed with, besides what that end says itself."""
    return {
        name: value
        for name, value in facts.items()
        if name == semconv.RESPONSE_MODEL or name.startswith(semconv.BILLING_PREFIX)
    }


def usage_status(
    endpoint: Endpoint,
    reading: Reading,
    exchange: Exchange,
    error: BaseException | None,
    *,
    cut: bool,
    streaming: bool,
) -> str:
    """
    Return what is known of the usage of a call that has ended: see docs/events.md.

    Args:
        endpoint: what was called.
        reading: of the answer.
        exchange: behind the call.
        error: what the application got instead of an answer, or in the middle of one.
        cut: whether the answer was left before its end.
        streaming: whether it was to be a stream.
    """
    if endpoint.is_free:
        return "not_applicable"
    was_cut = cut and streaming and exchange.is_answered
    if reading.has_usage:
        # Some servers tell on each chunk what was used so far: final is what comes once every choice has ended.
        reasons = reading.finish_reasons.values()
        goes_on = None in reasons or (endpoint.has_choices and not reasons)
        return "partial" if was_cut and goes_on else "reported"
    if error is not None and (
        failures.status_code(error) is not None
        or not (exchange.is_answered or exchange.has_left or not failures.never_left(error))
    ):
        return "not_applicable"  # The provider says that it did nothing, or was asked nothing.
    if reading.error is not None and not (
        streaming or reading.finish_reasons or reading.attributes
    ):
        return (
            "not_applicable"  # A refusal as well, but for its status: the answer says nothing else.
        )
    return "partial" if was_cut else "missing"


_Place = tuple[bool, str] | None
"""Where a fact goes: into the event's `usage` (True) or its metadata, under which key; None for neither."""


class _Places(dict[str, _Place]):
    """By the names of the facts. Filled when a name is first seen: there are few."""

    def __missing__(self, name: str) -> _Place:
        place: _Place = None
        if name.startswith(semconv.UNIT_PREFIX):
            place = True, name.removeprefix(semconv.UNIT_PREFIX)
        elif name.startswith(semconv.DETAIL_PREFIX):
            place = False, name.removeprefix(semconv.DETAIL_PREFIX)
        self[name] = place
        return place


_places = _Places(
    {
        semconv.TOTAL_TOKENS: None,
        **{names[0]: (True, key) for key, names in BREAKDOWNS.items()},
    }
)


def usage_event(
    call: EndedCall,
    facts: Attributes,
    attribution: Mapping[str, Any],
    usage_status: str,
    event_id: str,
    *,
    remember: int = 0,
) -> UsageEvent:
    """
    Return the event of one charge, the same that a span with these attributes makes.

    Args:
        call: has ended.
        facts: what is charged, by the names of attributes.
        attribution: the attributes that say who pays.
        usage_status: what is known of the usage.
        event_id: of the event.
        remember: seconds for which the id may come again.
    """
    endpoint, request_model = call.endpoint.name, call.request_model
    metadata = reserved(endpoint)
    usage: dict[str, int | float | bool] = {}
    for name, value in facts.items():
        if (place := _places[name]) is not None:
            is_usage, key = place
            (usage if is_usage else metadata)[key] = value
    if call.request_id is not None:
        metadata["request_id"] = call.request_id
    get = facts.get
    if (response_id := get(semconv.RESPONSE_ID) or call.response_id) is not None:
        metadata["response_id"] = response_id
    # The conventions put `error` where the provider gave no reason, because the call failed or was cut.
    if (reasons := get(semconv.FINISH_REASONS)) and reasons[0] not in ("error", ""):
        metadata["finish_reason"] = reasons[0]
    metadata["usage_status"] = usage_status
    metadata["endpoint"] = endpoint
    metadata["request_model"] = request_model
    metadata["service_tier"] = get(semconv.RESPONSE_SERVICE_TIER)
    metadata["server_address"] = call.server.address or None
    if (refused := attribution.get(CUSTOMER_REFUSED)) is not None:
        # For whoever assigns the event.
        metadata["customer_refused"] = refused
        customer = None
        if written := attribution.get(CUSTOMER_REFUSED_VALUE):
            metadata["customer_refused_value"] = written
    else:
        customer = attribution.get(CUSTOMER_ID, call.default_customer)
    metadata["trace_id"] = f"{call.trace_id:032x}"
    metadata["span_id"] = f"{call.span_id:016x}"
    renamed: tuple[str, ...] = ()
    if len(attribution) > (CUSTOMER_ID in attribution):
        users = {
            name[len(METADATA_PREFIX) :]: value
            for name, value in attribution.items()
            if name.startswith(METADATA_PREFIX)
        }
        renamed = add_users_keys(metadata, users)
    input_tokens, output_tokens = get(semconv.INPUT_TOKENS, 0), get(semconv.OUTPUT_TOKENS, 0)
    failure, first_chunk = call.failure, get(semconv.TIME_TO_FIRST_CHUNK)
    error, code, message = (None, None, None) if failure is None else _error(failure)
    start_time, end_time = call.start_time, call.end_time
    # By position: so many names take several times as long, in each call of an application.
    return UsageEvent(
        event_id,
        customer,
        call.server.provider,
        get(semconv.RESPONSE_MODEL) or request_model or "unknown",
        endpoint,
        usage_status,
        input_tokens,
        output_tokens,
        get(semconv.TOTAL_TOKENS, input_tokens + output_tokens),
        usage,
        metadata,
        end_time // 1_000_000_000,
        start_time // 1_000_000_000,
        end_time // 1_000_000_000,
        max(0, (end_time - start_time + 500_000) // 1_000_000),
        None if first_chunk is None else first_token_ms(first_chunk),
        call.streaming,
        call.retry_count,
        error,
        code,
        message,
        remember,
        renamed,
    )


def _error(failure: Failure) -> tuple[str, str | None, str | None]:
    """Return `error_type`, `error_code` and `error_message` of an event."""
    code = failure.code or None
    return error_type(failure.type, code), code, scrubbed(failure.message or "") or None
