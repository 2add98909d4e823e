"""The sources by the `kind` of their table in the configuration. A thread for each: one that hangs is alone."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import Protocol

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config
from spinescore.runtime.appliance.configuration.config import Source as Table
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.receiving.watchedfolder import FolderSource
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.spool import Spool

__all__ = ["Source", "ThreadedSource", "open_source"]

_NEXT_S = 0.02  # between two looks if an Orthanc has more objects
_HUNG_S = 600.0  # after which a look that gets no further is a fault; exchanges over HTTP end after 200 s at most
_MOST_FAULTS = 1000  # that wait to be told; the oldest ones are dropped

Beat = Callable[[], None]  # says that a look gets further


class Source(Protocol):
    """A place that objects come from."""

    def look(self) -> tuple[int, list[Fault]]:
        """Take in the objects that are ready; return how many still wait, and the faults of refused objects."""


class ThreadedSource:
    """A source with a thread of its own."""

    def __init__(
        self,
        table: Table,
        open_it: Callable[[Table, Spool, Beat], Source],
        open_spool: Callable[[], Spool],
        again_s: float | None = None,
    ) -> None:
        """`again_s` is the time to the next look if objects wait; without it it is `poll_s`, as always."""
        self._table, self._open, self._open_spool, self._again_s = table, open_it, open_spool, again_s
        self._waiting, self._moved_s = 1, time.monotonic()
        self._error: BaseException | None = None
        self._faults: deque[Fault] = deque(maxlen=_MOST_FAULTS)
        threading.Thread(target=self._run, name="spinescore-source", daemon=True).start()

    def look(self) -> tuple[int, list[Fault]]:
        """Return at once how many objects still waited after the last look, and the faults since the last call."""
        error = self._error
        faults = [self._faults.popleft() for _ in range(len(self._faults))]
        if error is not None and not faults:
            raise error  # a fault of ours ends the process, which is started again
        if time.monotonic() - self._moved_s >= _HUNG_S:
            text = f"the source {self._table.name} has hung for {_HUNG_S / 60:g} min; look at its disk, or its server"
            faults.append(Fault("source-unreachable", text))
        return self._waiting, faults

    def _beat(self) -> None:
        self._moved_s = time.monotonic()

    def _run(self) -> None:
        try:
            spool, poll_s = self._open_spool(), self._table.poll_s
            with closing(spool.index):
                source = self._open(self._table, spool, self._beat)
                while True:
                    self._waiting, faults = source.look()
                    self._beat()
                    self._faults.extend(faults)
                    is_soon = self._again_s is not None and self._waiting and not faults
                    time.sleep(min(poll_s, self._again_s or poll_s) if is_soon else poll_s)
        except BaseException as error:
            self._error = error


def open_source(table: Table, config: Config, places: Places, clock: Clock) -> ThreadedSource:
    """Return the source that a table `source` of the configuration means. Its thread runs."""

    def open_spool() -> Spool:
        index = Index(places.index, places.release_reserve)
        return Spool(places, index, clock, config.spool.max_object_mb << 20)

    def open_it(table: Table, spool: Spool, beat: Beat) -> Source:
        if table.kind == "folder":
            return FolderSource(table, spool, clock, beat=beat)
        from spinescore.runtime.appliance.receiving.orthancsource import OrthancSource

        return OrthancSource(table, spool, clock, beat=beat)

    return ThreadedSource(table, open_it, open_spool, None if table.kind == "folder" else _NEXT_S)
