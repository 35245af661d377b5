"""
Metadata of usage events: what an event has of it, and the context that gives it to all calls made inside.

Metadata that is named with a customer goes with that customer. That of `metadata_context` goes with every call of the
context, whoever pays. It lives in a context variable, so it follows `await` and tasks, and the thread that set it.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from cmdrdata_exporter import faults
from cmdrdata_exporter.attributes import METADATA_PREFIX

_F = TypeVar("_F", bound=Callable[..., Any])

MetadataValue = (
    str | bool | int | float | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float]
)


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


def mapping(metadata: object, name: str) -> dict[str, MetadataValue]:
    """Return a copy of the metadata that has a name in the application's code; of what is none nothing, logged once."""
    if isinstance(metadata, Mapping):
        return {str(key): value for key, value in cast("Mapping[Any, Any]", metadata).items()}
    if metadata is not None:
        faults.report(
            name,
            "%s is a %s and is left out; expected is a mapping of names to values",
            name,
            type(metadata).__name__,
        )
    return {}


# --- The context ------------------------------------------------------------------------------

_Scope = tuple[object, Mapping[str, MetadataValue]]
"""Who ends it, and its metadata. None ends what `set_metadata_context` began."""
_scopes: ContextVar[tuple[_Scope, ...]] = ContextVar("cmdrdata_metadata", default=())
"""The innermost comes last. Never changed but made anew, since contexts are copied."""


class OverFunctions:
    """A context manager that decorates functions and coroutine functions, too: each call runs in the context."""

    def __enter__(self) -> None:
        """Enter the context."""

    def __exit__(self, *exc_info: object) -> None:
        """Leave it."""

    def __call__(self, function: _F) -> _F:
        """Return `function`, each call of which runs in the context."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast("_F", run_async)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return cast("_F", run)


class metadata_context(OverFunctions):  # noqa: N801 - used like a function, as contextlib's own
    """
    Put metadata into the events of every call made inside, whoever pays for it.

    A context manager (`with metadata_context({"feature": "chat"}):`), and a decorator for functions and coroutine
    functions. Contexts nest: the innermost counts alone, and the outer one is back after it.
    Of keys that stand in several places those of the call count (`usage_metadata=`), then these, then those that were
    named with the customer.

    Args:
        metadata: goes into the event's `metadata`, beside the reserved keys. It is read when the context begins.
    """

    def __init__(self, metadata: Mapping[str, MetadataValue], /) -> None:
        self._metadata = mapping(metadata, "metadata_context")

    def __enter__(self) -> None:
        _scopes.set((*_scopes.get(), (self, self._metadata)))

    def __exit__(self, *exc_info: object) -> None:
        scopes = list(_scopes.get())
        # Not always the innermost: generators end in any order, and what `set_metadata_context` began goes, too.
        for index in reversed(range(len(scopes))):
            if scopes[index][0] is self:
                del scopes[index]
                _scopes.set(tuple(scopes))
                return


def set_metadata_context(metadata: Mapping[str, MetadataValue], /) -> None:
    """Put metadata into the events of this thread's or task's calls, until changed or cleared or the `with` ends."""
    scopes = _scopes.get()
    owner = scopes[-1][0] if scopes else None
    _scopes.set((*scopes[:-1], (owner, mapping(metadata, "set_metadata_context"))))


def get_metadata_context() -> dict[str, MetadataValue]:
    """Return a copy of the metadata that calls made now would have of the context."""
    scopes = _scopes.get()
    return dict(scopes[-1][1]) if scopes else {}


def context_attributes() -> Mapping[str, MetadataValue]:
    """Return the span attributes of the context's metadata."""
    scopes = _scopes.get()
    return metadata_attributes(scopes[-1][1]) if scopes else _NOTHING


_NOTHING: Mapping[str, MetadataValue] = {}


def update_metadata_context(metadata: Mapping[str, MetadataValue], /) -> None:
    """Add metadata to what this thread or task has, in place of that with the same keys. See `set_metadata_context`."""
    added = mapping(metadata, "update_metadata_context")
    set_metadata_context({**get_metadata_context(), **added})


def clear_metadata_context() -> None:
    """Leave the calls of this thread or task without metadata of a context, until it is set or the `with` ends."""
    if _scopes.get():
        set_metadata_context({})
