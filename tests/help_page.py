"""
Writes `docs/reference/commands.md` from what each command prints with `--help`.

    python -m tests.help_page
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from cmdrdata_exporter.cli.commands import cmdrdata

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "commands.md"
WIDTH = 100
"""How many columns the help has: the longest lines of the page's blocks."""

_BEGINNING = """\
# Options of the commands
`python -m tests.help_page` makes this page from what each command prints with `--help`; a test says when it is old.
What the commands are for, and what they print, is in [commands](../commands.md).
"""


def page() -> str:
    """Return the page."""
    sections = [f"## {path}\n```text\n{said}\n```\n" for path, said in helps(cmdrdata, "cmdrdata")]
    return "\n".join([_BEGINNING, *sections])


def helps(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """Yield the names by which a command and all below it are called, with what its help says."""
    context = click.Context(
        command,
        info_name=path,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from helps(command.commands[name], f"{path} {name}")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
