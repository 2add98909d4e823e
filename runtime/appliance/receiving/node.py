"""The DICOM node of a running service: what its receiver hears goes into the spool."""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from queue import SimpleQueue
from threading import Lock

from pydicom import Dataset

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config, Node, Peer
from spinescore.runtime.appliance.fault import LATER, Fault, Refusal, Refused
from spinescore.runtime.appliance.network import server_context
from spinescore.runtime.appliance.receiving.pduguard import Limits
from spinescore.runtime.appliance.receiving.receive import Receiver
from spinescore.runtime.appliance.sending.commitment import note_report
from spinescore.runtime.appliance.store.index import Index, IndexFull
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.spool import Association, Spool
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.text import brief

__all__ = ["DicomNode"]

_SOURCE = "dicom node"  # the name of its associations in the index
_AGAIN_S = 5.0  # before it is tried again to listen
_MOST_FAULTS = 1000  # that wait to be told; a peer can cause them at will


class DicomNode:
    """Listens, and stores what arrives, each object in the thread of its association; `step` is for one thread."""

    def __init__(self, config: Config, node: Node, places: Places, clock: Clock) -> None:
        self._config, self._node, self._places, self._clock = config, node, places, clock
        self._max_bytes = config.spool.max_object_mb << 20
        self._receiver: Receiver | None = None
        self._next_s = clock.now()
        self._associations: dict[int, Association] = {}
        self._ended: SimpleQueue[Association] = SimpleQueue()
        self._faults: deque[Fault] = deque(maxlen=_MOST_FAULTS)
        self._refusals: Counter[str] = Counter()  # for the metrics
        self._lock = Lock()  # of the two

    @property
    def associations(self) -> int:
        return 0 if self._receiver is None else self._receiver.associations

    @property
    def is_listening(self) -> bool:
        return self._receiver is not None and self._receiver.is_listening

    def step(self, spool: Spool) -> tuple[list[Fault], Mapping[str, int]]:
        """Listen, if that is possible. Return the faults since the last call, the last of many, and the refusals.

        If a node that listened does so no more, this process ends and is started again.
        """
        if self._receiver is None and self._clock.now() >= self._next_s:
            self._next_s = self._clock.now() + _AGAIN_S
            with suppress(IndexFull):  # a C-ECHO is answered without room, too
                spool.close_associations(_SOURCE)
            try:
                self._start()
            except OSError as error:
                where = f"{self._node.host} port {self._node.port}"
                text = f"the node cannot listen at {where} ({error.strerror or brief(error)})"
                self._note(Fault("node-unavailable", text))
        elif self._receiver is not None and not self._receiver.is_listening:
            raise SpineScoreError("the DICOM node accepts no connection any more, and is started again")
        with suppress(IndexFull):
            spool.end_late(self._ended)
        with self._lock:
            faults, refusals = list(self._faults), self._refusals
            self._faults.clear()
            self._refusals = Counter()
        return faults, refusals

    def _start(self) -> None:
        """Accept connections. Raises `OSError` if it cannot listen, or a file of its TLS settings cannot be used."""
        node = self._node
        limits = Limits(max_associations=node.max_associations, max_pdu=node.max_pdu, max_object=self._max_bytes,
                        max_memory=2 * self._max_bytes)  # fmt: skip
        tls = None if node.tls is None else server_context(node.tls)
        receiver = Receiver(node.ae_title, self._config.peer, self, host=node.host, port=node.port, tls=tls,
                            limits=limits)  # fmt: skip
        receiver.start()
        self._receiver = receiver

    def store(self, number: int, peer: Peer, parts: Sequence[bytes | memoryview]) -> None:
        """Return after an object of an association is on the disk and in the index. Raises `Refused`, `OSError`."""
        association = self._associations.setdefault(number, Association(_SOURCE, peer.ae_title))
        try:
            with self._spool() as spool:
                fault = spool.receive(parts, association).fault
        except Refused as error:
            if error.fault.code in LATER:
                self._note(error.fault)
            raise
        if fault is not None:
            self._note(fault)

    def _note(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def ready(self) -> bool:
        return self._places.has_room()

    def released(self, number: int) -> None:
        """Let the association's studies wait for it no more. What cannot be noted now is left for `step`."""
        ended = self._associations.pop(number, None)
        if ended is not None:
            try:
                with self._spool() as spool:
                    spool.end(ended)
            except (IndexFull, SpineScoreError, sqlite3.Error):
                self._ended.put(ended)

    def refused(self, peer: str, reason: str, kind: Refusal) -> None:
        """Note that a connection, an association or an object was refused. `peer` is an address, or names a peer."""
        text = f"{peer} was refused: {reason}"
        fault = Fault("dicom-fault", text) if kind == "fault" else Fault("peer-refused", text)
        with self._lock:
            self._refusals[kind] += 1
            self._faults.append(fault)

    def committed(self, peer: Peer, report: Dataset) -> None:
        """Note what an archive says that it keeps (Storage Commitment, PS3.4, annex J)."""
        note_report(self._places, self._clock, report)

    @contextmanager
    def _spool(self) -> Iterator[Spool]:
        with closing(Index(self._places.index, self._places.release_reserve)) as index:  # of this thread
            yield Spool(self._places, index, self._clock, self._max_bytes)
