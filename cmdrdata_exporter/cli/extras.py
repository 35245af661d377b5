"""What the commands need beyond the exporter's own dependencies, and how to get it."""

from __future__ import annotations

import sys
from importlib.util import find_spec

DISTRIBUTION = "opentelemetry-instrumentation-cmdrdata"


def require(extra: str, *modules: str) -> None:
    """
    End the program with status 2 and one line on how to install `extra`, if a module is missing.

    Imports neither click nor rich, which may be what is missing.
    """
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        sys.stderr.write(
            f"cmdrdata: {' and '.join(missing)} not installed;"
            f" run: pip install '{DISTRIBUTION}[{extra}]'\n"
        )
        raise SystemExit(2)


def require_sqlite() -> None:
    """End the program with status 2 and one line, if Python was built without SQLite, which every ledger needs."""
    try:
        import sqlite3
    except ImportError as error:
        sys.stderr.write(
            f"cmdrdata: {sys.executable} was built without SQLite, which the ledger of usage events needs ({error}); "
            "use a Python that has it\n"
        )
        raise SystemExit(2) from None
    del sqlite3


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
