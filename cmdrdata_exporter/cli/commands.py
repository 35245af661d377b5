"""The group of all commands: a new one is a module of its own and a name in the tuple below."""

from __future__ import annotations

import click

from cmdrdata_exporter.cli.demo import demo


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cmdrdata() -> None:
    """Usage metering of AI calls: see it work, and look after it."""


for command in (demo,):
    cmdrdata.add_command(command)
