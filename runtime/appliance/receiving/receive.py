"""The DICOM node's ears: a C-ECHO and C-STORE SCP (PS3.4, annexes A and B) that acknowledges only what is stored.

A peer is admitted by its address, its AE title and, over TLS, its certificate. It may send objects of its SOP classes,
in every transfer syntax that reading knows. The status 0x0000 is answered after the node's `store` returned, and that
returns after the object is on the disk.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, cast

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from spinescore.runtime.appliance.configuration.config import Peer, SopClassName
from spinescore.runtime.appliance.fault import LATER, Refusal, Refused, place_of
from spinescore.runtime.appliance.receiving.guard import GuardedServer
from spinescore.runtime.appliance.receiving.pduguard import Limits
from spinescore.runtime.appliance.store.index import IndexFull
from spinescore.runtime.outputs.uids import stable_uid
from spinescore.runtime.reading.decoding.syntaxes import (
    DEFLATED,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    SYNTAXES,
)
from spinescore.runtime.reading.sopclasses import SOP_CLASSES

if TYPE_CHECKING:
    from spinescore.runtime.appliance.receiving.node import DicomNode

__all__ = ["CLASSES", "IMPLEMENTATION_CLASS_UID", "TRANSFER_SYNTAXES", "Receiver"]

IMPLEMENTATION_CLASS_UID = stable_uid("implementation class")  # of no version: a resend must give the same file

_SUCCESS, _OUT_OF_RESOURCES, _WRONG_CLASS, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000  # PS3.4, table B.2-1
_UNKNOWN_CALLING, _UNKNOWN_CALLED = (1, 1, 3), (1, 1, 7)  # PS3.8, table 9-21: result, source, diagnostic
_CONGESTION, _LIMIT = (2, 3, 1), (2, 3, 2)  # both transient: the peer may try again
_NOT_NOTED, _FAILED = 0x0213, 0x0110  # PS3.7, annex C: resource limitation, processing failure
_STUCK_S = 10.0
_COMMENT_LENGTH = 64  # an Error Comment is an LO

CLASSES = {cast(SopClassName, kind.name): uid for uid, kind in SOP_CLASSES.items() if not kind.retired}
TRANSFER_SYNTAXES = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN, DEFLATED, *SYNTAXES)


@dataclass
class _Admitted:
    """An association that was admitted. Under its lock an object is stored, or its end is told, but never both."""

    peer: Peer
    number: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: bool = False


class Receiver:
    """The node's SCP on one port. Its threads end with `stop`."""

    def __init__(
        self,
        ae_title: str,
        peers: Sequence[Peer],
        events: DicomNode,
        *,
        host: str = "127.0.0.1",
        port: int = 11112,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        limits = limits or Limits()
        self._peers, self._events, self._limits = tuple(peers), events, limits
        self._admitted: dict[Association, _Admitted] = {}
        self._lock = threading.Lock()  # of `_admitted`
        self._numbers = count(1)
        entity = AE(ae_title)
        entity.maximum_pdu_size = limits.max_pdu
        entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        entity.implementation_version_name = "SPINESCORE"
        entity.maximum_associations = 1_000_000  # `_refusal` counts; pynetdicom counts connections too
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # its messages show patients' data
        self._server = GuardedServer(
            entity,
            (host, port),
            ae_title,
            _contexts(()),
            limits=limits,
            allows=self._allows,
            refused=events.refused,
            ssl_context=tls,
            evt_handlers=[
                (evt.EVT_REQUESTED, self._request),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_C_ECHO, self._echo),
                (evt.EVT_N_EVENT_REPORT, self._report),
                (evt.EVT_CONN_CLOSE, self._close),
            ],
        )
        entity._servers.append(self._server)  # its shutdown takes it from there
        self._thread = threading.Thread(target=self._server.serve_forever, name="dicom-receiver", daemon=True)

    @property
    def port(self) -> int:
        """The port that the node listens on; of use if it was asked for port 0."""
        return self._server.server_address[1]

    @property
    def associations(self) -> int:
        return sum(association.is_established for association in self._server.active_associations)

    @property
    def is_listening(self) -> bool:
        """Whether the loop that accepts connections runs and moves."""
        return self._thread.is_alive() and time.monotonic() - self._server.moved_s < _STUCK_S

    def start(self) -> None:
        self._thread.start()

    def stop(self, wait_s: float = 5.0) -> None:
        """Accept nothing more, let the open associations finish for `wait_s` seconds, then abort them."""
        self._server.shutdown()
        self._thread.join()
        end = time.monotonic() + wait_s
        while self.associations and time.monotonic() < end:
            time.sleep(0.02)
        for association in self._server.active_associations:
            association.abort()
        for association in self._server.active_associations:
            association.join(wait_s)

    def _allows(self, address: str) -> bool:
        return any(_is_of(peer, address) for peer in self._peers)

    def _request(self, event: evt.Event) -> None:
        """Admit or reject an association. Until it is admitted its association supports nothing, whatever fails."""
        association = event.assoc
        address = str(association.requestor.address)
        try:
            connection = self._server.requested(association)
            request = cast(A_ASSOCIATE, association.requestor.primitive)
            calling = request.calling_ae_title.strip()
            with self._lock:  # so that two requests do not take the last place
                refusal = self._refusal(association, address, calling, request.called_ae_title.strip(), connection)
            peer = f"{calling} at {address}"
        except Exception as error:  # pynetdicom would accept the association, and support nothing
            peer, refusal = address, (_CONGESTION, f"its request failed ({place_of(error)})", "fault")
        if refusal is not None:
            answer, reason, kind = refusal
            self._events.refused(peer, reason, kind)
            association.acse.send_reject(*answer)
            association.kill()

    def _refusal(
        self, association: Association, address: str, calling: str, called: str, connection: socket.socket
    ) -> tuple[tuple[int, int, int], str, Refusal] | None:
        """Return answer, reason and its kind if the association is refused; else note its peer and its contexts."""
        if called != association.acceptor.ae_title.strip():
            return _UNKNOWN_CALLED, f"it calls {called}, which is not this node's AE title", "title"
        peers = [peer for peer in self._peers if peer.ae_title.strip() == calling and _is_of(peer, address)]
        if not peers:
            return _UNKNOWN_CALLING, "no peer has this AE title and address", "title"
        fingerprint = _fingerprint(connection)
        peers = [peer for peer in peers if peer.cert_sha256 is None or peer.cert_sha256.lower() == fingerprint]
        if not peers:
            return _UNKNOWN_CALLING, f"its certificate ({fingerprint or 'none'}) is not the peer's", "certificate"
        holders = [one.peer for one in self._admitted.values()]
        if len(holders) >= self._limits.max_associations and peers[0] in holders:  # its first one is always accepted
            text = f"{self._limits.max_associations} associations are open, as many as the node allows"
            return _LIMIT, text, "associations"
        if not self._events.ready():
            return _CONGESTION, "there is no room for its objects", "no-space"
        self._admitted[association] = _Admitted(peers[0], next(self._numbers))
        association.acceptor.supported_contexts = _contexts(peers[0].classes)
        return None

    def _store(self, event: evt.Event) -> Dataset:
        """Answer a C-STORE request after its object is stored, or say why it is not."""
        admitted = self._admitted.get(event.assoc)
        try:
            if cast(C_STORE, event.request).AffectedSOPClassUID != event.context.abstract_syntax:
                text = "the object's SOP class is not that of its presentation context"
                return self._refuse(event.assoc, _WRONG_CLASS, text, "object")
            with nullcontext() if admitted is None else admitted.lock:
                if admitted is None or admitted.is_over:
                    return self._refuse(event.assoc, _OUT_OF_RESOURCES, "its association is over", "no-space")
                self._events.store(admitted.number, admitted.peer, _file_of(event))
            return _status(_SUCCESS)
        except Refused as error:
            is_later = error.fault.code in LATER
            status = _OUT_OF_RESOURCES if is_later else _NOT_UNDERSTOOD
            return self._refuse(event.assoc, status, error.fault.message, "no-space" if is_later else "object")
        except ValueError as error:
            return self._refuse(event.assoc, _NOT_UNDERSTOOD, str(error), "object")
        except OSError as error:
            return self._refuse(event.assoc, _OUT_OF_RESOURCES, str(error), "no-space")
        except Exception as error:  # the peer must not let go of the object
            return self._refuse(event.assoc, _OUT_OF_RESOURCES, f"storing failed ({place_of(error)})", "fault")
        finally:
            self._server.object_done(event.assoc)

    def _refuse(self, association: Association, status: int, reason: str, kind: Refusal) -> Dataset:
        self._events.refused(_name(association), reason, kind)
        return _status(status, reason)

    def _echo(self, event: evt.Event) -> int:
        """Answer a C-ECHO. Any other request of its SOP class was not served."""
        return _SUCCESS if isinstance(event.request, C_ECHO) else _FAILED

    def _report(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """Hand on a report about Storage Commitment. A failure is answered as one, so that the peer reports again."""
        try:
            self._events.committed(self._admitted[event.assoc].peer, event.event_information)
        except (OSError, IndexFull):
            return _NOT_NOTED, None
        except Exception as error:
            self._events.refused(_name(event.assoc), f"noting its report failed ({place_of(error)})", "fault")
            return _FAILED, None
        return _SUCCESS, None

    def _close(self, event: evt.Event) -> None:
        """Note the end of an association, once. An object that is being stored is stored before."""
        self._server.closed(event.assoc)
        with self._lock:
            admitted = self._admitted.pop(event.assoc, None)
        if admitted is not None:
            with admitted.lock:
                admitted.is_over = True
                try:
                    self._events.released(admitted.number)
                except Exception as error:
                    self._events.refused(_name(event.assoc), f"noting its end failed ({place_of(error)})", "fault")


def _file_of(event: evt.Event) -> tuple[bytes | memoryview, ...]:
    """Return the DICOM file (PS3.10) of a C-STORE request, in parts. Raises `ValueError` for a UID that is none."""
    request = cast(C_STORE, event.request)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(str(request.AffectedSOPClassUID))
    meta.MediaStorageSOPInstanceUID = UID(str(request.AffectedSOPInstanceUID))
    meta.TransferSyntaxUID = UID(str(event.context.transfer_syntax))
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=True)
    return bytes(128) + b"DICM", head.getvalue(), cast(BytesIO, request.DataSet).getbuffer()


def _name(association: Association) -> str:
    return f"{association.requestor.ae_title.strip()} at {association.requestor.address}"


def _is_of(peer: Peer, address: str) -> bool:
    number = ipaddress.ip_address(address)
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None  # of a node that listens on ::
    return (mapped or number) in ipaddress.ip_network(peer.host, strict=False)


def _contexts(classes: Sequence[SopClassName]) -> list[PresentationContext]:
    """Return the presentation contexts for a peer's SOP classes: one for each class and transfer syntax."""
    commitment = build_context(StorageCommitmentPushModel, [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN])
    commitment.scu_role, commitment.scp_role = False, True  # the archive reports to us: the roles are reversed
    verification = build_context(Verification, [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN])
    return [verification, commitment, *(build_context(CLASSES[name], list(TRANSFER_SYNTAXES)) for name in classes)]


def _fingerprint(connection: socket.socket) -> str | None:
    """Return the SHA-256 of the peer's certificate, hexadecimal; None without TLS or without a certificate."""
    certificate = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
    return hashlib.sha256(certificate).hexdigest() if certificate else None


def _status(status: int, reason: str = "") -> Dataset:
    answer = Dataset()
    answer.Status = status
    if reason:
        answer.ErrorComment = reason.encode("ascii", "replace").decode()[:_COMMENT_LENGTH]
    return answer
