"""
The directory of one destination: whose it is, and what its files are called.

    <spool>/<account>-<digest>/
        destination.json   which endpoint and account, for the commands; never a key
        lock               held by the process that drains
        ledger.db          SQLite, with ledger.db-wal and ledger.db-shm
        ledger.db.broken-* a ledger that was damaged, for whoever wants to look at it
        index.sqlite       SQLite: by which ids an event is found; with the same files beside it
        totals.size        how many bytes of the ledger are usage totals
        *.journal          one per process that recorded something lately

Directories have mode 0700 and files 0600. Whatever belongs to someone else is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery.destination import LOCAL, Destination
from cmdrdata_exporter.delivery.spool.file_systems import (
    MEND,
    UnsafeDirectoryError,
    lock,
    refuse_network,
    try_out,
)

LEDGER = "ledger.db"
LOCK = "lock"
DESCRIPTION = "destination.json"
JOURNAL = ".journal"
NEW = ".new"
"""Ends the name of a file that is not complete yet."""
BROKEN = f"{LEDGER}.broken-"
"""How the names of damaged ledgers begin, which count for nothing."""
TOTALS = "totals.size"
INDEX = "index.sqlite"

RESERVE = 1 << 20
"""Bytes of the disk that new events leave free, so that what becomes of the others can be committed."""


class Directory:
    """
    One destination's directory. Made by `prepare` or, for what only reads, by its path.

    Args:
        path: where it is.
        description: which destination it is, for whoever looks at it.
    """

    def __init__(self, path: Path, description: dict[str, str | None] | None = None) -> None:
        self.path = path
        # Made once, as whatever is looked at often: making a path takes longer than the look.
        self.lock = path / LOCK
        self._totals = path / TOTALS
        self._description = description

    @property
    def is_local(self) -> bool:
        """Whether its events stay on this host."""
        return self.path.name == LOCAL

    @classmethod
    def prepare(cls, spool: Path, endpoint: str | None, account: str) -> Directory:
        """
        Make the directory of a destination, or check that the one that is there may be used.

        Args:
            spool: the directory that holds those of all destinations.
            endpoint: where events are posted; None for `local`.
            account: the name of the account there.

        Raises:
            UnsafeDirectoryError: it must not be used.
            OSError: it cannot be made or written.
        """
        if sys.platform == "win32":
            raise UnsafeDirectoryError("Windows is not supported; Linux and macOS are")
        try:
            spool = spool.expanduser().absolute()
        except RuntimeError as error:  # Some containers' users have no home.
            raise OSError(str(error)) from None
        spool.parent.mkdir(parents=True, exist_ok=True)
        _make(spool)
        refuse_network(spool)
        try_out(spool)
        destination = Destination(endpoint, account)
        directory = cls(
            spool / destination.name,
            {"endpoint": destination.shown_endpoint, "account": account},
        )
        _make(directory.path)
        if stat.S_IMODE(directory.path.lstat().st_mode) != 0o700:
            directory.path.chmod(0o700)
        if not os.access(directory.path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"{directory.path} cannot be written")
        directory._describe()
        return directory

    def _describe(self) -> None:
        description = self.path / DESCRIPTION
        if self._description is None or description.exists():
            return
        temporary = self.path / f"{DESCRIPTION}.{os.getpid()}-{os.urandom(4).hex()}"
        try:
            with os.fdopen(self.create(temporary.name), "w") as file:
                json.dump(self._description, file)
            temporary.rename(description)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def check(self) -> None:
        """
        Make sure that it is still there and ours, making it anew where it is gone.

        Raises:
            UnsafeDirectoryError: it is something else now.
            OSError: it cannot be made.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(self.path.parent)
        _make(self.path)
        self._describe()

    def create(self, name: str) -> int:
        """Create a file of ours and return its descriptor, for writing at its end."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self.path / name, flags, 0o600)

    def open_or_create(self, name: str) -> int:
        """Open a file of ours that may be there already."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self.path / name, flags, 0o600)

    def try_to_lead(self) -> int | None:
        """Return the descriptor of the lock if this process has it now; None where another one has it."""
        descriptor = self.open_or_create(LOCK)
        try:
            if not lock(descriptor):
                os.close(descriptor)
                return None
        except OSError:
            os.close(descriptor)
            raise
        # Who leads is only told; a full disk does not keep this process from it.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        return descriptor

    def leader(self) -> int | None:
        """Return the id of the process that drains, None where none does. For commands."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if lock(descriptor, shared=True):
                return None
            text = os.pread(descriptor, 32, 0).strip()
            return int(text) if text.isdigit() else 0
        finally:
            os.close(descriptor)

    def journals(self) -> list[Path]:
        """Return the journals, the oldest first."""
        return [self.path / name for name in self.journal_names()]

    def journal_names(self) -> list[str]:
        """Return the names of the journals, the oldest first."""
        with os.scandir(self.path) as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(JOURNAL))

    def size(self) -> int:
        """
        Return how many bytes events take.

        What stays for ever counts for nothing, since no event may be refused for its sake: usage totals and the copies
        of damaged ledgers. Nor does the index, which has a bound of its own.
        """
        total = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.name.startswith((BROKEN, INDEX)):
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
        with contextlib.suppress(OSError, ValueError):
            total -= int(self._totals.read_bytes())
        return max(0, total)

    def note_totals(self, size: int) -> None:
        """Let all processes know how many bytes of the ledger are usage totals. The process that leads does."""
        temporary = self.path / f"{TOTALS}{NEW}"
        temporary.unlink(missing_ok=True)
        with os.fdopen(self.create(temporary.name), "wb") as file:
            file.write(b"%d" % size)
        temporary.rename(self._totals)

    def log_size(self, database: str = LEDGER) -> int:
        """Return how many bytes the log of SQLite has, of the ledger if no database is named."""
        try:
            return (self.path / f"{database}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def free(self) -> int:
        """Return how many bytes its file system has room for."""
        system = os.statvfs(self.path)
        return system.f_bavail * system.f_frsize

    def has_room(self) -> bool:
        """Return whether the disk takes new events."""
        try:
            return self.free() >= RESERVE
        except OSError as error:
            if faults.is_interruption(error):
                raise
            return True  # Whatever is wrong, the write will tell.

    def sync(self) -> None:
        """Make the names in it survive a crash of the host."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def destinations(spool: Path) -> Iterator[tuple[Directory, str | None, str]]:
    """Yield the directories of all destinations under `spool`, each with its endpoint and account."""
    spool = spool.expanduser()
    for description in sorted(spool.glob(f"*/{DESCRIPTION}")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            content = json.loads(description.read_text())
            yield Directory(description.parent), content["endpoint"], content["account"]


def unusable(spool: Path) -> str | None:
    """Say why a process of this user would not keep events in a spool directory; None where it would. For commands."""
    if not os.path.lexists(spool):
        nearest = next(path for path in spool.parents if path.exists())
        can = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        return None if can else f"{str(spool)!r} cannot be made by this user. {MEND}"
    try:
        _check(spool)
        refuse_network(spool)
    except UnsafeDirectoryError as error:
        return str(error)
    if not os.access(spool, os.R_OK | os.W_OK | os.X_OK):
        return f"{str(spool)!r} cannot be written. {MEND}"
    return None


def _make(path: Path) -> None:
    """Make a directory that is ours alone, or check the one that is there."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    _check(path)


def _check(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no directory"
        raise UnsafeDirectoryError(
            f"{str(path)!r} is {what}; events are kept in real directories. {MEND}"
        )
    if found.st_uid != os.geteuid():
        raise UnsafeDirectoryError(
            f"{str(path)!r} belongs to user {found.st_uid}, this process is user {os.geteuid()}. "
            f"{MEND}, for instance a new one inside it"
        )
    if found.st_mode & 0o022:
        raise UnsafeDirectoryError(
            f"{str(path)!r} can be written by other users. {MEND} (chmod 700)"
        )
