"""
The seam: every HTTP call of the SDK passes `OpenAI.request` or `AsyncOpenAI.request`, and there it is observed.

Both are inherited methods, so a patch is an attribute set on the class, and undoing it deletes the attribute again; or
puts back the very object that another library had set before us.
That is done to every copy of the SDK that the process has: see `copies`.
https://github.com/openai/openai-python/blob/v2.54.0/src/openai/_base_client.py
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from openai import OpenAI
from opentelemetry import trace

from cmdrdata_exporter import current_exporter, faults
from opentelemetry_instrumentation_cmdrdata.open_calls import dropped, start_reaper
from opentelemetry_instrumentation_cmdrdata.openai import copies, keywords
from opentelemetry_instrumentation_cmdrdata.openai.observation import (
    answered,
    begin,
    fail,
    failed,
    succeed,
)
from opentelemetry_instrumentation_cmdrdata.openai.replacing import (
    Method,
    Replaced,
    replace,
    restore,
)
from opentelemetry_instrumentation_cmdrdata.openai.websockets import patching as websockets
from opentelemetry_instrumentation_cmdrdata.recorder import SCOPE, Recorder
from opentelemetry_instrumentation_cmdrdata.version import __version__


class Switch:
    """What the wrappers of one `patch` have in common."""

    __slots__ = ("_recorder",)

    def __init__(self, recorder: Recorder) -> None:
        self._recorder: Recorder | None = recorder

    @property
    def recorder(self) -> Recorder | None:
        """What records their calls, None once they are to be quiet."""
        return self._recorder

    def off(self) -> None:
        """Have them be quiet from now on."""
        self._recorder = None


def _request(original: Method, switch: Switch, *, asynchronous: bool) -> Method:
    """Return `request` that observes the call it makes."""
    if asynchronous:

        async def arequest(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            call, options = begin(switch.recorder, self, options, kwargs)
            if call is None:
                return await original(self, cast_to, options, *args, **kwargs)
            start_reaper()
            try:
                try:
                    call.attach()
                    result = await original(self, cast_to, options, *args, **kwargs)
                except GeneratorExit as error:
                    # Thrown away unfinished, perhaps by the garbage collector, in which nothing may be done.
                    call.detach()
                    dropped(call, error.with_traceback(None))
                    raise
                except BaseException as error:
                    fail(call, error)
                    raise
                succeed(call, result)
            except GeneratorExit:
                raise
            except BaseException as error:
                fail(call, error)
                raise
            return result

        return arequest

    def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        call, options = begin(switch.recorder, self, options, kwargs)
        if call is None:
            return original(self, cast_to, options, *args, **kwargs)
        # Twice: a signal handler may raise outside of what the SDK does, and in the middle of noting how that failed.
        try:
            try:
                call.attach()
                result = original(self, cast_to, options, *args, **kwargs)
            except BaseException as error:
                fail(call, error)
                raise
            succeed(call, result)
        except BaseException as error:
            fail(call, error)
            raise
        return result

    return request


def _telling(tell: Callable[[dict[str, Any]], None]) -> Callable[..., Method]:
    """Return what makes a method that calls `tell` with its keywords, and then is what it was."""

    def wrapping(original: Method, switch: Switch, *, asynchronous: bool) -> Method:
        if asynchronous:

            async def amethod(self: Any, *args: Any, **kwargs: Any) -> Any:
                if switch.recorder is not None:
                    tell(kwargs)
                return await original(self, *args, **kwargs)

            return amethod

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if switch.recorder is not None:
                tell(kwargs)
            return original(self, *args, **kwargs)

        return method

    return wrapping


METHODS: Mapping[str, Callable[..., Method]] = {
    "request": _request,
    # Tells how often the SDK tried, which a success itself does not.
    "_process_response": _telling(answered),
    # Called where an attempt has failed: of newer versions, and of older ones.
    "_sleep_for_retry": _telling(failed),
    "_retry_request": _telling(failed),
}
"""What is replaced of a client: its method, where the version has it, and what makes the one in its place."""

_UNDO = "_cmdrdata_undo"
"""
The attribute of `OpenAI` that undoes what is patched, and returns the copies that were: another copy of this module may
have done it.
"""


class _Patch:
    """What one `patch` has done to the clients."""

    def __init__(self, recorder: Recorder) -> None:
        self._switch = Switch(recorder)
        self._replaced: list[Replaced] = []
        self._copies: list[copies.Copy] = []
        self._finder = copies.Finder(_imported)
        sys.meta_path.insert(0, self._finder)

    @property
    def recorder(self) -> Recorder | None:
        """What records the calls, None once they are not observed."""
        return self._switch.recorder

    def add(self, sdk: copies.Copy) -> None:
        """Observe the clients of a copy, too."""
        self._copies.append(sdk)
        for client in sdk.clients:
            self._replaced += _install(client, client, self._switch)
        setattr(sdk.clients[0], _UNDO, self.undo)

    def undo(self) -> list[copies.Copy]:
        """Undo all, and return the copies that were patched."""
        self._switch.off()
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        while self._replaced:
            restore(self._replaced.pop())
        for sdk in self._copies:
            if vars(sdk.clients[0]).get(_UNDO) == self.undo:
                delattr(sdk.clients[0], _UNDO)
        return self._copies


_patch: _Patch | None = None
_copies = [copy for copy in (copies.current(),) if copy is not None]
"""The copies of the SDK that were seen, of which the first is that of `OpenAI` here."""
_taking_keywords: dict[tuple[type[Any], str], Replaced] = {}
"""The methods of resources that were replaced."""
_tracked_clients = False
"""Whether there is a client that takes our keywords also while nothing is patched."""


def patch(recorder: Recorder) -> None:
    """Observe every client of the SDK, whenever it was made, and let the methods that are metered take our keywords."""
    global _patch
    _see(copies.current())
    for sdk in list(_copies):
        if (undo := vars(sdk.clients[0]).get(_UNDO)) is not None:
            for other in undo():
                _see(other)
    _patch = _Patch(recorder)
    for sdk in _copies:
        _patch.add(sdk)
        _take_keywords(sdk)


def _see(sdk: copies.Copy | None) -> bool:
    """Keep a copy of the SDK in mind, and say whether it is new."""
    if sdk is None or any(sdk.clients[0] is known.clients[0] for known in _copies):
        return False
    keywords.never_sent_by(sdk)
    _copies.append(sdk)
    return True


@faults.guarded
def _imported() -> None:
    """Treat a copy that was imported just now as those before, which it does not replace."""
    sdk = copies.current()
    if _patch is not None and sdk is not None and _see(sdk):
        _patch.add(sdk)
        _take_keywords(sdk)


def unpatch() -> None:
    """
    Undo `patch`: the clients have their inherited methods again, the resources their own.

    What somebody else has put around a method of ours since then stays, and ours inside is quiet.
    """
    global _patch
    if _patch is not None:
        _patch.undo()
        _patch = None
    if _tracked_clients:
        return  # Their keywords go on; those of other clients are the SDK's to refuse.
    for base in (base for sdk in _copies for base in sdk.resources):
        if "__init_subclass__" in vars(base):
            del base.__init_subclass__
    while _taking_keywords:
        restore(_taking_keywords.popitem()[1])
    websockets.undo()


def _install(owner: type[Any], sdk: type[Any], switch: Switch) -> Iterator[Replaced]:
    """Replace the methods of `owner`, which is a client class of the SDK, or stands before one."""
    for name, wrapping in METHODS.items():
        found = getattr(sdk, name, None)
        if found is None:
            continue
        # In the oldest versions not all methods of the asynchronous client are.
        asynchronous = sdk.__name__ == "AsyncOpenAI" and (
            name == "request" or inspect.iscoroutinefunction(found)
        )
        make = functools.partial(wrapping, switch=switch, asynchronous=asynchronous)
        yield replace(owner, name, found, make)


def take_keywords_of_tracked_clients() -> None:
    """Let the methods of tracked clients take our keywords from now on, whether or not anything is patched."""
    global _tracked_clients
    if not _tracked_clients:
        _tracked_clients = True
        _take_keywords(_copies[0])


def _take_keywords(sdk: copies.Copy) -> None:
    """Have the resources of a copy take our keywords; of those that it loads later `__init_subclass__` tells."""
    for base in sdk.resources:
        for resource in base.__subclasses__():
            _take_keywords_of(resource)
        base.__init_subclass__ = classmethod(_loaded)  # pyright: ignore[reportAttributeAccessIssue]


def _loaded(resource: type[Any], **_: Any) -> None:
    """Treat a resource that the SDK loads now as those that it had loaded before."""
    _take_keywords_of(resource)


@faults.guarded
def _take_keywords_of(resource: type[Any]) -> None:
    for name in keywords.methods_of(resource):
        _take_keywords_in(resource, name, keywords.taking_keywords)
    if (row := websockets.row_of(resource)) is not None:
        _take_keywords_in(
            resource, "connect", lambda original: websockets.connecting(original, row, _recorder_of)
        )


def _take_keywords_in(resource: type[Any], name: str, wrapping: Callable[[Any], Method]) -> None:
    original, known = vars(resource)[name], _taking_keywords.get((resource, name))
    # Somebody may have put another method in the place of ours.
    if known is None or original is not known.replacement:
        replacement = wrapping(original)
        _taking_keywords[resource, name] = Replaced(resource, name, original, replacement)
        setattr(resource, name, replacement)


def _recorder_of(client: Any) -> Recorder | None:
    """Return what records the connections of a client, None where they are not metered."""
    if _patch is not None:
        return _patch.recorder
    return _alone().recorder if isinstance(client, keywords.Tracked) else None


class _AloneSwitch(Switch):
    """Records the calls of tracked clients while nothing is patched: else they are observed with all others."""

    __slots__ = ()

    @property
    def recorder(self) -> Recorder | None:
        """What records their calls."""
        return None if _UNDO in vars(OpenAI) else self._recorder


def observe_always(owner: type[Any], sdk: type[Any]) -> None:
    """Observe the clients of `owner`, a class to stand before `sdk`, whether or not that is patched, but once."""
    list(_install(owner, sdk, _alone()))


@functools.cache
def _alone() -> _AloneSwitch:
    return _AloneSwitch(Recorder(trace.get_tracer(SCOPE, __version__), current_exporter))
