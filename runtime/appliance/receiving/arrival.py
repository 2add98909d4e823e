"""An object that arrives at the DICOM node, and the listener that keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Protocol, cast

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE

from spinescore.runtime.appliance.configuration.config import Peer
from spinescore.runtime.appliance.fault import Refusal
from spinescore.runtime.outputs.uids import stable_uid

__all__ = ["IMPLEMENTATION_CLASS_UID", "Arrival", "Events", "Mismatch", "NotStored", "arrival_of"]

IMPLEMENTATION_CLASS_UID = stable_uid("implementation class")  # of no version: a resend must give the same file


@dataclass(frozen=True)
class Arrival:
    """An object that arrived: `parts` are the bytes of its DICOM file (PS3.10), one after the other."""

    association: int  # the same for all objects of one association
    peer: Peer
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    parts: tuple[bytes | memoryview, ...]


class NotStored(Exception):
    """Raised by a store that could not keep an object for lack of room: the peer sends it again later."""


class Events(Protocol):
    """The listener of a receiver: it stores objects and notes events. Its methods are called from several threads."""

    def store(self, arrival: Arrival) -> None:
        """Return after the object is on the disk. Raises `NotStored` or `OSError` for lack of room."""

    def ready(self) -> bool:
        """Return whether there is room for another association's objects."""

    def released(self, association: int) -> None:
        """The association ended, in whatever way: its studies need not wait for it any more."""

    def refused(self, peer: str, reason: str, kind: Refusal) -> None:
        """A connection, an association or an object was refused. `peer` is an address, or an AE title with one."""

    def committed(self, peer: Peer, report: Dataset) -> None:
        """A peer says which results it keeps (Storage Commitment, PS3.4, annex J). Return after it is on the disk."""


class Mismatch(ValueError):
    """The dataset is another object than its C-STORE request says."""


def arrival_of(event: evt.Event, number: int, peer: Peer) -> Arrival:
    """Return the object of a C-STORE request. Raises `ValueError` if it is not what the request says."""
    request = cast(C_STORE, event.request)
    encoded = cast(BytesIO, request.DataSet).getbuffer()
    sop_class, instance = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
    syntax = str(event.context.transfer_syntax)
    if sop_class != str(event.context.abstract_syntax):
        raise Mismatch("the object's SOP class is not that of its presentation context")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=True)
    return Arrival(number, peer, sop_class, instance, syntax, (bytes(128) + b"DICM", head.getvalue(), encoded))
