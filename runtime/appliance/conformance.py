"""The DICOM conformance statement (PS3.2), written from the constants that negotiate: `docs/conformance.md`.

`python -m spinescore.runtime.appliance.conformance > docs/conformance.md` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.uid import UID
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from spinescore.runtime.appliance.configuration.config import Node
from spinescore.runtime.appliance.receiving.arrival import IMPLEMENTATION_CLASS_UID
from spinescore.runtime.appliance.receiving.pduguard import Limits
from spinescore.runtime.appliance.receiving.receive import CLASSES, TRANSFER_SYNTAXES
from spinescore.runtime.appliance.sending.senddicom import SENT_CLASSES, SENT_SYNTAXES
from spinescore.runtime.appliance.sending.sendstow import REFUSALS

__all__ = ["statement"]


def statement() -> str:
    """Return the conformance statement as Markdown."""
    node, limits = Node(), Limits()
    return "\n".join(
        [
            "# DICOM conformance statement",
            "",
            "The appliance (`spinescore serve`) receives radiographs, scores them and sends the results. A peer is",
            "admitted by its AE title, its address and, over TLS, its certificate; each peer has its own list of SOP",
            "classes (`[[peer]]` in the configuration).",
            "",
            "| fact | value |",
            "|---|---|",
            f"| AE title, port | `{node.ae_title}`, {node.port}; both can be configured |",
            f"| Implementation Class UID | {IMPLEMENTATION_CLASS_UID} |",
            "| Implementation Version Name | SPINESCORE |",
            f"| largest PDU received | {limits.max_pdu} bytes, configurable |",
            f"| associations at a time | {limits.max_associations}, configurable, and one of each peer always; "
            "more are rejected as transient |",
            f"| largest object | {limits.max_object >> 20} MiB, configurable |",
            f"| time for an association's request, a PDU, an object | {limits.request_s:g}, {limits.pdu_s:g}, "
            f"{limits.object_s:g} s |",
            f"| an association on which nothing moves is aborted after | {limits.idle_s:g} s |",
            "| asynchronous operations, extended negotiation | not supported |",
            "| character sets | objects are kept as they are; results have the character set of their radiograph |",
            "| security | TLS 1.2 or later, both sides with certificates (`tls`); no user identity negotiation |",
            "",
            "## As a service class provider",
            "",
            "| SOP class | UID | transfer syntaxes |",
            "|---|---|---|",
            _row(Verification, "explicit and implicit little endian"),
            *(_row(uid, "all of the next table") for uid in CLASSES.values()),
            _row(StorageCommitmentPushModel, "explicit and implicit little endian; for reports, with reversed roles"),
            "",
            *_syntaxes(TRANSFER_SYNTAXES),
            "",
            "| status of a C-STORE | meaning |",
            "|---|---|",
            "| 0000 | the object is on the disk, and cannot be lost any more |",
            "| A700 | the object cannot be kept now, mostly for lack of room; nothing of it stays, send it later |",
            "| A900 | the object's SOP class is not that of its presentation context |",
            "| C000 | the object is no DICOM object with UIDs |",
            "",
            "An object that was sent twice is stored once. An object of an accepted class that is no radiograph is",
            "kept and not scored. An object that is too large ends its association.",
            "",
            "## As a service class user",
            "",
            "| SOP class | UID | transfer syntaxes |",
            "|---|---|---|",
            *(_row(uid, "explicit and implicit little endian") for uid in SENT_CLASSES),
            _row(StudyRootQueryRetrieveInformationModelFind, "explicit and implicit little endian"),
            _row(StorageCommitmentPushModel, "explicit and implicit little endian; if configured"),
            "",
            *_syntaxes(SENT_SYNTAXES),
            "",
            "The statuses 0000, B000 to BFFF and 0111 (duplicate SOP instance) count as stored. 0110 and A7xx are",
            "tried again after 5 s to 15 min, for 7 days. Any other status parks the file. If the outcome of a C-STORE",
            "is unclear, the archive is asked with C-FIND (Study Root, level IMAGE) before the object is sent again;",
            "an archive that takes no C-FIND, or does not allow it, gets the same instance again.",
            "",
            "A report of Storage Commitment may come on the association of the request or on one that the archive",
            "opens to the node. Without a report the archive is asked again after an hour. The failure reason 0112",
            "has the instance sent again; 0119 and 0122 park it; after any other one the archive is asked again.",
            "",
            *_dicomweb(),
        ]
    )


def _dicomweb() -> list[str]:
    """Return the part about DICOMweb (PS3.18)."""
    return [
        "## As a user agent of DICOMweb",
        "",
        "| service | request | media types |",
        "|---|---|---|",
        "| Studies: Store (STOW-RS) | `POST {url}/studies`, one instance each | sent: `multipart/related;"
        ' type="application/dicom"`; accepted: `application/dicom+json` |',
        "| Studies: Search (QIDO-RS) | `GET {url}/studies/{study}/instances?SOPInstanceUID={instance}` | accepted:"
        " `application/dicom+json` |",
        "",
        "Instances are of the SOP classes above, in the transfer syntax of their file: explicit VR little endian.",
        "HTTP/1.1; TLS 1.2 or later with `https`; authorization by bearer token, user and password (Basic), or",
        "certificate. Redirects are not followed. An answer may have 4 MiB.",
        "",
        "An instance counts as stored if an answer 200 or 202 names it in the Referenced SOP Sequence (0008,1199). A",
        "Failure Reason (0008,1197), also with 409, has the meaning of the status of a C-STORE as above; after 0124",
        f"the instance is sent again. Of the other statuses {', '.join(map(str, REFUSALS))} park the file; after",
        "any other one, and if there is no answer, the archive is asked with QIDO-RS, and the instance is sent again",
        "if the archive does not have it or answers no queries. Storage Commitment is not used.",
        "",
    ]


def _row(uid: str, syntaxes: str) -> str:
    return f"| {UID(uid).name} | {uid} | {syntaxes} |"


def _syntaxes(uids: Sequence[str]) -> Iterable[str]:
    return ["| transfer syntax | UID |", "|---|---|", *(f"| {UID(uid).name} | {uid} |" for uid in uids)]


if __name__ == "__main__":
    print(statement(), end="")
