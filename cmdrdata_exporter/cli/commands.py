"""The group of all commands. To add one, write a module and name it in the tuple below."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from typing import Any

import click

from cmdrdata_exporter.cli.assign import assign
from cmdrdata_exporter.cli.dashboard.command import dashboard
from cmdrdata_exporter.cli.demo.command import demo
from cmdrdata_exporter.cli.doctor.command import doctor
from cmdrdata_exporter.cli.drain import drain
from cmdrdata_exporter.cli.events import events
from cmdrdata_exporter.cli.extras import DISTRIBUTION
from cmdrdata_exporter.cli.flush import flush
from cmdrdata_exporter.cli.gateway import gateway
from cmdrdata_exporter.cli.jobs import jobs
from cmdrdata_exporter.cli.kept_events import dead_letters, held
from cmdrdata_exporter.cli.reconcile.command import reconcile
from cmdrdata_exporter.cli.replay import replay
from cmdrdata_exporter.cli.status import status
from cmdrdata_exporter.cli.terminal import plain, say
from cmdrdata_exporter.cli.usage.command import usage
from cmdrdata_exporter.delivery.spool.file_systems import UnsafeDirectoryError
from cmdrdata_exporter.delivery.spool.schema import UnknownVersionError
from cmdrdata_exporter.delivery.usage import UnreadableError
from cmdrdata_exporter.settings import ConfigurationError, check_text, unknown_variables


@contextlib.contextmanager
def _plain_errors() -> Generator[None, None, None]:
    """Show errors as one line, with text from others escaped: a path, a reason, an option's value."""
    try:
        yield
    except click.ClickException as error:
        # click's types call the message final.
        vars(error)["message"] = plain(error.message, keep="\n")
        raise
    except BrokenPipeError:
        raise
    except (UnreadableError, UnknownVersionError, UnsafeDirectoryError, OSError) as error:
        raise click.ClickException(plain(error)) from None


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name the commands in the order of the tuple below."""
        return list(self.commands)

    def make_context(
        self, info_name: str | None, args: list[str], *more: Any, **extra: Any
    ) -> click.Context:
        """Read the command's name and options; refuse what is not valid text, which no ledger can hold."""
        with _plain_errors():
            try:
                for argument in args:
                    check_text(repr(argument), str(argument))
            except ConfigurationError as error:
                raise click.UsageError(str(error)) from None
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; end quietly where its reader, `head` for instance, has gone."""
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

    The commands read the same environment variables as the application, CMDRDATA_SPOOL_DIR for
    instance.

    \b
    Exit status:
      0  all is well
      1  something needs you, or was not done in full
      2  the command or a setting cannot be used
    """  # noqa: D301 - click's mark of a paragraph that is not wrapped
    for message in unknown_variables():
        say(f"Note: {message}", err=True)


for command in (
    demo,
    doctor,
    status,
    usage,
    events,
    dashboard,
    reconcile,
    dead_letters,
    held,
    assign,
    replay,
    flush,
    drain,
    gateway,
    jobs,
):
    cmdrdata.add_command(command)
