"""A folder as a destination of results."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from contextlib import suppress
from pathlib import Path

from spinescore.runtime import durable
from spinescore.runtime.appliance.fault import Unsent
from spinescore.runtime.appliance.sending.delivery import SENT, Destination, Outcome, Parcel
from spinescore.runtime.files import file_sha256

__all__ = ["FolderDestination"]

_PARTS = ".spinescore-parts"


class FolderDestination(Destination):
    """Puts results into `FOLDER/<study instance UID>/revision-<n>/`; each file appears whole, and is on the disk.

    Files and folders can be read by those that can read `FOLDER` itself. All of them are made in a folder for parts,
    and are moved to their place: they have their group and permissions from the start.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder, self._parts = name, folder, folder / _PARTS

    def clear(self) -> None:
        """Remove parts that an earlier process left."""
        shutil.rmtree(self._parts, ignore_errors=True)

    def send(self, parcel: Parcel) -> Outcome:
        """Write the file. A folder that is full may have room later. Raises `Unsent` if the folder is not there."""
        target = self._target(parcel)
        part = self._new_part()
        try:
            durable.make_folder(self._parts)
            for folder in (target.parent.parent, target.parent):
                self._make_folder(folder)
            shutil.copyfile(parcel.path, part)
            self._share(part, 0o666)
            durable.sync(part)
            durable.move(part, target)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            return Outcome("later", f"the folder {self._folder} cannot be written ({error.strerror})")
        return SENT

    def holds(self, parcel: Parcel) -> bool:
        """Return whether the very same file is there. Raises `Unsent` if the folder is not."""
        target = self._target(parcel)
        return target.is_file() and file_sha256(target) == parcel.sha256

    def _new_part(self) -> Path:
        return self._parts / f"{uuid.uuid4().hex}.part"

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            part = self._new_part()
            part.mkdir(mode=0o700)
            self._share(part, 0o777)
            durable.move(part, folder)

    def _share(self, path: Path, mask: int) -> None:
        """Give a path the folder's group and those of its permissions that are in `mask`, if that is allowed."""
        like = self._folder.stat()
        if sys.platform != "win32":
            with suppress(OSError):
                os.chown(path, -1, like.st_gid)
        with suppress(OSError):
            path.chmod(like.st_mode & mask)

    def _target(self, parcel: Parcel) -> Path:
        """Return the place of a file. Raises `Unsent` if the folder is not there."""
        if not self._folder.is_dir():
            raise Unsent(f"there is no folder {self._folder}")
        uid = parcel.study_instance_uid
        safe = uid if uid.replace(".", "").isalnum() and uid.isascii() and uid.strip(".") == uid else uid.encode().hex()
        return self._folder / safe / f"revision-{parcel.revision}" / parcel.path.name
