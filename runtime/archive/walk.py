"""The files of an archive in a fixed order: a folder tree, or a list of paths. A walk can begin after any file.

The place of a file is a tuple: the names on its path below the folder, after the line's number for a list. Places are
compared part by part, which is the order of the walk.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spinescore.runtime.archive.layout import ArchiveError
from spinescore.runtime.files import open_regular

__all__ = ["FolderTree", "PathList", "Place", "Source", "check_there", "open_source"]

Place = tuple["str | int", ...]
_File = tuple[Place, str]  # with the path as the manifest has it

_MOST_LINE_BYTES = 1 << 16
_ITSELF: tuple[str, ...] = ()


@dataclass(frozen=True)
class FolderTree:
    """All files below `root`, without hidden ones, DICOMDIR, and the folder `without`. Links to folders are left out.

    Paths are relative to `root`, so that the tree may lie elsewhere on another machine.
    """

    root: Path
    without: Path | None = None
    kind: Literal["folder"] = "folder"

    @property
    def base(self) -> Path:
        return self.root

    def files(self, after: Place = ()) -> Iterator[_File]:
        """Yield place and path of each file after a place. A folder that cannot be listed is yielded as a file."""
        for parts in _below(self.root, tuple(map(str, after)), self.without):
            yield parts, "/".join(parts)


@dataclass(frozen=True)
class PathList:
    """The files and folders that a text file names, one a line; relative paths count from the list's folder."""

    path: Path
    without: Path | None = None
    kind: Literal["list"] = "list"

    @property
    def base(self) -> Path:
        return self.path.parent

    def files(self, after: Place = ()) -> Iterator[_File]:
        """Yield place and path of each file after a place. Raises OSError if the list cannot be read."""
        first = int(after[0]) if after else 0
        with io.BufferedReader(open_regular(self.path)) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_MOST_LINE_BYTES), b""), 1):
                name = os.fsdecode(line.strip(b"\r\n"))
                if number < first or not name.strip() or (number == first and len(after) == 1):
                    continue
                if not os.path.isdir(self.base / name):  # noqa: PTH112  # never raises, whatever the name is
                    yield (number,), name
                    continue
                rest = tuple(map(str, after[1:])) if number == first else ()
                for parts in _below(self.base / name, rest, self.without):
                    yield (number, *parts), "/".join((name.rstrip("/"), *parts))


Source = FolderTree | PathList


def open_source(kind: str, place: Path, without: Path | None = None) -> Source:
    """Return the source of a kind, `folder` or `list`; the folder `without` is left out of it."""
    without = None if without is None else Path(os.path.realpath(without))
    return PathList(place, without) if kind == "list" else FolderTree(place, without)


def check_there(folder: str | Path) -> None:
    """Raise ArchiveError if a folder is gone or empty, as that of a share is when it is not mounted."""
    reason = "it is empty"
    try:
        with os.scandir(folder) as entries:
            if next(entries, None) is not None:
                return
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise ArchiveError(f"{folder} cannot be read ({reason}); when its files are there, the same command goes on")


def _below(folder: Path, after: Sequence[str], without: Path | None) -> Iterator[tuple[str, ...]]:
    """Yield the names on the path of each file below a folder, from the first file after `after` on."""
    try:
        names, folders = _entries(folder)
    except OSError:
        yield _ITSELF  # its reader will say why it cannot be read
        return
    for name in names:
        at = bool(after) and name == after[0]
        if after and name < after[0]:
            continue
        if name in folders:
            if without is None or Path(os.path.realpath(folder / name)) != without:
                rest = after[1:] if at else ()
                yield from ((name, *parts) for parts in _below(folder / name, rest, without) if parts or not at)
        elif not (at and len(after) == 1):
            yield (name,)


def _entries(folder: Path) -> tuple[list[str], set[str]]:
    """Return the names in a folder in order, and those of folders."""
    names, folders = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.upper() != "DICOMDIR" and not _leads_to_folder(entry):
                names.append(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
    names.sort()  # in place: a folder may have a million names
    return names, folders


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to a folder."""
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:
        return False
