"""
Who pays: the customer of the calls made in a context.

The customer lives in a context variable of ours, so it follows `await` and tasks, and the thread that set it. It is put
into the OpenTelemetry Context too, which processors get and instrumentations carry into threads; but there frameworks
and instrumentations undo it when they detach what they had attached before.
It is never put into Baggage, which would send it to whomever the application calls.

    from cmdrdata_exporter import customer_context

    with customer_context("acme", plan="pro"):
        client.chat.completions.create(...)
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

from cmdrdata_exporter import faults
from cmdrdata_exporter.attributes import (
    CUSTOMER_ID,
    CUSTOMER_REFUSED,
    CUSTOMER_REFUSED_VALUE,
)
from cmdrdata_exporter.ids import LONGEST, as_written, refusal
from cmdrdata_exporter.metadata import (
    MetadataValue,
    OverFunctions,
    context_attributes,
    get_metadata_context,
    metadata_attributes,
    metadata_context,
)

_P = ParamSpec("_P")
_R = TypeVar("_R")

_KEY = otel_context.create_key("cmdrdata-customer")


# No slots: Python 3.10 has none for the weak references to it.
@dataclass(frozen=True, eq=False)
class Customer:
    """A customer id and what its events carry beside it, as they were when the context was entered."""

    id: str
    """What the application named, usable or not."""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict[str, MetadataValue])

    @property
    def is_usable(self) -> bool:
        """Whether the id can be billed."""
        return usable(self.id)

    def attributes(self) -> Mapping[str, MetadataValue]:
        """
        Return the span attributes that say who pays; of an unusable id why it is, and how it was written.

        An unusable id is logged, once per reason: its calls are billed to nobody, and not to the default customer.
        """
        known: dict[str, MetadataValue] | None = vars(self).get("_attributes")
        if known is not None:
            return known
        named = cast("object", self.id)
        reason = refusal(named)
        attributes: dict[str, MetadataValue]
        if reason is None:
            attributes = {CUSTOMER_ID: self.id}
            if self.id == self.id.strip():
                if not self.metadata:
                    # Nothing is to be reported of it, however often it is asked for.
                    vars(self)["_attributes"] = attributes
                    return attributes
            else:
                faults.report(
                    "customer id with blanks",
                    "a customer id with blanks at its begin or end was set; its calls are billed to it as it is, "
                    "which is another customer than the one without them. strip() removes them",
                )
        else:
            attributes = {CUSTOMER_REFUSED: reason, CUSTOMER_REFUSED_VALUE: as_written(named)}
            faults.report(
                f"customer id {reason}",
                "an unusable customer id was set (%s); the events of its calls are unattributed. "
                "Expected is a string of 1 to %d characters, str() of a number for instance",
                reason if isinstance(named, str) else f"{reason} but {type(named).__name__}",
                LONGEST,
            )
        return {**attributes, **metadata_attributes(self.metadata)}


def usable(customer_id: object) -> bool:
    """Return whether `customer_id` can be billed: it is a valid id."""
    return refusal(customer_id) is None


_baggage_key: str | None = None


def take_from_baggage(key: str | None) -> None:
    """Where no customer is set, take the one that the Baggage of a context has under `key`; None takes none."""
    global _baggage_key
    _baggage_key = key


# --- Where the customer is --------------------------------------------------------------------

_References = tuple[weakref.ref[Customer], ...]


class _Scope(NamedTuple):
    """A customer that was named in this context. Scopes are never changed but made anew, since contexts are copied."""

    owner: object
    """Who ends it; None where `set_customer_context` began it."""
    customer: Customer | None
    outer: _Scope | None
    before: Context
    """The OpenTelemetry context in which it began."""
    within: Context
    """The same with the customer in it."""
    older: _References = ()
    """Customers that were replaced: an OpenTelemetry context that is attached again may still hold them."""


_innermost: ContextVar[_Scope | None] = ContextVar("cmdrdata_customer", default=None)
"""
What carries the customer. It prevails over the OpenTelemetry context, but for a customer there that it does not know:
that one was brought from elsewhere, with a job of a thread pool for instance, and is newer.
"""
_left: ContextVar[_References] = ContextVar("cmdrdata_customers_left", default=())
"""Customers whose scope ended here while others had changed the OpenTelemetry context, which may show them again."""


def _holds(references: _References, customer: Customer | None) -> bool:
    return customer is not None and any(reference() is customer for reference in references)


def _with(references: _References, customer: Customer | None) -> _References:
    """Return references with one more, and without those of what is gone."""
    alive = tuple(reference for reference in references if reference() is not None)
    return alive if customer is None else (*alive, weakref.ref(customer))


def _is_known(customer: Customer, scope: _Scope | None) -> bool:
    """Say whether a customer of an OpenTelemetry context was there before what is named here, or is over."""
    while scope is not None:
        if customer in (scope.customer, _there(scope.before)) or _holds(scope.older, customer):
            return True
        scope = scope.outer
    return _holds(_left.get(), customer)


def _there(context: Context) -> Customer | None:
    return cast("Customer | None", context.get(_KEY))


def _attach(customer: Customer | None, now: Context) -> Context:
    """Put a customer into the OpenTelemetry context, and leave all else in it as it is."""
    context = otel_context.set_value(_KEY, customer, now)
    # Undone by attaching once more: a token would bring back a span that has ended, and serves in one context only.
    otel_context.attach(context)
    return context


def _enter(owner: object, customer: Customer | None) -> None:
    """Begin a scope."""
    before = otel_context.get_current()
    within = _attach(customer, before)
    _innermost.set(_Scope(owner, customer, _innermost.get(), before, within))


def _leave(owner: object) -> None:
    """End the innermost scope of an owner. Another context than that of its begin has none, and nothing to end."""
    innermost = scope = _innermost.get()
    # Not always the innermost: generators end in any order.
    while scope is not None and scope.owner is not owner:
        scope = scope.outer
    if scope is None:
        return
    outer = scope.outer if scope is innermost else _without(scope, innermost)
    _innermost.set(outer)
    now, left = otel_context.get_current(), _left.get()
    ordered = now is scope.within
    if left or not ordered:
        left = _with(left, None if ordered else scope.customer)
        _left.set(left)
    before, there = _there(scope.before), _there(now)
    customer = before if outer is None else outer.customer
    if outer is None and _holds(left, before):
        customer = None
    if ordered and customer is before:
        otel_context.attach(scope.before)
    elif there is not customer and (there is scope.customer or _holds(scope.older, there)):
        _attach(customer, now)


def _without(scope: _Scope, innermost: _Scope | None) -> _Scope | None:
    """Return the scopes without one of them."""
    if innermost is None or innermost is scope:
        return scope.outer
    return innermost._replace(outer=_without(scope, innermost.outer))


def _replace(scope: _Scope, customer: Customer | None) -> None:
    """Name another customer in the innermost scope."""
    now = otel_context.get_current()
    _attach(customer, now)
    older = _with(_with(scope.older, scope.customer), _there(now))
    _innermost.set(scope._replace(customer=customer, older=older))


def current(context: Context | None = None) -> Customer | None:
    """
    Return the customer of this moment, None where there is none.

    Args:
        context: an OpenTelemetry context, whose customer counts where it has one. Default: the current one.
    """
    there: Any = (otel_context.get_current() if context is None else context).get(_KEY)
    scope = _innermost.get()
    customer = None if scope is None else scope.customer
    if there is not None and there is not customer and (context or not _is_known(there, scope)):
        customer = there
    if customer is None and _baggage_key is not None:
        name = baggage.get_baggage(_baggage_key, context)
        return None if name is None else Customer(cast("str", name))
    return customer


def carry_customer(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """
    Return `function` that runs, in whichever thread, for the customer and with the metadata of this moment.

    For thread pools, whose threads have contexts of their own:

        pool.submit(carry_customer(work), item)
        pool.map(carry_customer(work), items)

    `asyncio.to_thread` and tasks need nothing of the kind.
    """
    customer, metadata = current(), get_metadata_context()

    @functools.wraps(function)
    def carried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        scope = object()
        _enter(scope, customer)
        try:
            with metadata_context(metadata):
                return function(*args, **kwargs)
        finally:
            _leave(scope)

    return carried


class customer_context(OverFunctions):  # noqa: N801 - used like a function, as contextlib's own
    """
    Attribute every call made inside to a customer.

    A context manager (`with customer_context("acme", plan="pro"):`), and a decorator for functions and coroutine
    functions. Contexts nest: the innermost counts, with its own metadata alone, and the outer one is back after it.
    A call belongs to the customer of the moment it starts, wherever a stream of it is read.

    Args:
        customer_id: who pays, any string of 1 to 256 characters without control characters. With anything else the
            calls are made and recorded, and their events belong to nobody.
        metadata: goes into the event's `metadata`, beside the reserved keys.
    """

    def __init__(self, customer_id: str, /, **metadata: MetadataValue) -> None:
        self._customer_id = customer_id
        self._metadata = metadata

    def __enter__(self) -> None:
        _enter(self, Customer(self._customer_id, self._metadata))

    def __exit__(self, *exc_info: object) -> None:
        _leave(self)


def set_customer_context(customer_id: str, /, **metadata: MetadataValue) -> None:
    """Attribute the calls of this thread or task to a customer, until changed or cleared or the `with` around ends."""
    customer = Customer(customer_id, metadata)
    scope = _innermost.get()
    if scope is None:
        _enter(None, customer)
    else:
        _replace(scope, customer)


def get_customer_context() -> str | None:
    """Return the id of the customer that calls made now would be attributed to, None where there is no usable one."""
    customer = current()
    return customer.id if customer is not None and customer.is_usable else None


def clear_customer_context() -> None:
    """Leave the calls of this thread or task unattributed, until a customer is set or the `with` around ends."""
    scope = _innermost.get()
    if scope is not None and scope.owner is not None:
        _replace(scope, None)
        return
    _leave(None)
    now = otel_context.get_current()
    if _there(now) is not None:
        _attach(None, now)


def attributes_of(customer: Customer | None) -> Mapping[str, MetadataValue]:
    """Return the span attributes that say who pays, with the metadata of the context; empty where there is nothing."""
    more = context_attributes()
    if customer is None:
        return more
    return {**customer.attributes(), **more} if more else customer.attributes()


class CmdrDataSpanProcessor(SpanProcessor):
    """
    Stamp the customer and the metadata of the context on every span that starts in it, whoever makes the span.

    With it the spans of other instrumentations (Anthropic's, say) carry `cmdrdata.customer.id`, so that
    `CmdrDataSpanExporter` bills them to the right customer and any OpenTelemetry backend can group by it:

        tracer_provider.add_span_processor(CmdrDataSpanProcessor())

    The id then leaves with the spans to every exporter of that provider.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set the customer's attributes on `span`."""
        if attributes := attributes_of(current(parent_context)):
            span.set_attributes(attributes)
