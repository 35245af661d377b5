"""
What the seam sees: the request that the SDK is about to make, and what it returns or raises.

What fails in here is guarded: a fault of ours is counted, and the application's call goes on as if we were not there.
"""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel

from cmdrdata_exporter import faults
from opentelemetry_instrumentation_cmdrdata import open_calls
from opentelemetry_instrumentation_cmdrdata.call import Call
from opentelemetry_instrumentation_cmdrdata.ended import CallAttribution
from opentelemetry_instrumentation_cmdrdata.openai import keywords
from opentelemetry_instrumentation_cmdrdata.openai.bodies import is_event_stream
from opentelemetry_instrumentation_cmdrdata.openai.copies import is_instance
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import Endpoint, find
from opentelemetry_instrumentation_cmdrdata.openai.exchange import Exchange, running
from opentelemetry_instrumentation_cmdrdata.openai.listeners import join, listeners
from opentelemetry_instrumentation_cmdrdata.openai.providers import (
    Server,
    provider_of,
    tells_stream_usage,
)
from opentelemetry_instrumentation_cmdrdata.openai.streams import (
    attach,
    is_stream_class,
    observed_stream_cls,
)
from opentelemetry_instrumentation_cmdrdata.openai.unbilled import is_unbilled
from opentelemetry_instrumentation_cmdrdata.openai.watching import watch
from opentelemetry_instrumentation_cmdrdata.recorder import Recorder

_RAW_RESPONSE = "X-Stainless-Raw-Response"
"""The header by which the SDK marks a request for a raw response: `true`, or `stream` for one with an unread body."""


def begin(
    recorder: Recorder | None, client: Any, options: Any, kwargs: dict[str, Any]
) -> tuple[Call | None, Any]:
    """
    Return the call of a request, None where it is not metered, and the options to make the request with.

    The SDK's `stream_cls` among the keywords is replaced by one that is observed, where need be.
    """
    if recorder is None:
        return None, options
    try:
        path = _path(client, options.url)
        found = find(options.method, path)
        if found is None:
            _report_unknown(options.method, path)
            return None, options
        endpoint, job = found
        who_pays = attribution(keywords.in_headers(options.headers), keywords.of_client(client))
        if listeners:
            who_pays = join(who_pays)
        streaming, parameters = kwargs.get("stream") is True, _body_of(options)
        call = Call(
            recorder,
            endpoint,
            parameters,
            server(client),
            who_pays,
            None if job is None else _job(endpoint, job, parameters),
            # What the body asks for is another matter than what the SDK is to return.
            streaming=streaming or parameters.get("stream") is True,
        )
        if streaming and _raw_response(options) is not None:
            stream_cls = kwargs.get("stream_cls")
            if stream_cls is not None:
                kwargs["stream_cls"] = observed_stream_cls(stream_cls, call) or stream_cls
        if recorder.content.is_on or who_pays.capture:
            call.capture(parameters)
    except Exception as error:  # noqa: BLE001 - the application's call is made all the same
        faults.absorb(error, "the start of a call")
        return None, options
    return call, (asking(client, options, call) or options) if call.streaming else options


def _report_unknown(method: str, path: str) -> None:
    """Tell the operator of a request that is not metered, unless it is known to cost nothing."""
    if method.lower() == "post" and not is_unbilled(path):
        faults.report(
            "unknown request path",
            "POST %r is no endpoint of OpenAI that this release knows; if it costs something, it is not "
            "metered. Look for a newer opentelemetry-instrumentation-cmdrdata",
            path,
        )


def _job(endpoint: Endpoint, in_path: str, parameters: Mapping[str, Any]) -> str | None:
    """Return the id of the job that a request is about, where that in its path is one."""
    if endpoint.lists:
        # Other pages do not show whether all of it has ended.
        return in_path if endpoint.goes_on and "after" not in parameters else None
    return in_path if endpoint.polls or endpoint.goes_on else None


def _body_of(options: Any) -> Mapping[str, Any]:
    """Return the parameters of a request; those of `extra_body` prevail, as in the SDK."""
    body: Any = options.params if options.json_data is None else options.json_data
    extra: Any = options.extra_json
    parameters: dict[str, Any] = body if isinstance(body, dict) else {}  # pyright: ignore[reportUnknownVariableType] - whatever is in it
    return {**parameters, **extra} if isinstance(extra, dict) else parameters


@faults.guarded
def asking(client: Any, options: Any, call: Call) -> Any:
    """
    Return the options of a stream that is to tell its usage, None where that is not asked for.

    What the application asked for, even not to be told, stays as it is; so does a stream whose bytes it reads itself.
    """
    if not call.endpoint.tells_usage_if_asked:
        return None
    stream_usage = call.exporter.settings.stream_usage
    if stream_usage == "never" or _raw_response(options) == "stream":
        return None
    body, parameters = options.json_data, _body_of(options)
    extra: Any = options.extra_json
    asked: Any = parameters.get("stream_options") or {}
    if (
        not isinstance(body, dict)
        or parameters.get("stream") is not True
        or not isinstance(asked, dict)
        or "include_usage" in asked
        or (isinstance(extra, dict) and "stream_options" in extra)
    ):
        return None
    if stream_usage == "auto" and not _tells_stream_usage(client):
        return None
    # A copy: options and body may be the application's own.
    options = copy.copy(options)
    options.json_data = {**body, "stream_options": {**asked, "include_usage": True}}
    call.asked_for_usage = True
    call.exchange.asked = weakref.ref(call)
    return options


def _tells_stream_usage(client: Any) -> bool:
    url = client.base_url
    # Where the Azure clients have it too; openai 1.0.0 has no other name for it.
    api_version = client._custom_query.get("api-version")  # noqa: SLF001
    return tells_stream_usage(url.host, url.path, api_version, azure=_is_azure(client))


def _observe(result: Any, call: Call) -> bool:
    """Read what the SDK returned, or see to it that it is read when it arrives; True if the call ends only then."""
    answer = call.exchange.response
    call.exchange.is_answered = True
    if isinstance(result, (BaseModel, dict)):
        call.read(result)  # pyright: ignore[reportUnknownArgumentType] - of whatever the SDK returns
        return False
    # A stream, a raw response, sound or film, what another library made of a stream, or whatever else.
    response = _http_response(result) or answer
    if response is None:
        call.body(result)
        return False
    if response.is_closed:
        call.content(response.content, events=call.streaming or is_event_stream(response))
        return False
    call.exchange.response = None  # It would keep the call, and the call it.
    if is_stream_class(cast("object", type(result))):
        attach(result, call)
        return True
    watch(response, call)
    open_calls.keep(call)
    if call.endpoint.binary and not is_event_stream(response):
        call.body(None)  # That it is answered is all that will be known.
    return True


def succeed(call: Call, result: Any) -> None:
    """Leave a call's context, and end the call unless its answer is still to be read."""
    call.detach()
    try:
        is_read_later = _observe(result, call)
    except Exception as error:  # noqa: BLE001 - the call ends all the same
        faults.absorb(error, "the reading of an answer")
        is_read_later = False
    if not is_read_later:
        call.end()


def fail(call: Call, error: BaseException) -> None:
    """
    Leave a call's context, and end it with an error unless it has ended; what the provider reported before it counts.

    The error may be a signal handler's, which came when the provider had answered.
    """
    call.detach()
    if not call.has_ended:
        _read_answer(call)
        call.end(error)


@faults.guarded
def _read_answer(call: Call) -> None:
    answer = call.exchange.response
    if answer is not None and answer.is_closed and answer.status_code < 400:
        call.content(answer.content, events=call.streaming or is_event_stream(answer))


def _http_response(result: Any) -> Any:
    """Return the HTTP response that a result is, or has: of a raw response, or of sound and film."""
    for response in (
        getattr(result, "http_response", None),
        getattr(result, "response", None),
        result,
    ):
        if hasattr(response, "is_closed") and hasattr(response, "iter_bytes"):
            return response
    return None


def answered(facts: dict[str, Any]) -> None:
    """Note what the SDK says of an answer before it, or anybody else, reads it."""
    try:
        _note_answer(facts)
    except BaseException:  # a signal handler's
        _note_answer(facts)
        raise


def _note_answer(facts: dict[str, Any]) -> None:
    exchange = running.get()
    if exchange is not None:
        exchange.answered(facts.get("response"), facts.get("retries_taken"))
        if exchange.asked is not None:
            _keep_back(exchange)


@faults.guarded
def _keep_back(exchange: Exchange) -> None:
    """See to it that nobody gets what the answer has only because we asked."""
    call = exchange.asked() if exchange.asked is not None else None
    if call is not None and exchange.response is not None:
        watch(exchange.response, call)


def failed(_: dict[str, Any]) -> None:
    """Note that an attempt failed, with the exception that is being handled, and is made again."""
    exchange = running.get()
    if exchange is not None:
        exchange.attempt_failed(sys.exc_info()[1])


def _raw_response(options: Any) -> str | None:
    headers = options.headers
    return headers.get(_RAW_RESPONSE) if isinstance(headers, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def attribution(
    of_call: keywords.Attribution | None, of_client: keywords.Attribution | None
) -> CallAttribution:
    """Return who pays for a call."""
    attributes: Mapping[str, Any] = {}
    try:
        attributes = keywords.attributes(of_call, of_client)
    except Exception as error:  # noqa: BLE001 - the call is recorded all the same
        faults.absorb(error, "who pays for a call")
    if of_call is None and of_client is None:
        return CallAttribution(attributes)
    named = [one for one in (of_call, of_client) if one is not None]
    return CallAttribution(
        attributes,
        all(one.track_usage for one in named),
        next((one.exporter for one in named if one.exporter is not None), None),
        any(one.capture for one in named),
        next((one.observer for one in named if one.observer is not None), None),
        any(one.shows_call_site for one in named),
    )


def _path(client: Any, url: str) -> str:
    """Return the path of a request; the SDK takes it also without its slash, or with all that is before it."""
    if url.startswith("/"):
        return url
    return "/" + url.removeprefix(str(client.base_url)).lstrip("/")


_SERVER = "_cmdrdata_server"
"""Where a client keeps where its requests go, with the base URL that says so: it can be changed."""


def server(client: Any) -> Server:
    """Return where a client's requests go."""
    url = client.base_url
    # On the client itself: its class may have no hash, or one that makes two clients the same.
    attributes: dict[str, Any] = client.__dict__
    known = attributes.get(_SERVER)
    if known is None or known[0] is not url:
        known = attributes[_SERVER] = url, _server_at(client, url)
    return known[1]


def _is_azure(client: Any) -> bool:
    return is_instance(client, "AzureOpenAI", "AsyncAzureOpenAI")


def _server_at(client: Any, url: Any) -> Server:
    host = url.host
    return Server(
        provider=provider_of(host, azure=_is_azure(client)),
        address=host,
        port=url.port or (80 if url.scheme == "http" else 443),
    )
