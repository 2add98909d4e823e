"""`serve`: one service on one spool, with its processes, until it is told to end."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from spinescore.runtime.appliance.clock import ServiceClock, start_clock
from spinescore.runtime.appliance.configuration.config import Config
from spinescore.runtime.appliance.network import certificate_faults, network_faults
from spinescore.runtime.appliance.recovery import clean, recover
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.seen.notify import Systemd
from spinescore.runtime.appliance.seen.ready import Alive, reasons_against, write_alive
from spinescore.runtime.appliance.sending.destinations import note_destinations
from spinescore.runtime.appliance.service import open_places
from spinescore.runtime.appliance.store.counts import add
from spinescore.runtime.appliance.store.index import Index, IndexFull, damage
from spinescore.runtime.appliance.store.places import Places, filesystem_of, locked, remove_parts
from spinescore.runtime.appliance.work.consolejob import remove_folders
from spinescore.runtime.appliance.work.consolequeue import FOR_CONSOLES, ConsoleQueue
from spinescore.runtime.appliance.work.dispatch import Dispatcher, ProcessWorker
from spinescore.runtime.appliance.work.scorequeue import ScoreQueue
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.documents import document_of
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine.child import Child, Message

__all__ = ["serve"]

Say = Callable[[str], None]

_ROLES = ("receive", "send", "web")
_LISTEN_S = 0.25
_CLEAN_S = 60.0
_TELL_S = 1.0  # between two signs of life
_FIRST_WAIT_S, _LONGEST_WAIT_S, _STEADY_S = 1.0, 60.0, 60.0
_SILENT_S = 60.0  # after which a process is ended
_IN_MEMORY = ("tmpfs", "ramfs")
_SHOWN = 12  # digits of the bundle's hash that people see


class _Process(Child):
    """A process of the service that is started again if it ends: after 1 s, then later and later up to 60 s."""

    def __init__(self, role: str, config: Config, lock: int, clock: ServiceClock, say: Say,
                 on_message: Callable[[], None] | None = None) -> None:  # fmt: skip
        self.role, self._clock, self._say = role, clock, say
        self._request = {"role": role, "config": document_of(config)}
        super().__init__("spinescore.runtime.appliance.service", (lock,), on_message)
        self._started_s = self._next_s = clock.now()
        self._heard_s: float | None = None
        self._failures = 0
        self.said: Message = {}  # all that it said last of itself
        self._for_consoles: list[Message] = []

    def step(self) -> bool:
        """Listen to it, start it if it does not run, and end it if it is silent. Return whether it ended."""
        now = self._clock.now()
        if self.pid is None:
            if now >= self._next_s:
                self.said, self._started_s, self._heard_s = {}, now, None
                self.start(self._request)
            return False
        for message in self.messages():
            self._heard_s = now
            if FOR_CONSOLES.isdisjoint(message):
                self.said.update(message)
            else:
                self._for_consoles.append(message)
        ended = self.ended()
        if ended is None and now - (self._heard_s or self._started_s) > _SILENT_S:
            ended = f"silent for {_SILENT_S:g} s"
        if ended is not None:
            self.close()
            self._failures = 0 if now - self._started_s > _STEADY_S else self._failures + 1
            self._next_s = now + min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** max(0, min(self._failures - 1, 10)))
            self._say(f"the process {self.role} ended ({ended}) and is started again")
        return ended is not None

    def for_consoles(self) -> list[Message]:
        messages, self._for_consoles = self._for_consoles, []
        return messages

    def send(self, message: object) -> None:
        """Send it a message; if it does not run, nobody gets it."""
        if self.pid is not None:
            super().send(message)

    def moved_since(self, before_s: float) -> bool:
        """Return whether it has said something since then. While it is started or waits for that, it need not."""
        return self._heard_s is None or self._heard_s > before_s

    def silent_s(self) -> float | None:
        """Return for how long it has said nothing; None if it does not run, or has said nothing yet."""
        return None if self._heard_s is None else round(self._clock.now() - self._heard_s, 1)

    def close(self) -> None:
        self.kill()
        self._heard_s = None


def serve(
    config: Config,
    stop: threading.Event,
    say: Say,
    *,
    until_idle: bool = False,
    expects: Callable[[], bool] = bool,
    roles: Sequence[str] = _ROLES,
) -> None:
    """Run the service until `stop` is set; with `until_idle` also when nothing is left to do.

    While `expects` returns true, more is to come, and the service is not idle. `roles` are the processes that it
    starts beside the worker.
    Raises SpineScoreError if the bundle cannot be opened, or the spool cannot be used or is in use.
    """
    os.umask(0o077)
    bundle = Bundle.open(config.score.bundle)
    if faults := network_faults(config):
        raise SpineScoreError("; ".join(faults))
    places = open_places(config)
    with ExitStack() as opened, _index_errors(places):
        lock = opened.enter_context(locked(places))
        index = Index(places.index, places.release_reserve)
        opened.callback(index.close)
        clock = start_clock(index)
        shown = {"name": bundle.manifest.name, "version": bundle.manifest.version, "sha256": bundle.sha256}
        audit.start(index, clock, config.audit, document_of(config), shown)
        opened.callback(audit.stop, index, clock)
        for fault in certificate_faults(config, clock.date()):
            say(fault)
        recover(places, index, clock)
        note_destinations(index, clock, [destination.name for destination in config.destination])
        places.fill_reserve()
        queue = ScoreQueue(config, places, index, clock, bundle.sha256)
        worker = ProcessWorker(config.score, bundle.sha256, (lock,))
        web = _Process("web", config, lock, clock, say, worker.wake)
        dispatcher = Dispatcher(queue, worker, index, places, clock, config.score, ConsoleQueue(web.send))
        opened.callback(dispatcher.close)
        opened.callback(remove_folders, places)  # after the processes have ended
        children = [web if role == "web" else _Process(role, config, lock, clock, say) for role in roles]
        for child in children:
            opened.callback(child.close)
        systemd = Systemd()
        opened.callback(systemd.stopping)
        if "receive" in roles:
            say(f"serving on the spool {places.root}")
            if filesystem_of(places.root) in _IN_MEMORY:
                say(f"the spool {places.root} is in memory: what it has is lost when the machine stops; name a folder "
                    "on a disk for studies that matter")  # fmt: skip
        loop = _Loop(config, places, index, clock, dispatcher, worker, children, say, bundle.sha256[:_SHOWN],
                     systemd)  # fmt: skip
        loop.run(stop, until_idle, expects)


@contextmanager
def _index_errors(places: Places) -> Iterator[None]:
    """Raise SpineScoreError if the index cannot be written or read."""
    try:
        yield
    except IndexFull as error:
        raise SpineScoreError(str(error)) from error
    except sqlite3.DatabaseError as error:
        raise SpineScoreError(damage(places.index, error)) from error


class _Loop:
    """The supervisor's loop over its processes, the worker and what has to be cleaned up."""

    def __init__(self, config: Config, places: Places, index: Index, clock: ServiceClock, dispatcher: Dispatcher,
                 worker: ProcessWorker, children: list[_Process], say: Say, bundle: str,
                 systemd: Systemd) -> None:  # fmt: skip
        self._spool, self._places, self._index, self._clock = config.spool, places, index, clock
        self._dispatcher, self._worker, self._children, self._say = dispatcher, worker, children, say
        self._clean_s = self._tell_s = self._fed_s = clock.now()
        self._systemd, self._ready, self._told = systemd, False, None
        self._node, self._bundle = config.node is not None, bundle

    def run(self, stop: threading.Event, until_idle: bool, expects: Callable[[], bool]) -> None:
        while not stop.is_set() and not self._turn(stop, until_idle, expects):
            pass

    def _turn(self, stop: threading.Event, until_idle: bool, expects: Callable[[], bool]) -> bool:
        """Do all that is due; return whether nothing is left to do."""
        try:
            self._step()
            self._tell_in_time()
            nothing_comes = self._children[0].said.get("pending") == 0 and not self._dispatcher.is_busy
            return until_idle and nothing_comes and not expects() and _is_idle(self._index)
        except (IndexFull, sqlite3.OperationalError) as error:  # of a disk that does not answer, for example
            self._say(str(error) if isinstance(error, IndexFull) else damage(self._places.index, error))
            stop.wait(1.0)
            return False

    def _step(self) -> None:
        for child in self._children:
            if child.step():
                with suppress(IndexFull), self._index.transaction():
                    add(self._index, "process_restarts", child.role)
            for message in child.for_consoles():
                self._dispatcher.hear_console(message)
        self._dispatcher.step(_LISTEN_S)
        if self._clock.now() >= self._clean_s:
            for fault in clean(self._places, self._index, self._clock, self._spool):
                self._say(f"{fault.code}: {fault.message}")
            remove_parts(self._places, [os.getpid(), self._worker.pid, *(child.pid for child in self._children)])
            self._clean_s = self._clock.now() + _CLEAN_S

    def _tell_in_time(self) -> None:
        state = self._dispatcher.shown.get("state")
        if self._clock.now() >= self._tell_s or state != self._told:
            self._tell()
            self._tell_s, self._told = self._clock.now() + _TELL_S, state

    def _tell(self) -> None:
        """Give a sign of life: how each process is, and whether the service is ready."""
        now = self._clock.now()
        silent_s = {child.role: child.silent_s() for child in self._children}
        listening = bool(self._children[0].said.get("listening")) if self._node else None
        alive = Alive(round(now, 1), silent_s, self._dispatcher.shown, self._bundle, listening)
        write_alive(self._places, alive)
        reasons = reasons_against(self._places, self._index, alive, now)
        moved = self._dispatcher.moved_since(self._fed_s) and all(
            child.moved_since(self._fed_s) for child in self._children
        )
        self._fed_s = now if moved else self._fed_s
        self._systemd.tell(reasons, moved=moved, opening=moved and not self._dispatcher.is_ready)
        if self._ready is not (not reasons):
            self._ready = not reasons
            self._say("ready" if self._ready else f"not ready: {'; '.join(reasons)}")


def _is_idle(index: Index) -> bool:
    """Return whether no study and no delivery waits for the service."""
    studies = "SELECT 1 FROM studies WHERE state IN ('collecting', 'due', 'scoring', 'delivering')"
    deliveries = ("SELECT 1 FROM tallies WHERE kind LIKE 'deliveries:%' AND n > 0 AND "
                  "state IN ('waiting', 'sending', 'committing')")  # fmt: skip
    return index.one(studies) is None and index.one(deliveries) is None
