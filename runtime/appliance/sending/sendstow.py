"""Archives with DICOMweb as destinations: STOW-RS (PS3.18, section 10.5), and QIDO-RS (10.6) before a second attempt.

The answer counts only if it names the instance: a login page that answers 200 has stored nothing.
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

__all__ = ["REFUSALS", "StowDestination"]

_FAILED, _STORED, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
_SOP_INSTANCE_UID, _REFERENCED_UID, _FAILURE_REASON = "00080018", "00081155", "00081197"
_NOT_AUTHORIZED = 0x0124  # PS3.18, table I.2-2
REFUSALS = (400, 406, 409, 411, 413, 415, 422)  # for this file; after any other status it may be stored later
_NO_QUERIES = (204, 400, 404, 405, 406, 501)  # of instances: it has none, or may not be asked
_ACCEPT = {"Accept": "application/dicom+json"}


class StowDestination(Destination):
    """Sends result files to one DICOMweb archive. Use it in one thread."""

    def __init__(self, name: str, web: Web) -> None:
        self.name, self._client = name, WebClient(web)

    def send(self, parcel: Parcel) -> Outcome:
        """Send one file. Raises `ConnectionError` if the outcome is unclear, `Denied` for a wrong credential."""
        boundary = uuid.uuid4().hex
        head, end = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n", f"\r\n--{boundary}--\r\n"
        body = head.encode() + parcel.path.read_bytes() + end.encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        answer = self._client.ask("POST", "/studies", body, {"Content-Type": kind, **_ACCEPT})
        return _outcome(answer, str(parcel.sop_instance_uid))

    def holds(self, parcel: Parcel) -> bool | None:
        """Return whether the archive has the instance; False as well if it answers no queries.

        A credential may be good for storing alone. If it is good for nothing, `send` says so.
        """
        study, instance = quote(parcel.study_instance_uid), quote(str(parcel.sop_instance_uid))
        try:
            answer = self._client.ask("GET", f"/studies/{study}/instances?SOPInstanceUID={instance}", headers=_ACCEPT)
        except Denied:
            return False
        if answer.status in _NO_QUERIES:
            return False
        instances = answer.document()
        if answer.status != 200 or not isinstance(instances, list):
            return None
        return any(parcel.sop_instance_uid in _values(one, _SOP_INSTANCE_UID) for one in instances)


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
            stored = any(_items(document, _STORED, uid))
            return SENT if stored else Outcome("later", f"it answered {answer.status} and not that it stored the file")
    message = f"it answered with the HTTP status {answer.status}"
    return Outcome("refused" if answer.status in REFUSALS else "later", message)


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
