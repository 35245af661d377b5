"""
How a method of the SDK is replaced, and put back.

A patch is an attribute set on the class. Undoing it deletes the attribute again where the class had inherited the
method; else it puts back the very object that was there, which may be another library's.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple, cast

Method = Callable[..., Any]


class Replaced(NamedTuple):
    """A method that was replaced."""

    owner: type[Any]
    name: str
    original: Any
    """What the class had itself, None where it had inherited the method."""
    replacement: Any


def replace(
    owner: type[Any], name: str, found: Any, wrapping: Callable[[Method], Method]
) -> Replaced:
    """
    Replace a method of a class.

    Args:
        owner: the class.
        name: of the method.
        found: the method as it looks to the application, before the replacement.
        wrapping: makes the replacement of what calls the original.
    """
    original = vars(owner).get(name)
    below = inherited(owner, name) if original is None else itself(original)
    replacement = wrapping(below)
    functools.update_wrapper(replacement, found)
    setattr(owner, name, replacement)
    return Replaced(owner, name, original, replacement)


def restore(replaced: Replaced) -> None:
    """Put back what was replaced, unless somebody else has replaced it since."""
    owner, name, original, replacement = replaced
    if vars(owner).get(name) is not replacement:
        return
    if original is None:
        delattr(owner, name)
    else:
        setattr(owner, name, original)


def inherited(owner: type[Any], name: str) -> Method:
    """Return what calls the method that comes after `owner`'s own, whoever replaces that."""

    def following(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(owner, self), name)(*args, **kwargs)  # pyright: ignore[reportUnknownArgumentType] - of any class

    return following


def itself(original: Any) -> Method:
    """Return what calls a method as an instance would: a wrapper of another library may live on being bound."""
    # A plain one is called as it is, since binding takes time in each call; a proxy only pretends to be one.
    if type(original) is types.FunctionType:
        return original

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return bound(original, self)(*args, **kwargs)

    return method


def bound(method: Any, instance: Any) -> Method:
    """Return a class's method as its instance has it: a wrapper of another library learns of the instance only so."""
    kind: Any = cast("object", type(method))
    bind = getattr(kind, "__get__", None)
    return method if bind is None else bind(method, instance, type(instance))


# --- What is done around a method, be it a coroutine or not


def _nothing(_: object) -> None:
    pass


class Around(NamedTuple):
    """What is done after one call of a method: with what it returned, or with what it raised."""

    returned: Callable[[Any], None] = _nothing
    failed: Callable[[BaseException], None] = _nothing


def observing(begin: Callable[..., Around]) -> Callable[..., Method]:
    """Return what makes a method that is observed: `begin`, which gets its arguments, says what is done after it."""

    def wrapping(original: Method, *, asynchronous: bool) -> Method:
        if asynchronous:

            async def aobserved(self: Any, *args: Any, **kwargs: Any) -> Any:
                around = begin(self, *args, **kwargs)
                try:
                    result = await original(self, *args, **kwargs)
                except BaseException as error:
                    around.failed(error)
                    raise
                around.returned(result)
                return result

            return aobserved

        def observed(self: Any, *args: Any, **kwargs: Any) -> Any:
            around = begin(self, *args, **kwargs)
            try:
                result = original(self, *args, **kwargs)
            except BaseException as error:
                around.failed(error)
                raise
            around.returned(result)
            return result

        return observed

    return wrapping
