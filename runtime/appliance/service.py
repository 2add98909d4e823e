"""The processes of a running service, and the loop of each: receive, send and web.

    supervisor   starts the others and starts them again if they end; gives studies to the worker (`supervisor`)
    receive      is the DICOM node and looks into the sources; a source on the network has a thread
    send         delivers, one thread for each destination
    web          answers over HTTP (`web`)
    work         holds the scorer (`workerprocess`)

Each ends with the supervisor, and all of them hold the spool's lock, so that no two services work on one spool.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from spinescore.runtime.appliance.clock import ServiceClock, read_clock
from spinescore.runtime.appliance.configuration.config import Config, Destination
from spinescore.runtime.appliance.fault import Fault, place_of
from spinescore.runtime.appliance.receiving.sources import open_source
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.sending.commitment import Ask, Committer
from spinescore.runtime.appliance.sending.delivery import Deliverer
from spinescore.runtime.appliance.sending.delivery import Destination as Place
from spinescore.runtime.appliance.sending.destinations import open_destination
from spinescore.runtime.appliance.store.counts import Tally
from spinescore.runtime.appliance.store.index import Index, IndexFull
from spinescore.runtime.appliance.store.places import Places, make_places
from spinescore.runtime.appliance.store.spool import Spool
from spinescore.runtime.documents import read
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine.child import Message, answering
from spinescore.runtime.text import brief, one_line

if TYPE_CHECKING:
    from spinescore.runtime.appliance.receiving.node import DicomNode

__all__ = ["main", "open_places"]

_GIB = 1 << 30
_LOOK_S = 0.25  # between two looks for deliveries, and for what sources and the node tell
_AGAIN_S = 5.0  # before a node or a destination that could not be opened is tried again
_FAULT_S = 600.0  # after which the same fault is noted again
_MOST_NOTED = 100  # different faults of one code in that time: a peer can cause them at will, and each takes a commit
_MORE = "there are more different faults of this kind than are noted; the metrics count them"
_STUCK_S = 600.0  # after which a delivery that does not come back is a fault; exchanges end after 200 s at most
_HUNG_S = 3600.0  # after which the process is started again for it
_REFUSALS = ("peer-refused", "dicom-fault", "not-dicom", "no-uid", "too-large", "file-unreadable")  # for the audit log


def open_places(config: Config) -> Places:
    """Return the spool's folders, made if they are missing. Raises SpineScoreError."""
    return make_places(Path(config.spool.path), int(config.spool.reserve_gb * _GIB))


def main(request: str) -> None:
    """Be a process of the service. `request` is JSON: the role and the configuration.

    Texts of exceptions and warnings may name patients, so none gets into the log. The process ends at once, also while
    threads of pynetdicom run, so that it is started again.
    """
    warnings.showwarning = lambda *_: None
    threading.excepthook = _tell_of_thread
    options = json.loads(request)
    try:
        {"receive": _receive, "send": _send, "web": _web}[options["role"]](read(Config, options["config"]))
    except (SpineScoreError, IndexFull) as error:
        _tell(str(error))
    except Exception as error:
        _tell(f"the process {options['role']} failed ({place_of(error)})")
    finally:
        os._exit(1)


def _receive(config: Config) -> None:
    with _process(config) as (places, clock, index, say):
        spool = Spool(places, index, clock, config.spool.max_object_mb << 20)
        for source in config.source:
            with suppress(IndexFull):
                spool.close_associations(source.name)
        sources = [open_source(source, config, places, clock) for source in config.source]
        noted: dict[tuple[str, str], float] = {}
        node, rejected = _node(config, places, clock), Tally(index, clock, "rejected")
        while True:
            faults, refusals = ([], {}) if node is None else node.step(spool)
            rejected.add(refusals)
            looks = [source.look() for source in sources]
            _note(index, clock, noted, [*faults, *(fault for _, some in looks for fault in some)])
            pending = sum(waiting for waiting, _ in looks) + (0 if node is None else node.associations)
            say(pending=pending, listening=node is not None and node.is_listening)
            time.sleep(_LOOK_S)


def _node(config: Config, places: Places, clock: ServiceClock) -> DicomNode | None:
    """Return the DICOM node; its library is imported if it is wanted."""
    if config.node is None:
        return None
    from spinescore.runtime.appliance.receiving.node import DicomNode

    return DicomNode(config, config.node, places, clock)


def _note(index: Index, clock: ServiceClock, noted: dict[tuple[str, str], float], faults: list[Fault]) -> None:
    """Keep faults for `status`, the same one not again and again, and not more than the log can bear."""
    now = clock.now()
    for key in [key for key, at_s in noted.items() if now - at_s >= _FAULT_S] if faults else ():
        del noted[key]
    for fault in faults:
        if sum(code == fault.code for code, _ in noted) >= _MOST_NOTED:
            fault = replace(fault, message=_MORE)
        key = (fault.code, fault.message)
        if key in noted:
            continue
        noted[key] = now
        _tell(f"{fault.code}: {fault.message}")
        try:
            with index.transaction():
                index.note_fault(clock.date(), fault)
                if fault.code in _REFUSALS:
                    audit.note(index, clock, "refused", code=fault.code, reason=fault.message)
        except IndexFull:
            del noted[key]


def _send(config: Config) -> None:
    with _process(config) as (places, clock, index, say):
        noted: dict[tuple[str, str], float] = {}
        moved_s = {destination.name: time.monotonic() for destination in config.destination}
        for destination in config.destination:
            arguments = (destination, config, places, clock, moved_s)
            threading.Thread(target=_deliver, args=arguments, name=f"spinescore-{destination.name}").start()
        while True:
            silent_s = {name: time.monotonic() - at_s for name, at_s in moved_s.items()}
            _note(index, clock, noted, _stuck(silent_s))
            if max(silent_s.values(), default=0.0) < _HUNG_S:
                say(alive=True)
            time.sleep(1.0)


def _stuck(silent_s: Mapping[str, float]) -> list[Fault]:
    """Return a fault for each destination whose delivery does not come back; the others go on meanwhile.

    Exchanges over the network end by themselves. A lookup of a name, or a folder on another machine, cannot be ended.
    """
    advice = "look at the name server, or at the disk of its folder"
    return [
        Fault("destination-unreachable", f"a delivery to {name} has hung for {_STUCK_S / 60:g} min; {advice}")
        for name, seconds in silent_s.items()
        if seconds >= _STUCK_S
    ]


def _web(config: Config) -> None:
    from spinescore.runtime.appliance.web.access import read_access
    from spinescore.runtime.appliance.web.app import make_app
    from spinescore.runtime.appliance.web.consoles import Consoles
    from spinescore.runtime.appliance.web.server import make_server, open_sockets
    from spinescore.runtime.appliance.web.site import Site
    from spinescore.runtime.appliance.web.studies import SOURCE

    consoles = Consoles()
    with _process(config, consoles.hear) as (places, clock, index, say):
        access, sockets = read_access(config.http), open_sockets(config)
        with suppress(IndexFull):
            Spool(places, index, clock, 0).close_associations(SOURCE)
        app = make_app(Site(config, places, clock, access, consoles.open(places, clock, say)))
        make_server(app, sockets, lambda: say(alive=True)).run()


def _deliver(
    destination: Destination, config: Config, places: Places, clock: ServiceClock, moved_s: dict[str, float]
) -> NoReturn:
    """Deliver to one destination for ever. Any fault of ours ends the process, which is started again."""
    try:
        index = Index(places.index, places.release_reserve)
        noted: dict[tuple[str, str], float] = {}
        while (place := _opened(destination, config, places, clock, index, noted)) is None:
            moved_s[destination.name] = time.monotonic()
            time.sleep(_AGAIN_S)
        ask: Ask | None = getattr(place, "ask", None) if destination.commitment else None
        deliverer = Deliverer(index, clock, places, place, confirms=ask is not None)
        committer = None if ask is None else Committer(index, clock, places, destination.name, ask)
        place.clear()
        while True:
            moved_s[destination.name] = time.monotonic()
            try:
                again = deliverer.step() or (committer is not None and committer.step())
            except IndexFull:  # tried again: what was under way has an unclear outcome then
                again = False
            if not again:
                place.rest()
                time.sleep(_LOOK_S)
    except BaseException as error:
        _tell(f"the delivery to {destination.name} ended and is started again ({place_of(error)})")
        os._exit(1)


def _opened(
    destination: Destination,
    config: Config,
    places: Places,
    clock: ServiceClock,
    index: Index,
    noted: dict[tuple[str, str], float],
) -> Place | None:
    """Return the place of a destination, or None and note it if a file of its TLS cannot be read or does not fit."""
    try:
        return open_destination(destination, config, clock, places)
    except OSError as error:
        reason = error.strerror or brief(error)
        text = f"the certificates of the destination {destination.name} cannot be used ({reason}); correct its tls"
        _note(index, clock, noted, [Fault("destination-unreachable", text)])
        return None


def _tell(text: str) -> None:
    """Print a message without patient data on standard error, which is the service's log."""
    print(one_line(text), file=sys.stderr, flush=True)


def _tell_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        _tell(f"a thread failed ({place_of(ended.exc_value)})")


@contextmanager
def _process(
    config: Config, hear: Callable[[Message], None] | None = None
) -> Iterator[tuple[Places, ServiceClock, Index, Any]]:
    """Set up a process of the service: its folders, clock and index, and how it tells and hears the supervisor."""
    say = answering(hear)
    places = open_places(config)
    with closing(Index(places.index, places.release_reserve)) as index:
        yield places, read_clock(index), index, say
