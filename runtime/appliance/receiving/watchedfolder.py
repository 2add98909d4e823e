"""A folder that is watched as a source of studies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Source
from spinescore.runtime.appliance.fault import LATER, Fault, Refused
from spinescore.runtime.appliance.store.index import IndexFull
from spinescore.runtime.appliance.store.objects import is_whole
from spinescore.runtime.appliance.store.spool import Spool
from spinescore.runtime.files import open_regular

__all__ = ["FolderSource"]

_BLOCK = 1 << 20
_UNFINISHED = (".part", ".partial", ".tmp", ".filepart", ".crdownload")
_GIVE_UP_S = 600.0  # after which a file that does not grow any more counts as damaged


@dataclass
class _Seen:
    """A file as it was when it was last looked at, and since when it is so; `done` if nothing is left to do."""

    size: int
    mtime_ns: int
    since_s: float
    done: bool = False


class FolderSource:
    """Takes in the files of a folder and its subfolders, each when it has not changed for a while and is whole.

    Hidden files, links and names of unfinished copies are passed over. A file that is no DICOM stays where it is.
    """

    def __init__(self, source: Source, spool: Spool, clock: Clock, *, beat: Callable[[], None] = lambda: None) -> None:
        """`beat` is called for each file, as a look may take long."""
        self._source, self._spool, self._clock, self._beat = source, spool, clock, beat
        assert source.path is not None
        self._folder = Path(source.path)
        self._seen: dict[Path, _Seen] = {}
        self.faults: list[Fault] = []  # of the last `poll`

    def look(self) -> tuple[int, list[Fault]]:
        """Take in the files that are ready; return how many still wait, and the faults, also of a missing folder."""
        try:
            return self.poll(), self.faults
        except IndexFull as error:
            return 1, [Fault(error.code, str(error))]
        except OSError as error:
            path = None if error.filename is None else Path(error.filename)
            if path is None or not (self._folder == path or self._folder in path.parents):
                raise
            text = f"a folder of the source {self._source.name} cannot be read ({error.strerror})"
            return 0, [Fault("source-unreachable", f"{text}; mount or make it, or let it be read")]

    def poll(self) -> int:
        """Take in the files that are ready; return how many still wait. Raises `OSError` if the folder is not there."""
        self.faults = []
        ready, waiting = self._sort_files()
        if ready:
            with self._spool.association(self._source.name) as association:
                for path in ready:
                    self._beat()
                    try:
                        self._spool.receive(_pieces(path), association)
                    except Refused as error:
                        self.faults.append(error.fault)
                        if error.fault.code in LATER:  # it is tried again at the next look
                            return waiting + 1
                    except OSError as error:
                        if error.filename != str(path):  # not the file, but the spool
                            raise
                        if not isinstance(error, FileNotFoundError):  # it was removed meanwhile
                            text = f"a file of the source {self._source.name} cannot be read ({error.strerror})"
                            self.faults.append(Fault("file-unreadable", f"{text}; correct its permissions"))
                    else:
                        self._let_go(path)
                    self._seen[path].done = True
        return waiting

    def _let_go(self, path: Path) -> None:
        try:
            if self._source.remove:
                path.unlink(missing_ok=True)
        except OSError as error:
            text = f"a file of the source {self._source.name} was taken in and cannot be removed ({error.strerror})"
            self.faults.append(Fault("file-unreadable", f"{text}; correct the folder's permissions, and remove it"))

    def _sort_files(self) -> tuple[list[Path], int]:
        """Return the files that are ready, and the number of those that are not."""
        now, files, ready, waiting = self._clock.now(), {}, [], 0
        for path, status in sorted(self._files(os.scandir(self._folder))):
            self._beat()
            seen = self._seen.get(path)
            if seen is None or (seen.size, seen.mtime_ns) != (status.st_size, status.st_mtime_ns):
                seen = _Seen(status.st_size, status.st_mtime_ns, now)
            files[path] = seen
            if seen.done:
                continue
            if now - seen.since_s < self._source.settle_s:
                waiting += 1
            elif is_whole(path):
                ready.append(path)
            elif now - seen.since_s < _GIVE_UP_S:
                waiting += 1
            else:
                text = f"a file of the source {self._source.name} ends before its pixels do; copy it there again"
                self.faults.append(Fault("file-unreadable", text))
                seen.done = True  # until it changes
        self._seen = files
        return ready, waiting

    def _files(self, entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the regular files of a folder and its subfolders, but of those that can be read."""
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower().endswith(_UNFINISHED):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._files(os.scandir(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # it was removed meanwhile
                continue
            except OSError as error:
                text = f"a folder below the source {self._source.name} cannot be read ({error.strerror})"
                self.faults.append(Fault("file-unreadable", f"{text}; correct its permissions"))


def _pieces(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        while piece := file.read(_BLOCK):
            yield piece
