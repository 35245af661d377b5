"""`cmdrdata reconcile`: what was recorded here beside what OpenAI counts."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cmdrdata_exporter.cli.days import day_option
from cmdrdata_exporter.cli.destination import (
    Refusal,
    ledger_option,
    location_options,
    places,
)
from cmdrdata_exporter.cli.reconcile import api, ours, report
from cmdrdata_exporter.cli.reconcile.compare import compare
from cmdrdata_exporter.cli.reconcile.documents import Documents
from cmdrdata_exporter.cli.reconcile.keys import Keys, read_keys
from cmdrdata_exporter.cli.reconcile.lines import DIMENSIONS, LayoutError, Theirs
from cmdrdata_exporter.cli.terminal import ATTENTION, Terminal, plural, print_json, say
from cmdrdata_exporter.key_hash import SHOWN

DAYS = 30
"""How many days are asked of the API where nothing else is said."""


def _dimensions(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Read names that are separated by commas."""
    names = {name.strip() for name in value.split(",")}
    wrong = sorted(names - {*DIMENSIONS})
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is none of: {', '.join(DIMENSIONS)}", ctx, param)
    return tuple(name for name in DIMENSIONS if name in names)


_existing = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("files", nargs=-1, type=_existing)
@click.option("--from-api", is_flag=True, help="Ask OpenAI's usage API, with OPENAI_ADMIN_KEY.")
@click.option("--base-url", metavar="URL", help="Where that API is, if not at OpenAI.")
@click.option(
    "--by",
    callback=_dimensions,
    default="day,model",
    metavar="COLUMNS",
    help=f"What to compare by: {', '.join(DIMENSIONS)}. Default: day,model.",
)
@day_option(
    "--since", "The first UTC day. Default: the first that they have; of the API, 30 days ago."
)
@day_option(
    "--until",
    "The last UTC day. Default: the last that they have; of the API, yesterday.",
    last=True,
)
@click.option("--keys", "keys_file", type=_existing, help="Their list of keys, to compare by key.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="A further host whose usage OpenAI charges, a gateway for instance.",
)
@click.option(
    "--check",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Exit with status 1 if less than this is covered of a unit that is charged.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print one line per row and unit instead.")
@location_options
@ledger_option
def reconcile(
    *,
    files: tuple[Path, ...],
    from_api: bool,
    base_url: str | None,
    by: tuple[str, ...],
    since: str | None,
    until: str | None,
    keys_file: Path | None,
    hosts: tuple[str, ...],
    check: float | None,
    as_csv: bool,
    as_json: bool,
    name: str | None,
    spool: Path | None,
    url: str | None,
) -> None:
    """
    Compare what was recorded with what OpenAI counts.

    FILES are exports of OpenAI's usage page (CSV), or pages of its usage API (JSON). Only usage at
    api.openai.com counts. For each row: theirs, ours, and what is known of the difference; what
    nothing explains is said to be unexplained.

    Example: cmdrdata reconcile completions_usage_2026-11-01_2026-11-30.csv
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    if from_api == bool(files):
        raise click.UsageError("give either files of OpenAI's usage, or --from-api")
    if base_url is not None and not from_api:
        raise click.UsageError("--base-url is for --from-api")
    if "key" in by and keys_file is None and not from_api:
        raise click.UsageError(
            "--by key needs --keys FILE, or --from-api: a file of usage has ids of keys, events have hashes"
        )
    if since is not None and until is not None:
        _require_order(since, until)
    destinations = places(url, spool, name)
    try:
        keys = Keys() if keys_file is None else read_keys(keys_file)
        if from_api:
            first, last = since or _ago(DAYS), until or _ago(1)
            _require_order(first, last)
            theirs, keys = _from_api(base_url, by, first, last, keys if keys_file else None)
            source = "OpenAI's usage API"
        else:
            theirs = _from_files(files, by, keys, since, until)
            source = files[0].name if len(files) == 1 else f"{len(files)} files of OpenAI's usage"
        if keys.unknown:
            theirs.notes.append(
                f"Of {plural(keys.unknown, 'key')} fewer than {SHOWN} characters are shown: "
                "its usage there is under its id, and here under its hash."
            )
        days = _days(theirs)
        since, until = since or days[0], until or days[-1]
        read_by = tuple(name for name in DIMENSIONS if name in (*by, "day"))
        mine = ours.read(destinations, read_by, since=since, until=until)
        found = compare(theirs, mine, by, hosts=hosts, today=_ago(0))
    except LayoutError as error:
        raise Refusal(str(error)) from None
    whole = report.Report(
        found,
        source,
        [one.name for one in destinations],
        since,
        until,
        mine.outside,
        keys.name_of,
    )
    _print(whole, as_csv=as_csv, as_json=as_json)
    if check is not None and (found.lowest is None or found.lowest * 100 < check):
        covered = "nothing" if found.lowest is None else report.share(found.lowest)
        say(f"Covered is {covered}; expected is {check:g} % or more.", err=True)
        click.get_current_context().exit(ATTENTION)


def _require_order(since: str, until: str) -> None:
    if since > until:
        raise click.UsageError(f"--since {since} is after --until {until}")


def _print(whole: report.Report, *, as_csv: bool, as_json: bool) -> None:
    if as_json:
        print_json(report.as_json(whole))
    elif as_csv:
        click.echo(report.as_csv(whole), nl=False)
        for note in whole.found.notes:
            say(f"Note: {note}", err=True)
    else:
        report.show(Terminal(), whole)


def _days(theirs: Theirs) -> list[str]:
    """Return the days of which there is anything, the first one first."""
    days = sorted(day for found in theirs.days.values() for day in found)
    if not days:
        raise LayoutError(
            "in what was given there is neither usage nor a day without usage, of this time"
        )
    return days


def _from_files(
    files: Sequence[Path], by: tuple[str, ...], keys: Keys, since: str | None, until: str | None
) -> Theirs:
    documents, theirs = Documents(), Theirs(by, keys.hash_of)
    for path in files:
        theirs.add(documents.file(path), since=since, until=until)
    theirs.notes += documents.finish()
    return theirs


def _from_api(
    base_url: str | None, by: tuple[str, ...], since: str, until: str, keys: Keys | None
) -> tuple[Theirs, Keys]:
    """Return what the API says, and the keys; its progress is shown to whoever looks at a terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task("usage", total=1.0)

    def show(text: str, share: float) -> None:
        bar.update(task, description=text, completed=share)

    with bar, api.UsageApi(base_url, show) as usage:
        if keys is None:
            keys = usage.keys() if "key" in by else Keys()
        theirs = Theirs(by, keys.hash_of)
        theirs.add(usage.lines(by, since, until), since=since, until=until)
        theirs.notes += usage.documents.finish()
        return theirs, keys


def _ago(days: int) -> str:
    """Return a UTC day."""
    now = dt.datetime.fromtimestamp(time.time(), dt.timezone.utc)
    return str(now.date() - dt.timedelta(days=days))
