"""A DICOM node on a free port of the loopback interface, with what it tells, and clients of pynetdicom and of TLS."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import threading
from pathlib import Path
from typing import get_args

import pydicom
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation

from spinescore.runtime.appliance.configuration.config import Peer, Tls
from spinescore.runtime.appliance.fault import Refusal
from spinescore.runtime.appliance.network import client_context
from spinescore.runtime.appliance.receiving.receive import Receiver

MODALITY = Peer("MODALITY", "127.0.0.1", classes=("DX", "CR"))
DX = DigitalXRayImageStorageForPresentation


class Heard:
    """Keeps what a receiver tells; `full` and `room` imitate a disk without room."""

    def __init__(self) -> None:
        self.files: list[tuple[int, bytes]] = []  # the number of each one's association, and its content
        self.refusals: list[tuple[str, str]] = []
        self.ended: list[int] = []
        self.reports: list[Dataset] = []
        self.full: Exception | None = None
        self.room: bool | Exception = True
        self.end = threading.Event()
        self.refusal = threading.Event()

    def store(self, number: int, peer: Peer, parts) -> None:
        if self.full:
            raise self.full
        self.files.append((number, b"".join(parts)))

    def ready(self) -> bool:
        if isinstance(self.room, Exception):
            raise self.room
        return self.room

    def released(self, association: int) -> None:
        self.ended.append(association)
        self.end.set()

    def refused(self, peer: str, reason: str, kind: str) -> None:
        assert kind in get_args(Refusal)
        self.refusals.append((peer, reason))
        self.refusal.set()

    def committed(self, peer: Peer, report: Dataset) -> None:
        if self.full:
            raise self.full
        self.reports.append(report)


@contextlib.contextmanager
def node(*peers: Peer, **settings):
    """A receiver on a free port of the loopback interface, with what it tells."""
    heard = Heard()
    receiver = Receiver("SPINESCORE", peers or (MODALITY,), heard, **{"port": 0, **settings})
    receiver.start()
    try:
        yield receiver, heard
    finally:
        receiver.stop(0.5)


@contextlib.contextmanager
def associated(receiver: Receiver, *contexts, calling="MODALITY", called="SPINESCORE", host="127.0.0.1", **settings):
    """An association of pynetdicom's own SCU, closed at the end."""
    entity = AE(calling)
    for context in contexts or (DX,):
        entity.add_requested_context(*(context if isinstance(context, tuple) else (context,)))
    association = entity.associate("127.0.0.1", receiver.port, ae_title=called, bind_address=(host, 0), **settings)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.is_alive():
            association.join(10)


def object_of(path: Path) -> Dataset:
    return pydicom.dcmread(path)


def tls_of(folder: Path, name: str) -> Tls:
    return Tls(*(str(folder / file) for file in (f"{name}.pem", f"{name}.key", "ca.pem")))


def client(folder: Path, name: str | None) -> tuple[ssl.SSLContext, str]:
    """The TLS arguments of a client that has a certificate, or none."""
    context = client_context(tls_of(folder, name or "client"))
    if name is None:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
    return context, "localhost"


def sha256_of(certificate: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
