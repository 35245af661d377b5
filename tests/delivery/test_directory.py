"""The directory of a destination: whose it is, what it is called, who leads there."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.delivery.destination import Destination
from cmdrdata_exporter.delivery.spool import directory as directory_module
from cmdrdata_exporter.delivery.spool import file_systems as module
from cmdrdata_exporter.delivery.spool.directory import Directory, destinations
from cmdrdata_exporter.delivery.spool.file_systems import UnsafeDirectoryError, lock
from cmdrdata_exporter.descriptors import OpenFile
from tests.delivery.samples import open_files


@pytest.mark.parametrize(
    ("endpoint", "account", "name"),
    [
        (None, "whatever", "local"),
        ("https://host/events", "default", "default-"),
        ("https://host/events", "../..", "_..-"),
        ("https://host/events", "...", "account-"),
        ("https://host/events", "ac\u00e9 me/" + "x" * 99, "ac__me_" + "x" * 33 + "-"),
    ],
)
def test_names(endpoint: str | None, account: str, name: str) -> None:
    """A name says the account as well as a file's name can, and is never a path."""
    found = Destination(endpoint, account).name
    assert found.rpartition("-")[0] == name.rpartition("-")[0]
    assert "/" not in found
    assert found == Destination(endpoint, account).name


def test_no_two_destinations_share_a_name() -> None:
    """Endpoint and account both make the destination, and so does the case of their letters."""
    names = [
        Destination(*destination).name
        for destination in (
            ("https://a/", "b"),
            ("https://a/", "B"),
            ("https://A/", "b"),
            ("https://a/b", ""),
            ("https://a/", "b/"),
        )
    ]
    assert len({name.rpartition("-")[2] for name in names}) == len(names)


def test_a_new_directory(tmp_path: Path) -> None:
    """What is made is ours alone and says what it is for, without the query of the endpoint."""
    os.umask(os.umask(0))
    made = Directory.prepare(tmp_path / "a" / "spool", "https://host/events?token=1", "acme")
    again = Directory.prepare(tmp_path / "a" / "spool", "https://host/events?token=1", "acme")
    assert made.path == again.path
    assert [path.name for path in made.path.iterdir()] == ["destination.json"]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (made.path.parent, made.path)]
    assert modes == [0o700, 0o700]
    description = made.path / "destination.json"
    assert stat.S_IMODE(description.stat().st_mode) == 0o600
    assert json.loads(description.read_text()) == {
        "endpoint": "https://host/events",
        "account": "acme",
    }
    assert [(d.path, *rest) for d, *rest in destinations(tmp_path / "a" / "spool")] == [
        (made.path, "https://host/events", "acme")
    ]


def test_destinations_that_are_none(tmp_path: Path) -> None:
    """What is no description of ours is no destination."""
    for name, text in (("a", "no JSON"), ("b", "{}"), ("c", "[]"), ("d", "7")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "destination.json").write_text(text)
    (tmp_path / "e" / "destination.json").mkdir(parents=True)
    assert list(destinations(tmp_path)) == []
    assert list(destinations(tmp_path / "nowhere")) == []


def test_a_directory_that_others_may_read(tmp_path: Path) -> None:
    """A directory of ours that others may look into is closed to them."""
    made = Directory.prepare(tmp_path, None, "default")
    made.path.chmod(0o755)
    Directory.prepare(tmp_path, None, "default")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700


def unsafe(spool: Path) -> str:
    """Return why a spool directory is refused."""
    with pytest.raises(UnsafeDirectoryError) as raised:
        Directory.prepare(spool, "https://host/", "default")
    return str(raised.value)


MEND = "Set CMDRDATA_SPOOL_DIR to a directory that only this user can write"


def test_a_file_in_its_place(tmp_path: Path) -> None:
    """What is no directory is refused."""
    (tmp_path / "spool").touch()
    assert unsafe(tmp_path / "spool") == (
        f"'{tmp_path}/spool' is no directory; events are kept in real directories. {MEND}"
    )


def test_a_link_in_its_place(tmp_path: Path) -> None:
    """A link, which someone may turn elsewhere, is refused; so is one in place of a destination's directory."""
    (tmp_path / "real").mkdir()
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "spool" / Destination("https://host/", "default").name).symlink_to(
        tmp_path / "real"
    )
    assert "is a symbolic link" in unsafe(tmp_path / "spool")
    assert list((tmp_path / "real").iterdir()) == []


def test_a_directory_that_others_may_write(tmp_path: Path) -> None:
    """Where others may write, they could put what is delivered under our key."""
    tmp_path.chmod(0o770)
    assert unsafe(tmp_path) == f"'{tmp_path}' can be written by other users. {MEND} (chmod 700)"


def test_the_directory_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to someone else is refused."""
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert unsafe(tmp_path) == (
        f"'{tmp_path}' belongs to user {owner}, this process is user {owner + 1}. {MEND}, for instance a new one "
        "inside it"
    )


MOUNTS = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / %s rw,relatime shared:9 master:2 - %s server:/export rw,vers=4.2
"""


@pytest.mark.parametrize(
    ("system", "refused"),
    [
        (b"nfs4", True),
        (b"virtiofs", False),
        (b"fuse.rclone", False),
        (b"cifs", True),
        (b"fuse.sshfs", True),
        (b"9p", False),
        (b"xfs", False),
        (b"overlay", False),
        (b"fuse.mergerfs", False),
    ],
)
@pytest.mark.parametrize("name", ["plain", "two words", "donn\u00e9es", "back\\slash"])
def test_network_file_systems(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, system: bytes, refused: bool, name: str
) -> None:
    """Where locks do not hold nothing is kept, whatever the mount point is called; where they may not, that is said."""
    point = os.fsencode(tmp_path / name)
    escaped = point.replace(b"\\", rb"\134").replace(b" ", rb"\040")
    mounts = tmp_path / "mountinfo"
    # Some mount point has a name that is no UTF-8.
    mounts.write_bytes(MOUNTS % (escaped, system) + MOUNTS % (b"/mnt/\xff", b"tmpfs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOUNTS", mounts)
        if refused:
            assert unsafe(tmp_path / name) == (
                f"{str(tmp_path / name)!r} is on {system.decode()}; locks do not hold there. {MEND}, on a local disk"
            )
            return
        Directory.prepare(tmp_path / name, "https://host/", "default")
        shared = system in (b"9p", b"virtiofs", b"fuse.rclone")
        assert ["which other machines may share" in text for text in caplog.messages] == [
            True
        ] * shared


def test_where_mounts_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS, which has no such list, any file system will do."""
    monkeypatch.setattr(module, "_MOUNTS", tmp_path / "nowhere")
    Directory.prepare(tmp_path / "spool", "https://host/", "default")


def test_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows is refused in so many words."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert unsafe(tmp_path) == "Windows is not supported; Linux and macOS are"


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no home directory, nothing can be kept, which is no mistake of a setting."""

    def nowhere(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    with pytest.raises(OSError, match="home directory") as raised:
        Directory.prepare(Path("~/spool"), None, "default")
    assert not isinstance(raised.value, UnsafeDirectoryError)


def test_a_directory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only file system shows when the directory is prepared, not with the first event."""
    Directory.prepare(tmp_path, None, "default")

    def no_access(path: Path, mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", no_access)
    with pytest.raises(PermissionError, match="cannot be written"):
        Directory.prepare(tmp_path, None, "default")


def test_a_full_disk_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A description that could not be written leaves nothing behind, and is written the next time."""

    def full(source: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space left"):
            Directory.prepare(tmp_path, None, "default")
    assert list((tmp_path / "local").iterdir()) == []
    made = Directory.prepare(tmp_path, None, "default")
    assert json.loads((made.path / "destination.json").read_text()) == {
        "endpoint": None,
        "account": "default",
    }


def test_one_leads(directory: Directory) -> None:
    """Of several that try to lead one does, until it lets go; commands see its process, and disturb nobody."""
    assert directory.leader() is None
    first = directory.try_to_lead()
    assert first is not None
    assert directory.try_to_lead() is None
    assert directory.leader() == os.getpid()
    lock_path = directory.path / "lock"
    assert OpenFile(first).is_at(lock_path)
    os.close(first)
    assert directory.leader() is None
    second = directory.try_to_lead()
    assert second is not None
    lock_path.unlink()
    assert not OpenFile(second).is_at(lock_path)
    os.close(second)


def test_a_leader_of_which_nothing_is_known(directory: Directory) -> None:
    """A lock file without an id in it has a leader all the same."""
    descriptor = directory.try_to_lead()
    assert descriptor is not None
    os.ftruncate(descriptor, 0)
    assert directory.leader() == 0
    os.close(descriptor)


def test_leading_on_a_full_disk(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the lock leads, even where its id cannot be written: a lock that nobody knows of would be for ever."""

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        descriptor = directory.try_to_lead()
    assert descriptor is not None
    os.close(descriptor)


def test_a_file_system_without_locks(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of locking is told, and leaves nothing open."""

    def none(descriptor: int) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    before = open_files(directory)
    monkeypatch.setattr(directory_module, "lock", none)
    with pytest.raises(OSError, match="No locks"):
        directory.try_to_lead()
    assert open_files(directory) == before


def test_files(directory: Directory) -> None:
    """Files are ours alone and never links; journals are listed the oldest first."""
    for name in ("2.journal", "1.journal", "3.journal.new"):
        descriptor = directory.create(name)
        os.write(descriptor, b"12345")
        os.close(descriptor)
        assert stat.S_IMODE((directory.path / name).stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        directory.create("1.journal")
    (directory.path / "link").symlink_to(directory.path / "1.journal")
    with pytest.raises(OSError, match="symbolic links"):
        directory.open_or_create("link")
    (directory.path / "link").unlink()
    assert [path.name for path in directory.journals()] == ["1.journal", "2.journal"]
    description = (directory.path / "destination.json").stat().st_size
    assert directory.size() == 15 + description
    directory.sync()


def test_a_directory_that_is_gone(directory: Directory) -> None:
    """What was removed has no size and is made anew, with its description; what took its place is checked."""
    (directory.path / "destination.json").unlink()
    directory.path.rmdir()
    assert directory.size() == 0
    directory.check()
    assert [path.name for path in directory.path.iterdir()] == ["destination.json"]
    (directory.path / "destination.json").unlink()
    directory.path.rmdir()
    directory.path.symlink_to(directory.path.parent)
    with pytest.raises(UnsafeDirectoryError, match="is a symbolic link"):
        directory.check()


def test_locks(tmp_path: Path) -> None:
    """A lock is had once, or shared, and ends with its last descriptor."""
    path = tmp_path / "file"
    path.touch()
    one, other = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    assert lock(one)
    assert not lock(other)
    copy = os.dup(one)
    os.close(one)
    assert not lock(other, shared=True)
    os.close(copy)
    assert lock(other, shared=True)
    os.close(other)


def test_what_counts(directory: Directory) -> None:
    """Copies of damaged ledgers and usage totals take nothing of what events may have."""
    before = directory.size()
    for name in ("ledger.db", "ledger.db.broken-1-ab", "ledger.db.broken-1-ab-wal"):
        (directory.path / name).write_bytes(bytes(1000))
    assert directory.size() == before + 1000
    directory.note_totals(900)
    directory.note_totals(600)
    assert directory.size() == before + 400 + len("600")
    (directory.path / "totals.size").write_text("garbage")
    assert directory.size() == before + 1000 + len("garbage")
    directory.note_totals(10**9)
    assert directory.size() == 0


def test_a_file_system_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides is what a file system can do, not its name; where it cannot, events are not kept there."""

    def fails(number: int) -> Callable[..., Any]:
        def fail(*_: object, **__: object) -> Any:
            raise OSError(number, os.strerror(number))

        return fail

    def returns(value: object) -> Callable[..., object]:
        def returning(*_: object) -> object:
            return value

        return returning

    def reason() -> str:
        with pytest.raises(OSError, match="cannot keep events") as raised:
            Directory.prepare(tmp_path, None, "default")
        assert not isinstance(raised.value, UnsafeDirectoryError)
        return str(raised.value).partition("cannot keep events: ")[2]

    def always(descriptor: int) -> bool:
        return True

    with monkeypatch.context() as patch:
        patch.setattr(module, "lock", always)
        assert reason() == "locks do not hold there"
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.lockf", fails(errno.ENOLCK))
        assert reason() == "No locks available"
    with monkeypatch.context() as patch:
        patch.setattr("mmap.mmap", fails(errno.ENODEV))
        assert reason() == "No such device"
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", returns(b"older"))
        assert reason() == "memory is not shared there"
    assert [path.name for path in tmp_path.iterdir()] == []
    # A full disk says nothing of it.
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", returns(7))
        module.try_out(tmp_path)
    Directory.prepare(tmp_path, None, "default")
    assert [path.name for path in tmp_path.iterdir()] == ["local"]
