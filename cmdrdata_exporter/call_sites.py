"""
Where in the application's code a call is made.

The innermost frame of the application's own code is the one; where none of it is on the stack, because the application
is installed as a package for instance, the innermost frame of a library that only hands calls on.
"""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from cmdrdata_exporter.scrubbing import scrubbed

LONGEST_PATH = 160
"""Characters of a path that are kept, the last ones."""
LONGEST_NAME = 100
"""Characters of a function's name that are kept, the first ones."""

of_all: bool | None = None
"""Whether the environment asks for those of all calls; None as long as no exporter has read it."""

_MOST_FILES = 4096
"""Files that are remembered: a notebook makes a new one for each cell."""

_PASSING = frozenset(
    {
        "anyio",
        "backoff",
        "cmdrdata_exporter",
        "openai",
        "openinference",
        "opentelemetry",
        "tenacity",
        "wrapt",
    }
)
"""Packages that only pass a call on."""
_PASSING_PREFIXES = ("opentelemetry_",)


class CallSite(NamedTuple):
    """A line of code. As a string it reads `shop/chat.py:42 Bot.answer`."""

    path: str
    """Relative to the working directory or an entry of `sys.path`, else the file in its directory."""
    line: int
    function: str
    """With its class, from Python 3.11 on."""

    def __str__(self) -> str:
        """Return what an event has of it."""
        return f"{self.path}:{self.line} {self.function}"


class _File(NamedTuple):
    path: str
    is_own: bool
    """Whether it is the application's own, and no library's."""


def find() -> CallSite | None:
    """
    Return the line that makes the call which is under way in this thread; None where nothing of it is on the stack.

    A coroutine that is awaited has the frames of those who await it below its own. One that a task was made of has not:
    below it is who runs the event loop.
    """
    of_library: CallSite | None = None
    in_loop = False
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] # noqa: SLF001 - inspect's does more work
    while frame is not None:
        name = frame.f_code.co_filename
        file = _files[name] if name in _files else _look_at(frame)
        if file is _LOOP:
            in_loop = True
        elif file is not None:
            if file.is_own:
                return _site(file, frame)
            # Below the event loop are the libraries that run it, not those that made the call.
            if of_library is None and not in_loop:
                of_library = _site(file, frame)
        frame = frame.f_back
    return of_library


def _site(file: _File, frame: FrameType) -> CallSite:
    code = frame.f_code
    function: str = getattr(code, "co_qualname", code.co_name)
    return CallSite(file.path, frame.f_lineno, function[:LONGEST_NAME])


_LOOP = _File("asyncio", is_own=False)
"""Stands for the files of the event loop."""
_files: dict[str, _File | None] = {}
"""What is known of files by the names that code has for them; None of what only passes a call on."""


def _look_at(frame: FrameType) -> _File | None:
    """Return what is to be known of a frame's file, and remember it."""
    name = frame.f_code.co_filename
    file = _file(name, str(frame.f_globals.get("__name__", "")))
    # Many a library generates code, under names such as `<string>` that several have.
    if not name.startswith("<"):
        if len(_files) >= _MOST_FILES:
            _files.clear()
        _files[name] = file
    return file


def _file(name: str, module: str) -> _File | None:
    package = module.partition(".")[0]
    if package == "asyncio":
        return _LOOP
    if package in _PASSING or package.startswith(_PASSING_PREFIXES):
        return None
    path = Path(name)
    # By the path where there is one: an application may have a module of the same name.
    if not path.is_absolute():
        is_passing = package in sys.stdlib_module_names
        return None if is_passing else _File(_bounded(path), is_own=True)
    is_library = _is_below(path, _PACKAGES) or not _INSTALLED.isdisjoint(path.parts)
    if not is_library and _is_below(path, _PASSING_DIRECTORIES):
        return None
    return _File(_bounded(_relative(path, own=not is_library)), is_own=not is_library)


def _directories(*kinds: str) -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(kind)) for kind in kinds)


_PASSING_DIRECTORIES = _directories("stdlib", "scripts")
"""A program that a package installs begins in a script of a few lines."""
_PACKAGES = _directories("purelib", "platlib")
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def _is_below(path: Path, directories: Iterable[Path]) -> bool:
    return any(path.is_relative_to(directory) for directory in directories)


def _relative(path: Path, *, own: bool) -> Path:
    """Return a path without what differs from host to host: it shall group events, and tell nothing of the host."""
    roots = sorted(filter(Path.is_absolute, map(Path, sys.path)), key=_depth, reverse=True)
    if own:
        with contextlib.suppress(FileNotFoundError):  # It was removed.
            roots.insert(0, Path.cwd())
    for root in roots:
        if path.is_relative_to(root) and _depth(root) > 1:
            return path.relative_to(root)
    return Path(*path.parts[-2:])


def _depth(path: Path) -> int:
    return len(path.parts)


def _bounded(path: Path) -> str:
    shown = scrubbed(path.as_posix())
    return shown if len(shown) <= LONGEST_PATH else f"…{shown[1 - LONGEST_PATH :]}"
