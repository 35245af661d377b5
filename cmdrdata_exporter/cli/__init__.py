"""
The `cmdrdata` command.

    $ cmdrdata demo        see each OpenAI call become a span and a usage event, without any account

Each command is a module of its own and joins the group in `commands`.
They are built with click and rich, which the extra `cli` installs.
"""

from __future__ import annotations

import sys

from cmdrdata_exporter.cli.extras import require, require_sqlite


def main() -> None:
    """Run the command that the program's arguments name."""
    require_sqlite()
    # What a command installs beyond this is an extra of its own that includes it.
    require("demo" if "demo" in sys.argv[1:] else "cli", "click", "rich")
    from cmdrdata_exporter.cli.commands import cmdrdata  # only now: it imports what may be missing

    cmdrdata(prog_name="cmdrdata")
