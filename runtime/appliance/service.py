"""The processes of a running service, and the loop of each: receive, send, and the supervisor with the worker.

    supervisor   starts the others and starts them again if they end; gives studies to the worker
    receive      is the DICOM node and looks into the sources; a source on the network has a thread
    send         delivers, one thread for each destination
    work         holds the scorer (`workerprocess`)

Each ends with the supervisor, and all of them hold the spool's lock, so that no two services work on one spool.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from spinescore.runtime.appliance.clock import ServiceClock, read_clock
from spinescore.runtime.appliance.commitment import Ask, Committer
from spinescore.runtime.appliance.config import Config
from spinescore.runtime.appliance.delivery import Deliverer
from spinescore.runtime.appliance.delivery import Destination as Place
from spinescore.runtime.appliance.destinations import open_destination
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.index import Index, IndexFull
from spinescore.runtime.appliance.places import Places, make_places
from spinescore.runtime.appliance.sources import open_source
from spinescore.runtime.appliance.spool import Spool
from spinescore.runtime.documents import read
from spinescore.runtime.machine.processes import end_with_parent
from spinescore.runtime.text import brief, one_line

if TYPE_CHECKING:
    from spinescore.runtime.appliance.node import NodeEvents
    from spinescore.runtime.appliance.receive import Receiver

__all__ = ["main", "open_places"]

_GIB = 1 << 30
_LOOK_S = 0.25  # between two looks for deliveries
_FAULT_S = 600.0  # after which the same fault is noted again


def open_places(config: Config) -> Places:
    """Return the spool's folders, made if they are missing. Raises SpineScoreError."""
    return make_places(Path(config.spool.path), int(config.spool.reserve_gb * _GIB))


def main(request: str) -> None:
    """Be a process of the service. `request` is JSON: the role, and the configuration."""
    options = json.loads(request)
    {"receive": _receive, "send": _send}[options["role"]](read(Config, options["config"]))


def _receive(config: Config) -> None:
    """Look into every source again and again."""
    with _process(config) as (places, clock, index, say):
        spool = Spool(places, index, clock, config.spool.max_object_mb << 20)
        for source in config.source:
            spool.close_associations(source.name)
        sources = {source.name: open_source(source, config, places, clock) for source in config.source}
        noted: dict[tuple[str, str], float] = {}
        next_s = dict.fromkeys(sources, clock.now())
        pending = dict.fromkeys(sources, 1)
        node = _start_node(config, places, clock, spool)
        while True:
            if node is not None:
                _note(index, clock, noted, node.faults())
            for source in config.source:
                if clock.now() < next_s[source.name]:
                    continue
                pending[source.name], faults = sources[source.name].look()
                next_s[source.name] = clock.now() + source.poll_s
                _note(index, clock, noted, faults)
            say(pending=sum(pending.values()) + (0 if node is None else node.associations()))
            time.sleep(max(0.02, min(next_s.values(), default=clock.now() + 1.0) - clock.now()))


class _Node:
    """The DICOM node, as the loop of its process sees it."""

    def __init__(self, receiver: Receiver, events: NodeEvents) -> None:
        self._receiver, self._events = receiver, events

    def associations(self) -> int:
        return self._receiver.associations

    def faults(self) -> list[Fault]:
        """Return what was refused since the last call."""
        return [self._events.faults.get() for _ in range(self._events.faults.qsize())]


def _start_node(config: Config, places: Places, clock: ServiceClock, spool: Spool) -> _Node | None:
    """Start the DICOM node; return None if none is configured."""
    if config.node is None:
        return None
    from spinescore.runtime.appliance import node

    spool.close_associations(node.SOURCE)
    events = node.NodeEvents(places, clock, config.spool.max_object_mb << 20)
    receiver = node.open_receiver(config, config.node, events)
    receiver.start()
    return _Node(receiver, events)


def _note(index: Index, clock: ServiceClock, noted: dict[tuple[str, str], float], faults: list[Fault]) -> None:
    """Keep faults for `status`, the same one not again and again."""
    for fault in faults:
        key, now = (fault.code, fault.message), clock.now()
        if now - noted.get(key, -_FAULT_S) < _FAULT_S:
            continue
        noted[key] = now
        _tell(f"{fault.code}: {fault.message}")
        try:
            with index.transaction():
                index.note_fault(clock.date().isoformat(timespec="seconds"), fault.code, fault.message)
        except IndexFull:
            del noted[key]


def _send(config: Config) -> None:
    """Deliver to every destination, each in a thread."""
    with _process(config) as (places, clock, _, say):
        for destination in config.destination:
            place = open_destination(destination, config, clock, places)
            ask: Ask | None = getattr(place, "ask", None) if destination.commitment else None
            arguments = (place, ask, places, clock)
            threading.Thread(target=_deliver, args=arguments, name=f"spinescore-{destination.name}").start()
        while True:
            say(alive=True)
            time.sleep(1.0)


def _deliver(destination: Place, ask: Ask | None, places: Places, clock: ServiceClock) -> NoReturn:
    """Deliver to one destination for ever. Any fault of ours ends the process, which is started again."""
    try:
        index = Index(places.index, places.release_reserve)
        deliverer = Deliverer(index, clock, places, destination, confirms=ask is not None)
        committer = None if ask is None else Committer(index, clock, places, destination.name, ask)
        deliverer.recover()
        destination.clear()
        while True:
            try:
                again = deliverer.step() or (committer is not None and committer.step())
            except IndexFull:
                deliverer.recover()
                again = False
            if not again:
                destination.rest()
                time.sleep(_LOOK_S)
    except BaseException as error:
        _tell(f"the delivery to {destination.name} ended and is started again ({brief(error)})")
        os._exit(1)


def _tell(text: str) -> None:
    """Print a message without patient data on standard error, which is the service's log."""
    print(one_line(text), file=sys.stderr, flush=True)


@contextmanager
def _process(config: Config) -> Iterator[tuple[Places, ServiceClock, Index, Any]]:
    """Set up a process of the service: its folders, clock, index, and the pipe to the supervisor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor handles Ctrl-C
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    end_with_parent()
    os.umask(0o077)
    places = open_places(config)
    index = Index(places.index, places.release_reserve)

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    yield places, read_clock(index), index, say
