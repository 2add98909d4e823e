"""An archive behind DICOMweb: its studies by QIDO-RS, the radiographs of one by WADO-RS.

The only module that imports dicomweb_client (the extra `archive-dicomweb`). A token in SPINESCORE_DICOMWEB_TOKEN is
sent as the bearer of each request. Only studies with projection radiographs are asked for, and only the series of these
are fetched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from spinescore.runtime.archive.layout import ArchiveError
from spinescore.runtime.archive.walk import Place
from spinescore.runtime.reading.dates import calendar_date
from spinescore.runtime.reading.facts import patient_key
from spinescore.runtime.reading.studies import load_study
from spinescore.runtime.reading.vetting import MODALITIES
from spinescore.runtime.study import Study

__all__ = ["TOKEN_VARIABLE", "Unreachable", "WebArchive", "fetch_study", "is_url"]

TOKEN_VARIABLE = "SPINESCORE_DICOMWEB_TOKEN"
_PAGE = 500  # studies of one answer
_TRIES, _PAUSE_S = 4, 2.0  # the pause doubles
_FINAL = frozenset({400, 401, 403, 404, 406, 410})  # statuses that another try would not change
_ANY_SYNTAX = (("application/dicom", "*"),)
_STUDY_UID, _STUDY_DATE, _PATIENT_ID, _ISSUER = "0020000D", "00080020", "00100020", "00100021"
_SERIES_UID, _MODALITY = "0020000E", "00080060"

T = TypeVar("T")


class Unreachable(Exception):
    """The server did not answer, or refused."""


@dataclass(frozen=True)
class WebArchive:
    """The studies of a server that have a radiograph; with `since`, those of that day or later."""

    url: str
    since: date | None = None
    kind: Literal["dicomweb"] = "dicomweb"

    @property
    def base(self) -> Path:
        return Path()

    def files(self, after: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Yield place and record of each study, after a place: the modality and the number in its answer.

        A study with two modalities comes twice. Raises ArchiveError if the server cannot be reached.
        """
        first, done = (int(after[0]), int(after[1]) + 1) if after else (0, 0)
        for modality in range(first, len(MODALITIES)):
            offset = done if modality == first else 0
            while page := self._page(MODALITIES[modality], offset):
                for number, study in enumerate(page, offset):
                    yield (modality, number), _record(study)
                offset += len(page)

    def _page(self, modality: str, offset: int) -> list[dict[str, Any]]:
        filters = {"ModalitiesInStudy": modality}
        if self.since is not None:
            filters["StudyDate"] = f"{self.since:%Y%m%d}-"
        fields = ["StudyInstanceUID", "StudyDate", "PatientID", "IssuerOfPatientID"]

        def ask() -> list[dict[str, Any]]:
            studies: list[dict[str, Any]] = _client(self.url).search_for_studies(
                limit=_PAGE, offset=offset, fields=fields, search_filters=filters
            )
            return studies

        try:
            return _tried(ask)
        except Unreachable as error:
            raise ArchiveError(
                f"the studies at {self.url} cannot be listed ({error}); the same command goes on"
            ) from error


def is_url(base: str) -> bool:
    return base.startswith(("http://", "https://"))


def fetch_study(url: str, uid: str) -> Study | None:
    """Fetch and read the radiographs of a study; None if it has none. Raises Unreachable, and InputRejected."""
    client = _client(url)

    def ask() -> list[Any]:
        datasets: list[Any] = []
        for series in client.search_for_series(uid, fields=["Modality"]):
            if _text(series, _MODALITY) in MODALITIES:
                datasets += client.retrieve_series(uid, _text(series, _SERIES_UID), media_types=_ANY_SYNTAX)
        return datasets

    datasets = _tried(ask)
    return load_study(*datasets) if datasets else None


def _tried(ask: Callable[[], T]) -> T:
    """Return an answer of the server; try again a few times if it does not come. Raises Unreachable."""
    import requests

    for tried in range(1, _TRIES + 1):
        try:
            return ask()
        except (requests.RequestException, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if tried == _TRIES or status in _FINAL:
                raise Unreachable(type(error).__name__ if status is None else f"HTTP status {status}") from error
        time.sleep(_PAUSE_S * 2 ** (tried - 1))
    raise AssertionError


@cache
def _client(url: str) -> Any:
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError as missing:
        raise ArchiveError(
            f'DICOMweb is spoken with {missing.name}, which is missing: pip install "spinescore[archive-dicomweb]"'
        ) from missing
    token = os.environ.get(TOKEN_VARIABLE)
    headers = {"Authorization": f"Bearer {token}"} if token else None
    client = DICOMwebClient(url, headers=headers)
    client.set_http_retry_params(retry=False)  # we try again ourselves, also after a broken connection
    return client


def _record(study: dict[str, Any]) -> dict[str, Any]:
    uid, patient = _text(study, _STUDY_UID), _text(study, _PATIENT_ID)
    return {
        "path": uid,
        "study": uid,
        "sop": None,
        "bytes": 0,
        "patient": None if patient is None else patient_key(patient, _text(study, _ISSUER) or ""),
        "day": calendar_date(_text(study, _STUDY_DATE) or ""),
    }


def _text(document: dict[str, Any], tag: str) -> str | None:
    """Return the first value of an element in DICOM's JSON model, if it is text."""
    values = document.get(tag, {}).get("Value") or [None]
    return values[0] if isinstance(values[0], str) else None
