"""What a file system must do for a spool directory, and how its locks are taken."""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import re
from pathlib import Path

from cmdrdata_exporter import faults

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|afs|ceph|glusterfs|lustre|beegfs|fuse\.(sshfs|s3fs|gcsfuse|ceph.*|glusterfs)"
)
"""File systems that several hosts use at once: what works on this one does not show that locks hold between them."""
_SHARED = re.compile(
    r"9p|virtiofs|fakeowner|vboxsf|prl_fs|gpfs|(fuse\.)?(grpcfuse|osxfs|juicefs|JuiceFS.*|rclone.*|vmhgfs.*)"
)
"""File systems that may be those of another machine, which does not see the locks of this one."""
_PAGE = 4096

_MOUNTS = Path("/proc/self/mountinfo")
MEND = "Set CMDRDATA_SPOOL_DIR to a directory that only this user can write"


class UnsafeDirectoryError(OSError):
    """A directory that must not be used: someone else's, a link, or on a network file system."""


def lock(descriptor: int, *, shared: bool = False) -> bool:
    """Say whether the lock of an open file could be had at once. It ends when its last descriptor is closed."""
    import fcntl  # not where Windows, which has none, must get as far as to be refused

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_network(path: Path) -> None:
    """
    Make sure that a file system is not that of a network.

    Raises:
        UnsafeDirectoryError: it is.
    """
    system = _file_system(path)
    if _NETWORK.fullmatch(system):
        raise UnsafeDirectoryError(
            f"{str(path)!r} is on {system}; locks do not hold there. {MEND}, on a local disk"
        )


def try_out(path: Path) -> None:
    """
    Make sure that a file system can do what journals and SQLite need: locks, and memory that processes share.

    Raises:
        OSError: it cannot.
    """
    probe = path / f"probe-{os.getpid()}-{os.urandom(4).hex()}"
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptors: list[int] = []
    try:
        descriptors.append(os.open(probe, flags | os.O_CREAT | os.O_EXCL, 0o600))
        descriptors.append(os.open(probe, flags))
        problem = _problem(*descriptors)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
            return  # That passes.
        problem = error.strerror or str(error)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            probe.unlink()
    if problem:
        system = _file_system(path) or "a file system"
        raise OSError(f"{str(path)!r} is on {system} that cannot keep events: {problem}")
    if _SHARED.fullmatch(system := _file_system(path)):
        faults.say(
            logging.WARNING,
            "%s is on %s, which other machines may share: usage events are safe there as long as only this one uses "
            "the directory. A local disk is safer",
            path,
            system,
        )


def _problem(one: int, other: int) -> str | None:
    """Return what two descriptors of one file cannot do."""
    import fcntl  # as in `lock`

    if not lock(one) or lock(other):
        return "locks do not hold there"
    # SQLite's locks; the process that has one is not refused another one.
    fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(one, fcntl.LOCK_UN)
    # All of it: what is written to a page that a full disk has no room for would end the process.
    if os.write(one, bytes(_PAGE)) != _PAGE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mmap.mmap(one, _PAGE) as mine, mmap.mmap(other, _PAGE) as theirs:
        mine[:5] = b"value"
        if theirs[:5] != b"value" or os.pread(other, 5, 0) != b"value":
            return "memory is not shared there"
    return None


def _file_system(path: Path) -> str:
    """Return the type of the file system that a path is on, empty where it cannot be known."""
    try:
        # https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return ""
    real = os.fsencode(os.path.realpath(path))
    best, system = b"", b""
    for line in lines:
        fields, _, rest = line.partition(b" - ")
        # Blanks and backslashes in it are octal.
        point = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), fields.split()[4])
        inside = real == point or real.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= len(best):
            best, system = point, rest.split()[0]
    return system.decode()
