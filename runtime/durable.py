"""Files and folders that are on the disk when a function returns, even if the power fails then. All raise `OSError`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["make_folder", "move", "patiently", "sync", "sync_tree", "try_lock", "write_new", "write_whole"]

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


def patiently(work: Callable[[], object]) -> None:
    """Rename or remove files by `work`, which on Windows is tried again for 3 s.

    There a file that another program has open can be neither renamed nor removed, and virus scanners open new files.
    """
    for pause_s in _PAUSES_S if sys.platform == "win32" else ():
        with suppress(PermissionError):
            work()
            return
        time.sleep(pause_s)
    work()


def try_lock(descriptor: int, shared: bool = False) -> bool:
    """Lock a file until it is closed; return False if another process has locked it. On Windows `shared` locks nothing.

    Raises OSError for a file system without locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            if not shared:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the second is Windows'
        return False
    return True


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk. Windows has no wait for a folder."""
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and the files in it are on the disk. It has no folders in it."""
    for path in sorted(folder.iterdir()):
        sync(path)
    sync(folder)


def move(source: Path, target: Path) -> None:
    """Give a synced file or folder its final name; a file there is replaced. It is on the disk then."""
    patiently(lambda: source.replace(target))
    sync(target.parent)


def make_folder(folder: Path) -> None:
    """Make a folder that only this user can read, if it is not there, so that it is on the disk."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(folder.parent)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that nobody reads yet. Its name is on the disk after `move`, or after its folder is synced."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file by temporary file and rename, so that a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_new(temporary, data)
        move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
