"""Archives over DICOM that never finish: each takes an association, or its connection, and then its time."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import SecondaryCaptureImageStorage

from spinescore.runtime.appliance.sending.delivery import Parcel

Prepare = Callable[[threading.Event], dict]


def capture_parcel(folder: Path, size: int = 2) -> Parcel:
    """A secondary capture with so many bytes of pixels, to deliver."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3.4.7"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.3.4", "1.2.3.4.5", "OT"
    ds.BitsAllocated, ds.PixelRepresentation, ds.PixelData = 8, 0, bytes(size)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(folder / "sc.dcm", enforce_file_format=True)
    return Parcel(folder / "sc.dcm", "sc", "", "1.2.3.4.7", "1.2.3.4", 1)


def sip(end: threading.Event) -> dict:
    """Handlers of an archive that reads a byte every 20 ms after it has taken the association."""

    def take(event) -> None:
        line = event.assoc.dul.socket
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        read = line.recv

        def recv(count: int) -> bytearray:
            got = bytearray()
            while len(got) < count and not end.wait(0.02):
                got += read(1) or bytes(count)
            return got

        line.recv = recv

    return {evt.EVT_ACCEPTED: take}


def ignore(end: threading.Event) -> dict:
    """Handlers of an archive that never answers a C-STORE."""

    def store(event) -> int:
        end.wait()
        return 0

    return {evt.EVT_C_STORE: store}


def go_on(end: threading.Event) -> dict:
    """Handlers of an archive whose answers to a C-FIND have no end."""

    def find(event):
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE"
        while not end.wait(0.01):
            yield 0xFF00, identifier

    return {evt.EVT_C_FIND: find}


@contextlib.contextmanager
def slow_archive(prepare: Prepare, *classes: str) -> Iterator[tuple[str, int]]:
    """Yield the address of an archive with these handlers, which give up at the end."""
    end, entity = threading.Event(), AE("PACS")
    for sop_class in classes:
        entity.add_supported_context(sop_class)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(prepare(end).items()))
    try:
        yield server.server_address
    finally:
        end.set()
        server.shutdown()


@contextlib.contextmanager
def listening(act: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Yield a port whose one connection is served by `act` in a thread, until the other side or the test ends."""
    end = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                act(connection, end)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        end.set()
        thread.join(10)
    assert not thread.is_alive()


def drip_tls(connection: socket.socket, end: threading.Event) -> None:
    """Begin a handshake that has no end: a record of 16 KiB, a byte every 50 ms."""
    connection.sendall(b"\x16\x03\x03\x40\x00")
    drip(connection, end)


def drip(connection: socket.socket, end: threading.Event) -> None:
    """Send a byte every 50 ms."""
    while not end.wait(0.05):
        connection.sendall(b"\x02")


def claim(connection: socket.socket, end: threading.Event) -> None:
    """Answer a request for an association with a PDU that claims 3 GiB, and send of it as much as is taken."""
    connection.recv(65536)
    connection.sendall(b"\x02\x00\xc0\x00\x00\x00")
    while not end.is_set():
        connection.sendall(bytes(1 << 20))


def sip_bytes(connection: socket.socket, end: threading.Event) -> None:
    """Read a byte every 20 ms."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while not end.wait(0.02):
        connection.recv(1)
