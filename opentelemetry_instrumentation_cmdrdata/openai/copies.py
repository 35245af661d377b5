"""
The copies of the SDK in a process: who purges `sys.modules` of openai and imports it again has one more.

The classes of a copy are others than those of the one before, and clients of both may be at work. So a class of the SDK
is known by its name here, and a finder tells of every import of the SDK.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

_SDK = "openai"


class Copy(NamedTuple):
    """What is changed of one copy."""

    clients: tuple[type[Any], type[Any]]
    """`OpenAI` and `AsyncOpenAI`."""
    resources: tuple[type[Any], type[Any]]
    """The classes below which the resources are."""
    omit: type[Any]
    """What a header is an instance of that the copy drops."""


def current() -> Copy | None:
    """Return the copy that `import openai` gives, None where it is not imported."""
    sdk = sys.modules.get(_SDK)
    if sdk is None:
        return None
    # Newer versions load their resources, and what they have in common, when they are asked for.
    resource, types = (
        importlib.import_module(f"{_SDK}.{name}") for name in ("_resource", "_types")
    )
    return Copy(
        (sdk.OpenAI, sdk.AsyncOpenAI),
        (resource.SyncAPIResource, resource.AsyncAPIResource),
        types.Omit,
    )


def is_class(kind: object, *names: str) -> bool:
    """Say whether a class is the SDK's own of one of these names, of whichever copy."""
    return (
        getattr(kind, "__name__", None) in names
        and str(getattr(kind, "__module__", None)).partition(".")[0] == _SDK
    )


def is_instance(thing: object, *names: str) -> bool:
    """Say whether a thing is an instance of one of these classes of the SDK, or of a class below."""
    return any(is_class(kind, *names) for kind in type(thing).__mro__)


class Finder:
    """Stands first in `sys.meta_path`, leaves the search to those behind it, and calls `imported` after each import."""

    def __init__(self, imported: Callable[[], None]) -> None:
        self._imported = imported

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the finders behind find of the SDK, with a loader that tells when it has been loaded."""
        if name != _SDK:
            return None
        finders = list(sys.meta_path)
        behind = finders[finders.index(self) + 1 :] if self in finders else []
        for finder in behind:
            find_spec = getattr(finder, "find_spec", None)
            spec = None if find_spec is None else find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec, self._imported)
                return spec
        return None


class _Loader:
    """Loads as the loader of a spec does, which it gives its place back to."""

    def __init__(self, spec: ModuleSpec, imported: Callable[[], None]) -> None:
        self._spec = spec
        self._loader: Any = spec.loader
        self._imported = imported

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the loader creates."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Have the module loaded, and tell."""
        module.__loader__ = self._spec.loader = self._loader
        self._loader.exec_module(module)
        self._imported()
