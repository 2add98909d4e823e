"""One study of an archive to rows of the tables, in the process that holds the scorer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

from spinescore.runtime.archive.dicomweb import Unreachable, fetch_study, is_url
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.archive.walk import check_there
from spinescore.runtime.errors import InputRejected, OutputError
from spinescore.runtime.files import file_sha256
from spinescore.runtime.followup.archivetables import Row, bundle_cells, rows_of
from spinescore.runtime.names import BuildMode, DeviceName, EngineName, PrecisionName
from spinescore.runtime.outputs.formats import ResultFormat
from spinescore.runtime.outputs.results import write_results
from spinescore.runtime.reading.facts import patient_key
from spinescore.runtime.reading.studies import load_study
from spinescore.runtime.scorer import Scorer
from spinescore.runtime.scoring.bundleinfo import bundle_info
from spinescore.runtime.scoring.report import BundleInfo, StudyInfo
from spinescore.runtime.study import Study

__all__ = ["Request", "not_scored", "parsed_rows", "read_entry", "replaced", "rows_of_entry"]

_MOST_SHIFT_DAYS = 365
_NO_BUDGET_MS = 1e9


@dataclass(frozen=True)
class Request:
    """The settings of a process that scores, beside the studies."""

    bundle: str
    device: DeviceName
    engine: EngineName | None
    precision: PrecisionName | None
    localizer: str | None
    max_imputed: int
    unaccepted: bool
    build: BuildMode
    threads: int | None
    strict: bool
    identifiers: bool
    base: str  # the folder to which the studies' paths are relative, or the address of a server
    formats: tuple[ResultFormat, ...] = ()


def read_entry(entry: Entry, base: str) -> Study | str:
    """Read a study from files or from a server, or return the code of the reason why it cannot be read.

    Raises ArchiveError if the folder `base` is gone.

    All files could be read when they were listed. So a study with one that cannot is not scored, and neither is one
    whose files are of another study now.
    """
    if entry.code is not None:
        return entry.code
    try:
        study = fetch_study(base, entry.files[0]) if is_url(base) else _load(entry, Path(base))
    except InputRejected as fault:
        return fault.code
    except Unreachable:
        return "source-unreachable"
    except OSError:
        check_there(base)
        return "file-unreadable"
    if study is None:
        return "no-image"
    return study if study.study_instance_uid in (None, entry.study) else "several-studies"


def _load(entry: Entry, base: Path) -> Study:
    """Read a study's files. Raises InputRejected, and OSError if a file cannot be read."""
    first, *more = (base / path for path in entry.files)
    try:
        study = load_study(first, *more)
    except ValueError as error:
        raise FileNotFoundError("none of its files is there any more") from error
    for path in (first, *more) if study.rejects else ():
        file_sha256(path)
    return study


def rows_of_entry(
    entry: Entry, study: Study | str, scorer: Scorer, request: Request, out: str | None
) -> tuple[list[Row], str | None]:
    """Score what `read_entry` returned, and return its rows as JSON has them.

    Its results are written into a folder below `out` if there is one; the second value is a message if that fails.
    Raises whatever the scorer raises but InputRejected.
    """
    unwritten: str | None = None

    def without_grades(code: str) -> tuple[list[Row], str | None]:
        return _json_rows([not_scored(entry, code, bundle_info(scorer.bundle), request.identifiers)]), unwritten

    if isinstance(study, str):
        return without_grades(study)
    # A budget of the bundle's own would make results depend on the time.
    budget_ms = None if scorer.bundle.manifest.budget_ms is None else _NO_BUDGET_MS
    try:
        report = scorer.score(study, budget_ms, strict=request.strict)
    except InputRejected as fault:
        return without_grades(fault.code)
    shown = _shown(entry, request.identifiers)
    if out is not None:
        folder = Path(out) / (shown.study_instance_uid or f"number-{entry.number}")
        try:
            write_results(study, report, folder, formats=request.formats)
        except OutputError as error:
            unwritten = str(error)
    if any(region.status == "scored" for region in report.regions.values()):
        return _json_rows(rows_of(replace(report, study=shown))), unwritten
    rejects = [*(region.reject for region in report.regions.values() if region.reject), *report.rejects]
    return without_grades(rejects[0].code if rejects else "no-image")


def not_scored(entry: Entry, code: str, bundle: BundleInfo, identifiers: bool) -> Row:
    """Return the row of a study or file that was not scored."""
    shown = _shown(entry, identifiers)
    cells = {
        "row": "not-scored",
        "study_instance_uid": shown.study_instance_uid,
        "patient_key": shown.patient_key,
        "study_date": None if shown.study_date is None else datetime.strptime(shown.study_date, "%Y%m%d").date(),
        **bundle_cells(bundle),
        "code": code,
        "path": _text(entry.files[0]) if identifiers else None,
    }
    return {column: cell for column, cell in cells.items() if cell is not None}


def _shown(entry: Entry, identifiers: bool) -> StudyInfo:
    """Return the identity of a study for the tables, as its headers state it or replaced."""
    identity = StudyInfo(None if entry.study is None else _text(entry.study), entry.day, entry.patient)
    return identity if identifiers else replaced(identity)


def _text(name: str) -> str:
    """Return a name for a table, which holds only Unicode: its other bytes are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def replaced(identity: StudyInfo) -> StudyInfo:
    """Return an identity with the study's UID replaced, and its day moved with all days of the patient.

    The replacements are keyed like `patient_key` (DICOM PS3.15 E.3.6, and 2.25 of PS3.5 B.2), so that studies of one
    patient stay together and intervals stay what they are.
    """
    uid, day, patient = identity.study_instance_uid, identity.study_date, identity.patient_key
    if day is not None:
        shift = 1 + int(patient_key(patient or uid or "", "spinescore days"), 16) % _MOST_SHIFT_DAYS
        moved = datetime.strptime(day, "%Y%m%d").toordinal() - shift
        day = date.fromordinal(moved).isoformat().replace("-", "") if moved > 0 else None
    new = None if uid is None else f"2.25.{int(patient_key(uid, 'spinescore study'), 16)}"
    return StudyInfo(new, day, patient)


def _json_rows(rows: list[Row]) -> list[Row]:
    """Return rows for JSON: days as text."""
    return [{**row, "study_date": row["study_date"].isoformat()} if "study_date" in row else row for row in rows]


def parsed_rows(rows: list[Row], number: int) -> list[Row]:
    """Return rows that were JSON, with the number of their study: the inverse of `_json_rows`."""
    days = ({"study_date": date.fromisoformat(row["study_date"])} if "study_date" in row else {} for row in rows)
    return [{"number": number, **row, **day} for row, day in zip(rows, days, strict=True)]
