"""The spool's folders on a local disk, its lock, and the room that is kept free on the disk."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from spinescore.runtime.durable import make_folder, patiently, try_lock
from spinescore.runtime.errors import SpineScoreError

__all__ = ["FULL", "UNWRITABLE", "Places", "disk_fault", "filesystem_of", "is_running", "locked", "make_places",
           "new_part", "remove_parts"]  # fmt: skip

FULL = (errno.ENOSPC, errno.EDQUOT) if sys.platform != "win32" else (errno.ENOSPC,)

UNWRITABLE = (errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)  # a disk that cannot be written now

_PARTS = (".part", ".results")  # of an object that is received, and of a study that is scored
_RESERVE_BYTES = 64 << 20
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs",
            "fuse.glusterfs", "beegfs")  # fmt: skip
_MOUNTS = Path("/proc/self/mountinfo")


class Places:
    """The spool's folders and files. `reserve_bytes` of its disk are never filled with objects."""

    def __init__(self, root: Path, reserve_bytes: int) -> None:
        self.root, self.reserve_bytes = root, reserve_bytes
        self.index, self.lock, self.reserve = root / "index.sqlite", root / "lock", root / "reserve.bin"
        self.incoming, self.objects = root / "incoming", root / "objects"
        self.results, self.quarantine = root / "results", root / "quarantine"
        self.console = root / "console"  # results that consoles fetch
        self.views = root / "views"  # pictures that readers look at

    def object(self, sha256: str) -> Path:
        return self.objects / sha256[:2] / f"{sha256}.dcm"

    def quarantined(self, sha256: str) -> Path:
        return self.quarantine / f"{sha256}.dcm"

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def has_room(self, byte_count: int = 0) -> bool:
        """Return whether so many more bytes leave the reserve free."""
        return self.free_bytes() - byte_count >= self.reserve_bytes

    def release_reserve(self) -> None:
        """Remove the reserve file, so that the index can commit on a full disk."""
        self.reserve.unlink(missing_ok=True)

    def fill_reserve(self) -> None:
        """Write the reserve file if it is missing, a part of the reserve, and there is room."""
        if self.reserve.exists() or self.reserve_bytes < _RESERVE_BYTES or not self.has_room(2 * _RESERVE_BYTES):
            return
        part = self.incoming / "reserve.part"
        try:
            with part.open("wb") as file:
                if sys.platform != "win32":
                    os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
            part.replace(self.reserve)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno not in FULL:
                raise


def new_part(incoming: Path, suffix: str) -> Path:
    """Return a new path in `incoming/` that names this process, so that it is removed if the process is killed."""
    return incoming / f"{os.getpid()}-{uuid.uuid4().hex}{suffix}"


def remove_parts(places: Places, running: Collection[int | None]) -> None:
    """Remove the parts of processes that have ended; `running` are the numbers of those that have not."""
    for path in places.incoming.iterdir():
        owner = path.name.partition("-")[0]
        if path.suffix in _PARTS and owner.isdecimal() and int(owner) not in running:
            patiently(partial(shutil.rmtree, path) if path.is_dir() else partial(path.unlink, missing_ok=True))


def make_places(root: Path, reserve_bytes: int) -> Places:
    """Make the spool's folders. Raises SpineScoreError for a disk on the network, or folders on different disks."""
    if fault := disk_fault(root):
        raise SpineScoreError(fault)
    make_folder(root)
    places = Places(root, reserve_bytes)
    for folder in (places.incoming, places.objects, places.results, places.quarantine, places.console,
                   places.views):  # fmt: skip
        make_folder(folder)
        if folder.stat().st_dev != root.stat().st_dev:
            raise SpineScoreError(f"{folder} is on another disk than {root}; keep all of the spool on one disk")
    return places


def disk_fault(root: Path) -> str | None:
    """Return a sentence if the spool's disk is one of the network, or is mounted for reading alone; None if not."""
    here = next(path for path in (root, *root.parents) if path.exists())
    if sys.platform != "win32" and os.statvfs(here).f_flag & os.ST_RDONLY:
        return f"the spool {root} cannot be written (Read-only file system); mount its disk so that it can be written"
    kind = filesystem_of(root)
    if kind not in _NETWORK:
        return None
    return (
        f"the spool {root} is on a disk of the network ({kind}), where the index could be damaged; name a folder on a "
        "local disk"
    )


def filesystem_of(path: Path, mounts: str | None = None) -> str:
    """Return the kind of file system that a folder is on; empty if the system does not say."""
    if mounts is None:
        mounts = _MOUNTS.read_text(errors="replace") if _MOUNTS.exists() else ""
    resolved, kinds = path.resolve(), {}
    for line in mounts.splitlines():  # 36 35 98:0 / /mount/point options .. - kind source options
        before, separator, after = line.partition(" - ")
        words = before.split()
        if separator and len(words) > 4:
            point = Path(words[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
            if resolved == point or point in resolved.parents:
                kinds[len(point.parts)] = after.split()[0]  # a later mount covers an earlier one
    return kinds[max(kinds)] if kinds else ""


@contextmanager
def locked(places: Places, wait_s: float = 5.0) -> Iterator[int]:
    """Hold the spool for one service; yield the lock's descriptor, which its processes inherit.

    The lock lasts until all of them have ended, so that a new service never works beside processes of an old one.
    Raises SpineScoreError if another service still holds it after `wait_s` seconds.
    """
    try:
        descriptor = os.open(places.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        text = f"the spool {places.root} cannot be written ({error.strerror})"
        raise SpineScoreError(f"{text}; mount its disk so that it can be written, or correct its permissions") from None
    give_up_s = time.monotonic() + wait_s
    try:
        while not try_lock(descriptor):
            if time.monotonic() < give_up_s:
                time.sleep(0.05)
                continue
            raise SpineScoreError(
                f"another service, or a process of one that is ending, works on the spool {places.root}; end it first "
                "or name another spool"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def is_running(places: Places) -> bool:
    if not places.lock.exists():
        return False
    descriptor = os.open(places.lock, os.O_RDONLY)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)
