"""The DICOM node of a running service: what its receiver hears goes into the spool."""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from queue import SimpleQueue
from threading import Lock

from pydicom import Dataset

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config, Node, Peer
from spinescore.runtime.appliance.fault import LATER, Fault, Refusal, Refused
from spinescore.runtime.appliance.network import server_context
from spinescore.runtime.appliance.receiving.arrival import Arrival, NotStored
from spinescore.runtime.appliance.receiving.pduguard import Limits
from spinescore.runtime.appliance.receiving.receive import Receiver
from spinescore.runtime.appliance.sending.commitment import note_report
from spinescore.runtime.appliance.store.index import Index, IndexFull
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.spool import Association, Spool
from spinescore.runtime.errors import SpineScoreError

__all__ = ["SOURCE", "NodeEvents", "open_receiver"]

SOURCE = "dicom node"  # the name of its associations in the index

_MOST_FAULTS = 1000  # that wait to be told; a peer can cause them at will


class NodeEvents:
    """Stores what arrives, each object in the thread of its association. `take` gives the faults to log and status."""

    def __init__(self, places: Places, clock: Clock, max_object_bytes: int) -> None:
        self._places, self._clock, self._max_bytes = places, clock, max_object_bytes
        self._associations: dict[int, Association] = {}
        self._ended: SimpleQueue[Association] = SimpleQueue()
        self._faults: deque[Fault] = deque(maxlen=_MOST_FAULTS)
        self._refusals: Counter[str] = Counter()  # for the metrics
        self._lock = Lock()  # of the two

    def store(self, arrival: Arrival) -> None:
        """Return after the object is on the disk and in the index.

        Raises `NotStored` without room for it, and `ValueError` if it is no DICOM object that can be kept.
        """
        association = self._associations.setdefault(arrival.association, Association(SOURCE, arrival.peer.ae_title))
        with self._spool() as spool:
            try:
                received = spool.receive(arrival.parts, association)
            except Refused as error:
                if error.fault.code in LATER:
                    self._note(error.fault)
                    raise NotStored(error.fault.message) from None
                raise ValueError(error.fault.message) from None
        if received.fault is not None:
            self._note(received.fault)

    def _note(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def ready(self) -> bool:
        """Return whether there is room in the spool."""
        return self._places.has_room()

    def released(self, association: int) -> None:
        """Let the association's studies wait for it no more. What cannot be noted now is left for `end_late`."""
        ended = self._associations.pop(association, None)
        if ended is not None:
            try:
                with self._spool() as spool:
                    spool.end(ended)
            except (IndexFull, SpineScoreError, sqlite3.Error):
                self._ended.put(ended)

    def end_late(self, spool: Spool) -> None:
        """Note the ends that were left. Raises `IndexFull` if the disk is still full."""
        spool.end_late(self._ended)

    def refused(self, peer: str, reason: str, kind: Refusal) -> None:
        """Note that a connection, an association or an object was refused."""
        message = f"{peer} was refused: {reason}"
        fault = Fault("dicom-fault", message) if kind == "fault" else Fault("peer-refused", message)
        with self._lock:
            self._refusals[kind] += 1
            self._faults.append(fault)

    def take(self) -> tuple[list[Fault], Counter[str]]:
        """Return the faults since the last call, the last of them if they are many, and the number of refusals."""
        with self._lock:
            faults, refusals = list(self._faults), self._refusals
            self._faults.clear()
            self._refusals = Counter()
        return faults, refusals

    def committed(self, peer: Peer, report: Dataset) -> None:
        """Note what an archive says that it keeps."""
        note_report(self._places, self._clock, report)

    @contextmanager
    def _spool(self) -> Iterator[Spool]:
        with closing(Index(self._places.index, self._places.release_reserve)) as index:  # of this thread
            yield Spool(self._places, index, self._clock, self._max_bytes)


def open_receiver(config: Config, node: Node, events: NodeEvents) -> Receiver:
    """Return the node's receiver, which listens but accepts nothing yet.

    Raises `OSError` if it cannot listen there or a file of its TLS settings cannot be used.
    """
    tls = None if node.tls is None else server_context(node.tls)
    limits = Limits(
        max_associations=node.max_associations,
        max_pdu=node.max_pdu,
        max_object=config.spool.max_object_mb << 20,
        max_memory=2 * config.spool.max_object_mb << 20,
    )
    return Receiver(node.ae_title, config.peer, events, host=node.host, port=node.port, tls=tls, limits=limits)
