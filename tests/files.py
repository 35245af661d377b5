"""What is in the files of a directory that processes write to meanwhile."""

from __future__ import annotations

import contextlib
from pathlib import Path


def contents(directory: Path) -> dict[Path, bytes]:
    """Return what each file below a directory has; one that is gone before it is read was renamed or removed."""
    found: dict[Path, bytes] = {}
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found[path] = path.read_bytes()
    return found
