"""Archives over HTTP as destinations: with DICOMweb, and Orthanc by its own REST.

DICOMweb is STOW-RS (PS3.18, section 10.5), and QIDO-RS (10.6) before a second attempt. Orthanc's REST needs no plugin
there; unlike C-STORE it has a password and passes through reverse proxies. An answer counts only if it says that the
file is stored: a login page that answers 200 has stored nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.fault import Denied
from spinescore.runtime.appliance.sending.delivery import SENT, Destination, Outcome, Parcel
from spinescore.runtime.appliance.sending.storestatus import PROCESSING_FAILURE, outcome_of
from spinescore.runtime.appliance.webclient import Answer, WebClient

__all__ = ["REFUSALS", "OrthancDestination", "StowDestination"]

_FAILED, _STORED, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
_SOP_INSTANCE_UID, _REFERENCED_UID, _FAILURE_REASON = "00080018", "00081155", "00081197"
_NOT_AUTHORIZED = 0x0124  # PS3.18, table I.2-2
_ACCEPT = {"Accept": "application/dicom+json"}
# Statuses that refuse this file; after any other one it may be stored later.
REFUSALS = (400, 406, 409, 411, 413, 415, 422)
_REFUSALS_OF_ORTHANC = (400, 413, 415)


class _WebDestination(Destination):
    """Sends result files to one server of HTTP. Use it in one thread.

    `send` and `holds` raise `ConnectionError` if the outcome is unclear, `send` also `Denied` for a wrong credential.
    """

    no_queries: tuple[int, ...]  # statuses: the server has no instance, or answers no such question

    def __init__(self, name: str, web: Web) -> None:
        self.name, self._client = name, WebClient(web)

    def query(self, parcel: Parcel) -> Answer:
        """Ask the server which objects of a file's instance it has."""
        raise NotImplementedError

    def is_named(self, parcel: Parcel, found: Any) -> bool:
        """Return whether an object in the answer is the instance."""
        raise NotImplementedError

    def holds(self, parcel: Parcel) -> bool | None:
        """Return whether the server has the instance; False as well if it may not be asked.

        A credential may be good for storing alone. If it is good for nothing, `send` says so.
        """
        try:
            answer = self.query(parcel)
        except Denied:
            return False
        if answer.status in self.no_queries:
            return False
        objects = answer.document()
        if answer.status != 200 or not isinstance(objects, list):
            return None
        return any(self.is_named(parcel, one) for one in objects)


class OrthancDestination(_WebDestination):
    """Sends result files to one Orthanc."""

    no_queries = (404, 405, 501)  # of a web server before it, too

    def send(self, parcel: Parcel) -> Outcome:
        answer = self._client.ask("POST", "/instances", parcel.path.read_bytes())
        if answer.status != 200:
            return _by_status(answer.status, _REFUSALS_OF_ORTHANC)
        document = answer.document()
        status = document.get("Status") if isinstance(document, dict) else None
        if status == "FilteredOut":
            return Outcome("refused", "its filter of incoming instances refuses the file")
        return SENT if status in ("Success", "AlreadyStored") else _not_told(answer.status)

    def query(self, parcel: Parcel) -> Answer:
        return self._client.ask("POST", "/tools/lookup", str(parcel.sop_instance_uid).encode())

    def is_named(self, parcel: Parcel, found: Any) -> bool:
        return isinstance(found, dict) and found.get("Type") == "Instance"


class StowDestination(_WebDestination):
    """Sends result files to one DICOMweb archive."""

    no_queries = (204, 400, 404, 405, 406, 501)

    def send(self, parcel: Parcel) -> Outcome:
        boundary = uuid.uuid4().hex
        head, end = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n", f"\r\n--{boundary}--\r\n"
        body = head.encode() + parcel.path.read_bytes() + end.encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        answer = self._client.ask("POST", "/studies", body, {"Content-Type": kind, **_ACCEPT})
        return _outcome(answer, str(parcel.sop_instance_uid))

    def query(self, parcel: Parcel) -> Answer:
        study, instance = quote(parcel.study_instance_uid), quote(str(parcel.sop_instance_uid))
        return self._client.ask("GET", f"/studies/{study}/instances?SOPInstanceUID={instance}", headers=_ACCEPT)

    def is_named(self, parcel: Parcel, found: Any) -> bool:
        return parcel.sop_instance_uid in _values(found, _SOP_INSTANCE_UID)


def _by_status(status: int, refusals: tuple[int, ...]) -> Outcome:
    return Outcome("refused" if status in refusals else "later", f"it answered with the HTTP status {status}")


def _not_told(status: int) -> Outcome:
    return Outcome("later", f"it answered {status} and not that it stored the file")


def _outcome(answer: Answer, uid: str) -> Outcome:
    """Return what an answer to STOW-RS means for one instance (PS3.18, tables 10.5.3-1 and I.2-1)."""
    if answer.status in (200, 202, 409):
        document = answer.document()
        failures = [*_items(document, _FAILED, uid), *_items(document, _OTHER_FAILURES)]
        if failures:
            reasons = [one for one in _values(failures[0], _FAILURE_REASON) if isinstance(one, int)]
            reason = reasons[0] if reasons else PROCESSING_FAILURE
            message = f"it may not store it (failure reason 0x{_NOT_AUTHORIZED:04X}); let it"
            return Outcome("later", message) if reason == _NOT_AUTHORIZED else outcome_of(reason)
        if answer.status != 409:
            return SENT if any(_items(document, _STORED, uid)) else _not_told(answer.status)
    return _by_status(answer.status, REFUSALS)


def _items(document: Any, tag: str, uid: str | None = None) -> Iterator[Any]:
    """Yield the items of a sequence of a DICOM JSON object (PS3.18, annex F) that refer to an instance, or all."""
    for ds in document if isinstance(document, list) else [document]:
        for item in _values(ds, tag):
            if uid is None or uid in _values(item, _REFERENCED_UID):
                yield item


def _values(ds: Any, tag: str) -> list[Any]:
    """Return the values of an element of a DICOM JSON object; none if it is not built as the standard says."""
    element = ds.get(tag) if isinstance(ds, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []
