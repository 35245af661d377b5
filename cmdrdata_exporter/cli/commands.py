"""The group of all commands: a new one is a module of its own and a name in the tuple below."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from cmdrdata_exporter.cli.demo import demo
from cmdrdata_exporter.cli.extras import DISTRIBUTION


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; where its reader, `head` for instance, has read enough, end without a complaint."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Python flushes once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=DISTRIBUTION, message="%(prog)s %(version)s")
def cmdrdata() -> None:
    """Usage metering of AI calls: see it work, and look after it."""


for command in (demo,):
    cmdrdata.add_command(command)
