"""`serve`: one service on one spool, with its processes, until it is told to end."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack

from spinescore.runtime.appliance import audit
from spinescore.runtime.appliance.clock import ServiceClock, start_clock
from spinescore.runtime.appliance.config import Config
from spinescore.runtime.appliance.dispatch import Dispatcher
from spinescore.runtime.appliance.index import Index, IndexFull
from spinescore.runtime.appliance.network import check_network
from spinescore.runtime.appliance.places import Places, locked
from spinescore.runtime.appliance.recovery import clean, recover
from spinescore.runtime.appliance.scorequeue import ScoreQueue
from spinescore.runtime.appliance.service import open_places
from spinescore.runtime.appliance.worker import ProcessWorker
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.documents import document_of
from spinescore.runtime.machine.processes import ending, worker_command

__all__ = ["serve"]

Say = Callable[[str], None]

_LISTEN_S = 0.25
_CLEAN_S = 60.0
_FIRST_WAIT_S, _LONGEST_WAIT_S, _STEADY_S = 1.0, 60.0, 60.0


class _Child:
    """A process of the service that is started again if it ends: after 1 s, then later and later up to 60 s."""

    def __init__(self, role: str, config: Config, lock: int, clock: ServiceClock, said: Say) -> None:
        self.role, self._clock, self._lock, self._say = role, clock, lock, said
        request = json.dumps({"role": role, "config": document_of(config)})
        self._command = worker_command("spinescore.runtime.appliance.service", request)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = self._next_s = clock.now()
        self._failures = 0
        self.said: dict[str, object] = {}  # its last message

    def step(self) -> None:
        """Start it if it does not run."""
        now = self._clock.now()
        if self._process is not None and (status := self._process.poll()) is not None:
            self.close()
            self._failures = 0 if now - self._started_s > _STEADY_S else self._failures + 1
            self._next_s = now + min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._failures - 1, 10))
            self._say(f"the process {self.role} ended ({ending(status)}) and is started again")
        if self._process is None and now >= self._next_s:
            self.said, self._started_s = {}, now
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             pass_fds=(self._lock,))  # fmt: skip
            threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self.said = json.loads(line)
        except ValueError:  # the pipe was closed, or a message was cut off
            pass

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # it may end at any line
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def serve(
    config: Config, stop: threading.Event, say: Say, *, until_idle: bool = False, expects: Callable[[], bool] = bool
) -> None:
    """Run the service until `stop` is set; with `until_idle` also when nothing is left to do.

    While `expects` returns true, more is to come, and the service is not idle.

    Raises SpineScoreError if the bundle cannot be opened, or the spool cannot be used or is in use.
    """
    os.umask(0o077)
    bundle = Bundle.open(config.score.bundle)
    check_network(config)
    places = open_places(config)
    with ExitStack() as opened:
        lock = opened.enter_context(locked(places))
        index = Index(places.index, places.release_reserve)
        opened.callback(index.close)
        clock = start_clock(index)
        shown = {"name": bundle.manifest.name, "version": bundle.manifest.version, "sha256": bundle.sha256}
        audit.start(index, clock, config.audit, document_of(config), shown)
        opened.callback(audit.stop, index, clock)
        recover(places, index, clock)
        places.fill_reserve()
        queue = ScoreQueue(config, places, index, clock, bundle.sha256)
        worker = ProcessWorker(config.score, (lock,))
        dispatcher = Dispatcher(queue, worker, index, places, clock, config.score)
        opened.callback(dispatcher.close)
        children = [_Child(role, config, lock, clock, say) for role in ("receive", "send")]
        for child in children:
            opened.callback(child.close)
        say(f"serving on the spool {places.root}")
        loop = _Loop(config, places, index, clock, dispatcher, children, say)
        loop.run(stop, until_idle, expects)


class _Loop:
    """The supervisor's loop over its processes, the worker and what has to be cleaned up."""

    def __init__(self, config: Config, places: Places, index: Index, clock: ServiceClock, dispatcher: Dispatcher,
                 children: list[_Child], say: Say) -> None:  # fmt: skip
        self._spool, self._places, self._index, self._clock = config.spool, places, index, clock
        self._dispatcher, self._children, self._say = dispatcher, children, say
        self._clean_s = clock.now()

    def run(self, stop: threading.Event, until_idle: bool, expects: Callable[[], bool]) -> None:
        """Serve until `stop` is set; with `until_idle` also until nothing is left to do."""
        while not stop.is_set():
            try:
                self._step()
            except audit.AuditNotWritten as error:
                self._say(str(error))
                stop.wait(1.0)
            except IndexFull:
                self._say(f"the disk of the spool {self._places.root} is full; free space there")
                stop.wait(1.0)
            if until_idle and not expects() and self._children[0].said.get("pending") == 0 and _is_idle(self._index):
                return

    def _step(self) -> None:
        for child in self._children:
            child.step()
        self._dispatcher.step(_LISTEN_S)
        if self._clock.now() >= self._clean_s:
            clean(self._places, self._index, self._clock, self._spool.objects_h, self._spool.results_d)
            self._clean_s = self._clock.now() + _CLEAN_S


def _is_idle(index: Index) -> bool:
    """Return whether no study and no delivery waits for the service."""
    studies = "SELECT 1 FROM studies WHERE state IN ('collecting', 'due', 'scoring', 'delivering')"
    deliveries = "SELECT 1 FROM deliveries WHERE state IN ('waiting', 'sending', 'committing')"
    return index.one(studies) is None and index.one(deliveries) is None
