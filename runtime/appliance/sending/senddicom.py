"""A DICOM archive as a destination: a C-STORE SCU (PS3.4, annex B) that asks with C-FIND before it sends again.

Result files are sent as they lie in the spool. One association serves the files that are due together; it is closed
when nothing was due for a few seconds. Each exchange has a limited time, and each association a limited number of bytes
that the archive may send: pynetdicom waits for ever if an archive takes a byte a second, and reads PDUs of any length.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.deadline import Deadline
from spinescore.runtime.appliance.fault import Unsent
from spinescore.runtime.appliance.sending.delivery import SENT, Destination, Outcome, Parcel
from spinescore.runtime.appliance.sending.storestatus import SUCCESS, outcome_of
from spinescore.runtime.reading.decoding.syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from spinescore.runtime.text import one_line

__all__ = ["SENT_CLASSES", "SENT_SYNTAXES", "Archive", "DicomDestination"]

_CLASSES: dict[str, str] = {  # by kind of result
    "sr": Comprehensive3DSRStorage,
    "gsps": GrayscaleSoftcopyPresentationStateStorage,
    "sc": SecondaryCaptureImageStorage,
}
SENT_CLASSES = tuple(_CLASSES.values())
_ASK = StudyRootQueryRetrieveInformationModelFind
SENT_SYNTAXES = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)
_SILENT_S = 30.0  # for an answer
_SLOWEST = 250_000  # bytes a second of a file that is sent: pynetdicom counts their time as silence
_EXCHANGE_S = 200.0  # from the connection to the last answer
_MOST_BYTES = 64 << 20
_IDLE_S = 5.0
_PENDING = (0xFF00, 0xFF01)
# Statuses (PS3.7, annex C; PS3.4, C.4.1.1.4) after which it makes no sense to ask again.
_NO_QUERIES = (0x0118, 0x0119, 0x0122, 0x0124, 0x0211, 0x0212, 0xA900)
_NO_COMMITMENT = (0x0118, 0x0119, 0x0122, 0x0123, 0x0211, 0x0212)


@dataclass(frozen=True)
class Archive:
    """Where an archive listens, and under which AE titles it and the node speak."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    tls: ssl.SSLContext | None = None


class DicomDestination(Destination):
    """Sends result files to one archive. Use it in one thread, and close it."""

    def __init__(
        self, name: str, archive: Archive, clock: Clock, reported: Callable[[Dataset], None] = lambda report: None
    ) -> None:
        """`reported` gets the reports of Storage Commitment that come on its associations, in another thread."""
        self._reported = reported
        self.name, self._archive, self._clock = name, archive, clock
        self._association: Association | None = None
        self._used_s = clock.now()

    def send(self, parcel: Parcel) -> Outcome:
        """Send one file. Raises `ConnectionError` if the archive does not answer, `Unsent` if it is not reached."""
        ds = dcmread(parcel.path)
        with self._exchange() as association:
            if not _accepts(association, ds.SOPClassUID):
                return Outcome("refused", f"it takes no objects of the SOP class {ds.SOPClassUID.name}")
            association.dimse_timeout = min(_EXCHANGE_S, _SILENT_S + parcel.path.stat().st_size / _SLOWEST)
            status = association.send_c_store(ds)
            association.dimse_timeout = _SILENT_S
            return outcome_of(self._answered(status))

    def holds(self, parcel: Parcel) -> bool | None:
        """Return whether the archive has the file's instance; False as well if the archive answers no questions.

        An archive that cannot be asked gets the instance again: the same bytes under the same UID.
        """
        ds = dcmread(parcel.path, stop_before_pixels=True)
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(query, keyword, ds[keyword].value)
        held: bool | None = False
        with self._exchange() as association:
            if not _accepts(association, _ASK):
                return False
            for status, identifier in association.send_c_find(query, _ASK):
                answer = self._answered(status)
                if answer in _PENDING:
                    held = held or (identifier is not None and identifier.get("SOPInstanceUID") == ds.SOPInstanceUID)
                elif answer != SUCCESS and answer not in _NO_QUERIES:
                    held = held or None
        return held

    def ask(self, parcels: Sequence[Parcel], transaction_uid: str) -> Outcome:
        """Ask the archive to confirm that it keeps these files (Storage Commitment). Raises `ConnectionError`."""
        request = Dataset()
        request.TransactionUID = transaction_uid
        request.ReferencedSOPSequence = []
        for parcel in parcels:
            item = Dataset()
            item.ReferencedSOPClassUID = _CLASSES[parcel.kind]
            item.ReferencedSOPInstanceUID = parcel.sop_instance_uid
            request.ReferencedSOPSequence.append(item)
        with self._exchange() as association:
            if not _accepts(association, StorageCommitmentPushModel):
                return Outcome("refused", "it takes no Storage Commitment; set commitment = false")
            status, _ = association.send_n_action(
                request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            answer = self._answered(status)
        if answer == SUCCESS:
            return SENT
        message = f"it answered a request for Storage Commitment with the status 0x{answer:04X}"
        if answer in _NO_COMMITMENT:
            return Outcome("refused", f"{message}; set commitment = false")
        return Outcome("later", message)

    def _take_report(self, event: evt.Event) -> tuple[int, Dataset | None]:
        self._reported(event.event_information)
        return SUCCESS, None

    def rest(self) -> None:
        """Close the association if it was not used for a while. Called when nothing is due."""
        if self._association is not None and self._clock.now() - self._used_s >= _IDLE_S:
            self.close()

    def close(self) -> None:
        association, self._association = self._association, None
        if association is not None and association.is_established:
            with Deadline(_EXCHANGE_S) as deadline:
                _watch(deadline, association)
                association.release()

    @contextmanager
    def _exchange(self) -> Iterator[Association]:
        """Yield an association for an exchange with a limited time. Raises `ConnectionError` if it is over."""
        with Deadline(_EXCHANGE_S) as deadline:
            association = self._associate(deadline)
            try:
                yield association
            except Exception:
                if deadline.is_over:
                    text = f"{self._archive.ae_title} did not finish an exchange within {_EXCHANGE_S:g} s"
                    raise ConnectionError(text) from None
                raise
            finally:
                self._used_s = self._clock.now()

    def _associate(self, deadline: Deadline) -> Association:
        """Return the open association, or a new one; the deadline watches it. Raises `Unsent`."""
        if self._association is not None and self._association.is_established:
            _watch(deadline, self._association)
            return self._association
        self._association = None
        archive = self._archive
        entity = AE(archive.calling_ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.connection_timeout = entity.network_timeout = _SILENT_S
        for sop_class in (*SENT_CLASSES, _ASK, StorageCommitmentPushModel):
            entity.add_requested_context(sop_class, list(SENT_SYNTAXES))
        tls = None if archive.tls is None else (archive.tls, archive.host)
        association = entity.associate(
            archive.host, archive.port, ae_title=archive.ae_title, tls_args=tls,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take_report), (evt.EVT_CONN_OPEN, _guard, [deadline])],
        )  # fmt: skip
        if association.is_established:
            self._association = association
            return association
        where = f"{archive.ae_title} at {archive.host}:{archive.port}"
        if association.is_rejected:
            reason = _reason(association)
            raise Unsent(f"{where} rejected the association of {archive.calling_ae_title} ({reason})")
        if association.rejected_contexts:
            raise Unsent(f"{where} takes no objects that results consist of")
        raise Unsent(f"{where} cannot be reached ({_why_not(archive)})")

    def _answered(self, status: Dataset) -> int:
        """Return the status of an answer. Raises `ConnectionError` if there is none: the outcome is unclear."""
        if "Status" not in status:
            self._association = None
            raise ConnectionError(f"{self._archive.ae_title} did not answer")
        return int(status.Status)


def _reason(association: Association) -> str:
    """Return the archive's reason for a rejection (PS3.8, table 9-21)."""
    answer = association.acceptor.primitive
    return "no reason given" if answer is None else one_line(answer.reason_str)


def _guard(event: evt.Event, deadline: Deadline) -> None:
    """Have a deadline watch a new connection, and limit the bytes that are read from it."""
    _watch(deadline, event.assoc)
    association_socket, left = event.assoc.dul.socket, _MOST_BYTES
    assert association_socket is not None
    receive = association_socket.recv

    def recv(count: int) -> bytearray:
        nonlocal left
        left -= count
        if left < 0:
            raise ConnectionError("the archive sent more than answers need")
        return receive(count)

    association_socket.recv = recv  # type: ignore[method-assign,assignment]


def _watch(deadline: Deadline, association: Association) -> None:
    """Have a deadline watch the connection of an association; one that is closed already needs no end."""
    association_socket = association.dul.socket
    connection = None if association_socket is None else association_socket.socket
    if connection is not None:
        with suppress(OSError):
            deadline.watch(socket.socket(fileno=os.dup(connection.fileno())))  # TLS sockets have no `dup`


def _why_not(archive: Archive) -> str:
    """Return why an archive cannot be reached, which pynetdicom does not tell: the network's or TLS's reason."""
    try:
        with socket.create_connection((archive.host, archive.port), timeout=_IDLE_S) as connection:
            if archive.tls is not None:
                archive.tls.wrap_socket(connection, server_hostname=archive.host).close()
    except OSError as error:
        return one_line(error.strerror or str(error))
    return "it takes connections, and does not answer a request for an association"


def _accepts(association: Association, sop_class: str) -> bool:
    return any(context.abstract_syntax == sop_class for context in association.accepted_contexts)
