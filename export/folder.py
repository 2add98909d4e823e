"""A folder that is replaced as a whole: an interrupted export leaves the old one as it was."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spinescore.runtime.bundle import MANIFEST_NAME
from spinescore.runtime.durable import try_lock, write_new
from spinescore.runtime.errors import BundleError
from spinescore.runtime.files import make_folder

__all__ = ["check_target", "replaced_folder", "write_synced"]

_DRAFT = ".part"  # how the names of drafts end


def check_target(target: Path) -> None:
    """Check that `target` may be replaced: a bundle, an empty folder or nothing. Raises `BundleError` if not."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise BundleError(f"{target} is no folder; name a new one, or a bundle to replace")
    if any(target.iterdir()) and not (target / MANIFEST_NAME).is_file():
        raise BundleError(f"{target} is a folder that holds no bundle, so it is not replaced; name another one")


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`, which replaces `target` when the block ends without an error.

    After an error it is removed, and `target` stays as it was. The exchange is two renames: a power cut between them
    leaves the old folder beside it, under a name that ends in `.old`.
    """
    check_target(target)
    target = target.absolute()
    make_folder(target.parent)
    _remove_abandoned(target)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=_DRAFT))
    held = _hold(draft)
    try:
        yield draft
        if os.name == "posix":  # mkdtemp makes folders that only the owner enters; the result follows the umask
            umask = os.umask(0)
            os.umask(umask)
            draft.chmod(0o777 & ~umask)
        _exchange(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if held is not None:
            os.close(held)


def _remove_abandoned(target: Path) -> None:
    """Remove the drafts that killed exports to the same folder left; a running export holds its own."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.*{_DRAFT}"):
        if draft.is_dir() and not draft.is_symlink() and (held := _hold(draft)) is not None:
            shutil.rmtree(draft, ignore_errors=True)
            os.close(held)


def _hold(draft: Path) -> int | None:
    """Lock the folder for this process; return the descriptor that holds the lock, or None if it is locked already."""
    if sys.platform == "win32":  # Windows cannot lock folders: drafts that were left stay
        return None
    descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
    with suppress(OSError):  # of a file system without locks
        if try_lock(descriptor):
            return descriptor
    os.close(descriptor)
    return None


def write_synced(path: Path, data: bytes) -> None:
    """Write `data`, and return when it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_new(path, data)


def _exchange(draft: Path, target: Path) -> None:
    old = draft.with_name(f"{draft.name}.old")
    replaces = target.exists()
    if replaces:
        target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        if replaces:
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
