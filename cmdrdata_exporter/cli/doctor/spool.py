"""Check of the spool directory: whether events can be kept there, and whether anybody delivers those that are."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from cmdrdata_exporter.cli.doctor.findings import ERROR, WARNING, Finding, finding_of
from cmdrdata_exporter.cli.states import UNSENT
from cmdrdata_exporter.cli.status import status_of
from cmdrdata_exporter.cli.terminal import plural, size
from cmdrdata_exporter.delivery.spool.directory import MEND, RESERVE, unusable
from cmdrdata_exporter.delivery.spool.file_systems import try_out
from cmdrdata_exporter.settings import CMDRDATA_SPOOL_DIR, Settings, applications_drain

LITTLE = 256 << 20
"""Bytes that are free, below which a disk is nearly full."""


def check(settings: Settings, spool: Path) -> Iterator[Finding]:
    """Yield what is wrong with a spool directory, for an application with these settings."""
    try:
        spool = spool.expanduser().absolute()
    except RuntimeError as error:  # There is no such user, or it has no home.
        yield _unusable(str(error))
        return
    why = unusable(spool)
    own = spool / settings.target.name
    if why is None and os.path.lexists(own):
        # Somebody else may have made it, with a command that was run as another user.
        why = unusable(own)
    if why is not None:
        what, mark, remedy = why.rpartition(f". {MEND}")
        yield _unusable(what, f"{MEND}{remedy}.") if mark else _unusable(why)
        return
    nearest = next(path for path in (spool, *spool.parents) if path.exists())
    if nearest == spool:
        yield from _modes(spool)
        try:
            try_out(spool)
        except OSError as error:
            yield _unusable(str(error))
    yield from _room(nearest)
    yield from _deliveries(settings, spool)


def _unusable(
    what: str, remedy: str = f"Set {CMDRDATA_SPOOL_DIR} to a directory on a local disk."
) -> Finding:
    return Finding.error(
        "spool-unusable",
        f"{what}. Events are kept in memory, and what is not delivered when the process ends goes to its log.",
        remedy,
    )


def _modes(spool: Path) -> Iterator[Finding]:
    """Whoever reads events learns who uses what. What is written by others is refused, see `unusable`."""
    for path in (spool, *sorted(spool.iterdir())):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            is_open = found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            if stat.S_ISDIR(found.st_mode) and is_open and found.st_uid == os.geteuid():
                yield Finding.warning(
                    "spool-open",
                    f"{path} can be entered by other users of this host.",
                    f"Run chmod 700 {shlex.quote(str(path))}.",
                )


def _room(path: Path) -> Iterator[Finding]:
    system = os.statvfs(path)
    free = system.f_bavail * system.f_frsize
    if free < LITTLE:
        full = free < RESERVE
        yield Finding(
            "disk-full",
            ERROR if full else WARNING,
            f"The disk of {path} has {size(free)} left."
            + (" New events go to the application's log." if full else ""),
            f"Make room, or set {CMDRDATA_SPOOL_DIR} to another disk.",
        )


def _deliveries(settings: Settings, spool: Path) -> Iterator[Finding]:
    """Yield what needs a person, of each destination, and those that nobody delivers."""
    own = settings.target.name
    for destination in status_of(spool)["destinations"]:
        name, events = destination["name"], destination.get("events", {})
        unsent = sum(events.get(state, 0) for state in UNSENT)
        is_led = destination.get("sending", {}).get("leader") is not None
        if unsent and not is_led and (name != own or not applications_drain()):
            whose = (
                "CMDRDATA_DRAIN is none, and no cmdrdata drain runs"
                if name == own
                else "this environment has another destination"
            )
            yield Finding.error(
                "nobody-drains",
                f"{plural(unsent, 'event')} of {name} {'waits' if unsent == 1 else 'wait'}, and no process "
                f"sends: {whose}.",
                f"Run cmdrdata flush or cmdrdata drain with its key (account {destination['account']}).",
            )
        for text in destination["attention"]:
            if "no process sends" not in text:
                yield finding_of("needs-you", WARNING, f"Destination {name}: {text}", ": ")
