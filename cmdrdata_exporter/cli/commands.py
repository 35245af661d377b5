"""The group of all commands: a new one is a module of its own and a name in the tuple below."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from typing import Any

import click

from cmdrdata_exporter.cli.assign import assign
from cmdrdata_exporter.cli.dead_letters import dead_letters
from cmdrdata_exporter.cli.demo.command import demo
from cmdrdata_exporter.cli.drain import drain
from cmdrdata_exporter.cli.extras import DISTRIBUTION
from cmdrdata_exporter.cli.flush import flush
from cmdrdata_exporter.cli.held import held
from cmdrdata_exporter.cli.replay import replay
from cmdrdata_exporter.cli.status import status
from cmdrdata_exporter.cli.terminal import plain, say
from cmdrdata_exporter.cli.usage import usage
from cmdrdata_exporter.settings import ConfigurationError, check_text, unknown_variables


@contextlib.contextmanager
def _plain_errors() -> Generator[None, None, None]:
    """Escape in errors what others have named: a path, a reason, an option's value."""
    try:
        yield
    except click.ClickException as error:
        # By click's types the message is for good.
        vars(error)["message"] = plain(error.message, keep="\n")
        raise


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name the commands in the order of the tuple below."""
        return list(self.commands)

    def make_context(
        self, info_name: str | None, args: list[str], *more: Any, **extra: Any
    ) -> click.Context:
        """Read the command's name and options, none of which a ledger could hold that is no text."""
        with _plain_errors():
            try:
                for argument in args:
                    check_text(repr(argument), str(argument))
            except ConfigurationError as error:
                raise click.UsageError(str(error)) from None
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; where its reader, `head` for instance, has read enough, end without a complaint."""
        try:
            with _plain_errors():
                return super().invoke(ctx)
        except BrokenPipeError:
            # Python flushes once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=DISTRIBUTION, message="%(prog)s %(version)s")
def cmdrdata() -> None:
    """
    Usage metering of AI calls: see it work, and look after it.

    The commands read the same settings as the application, CMDRDATA_SPOOL_DIR for instance.

    \b
    Exit status:
      0  all is well
      1  something needs a person, or was not done in whole
      2  the command or a setting cannot be used
    """  # noqa: D301 - click's mark of a paragraph that is not wrapped
    for message in unknown_variables():
        say(f"Note: {message}", err=True)


for command in (demo, status, usage, dead_letters, held, assign, replay, flush, drain):
    cmdrdata.add_command(command)
