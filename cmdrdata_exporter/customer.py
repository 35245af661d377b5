"""
Who pays: the customer of the calls made in a context.

The customer lives in the OpenTelemetry Context, so it follows `await` and tasks, and the thread that set it.
It is never put into Baggage, which would send it to whomever the application calls.

    from cmdrdata_exporter import customer_context

    with customer_context("acme", plan="pro"):
        client.chat.completions.create(...)
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast

from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

from cmdrdata_exporter import faults
from cmdrdata_exporter.attributes import CUSTOMER_ID, CUSTOMER_REFUSED, METADATA_PREFIX
from cmdrdata_exporter.ids import LONGEST, refusal

MetadataValue = (
    str | bool | int | float | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float]
)

_P = ParamSpec("_P")
_R = TypeVar("_R")
_F = TypeVar("_F", bound=Callable[..., Any])

_KEY = otel_context.create_key("cmdrdata-customer")


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer id and what its events carry beside it, as they were when the context was entered."""

    id: str
    """What the application named, usable or not."""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict[str, MetadataValue])

    @property
    def is_usable(self) -> bool:
        """Whether the id can be billed: a string of 1 to 256 characters without control characters."""
        return usable(self.id)

    def attributes(self) -> dict[str, MetadataValue]:
        """
        Return the span attributes that say who pays; of an unusable id only why it is.

        An unusable id is logged, once per reason: its calls are billed to nobody, and not to the default customer.
        """
        named = cast("object", self.id)
        reason = refusal(named)
        attributes: dict[str, MetadataValue] = (
            {CUSTOMER_ID: self.id} if reason is None else {CUSTOMER_REFUSED: reason}
        )
        if reason is not None:
            faults.report(
                f"customer id {reason}",
                "an unusable customer id was set (%s); the events of its calls are unattributed. "
                "Expected is a string of 1 to %d characters, str() of a number for instance",
                reason if isinstance(named, str) else f"{reason} but {type(named).__name__}",
                LONGEST,
            )
        return {**attributes, **metadata_attributes(self.metadata)}


def usable(customer_id: object) -> bool:
    """Say whether `customer_id` can be billed: a string of 1 to 256 characters, none a control character."""
    return refusal(customer_id) is None


MOST_KEYS = 64
"""Keys of metadata that an event carries at most."""
LONGEST_VALUE = 1024
"""Characters of a string of metadata that are kept."""


def metadata_attributes(metadata: Mapping[str, object]) -> dict[str, MetadataValue]:
    """Return the span attributes of metadata, of which the first 64 keys count. What is cut is logged, once."""
    if len(metadata) > MOST_KEYS:
        faults.report(
            "too much metadata",
            "metadata has %d keys; the first %d are kept",
            len(metadata),
            MOST_KEYS,
        )
    return {
        METADATA_PREFIX + str(key): _attribute(value)
        for key, value in itertools.islice(metadata.items(), MOST_KEYS)
    }


def _attribute(value: object) -> MetadataValue:
    """Return `value` as a span can have it; what it cannot goes as its string: metadata is for people to read."""
    if isinstance(value, int):
        return value if is_short(value) else _cut(digits(value))
    if isinstance(value, float):
        return value
    if isinstance(value, str):
        return _cut(value)
    items = tuple(cast("Sequence[Any]", value)) if isinstance(value, (list, tuple)) else None
    if items is not None and {type(item) for item in items} in _UNIFORM:
        if not all(is_short(item) for item in items if isinstance(item, int)):
            items = tuple(map(digits, items))
        return tuple(_cut(item) if isinstance(item, str) else item for item in items)
    faults.report(
        "metadata of another type",
        "metadata with a value of type %s is kept as its text; expected are str, int, float, bool and lists of these",
        type(cast("object", value)).__name__,
    )
    try:
        return _cut(str(cast("object", value)))
    except Exception:  # noqa: BLE001 - an object of the application's; its call is billed all the same
        return f"<{type(cast('object', value)).__name__}>"


def is_short(value: int) -> bool:
    """Say whether an integer has the 64 bits that OTLP has for one: with a longer one a whole export would fail."""
    return value.bit_length() < 64


def digits(value: int) -> str:
    """Return an integer as text: in hexadecimal where Python refuses so many decimal digits, or would take long."""
    return str(value) if value.bit_length() < _LONGEST_DECIMAL else hex(value)


_LONGEST_DECIMAL = 2048
"""Bits; the least number of digits that `sys.set_int_max_str_digits` allows are more."""


def _cut(value: str) -> str:
    if len(value) > LONGEST_VALUE:
        faults.report(
            "long metadata",
            "a value of metadata has %d characters; the first %d are kept",
            len(value),
            LONGEST_VALUE,
        )
    return value[:LONGEST_VALUE]


_UNIFORM: tuple[set[type], ...] = (set(), {str}, {bool}, {int}, {float})


_baggage_key: str | None = None


def take_from_baggage(key: str | None) -> None:
    """Where no customer is set, take the one that the Baggage of a context has under `key`; None takes none."""
    global _baggage_key
    _baggage_key = key


def current(context: Context | None = None) -> Customer | None:
    """Return the customer of `context` (default: the current one), None where none was set."""
    customer = cast("Customer | None", otel_context.get_value(_KEY, context))
    if customer is None and _baggage_key is not None:
        named = baggage.get_baggage(_baggage_key, context)
        return None if named is None else Customer(cast("str", named))
    return customer


def carry_customer(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """
    Return `function` that runs, in whichever thread, for the customer of this moment.

    For thread pools, whose threads have contexts of their own:

        pool.submit(carry_customer(work), item)
        pool.map(carry_customer(work), items)

    `asyncio.to_thread` and tasks need nothing of the kind.
    """
    customer = current()

    @functools.wraps(function)
    def carried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        token = _attach(customer)
        try:
            return function(*args, **kwargs)
        finally:
            otel_context.detach(token)

    return carried


class customer_context:  # noqa: N801 - used like a function, as contextlib's own
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
        self._customer = Customer(customer_id, metadata)
        self._tokens: list[Token[Context]] = []

    def __enter__(self) -> None:
        self._tokens.append(_attach(self._customer))

    def __exit__(self, *exc_info: object) -> None:
        otel_context.detach(self._tokens.pop())

    def __call__(self, function: _F) -> _F:
        """Return `function`, each call of which runs in a context of its own."""
        customer = self._customer
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with customer_context(customer.id, **customer.metadata):
                    return await function(*args, **kwargs)

            return cast("_F", run_async)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with customer_context(customer.id, **customer.metadata):
                return function(*args, **kwargs)

        return cast("_F", run)


def set_customer_context(customer_id: str, /, **metadata: MetadataValue) -> None:
    """Attribute the calls of this thread or task to a customer, until changed or cleared."""
    _attach(Customer(customer_id, metadata))


def get_customer_context() -> str | None:
    """Return the id of the customer that calls made now would be attributed to, None where there is no usable one."""
    customer = current()
    return customer.id if customer is not None and customer.is_usable else None


def clear_customer_context() -> None:
    """Leave the calls of this thread or task unattributed from now on."""
    _attach(None)


def _attach(customer: Customer | None) -> Token[Context]:
    return otel_context.attach(otel_context.set_value(_KEY, customer))


class CmdrDataSpanProcessor(SpanProcessor):
    """
    Stamp the customer of the context on every span that starts in it, whoever makes the span.

    With it the spans of other instrumentations (Anthropic's, say) carry `cmdrdata.customer.id`, so that
    `CmdrDataSpanExporter` bills them to the right customer and any OpenTelemetry backend can group by it:

        tracer_provider.add_span_processor(CmdrDataSpanProcessor())

    The id then leaves with the spans to every exporter of that provider.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set the customer's attributes on `span`."""
        customer = current(parent_context)
        if customer is not None:
            span.set_attributes(customer.attributes())
