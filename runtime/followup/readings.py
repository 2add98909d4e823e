"""Grades of corners by a reader or a network: from CSV files, reports, and phantoms' truth.

CSV files are read as in `readerfiles`. Half points (0.5, 1.5, 2.5) are the mean of two readers; if the file names its
readers, a grade is the mean of any number of them. Grades are taken as they are, without the bridge rule.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spinescore.runtime.csvfile import read_csv_text
from spinescore.runtime.followup.archivefiles import is_archive, read_archive
from spinescore.runtime.followup.readerfiles import check_probabilities, graded_studies
from spinescore.runtime.jsonfile import json_lines, parse_json
from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.scoring.report import SCHEMA, StudyReport
from spinescore.runtime.study import ALL_SITES

__all__ = ["Format", "Reading", "Readings", "ReadingsError", "read_readings"]

Format = Literal["csv", "reports", "truth"]

_TRUTH = "spinescore.truth/1"
_STEP = 0.5  # of grades
_MAX_BYTES = 256 << 20
_LONGEST = 2000  # characters of a message


class ReadingsError(ValueError):
    """A file that does not hold readings; the message has its name and line, and is cut to a readable length."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..")


@dataclass(frozen=True)
class Reading:
    """One corner: grade 0-3 or a mean of these, None if not graded; probabilities of the four grades if known."""

    grade: float | None
    probabilities: tuple[float, ...] | None = None


@dataclass
class Readings:
    """All corners of one source: study -> site -> reading; patients and dates (YYYYMMDD) by study, if known.

    The grades of a report that a reader corrected are the corrected ones.
    """

    name: str
    format: Format = "csv"
    corners: dict[str, dict[str, Reading]] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    corrected: list[str] = field(default_factory=list)  # studies whose report a reader corrected

    def add(self, study: str, site: str, reading: Reading) -> None:
        """Add one corner. Raises ReadingsError (without a place) if it is invalid."""
        if not study:
            raise ReadingsError("the study has no name")
        if site not in ALL_SITES:
            raise ReadingsError(f"{site!r} is no site; sites are C2-inferior .. S1-superior")
        if reading.grade is not None and (reading.grade / _STEP) not in range(int(MAX_GRADE / _STEP) + 1):
            raise ReadingsError(f"{reading.grade!r} is no grade; grades are 0 to 3 in steps of {_STEP}, or None")
        if reading.probabilities is not None:
            try:
                check_probabilities(reading.probabilities)
            except ValueError as error:
                raise ReadingsError(str(error)) from error
        sites = self.corners.setdefault(study, {})
        if site in sites:
            raise ReadingsError(f"{site} of study {study} stands there twice; leave one row for each corner")
        sites[site] = reading

    def describe(self, study: str, patient: str | None, date: str | None) -> None:
        """Set a study's patient and date. Raises ReadingsError if they contradict earlier ones."""
        for earlier, value, kind in ((self.patients, patient, "patients"), (self.dates, date, "dates")):
            if value and earlier.setdefault(study, value) != value:
                raise ReadingsError(f"study {study} has two {kind}, {earlier[study]} and {value}; a study has one")


def read_readings(path: str | Path) -> Readings:
    """Read a CSV file, a report, JSON Lines of reports, a phantom's `truth.json`, or a folder of the JSON kinds.

    A folder may also hold the tables of `spinescore archive`, which the extra `parquet` reads. In another folder, JSON
    files of other kinds are skipped, and truth counts only if there is no report. Raises ReadingsError, naming file and
    line, for anything else.
    """
    path = Path(path)
    if is_archive(path):
        return _read_archive(path)
    if path.is_dir():
        return _read_folder(path)
    readings = Readings(path.name)
    text = _text(path)
    if text.lstrip().startswith("{"):
        _add_documents(readings, list(_documents(path.name, text)))
    else:
        _add_csv(readings, text)
    if not readings.corners:
        raise ReadingsError(f"{path.name}: there is no corner in it")
    return readings


def _read_folder(folder: Path) -> Readings:
    readings = Readings(folder.name or str(folder))
    documents: list[tuple[str, Any]] = []
    for file in sorted(_files(folder)):
        documents.extend(_documents(file.relative_to(folder).as_posix(), _text(file)))
    usable = [(place, document) for place, document in documents if _kind(document) is not None]
    reports = [(place, document) for place, document in usable if _kind(document) == "reports"]
    if not usable:
        raise ReadingsError(f"{readings.name}: there is no report in this folder (report.json, JSON Lines, truth.json)")
    _add_documents(readings, reports or usable)
    return readings


def _files(folder: Path) -> Iterator[Path]:
    """Yield the JSON files of a folder. Raises ReadingsError if it, or a folder in it, cannot be read."""

    def refuse(error: OSError) -> None:
        raise ReadingsError(f"{folder.name}: {error.filename} cannot be read ({error.strerror})")

    for parent, _, names in os.walk(folder, onerror=refuse):
        paths = (Path(parent, name) for name in names)
        yield from (path for path in paths if path.suffix.lower() in (".json", ".jsonl") and path.is_file())


def _read_archive(folder: Path) -> Readings:
    """Read the tables of `spinescore archive`."""
    readings = Readings(folder.name or str(folder), "reports")
    for place, report in read_archive(folder):
        if isinstance(report, ValueError):
            raise ReadingsError(f"{folder.name}: {report}")
        try:
            _add_grades(readings, report)
        except ReadingsError as error:
            raise ReadingsError(f"{folder.name}/{place}: {error}") from error
    if not readings.corners:
        raise ReadingsError(f"{folder.name}: there is no study in its tables")
    return readings


def _text(path: Path) -> str:
    return read_csv_text(path, path.name, _MAX_BYTES, ReadingsError)


def _add_csv(readings: Readings, text: str) -> None:
    for (study, _), graded in graded_studies(text, readings.name, ReadingsError, _STEP).items():
        patient = graded.facts.get("patient") or graded.facts.get("patient_key")
        if study in readings.corners:
            raise ReadingsError(f"{readings.name}: study {study} has grades of several bundles; leave one bundle's")
        readings.describe(study, patient, graded.facts.get("study_date"))
        means = graded.means()
        readings.corners[study] = {site: Reading(means[site], graded.probabilities.get(site)) for site in means}
        readings.corrected += [study] * graded.is_corrected


# ---- reports, and the truth of phantoms


def _documents(name: str, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the JSON documents of a file (one in all, or one a line), each with its place."""
    lines = {f"{name}, line {number}": line for number, line in json_lines(text)}
    for place, part in (lines or {name: text}).items():
        try:
            document = parse_json(part)
        except ValueError as error:
            raise ReadingsError(f"{place}: {error}; it is neither JSON nor JSON Lines") from error
        yield place, document


def _kind(document: Any) -> Format | None:
    schema = document.get("schema") if isinstance(document, dict) else None
    return "reports" if schema == SCHEMA else "truth" if schema == _TRUTH else None


def _add_documents(readings: Readings, documents: Sequence[tuple[str, Any]]) -> None:
    for place, document in documents:
        kind = _kind(document)
        if kind is None:
            raise ReadingsError(f"{place}: this is neither a report of spinescore nor the truth of a phantom")
        readings.format = kind
        try:
            if kind == "reports":
                _add_grades(readings, StudyReport.from_json(json.dumps(document)))
            else:
                _add_truth(readings, document)
        except ReadingsError as error:
            raise ReadingsError(f"{place}: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ReadingsError(f"{place}: the document is incomplete or damaged ({error})") from error


def _add_grades(readings: Readings, report: StudyReport) -> None:
    corners = [corner for region in report.regions.values() for disc in region.discs for corner in disc.corners]
    sites = {corner.site: Reading(corner.grade, corner.probabilities) for corner in corners}
    _add_study(readings, report.study.study_instance_uid, sites)
    if report.corrections:
        readings.corrected.append(str(report.study.study_instance_uid))
    readings.describe(str(report.study.study_instance_uid), report.study.patient_key, report.study.study_date)


def _add_truth(readings: Readings, document: Any) -> None:
    discs = [disc for region in document["regions"].values() for disc in region["discs"]]
    sites = {corner["site"]: Reading(corner["grade"]) for disc in discs for corner in disc["corners"]}
    _add_study(readings, document["study"]["study_instance_uid"], sites)


def _add_study(readings: Readings, study: str | None, readings_by_site: Mapping[str, Reading]) -> None:
    """Add all 24 sites of a study; sites of a region that was not scored have no grade."""
    if not study:
        raise ReadingsError("it names no study (no study instance UID), so that it cannot be matched; use a CSV file")
    if study in readings.corners:
        raise ReadingsError(f"there are two reports of study {study}; leave one")
    for site in (*ALL_SITES, *(site for site in readings_by_site if site not in ALL_SITES)):
        readings.add(study, site, readings_by_site.get(site, Reading(None)))
