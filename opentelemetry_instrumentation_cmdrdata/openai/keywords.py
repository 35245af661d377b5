"""
Who pays for a call, as its keywords or its client say: `customer_id=`, `usage_metadata=`, `track_usage=`.

The methods of the SDK that are metered take these keywords while calls are observed. They travel to the seam in a
header that is never sent: its value is an `Omit` of the SDK, which the SDK drops before it builds a request, whether or
not anything is patched.
https://github.com/openai/openai-python/blob/v2.54.0/src/openai/_base_client.py
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from openai import AsyncOpenAI, OpenAI
from openai._types import Omit

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.customer import Customer, attributes_of, current
from cmdrdata_exporter.deduplication import own_calls
from cmdrdata_exporter.metadata import MetadataValue, mapping, metadata_attributes
from opentelemetry_instrumentation_cmdrdata.ended import FinishedCall
from opentelemetry_instrumentation_cmdrdata.openai import copies
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS
from opentelemetry_instrumentation_cmdrdata.openai.replacing import bound

_Client = TypeVar("_Client", OpenAI, AsyncOpenAI)
_Method = Callable[..., Any]

HEADER = "X-CmdrData-Attribution"
"""The header that carries an `Attribution` to the seam, and no further."""

KEYWORDS = frozenset({"customer_id", "track_usage", "usage_metadata"})
"""What the methods take besides the SDK's own arguments."""


class Attribution(Omit):
    """
    What was said of a call, or of all calls of a client.

    Args:
        customer_id: who pays, None where that is not said here.
        track_usage: False makes no event.
        usage_metadata: goes into the event's `metadata`.
        exporter: meters the call, where another than the process's own is to.
        capture: True has the content read, for the span and the observer of the call.
        observer: is told of the call once it has ended.
        shows_call_site: True has the call's span tell which line of the application makes it.
    """

    def __init__(
        self,
        customer_id: Any = None,
        track_usage: bool | None = None,
        usage_metadata: Any = None,
        exporter: CmdrDataSpanExporter | None = None,
        *,
        capture: bool = False,
        observer: Callable[[FinishedCall], object] | None = None,
        shows_call_site: bool = False,
    ) -> None:
        self.customer_id = customer_id
        self.track_usage = track_usage is not False
        self.usage_metadata = mapping(usage_metadata, "usage_metadata")
        self.exporter = exporter
        self.capture = capture
        self.observer = observer
        self.shows_call_site = shows_call_site

    def like(self, client: Attribution | None) -> Attribution:
        """Take over how a client's calls are metered, captured and observed; return itself."""
        if client is not None:
            self.track_usage &= client.track_usage
            self.exporter = client.exporter
            self.capture = client.capture
            self.observer = client.observer
            self.shows_call_site = client.shows_call_site
        return self

    def __repr__(self) -> str:
        """Say nothing of the customer: headers are logged."""
        return "<CmdrData attribution, never sent>"


def never_sent_by(sdk: copies.Copy | None) -> None:
    """Have a copy of the SDK drop the header, as the one that is imported here does: each knows only its own `Omit`."""
    if sdk is not None and not issubclass(Attribution, sdk.omit):
        Attribution.__bases__ = (*Attribution.__bases__, sdk.omit)


def bind_customer(client: _Client, customer_id: str, /, **metadata: MetadataValue) -> _Client:
    """
    Return a client of the same type whose every call is attributed to a customer, also after `with_options`.

    What a call says itself (`customer_id=`) prevails; a `customer_context` around it does not. Methods that others
    have replaced on the client, as LangSmith does for instance, are theirs on the bound client too.

    Args:
        client: stays as it is; both share their connections.
        customer_id: who pays.
        metadata: goes into the `metadata` of each event.
    """
    never_sent_by(copies.current())
    attribution = Attribution(customer_id, usage_metadata=metadata).like(of_client(client))
    headers = cast("Any", {HEADER: attribution})
    copy = client.with_options(default_headers=headers)
    keep(copy)
    _replace_methods(client, copy, attribution)
    return copy


def keep(client: Any) -> None:
    """Have a client's copies keep what is said of all its calls, whichever of its headers they keep."""
    kind = cast("Any", type(client))
    for name in ("copy", "with_options"):
        vars(client)[name] = _keeping(client, getattr(kind, name))


def _keeping(client: Any, original: _Method) -> _Method:
    @functools.wraps(original)
    def copy(*args: Any, **kwargs: Any) -> Any:
        copied = original(client, *args, **kwargs)
        said = of_client(client)
        given = kwargs.get("default_headers") or kwargs.get("set_default_headers")
        if said is not None and in_headers(given) is None:
            copied._custom_headers = {**copied._custom_headers, HEADER: said}  # noqa: SLF001 - see of_client
        keep(copied)
        return copied

    return copy


def _replace_methods(original: Any, copy: Any, client: Attribution) -> None:
    """Give a copy's resources the methods that others have set on the resources of the original."""
    resources: dict[str, Any] = dict(cast("Any", vars(original)))
    for name, resource in resources.items():
        if name.startswith("_") or not copies.is_instance(
            resource, "SyncAPIResource", "AsyncAPIResource"
        ):
            continue
        below = getattr(copy, name)
        replaced: dict[str, Any] = dict(cast("Any", vars(resource)))
        for method, value in replaced.items():
            own = getattr(cast("object", type(resource)), method, None)
            if callable(value) and callable(own) and _takes_headers(own):
                setattr(below, method, _said_by_client(value, client))
        _replace_methods(resource, below, client)


def _said_by_client(original: _Method, client: Attribution) -> _Method:
    """Return a method, of another client than the one that it is called on, that carries what the latter says."""

    def carried(kwargs: dict[str, Any]) -> dict[str, Any]:
        if in_headers(kwargs.get("extra_headers")) is not None:
            return kwargs  # Of a client that was bound once more.
        if KEYWORDS.isdisjoint(kwargs):
            return _with_header(kwargs, client)
        return _carried(kwargs, client) if own_calls.active else kwargs

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def amethod(*args: Any, **kwargs: Any) -> Any:
            return await original(*args, **carried(kwargs))

        return amethod

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **carried(kwargs))

    return method


def of_client(client: Any) -> Attribution | None:
    """Return what is said of all calls of a client."""
    headers = client._custom_headers  # noqa: SLF001 - `default_headers` builds all of them anew
    return in_headers(headers) if headers else None


def in_headers(headers: object) -> Attribution | None:
    """Return what is said in the headers of a call, or of a client."""
    found: object = headers.get(HEADER) if isinstance(headers, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - whatever is in it
    return found if isinstance(found, Attribution) else None


def attributes(call: Attribution | None, client: Attribution | None) -> Mapping[str, MetadataValue]:
    """
    Return the span attributes that say who pays: whom the call names, else its client, else the context.

    With the metadata of that place, of the context, and the call's own.
    """
    if call is None and client is None:
        return attributes_of(current())
    named = None
    for one in (client, call):
        if one is not None and one.customer_id is not None:
            named = one
    customer = current()
    if named is not None:
        # The call's own metadata goes on top.
        customer = Customer(named.customer_id, {} if named is call else named.usage_metadata)
    own = {} if call is None else metadata_attributes(call.usage_metadata)
    return {**attributes_of(customer), **own}


# --- The keywords of the SDK's methods --------------------------------------------------------

_RESOURCES = frozenset(
    resource for endpoint in ENDPOINTS for resource in endpoint.resources or (endpoint.name,)
)


def methods_of(resource: type[Any]) -> list[str]:
    """Return the methods of a resource class that take the keywords: those that make a request which is metered."""
    if path(resource) not in _RESOURCES:
        return []
    return [
        name
        for name, value in vars(resource).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and name != "connect"  # It makes no request: see `websockets`.
        and _takes_headers(value)
    ]


def path(resource: type[Any]) -> str:
    """Return how a client reaches a resource, `chat.completions`; empty where the class is none of the SDK's own."""
    module = resource.__module__.removeprefix("openai.resources.").split(".")
    if not resource.__module__.startswith("openai.resources."):
        return ""
    # The module of a resource with resources below it is in a package of its name.
    return ".".join(module[:-1] if module[-2:-1] == module[-1:] else module)


def _takes_headers(method: _Method) -> bool:
    code = inspect.unwrap(method).__code__
    return "extra_headers" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def taking_keywords(original: _Method) -> _Method:
    """Return a method of a resource that takes the keywords besides its own arguments."""
    # A plain one is called as it is, since binding takes time in each call; a proxy only pretends to be one.
    is_function = type(original) is types.FunctionType
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def amethod(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not KEYWORDS.isdisjoint(kwargs) and _is_observed(self):
                kwargs = _carried(kwargs)
            if is_function:
                return await original(self, *args, **kwargs)
            return await bound(original, self)(*args, **kwargs)

        return amethod

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not KEYWORDS.isdisjoint(kwargs) and _is_observed(self):
            kwargs = _carried(kwargs)
        return (
            original(self, *args, **kwargs)
            if is_function
            else bound(original, self)(*args, **kwargs)
        )

    return method


class Tracked:
    """What marks a client that is observed whether or not anything is patched."""


def _is_observed(resource: Any) -> bool:
    """Say whether calls of a resource are observed; if not, the keywords are the SDK's to refuse."""
    return own_calls.active or isinstance(resource._client, Tracked)  # noqa: SLF001 - resources have no other name for it


def _carried(kwargs: dict[str, Any], client: Attribution | None = None) -> dict[str, Any]:
    """Return arguments that the SDK takes, with the keywords where the seam finds them, before what a client says."""
    said = {name: value for name, value in kwargs.items() if name in KEYWORDS}
    others = {name: value for name, value in kwargs.items() if name not in KEYWORDS}
    call = Attribution(**said)
    if client is not None:
        if call.customer_id is None:
            call.customer_id = client.customer_id
            call.usage_metadata = {**client.usage_metadata, **call.usage_metadata}
        call.like(client)
    return _with_header(others, call)


def taken(kwargs: dict[str, Any]) -> tuple[Attribution | None, dict[str, Any]]:
    """Return what the keywords among arguments say, None where none is there, and the arguments that the SDK takes."""
    said = {name: value for name, value in kwargs.items() if name in KEYWORDS}
    others = {name: value for name, value in kwargs.items() if name not in KEYWORDS}
    of_client = in_headers(others.get("extra_headers"))
    if of_client is not None:
        headers = cast("dict[str, Any]", others["extra_headers"])
        others["extra_headers"] = {name: value for name, value in headers.items() if name != HEADER}
    return Attribution(**said) if said else of_client, others


def _with_header(kwargs: dict[str, Any], said: Attribution) -> dict[str, Any]:
    headers: Any = kwargs.get("extra_headers")
    return {**kwargs, "extra_headers": {**(headers or {}), HEADER: said}}
