"""
The `cmdrdata` command.

    $ cmdrdata demo        see each OpenAI call become a span and a usage event, without any account

Each command is a module of its own and joins the group in `commands`.
They are built with click and rich, which the extra `cli` installs.
"""

from __future__ import annotations

import io
import locale
import os
import sys

from cmdrdata_exporter.cli.extras import require, require_sqlite


def main() -> None:
    """Run the command that the program's arguments name."""
    _escape_what_cannot_be_shown()
    require_sqlite()
    # What a command installs beyond this is an extra of its own that includes it.
    require("demo" if "demo" in sys.argv[1:] else "cli", "click", "rich")
    from cmdrdata_exporter.cli.commands import cmdrdata  # only now: it imports what may be missing

    cmdrdata(prog_name="cmdrdata")


def _escape_what_cannot_be_shown() -> None:
    """Escape what a terminal cannot show, and draw no boxes where it shows ASCII only."""
    # Python writes UTF-8 in the locale C, unless one of these variables is set.
    # https://docs.python.org/3/library/os.html#utf8-mode
    configured = os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8")
    ascii_only = not configured and locale.setlocale(locale.LC_CTYPE) in ("C", "POSIX")
    for stream in (sys.stdout, sys.stderr):
        # Something else may stand in for the stream.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="ascii" if ascii_only else None, errors="backslashreplace")
