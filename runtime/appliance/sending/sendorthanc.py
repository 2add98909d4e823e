"""Orthanc as a destination, by its own REST: for an Orthanc without the DICOMweb plugin, behind a web server.

Unlike C-STORE it has a password and passes through reverse proxies. Unlike STOW-RS it needs no plugin.
"""

from __future__ import annotations

from typing import Any

from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.fault import Denied
from spinescore.runtime.appliance.sending.delivery import SENT, Destination, Outcome, Parcel
from spinescore.runtime.appliance.webclient import WebClient

__all__ = ["OrthancDestination"]

_REFUSALS = (400, 413, 415)  # for this file; after any other status it may be stored later
_NO_QUERIES = (404, 405, 501)  # a web server before it lets no question through


class OrthancDestination(Destination):
    """Sends result files to one Orthanc. Use it in one thread."""

    def __init__(self, name: str, web: Web) -> None:
        self.name, self._client = name, WebClient(web)

    def send(self, parcel: Parcel) -> Outcome:
        """Send one file. Raises `ConnectionError` if the outcome is unclear, `Denied` for a wrong credential."""
        answer = self._client.ask("POST", "/instances", parcel.path.read_bytes())
        status = _field(answer.document(), "Status") if answer.status == 200 else None
        if status in ("Success", "AlreadyStored"):
            return SENT
        if status == "FilteredOut":
            return Outcome("refused", "its filter of incoming instances refuses the file")
        if answer.status == 200:
            return Outcome("later", "it answered 200 and not that it stored the file")
        message = f"it answered with the HTTP status {answer.status}"
        return Outcome("refused" if answer.status in _REFUSALS else "later", message)

    def holds(self, parcel: Parcel) -> bool | None:
        """Return whether Orthanc has the instance; None if it does not say, and False if it may not be asked."""
        try:
            answer = self._client.ask("POST", "/tools/lookup", str(parcel.sop_instance_uid).encode())
        except Denied:  # if the credential is good for nothing, `send` says so
            return False
        if answer.status in _NO_QUERIES:
            return False
        resources = answer.document()
        if answer.status != 200 or not isinstance(resources, list):
            return None
        return any(_field(one, "Type") == "Instance" for one in resources)


def _field(document: Any, name: str) -> Any:
    return document.get(name) if isinstance(document, dict) else None
