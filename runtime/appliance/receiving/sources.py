"""The sources by the `kind` of their table in the configuration. A source that waits for a network has a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config
from spinescore.runtime.appliance.configuration.config import Source as Table
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.receiving.watchedfolder import FolderSource
from spinescore.runtime.appliance.store.index import Index, IndexFull
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.spool import Spool

__all__ = ["Source", "open_source"]

_NEXT_S = 0.02  # between two looks if more objects wait


class Source(Protocol):
    """A place that objects come from."""

    def look(self) -> tuple[int, list[Fault]]:
        """Take in the objects that are ready; return how many still wait, and the faults of refused objects."""


def open_source(table: Table, config: Config, places: Places, clock: Clock, beat: Callable[[], None]) -> Source:
    """Return the source that a table `source` of the configuration means. It calls `beat` while a look takes long."""
    return _OPENERS[table.kind](table, lambda: _spool(config, places, clock), clock, beat)


def _spool(config: Config, places: Places, clock: Clock) -> Spool:
    index = Index(places.index, places.release_reserve)
    return Spool(places, index, clock, config.spool.max_object_mb << 20)


class _Folder:
    """A folder; if it is missing, that is a fault and no exception."""

    def __init__(self, table: Table, spool: Spool, clock: Clock, beat: Callable[[], None]) -> None:
        self._name, self._source = table.name, FolderSource(table, spool, clock, beat=beat)

    def look(self) -> tuple[int, list[Fault]]:
        try:
            return self._source.poll(), self._source.faults
        except IndexFull as error:
            return 1, [Fault(error.code, str(error))]
        except OSError as error:
            if error.filename is None or not self._source.contains(Path(error.filename)):
                raise
            reason = f"({error.strerror}); mount or make it, or let it be read"
            return 0, [Fault("source-unreachable", f"a folder of the source {self._name} cannot be read {reason}")]


class _Threaded:
    """A source with a thread of its own, so that no server holds up other sources. `look` returns its last state."""

    def __init__(self, open_it: Callable[[Spool], Source], open_spool: Callable[[], Spool], poll_s: float) -> None:
        self._open, self._open_spool, self._poll_s = open_it, open_spool, poll_s
        self._waiting = 1
        self._error: BaseException | None = None
        self._faults: SimpleQueue[Fault] = SimpleQueue()
        threading.Thread(target=self._run, name="spinescore-source", daemon=True).start()

    def look(self) -> tuple[int, list[Fault]]:
        error = self._error
        faults = [self._faults.get() for _ in range(self._faults.qsize())]
        if error is not None and not faults:
            raise error  # a fault of ours ends the process, which is started again
        return self._waiting, faults

    def _run(self) -> None:
        try:
            spool = self._open_spool()
            with closing(spool.index):
                source = self._open(spool)
                while True:
                    self._waiting, faults = source.look()
                    for fault in faults:
                        self._faults.put(fault)
                    time.sleep(min(self._poll_s, _NEXT_S) if self._waiting and not faults else self._poll_s)
        except BaseException as error:
            self._error = error


_OpenSpool = Callable[[], Spool]


def _folder(table: Table, open_spool: _OpenSpool, clock: Clock, beat: Callable[[], None]) -> Source:
    return _Folder(table, open_spool(), clock, beat)


def _orthanc(table: Table, open_spool: _OpenSpool, clock: Clock, beat: Callable[[], None]) -> Source:
    from spinescore.runtime.appliance.receiving.orthancsource import OrthancSource

    return _Threaded(lambda spool: OrthancSource(table, spool, clock), open_spool, table.poll_s)


_Opener = Callable[[Table, _OpenSpool, Clock, Callable[[], None]], Source]
_OPENERS: dict[str, _Opener] = {"folder": _folder, "orthanc": _orthanc}
