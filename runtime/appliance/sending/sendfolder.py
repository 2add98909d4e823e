"""A folder as a destination of results."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from spinescore.runtime import durable
from spinescore.runtime.appliance.sending.delivery import SENT, Outcome, Parcel
from spinescore.runtime.files import file_sha256

__all__ = ["FolderDestination"]

_PARTS = ".spinescore-parts"


class FolderDestination:
    """Puts results into `FOLDER/<study instance UID>/revision-<n>/`; each file appears whole, and is on the disk.

    Files and folders can be read by those that can read `FOLDER` itself.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder

    def clear(self) -> None:
        """Remove parts that an earlier process left."""
        for path in (self._folder / _PARTS).glob("*"):
            path.unlink(missing_ok=True)

    def send(self, parcel: Parcel) -> Outcome:
        """Write the file. A folder that is missing or full may be there again later."""
        if not self._folder.is_dir():
            return Outcome("later", f"there is no folder {self._folder}")
        target = self._target(parcel)
        part = self._folder / _PARTS / f"{uuid.uuid4().hex}.part"
        try:
            mode = self._folder.stat().st_mode & 0o777
            for folder in (part.parent, target.parent.parent, target.parent):
                if not folder.is_dir():
                    durable.make_folder(folder)
                    folder.chmod(mode)
            shutil.copyfile(parcel.path, part)
            part.chmod(mode & 0o666)
            durable.sync(part)
            durable.move(part, target)
        except OSError as error:
            part.unlink(missing_ok=True)
            return Outcome("later", f"the folder {self._folder} cannot be written ({error.strerror})")
        return SENT

    def holds(self, parcel: Parcel) -> bool:
        """Return whether the very same file is there. Raises `ConnectionError` if the folder is not."""
        if not self._folder.is_dir():
            raise ConnectionError(f"there is no folder {self._folder}")
        target = self._target(parcel)
        return target.is_file() and file_sha256(target) == parcel.sha256

    def rest(self) -> None:
        """A folder is held by nothing."""

    def _target(self, parcel: Parcel) -> Path:
        uid = parcel.study_instance_uid
        safe = uid if uid.replace(".", "").isalnum() and uid.isascii() and uid.strip(".") == uid else uid.encode().hex()
        return self._folder / safe / f"revision-{parcel.revision}" / parcel.path.name
