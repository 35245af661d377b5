"""The destination of a command: that of the environment, as for the application, or a named one."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import click
from click.core import ParameterSource

from cmdrdata_exporter.cli.extras import require
from cmdrdata_exporter.cli.reading import Index, Ledger
from cmdrdata_exporter.cli.terminal import REFUSED, plain, say
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import Directory, destinations
from cmdrdata_exporter.delivery.spool.file_systems import UnsafeDirectoryError
from cmdrdata_exporter.delivery.spool.index_view import IndexReader
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.settings import (
    CMDRDATA_LEDGER,
    ConfigurationError,
    Settings,
    check_text,
    spool_directory,
)

Command = Callable[..., None]


class Refusal(click.ClickException):
    """A command or a setting that cannot be used."""

    exit_code = REFUSED


TIMEOUT = 10.0
"""Seconds that a command waits for the leader."""
COUNTERS = {"drop": "dropped", "assign": "assigned", "replay": "replayed"}
"""What can be done with events, and what counts how often it was."""


class Place(Protocol):
    """Where events are: a destination of this host, or the ledger of a fleet. All that most commands know of it."""

    @property
    def name(self) -> str:
        """What a reader knows it by."""
        ...

    @property
    def settles_as(self) -> str:
        """The state of an event for which nothing more is to be done: `delivered` or `local`."""
        ...

    @property
    def knows_jobs(self) -> bool:
        """Whether its ledger has the jobs whose end was not seen."""
        ...

    def ledger(self) -> Ledger:
        """Open its ledger."""
        ...

    def events(self) -> Index:
        """Open what finds its events."""
        ...

    def change(self, action: str, keys: Sequence[bytes], customer: str | None) -> tuple[int, bool]:
        """Have something done with events; return with how many it was, and whether that was all in time."""
        ...

    def who_sends(self) -> str | None:
        """Say what becomes of events that are to be sent now; None: they go nowhere."""
        ...


class Destination(NamedTuple):
    """A destination that has a directory."""

    directory: Directory
    endpoint: str | None
    account: str

    @property
    def name(self) -> str:
        """What `--destination` takes."""
        return self.directory.path.name

    @property
    def description(self) -> str:
        """Where its events go."""
        if self.directory.is_local:
            return "events stay on this host"
        return f"account {self.account} at {self.endpoint}"

    @property
    def settles_as(self) -> str:
        """See `Place`."""
        return "local" if self.directory.is_local else "delivered"

    @property
    def knows_jobs(self) -> bool:
        """See `Place`."""
        return True

    def ledger(self) -> LedgerReader:
        """See `Place`."""
        return LedgerReader(self.directory)

    def events(self) -> IndexReader:
        """See `Place`."""
        return IndexReader(self.directory)

    def change(self, action: str, keys: Sequence[bytes], customer: str | None) -> tuple[int, bool]:
        """See `Place`. The leader does it."""
        require_owner(self.directory.path)
        before = self._count(action)
        in_time = commands.apply(self.directory, action, keys, customer=customer, timeout=TIMEOUT)
        return self._count(action) - before, in_time

    def _count(self, action: str) -> int:
        """Return how many events such a command has ever changed."""
        with self.ledger() as ledger:
            return ledger.counts().get(COUNTERS[action], 0)

    def who_sends(self) -> str | None:
        """See `Place`."""
        if self.directory.is_local:
            return None
        leader = self.directory.leader()
        if leader is None:
            return "No process sends them now: start the application, or run cmdrdata flush."
        return f"Process {leader} sends them as soon as it can."


ELSEWHERE = "If the application uses another directory, set CMDRDATA_SPOOL_DIR or --spool-dir to it"
"""What to do where no events are found."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead."
)
spool_option = click.option(
    "--spool-dir",
    "spool",
    type=click.Path(path_type=Path),
    help="The spool directory. Default: CMDRDATA_SPOOL_DIR, as for the application.",
)
ALL = "all"
"""What `--destination` takes for all of them, where a command can show several."""


def _destination_option(also: str = "") -> Callable[[Command], Command]:
    text = (
        f"A destination: its name in `cmdrdata status`, or its account where no other has it{also}."
    )
    options: dict[str, Any] = {
        "metavar": "NAME",
        "help": f"{text} Default: the destination of the environment.",
    }
    return click.option("--destination", "name", **options)


ledger_option = click.option(
    "--ledger",
    "url",
    metavar="URL",
    envvar=CMDRDATA_LEDGER,
    help="The ledger of a fleet instead: postgresql://... Default: CMDRDATA_LEDGER.",
)


_OF_THIS_HOST = (
    "this command is for what is on this host; of a fleet's ledger there are "
    "cmdrdata status, usage, events, held, dead-letters, assign, replay, reconcile and doctor"
)


def _refuse(context: click.Context, _: click.Parameter, url: str | None) -> None:
    if url is not None:
        raise click.UsageError(_OF_THIS_HOST)
    if os.environ.get(CMDRDATA_LEDGER) and not context.resilient_parsing:
        say(f"Note: {CMDRDATA_LEDGER} is not used: {_OF_THIS_HOST}", err=True)


no_ledger_option = click.option(
    "--ledger", metavar="URL", hidden=True, expose_value=False, callback=_refuse
)
"""Of a command that is for what is on this host alone, which says so where a fleet's ledger is named."""


def location_options(command: Command) -> Command:
    """Give a command the options that name a destination, and `--json`."""
    return _destination_option()(spool_option(json_option(command)))


def _choosing(
    choose: Callable[[str | None, Path | None, str | None], object], command: Command
) -> Command:
    """Return a command that is given what `choose` makes of its options for a destination as its first argument."""

    @functools.wraps(command)
    def choosing(
        *, name: str | None, spool: Path | None, url: str | None = None, **options: Any
    ) -> None:
        command(choose(url, spool, name), **options)

    return choosing


def on_destination(command: Command) -> Command:
    """Give a command these options, and the chosen destination as its first argument."""
    choosing = _choosing(lambda _, spool, name: chosen(spool, name), command)
    return location_options(no_ledger_option(choosing))


def on_place(command: Command) -> Command:
    """Give a command these options and `--ledger`, and the chosen place as its first argument."""
    choosing = _choosing(place, command)
    return _destination_option()(spool_option(ledger_option(json_option(choosing))))


def on_places(command: Command) -> Command:
    """Give a command these options, and as its first argument the chosen places: one, or all destinations."""
    choosing = _choosing(places, command)
    return _destination_option(f"; or {ALL}")(spool_option(ledger_option(json_option(choosing))))


def place(url: str | None, spool: Path | None, name: str | None) -> Place:
    """
    Return the fleet's ledger, if that is asked for, or the destination of a name.

    Raises:
        Refusal: there is none such.
    """
    return fleet(url, spool, name) or chosen(spool, name)


def places(url: str | None, spool: Path | None, name: str | None) -> Sequence[Place]:
    """
    Return the fleet's ledger, if that is asked for, or the destination of a name, or all.

    Raises:
        Refusal: there is none such.
    """
    found = fleet(url, spool, name)
    if found is not None:
        return [found]
    return each(spool) if name == ALL else [chosen(spool, name)]


def fleet(url: str | None, spool: Path | None, name: str | None = None) -> Place | None:
    """
    Return the ledger of a fleet, if that is asked for. A destination that is named comes before the environment.

    Raises:
        Refusal: there is no such ledger, or both are named.
    """
    if not url:
        return None
    if spool is not None or name is not None:
        asked = click.get_current_context().get_parameter_source("url")
        if asked is ParameterSource.COMMANDLINE:
            raise click.UsageError("--ledger excludes --destination and --spool-dir")
        return None
    require("fleet", "psycopg")
    # Only now: it imports what may be missing.
    from cmdrdata_exporter.cli.fleet import FleetPlace

    return FleetPlace.of(url)


def spool_path(spool: Path | None) -> Path:
    """
    Return the spool directory, the given one or that of the environment.

    Raises:
        Refusal: it cannot be read.
    """
    try:
        path = (spool or spool_directory()).expanduser().absolute()
        check_text("the spool directory", str(path))
    except (ConfigurationError, RuntimeError) as error:
        reason = str(error).rstrip(".")
        raise Refusal(f"{reason}; set CMDRDATA_SPOOL_DIR or --spool-dir") from None
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        raise Refusal(f"{path} cannot be read by this user; {_as_its_owner(path)}")
    return path


def all_of(spool: Path) -> list[Destination]:
    """Return every destination that has a directory."""
    return [Destination(*found) for found in destinations(spool)]


def chosen(spool: Path | None, name: str | None) -> Destination:
    """
    Return the destination of a name, or of an account that no other one has; or that of the environment.

    Raises:
        Refusal: there is none such, or there are several.
    """
    path = spool_path(spool)
    there = all_of(path)
    wanted, description = (name, name) if name is not None else _of_environment(path)
    found = [destination for destination in there if destination.name == wanted]
    if not found and name is not None:
        found = of_account(there, name)
    if len(found) == 1:
        return _readable(found[0], path)
    if not there:
        raise Refusal(_nothing_in(path))
    several = f"{len(found)} destinations have the account {name!r} in {path}. "
    none = f"no events recorded for {description!r} in {path}. "
    others = "".join(
        f"\n  {plain(other.name)}  ({plain(other.description)})" for other in found or there
    )
    raise Refusal(
        f"{several if found else none}Choose one of these with --destination NAME:{others}"
    )


def of_account(there: list[Destination], account: str) -> list[Destination]:
    """Return the destinations of an account. Where events stay on this host, there is none."""
    return [
        destination
        for destination in there
        if destination.account == account and not destination.directory.is_local
    ]


def each(spool: Path | None) -> list[Destination]:
    """
    Return every destination.

    Raises:
        Refusal: there is none, or one of them cannot be read.
    """
    path = spool_path(spool)
    there = [_readable(destination, path) for destination in all_of(path)]
    if not there:
        raise Refusal(_nothing_in(path))
    return there


def _readable(destination: Destination, spool: Path) -> Destination:
    path = destination.directory.path
    if not os.access(path, os.R_OK | os.X_OK):
        raise Refusal(f"{path} cannot be read by this user; {_as_its_owner(spool)}")
    return destination


def _nothing_in(spool: Path) -> str:
    return f"no events recorded in {spool}. {ELSEWHERE}"


def settings_of(spool: Path | None) -> Settings:
    """
    Return the settings of the environment, as the application reads them.

    Raises:
        Refusal: they cannot be used, or switch metering off.
    """
    try:
        settings = Settings.read(spool_dir=spool)
    except ConfigurationError as error:
        raise Refusal(str(error)) from None
    if not settings.enabled:
        raise Refusal("CMDRDATA_ENABLED switches metering off here, so there is no destination")
    return settings


def prepared(spool: Path, endpoint: str | None, account: str) -> Directory:
    """
    Return the directory of a destination, made where it is not there yet.

    Raises:
        Refusal: it cannot be used.
    """
    try:
        return Directory.prepare(spool, endpoint, account)
    except (UnsafeDirectoryError, OSError) as error:
        raise Refusal(f"the spool directory cannot be used: {error}") from None


def require_owner(path: Path) -> None:
    """
    Make sure that what a command writes can be read by the application.

    Raises:
        Refusal: the directory belongs to another user.
    """
    if path.stat().st_uid != os.geteuid():
        raise Refusal(
            f"{path} belongs to another user; {_as_its_owner(path)}, "
            "so that the application can read what is written"
        )


def _of_environment(spool: Path) -> tuple[str, str]:
    try:
        settings = settings_of(spool)
    except Refusal as error:
        raise Refusal(f"{error.message}. Or choose a destination with --destination NAME") from None
    return settings.target.name, settings.destination


def _as_its_owner(path: Path) -> str:
    import pwd  # not where Windows, which has none, shall still run the demo

    owner = path.stat().st_uid
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"#{owner}"
    return f"run the command as its owner: sudo -u {name} cmdrdata ..."
