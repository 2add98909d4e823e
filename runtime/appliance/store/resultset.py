"""A study's results as one folder that is written once and never changed: scored or not, with a list of its files.

The folder has the name of the study's `input_key`. It appears whole, with everything in it on the disk. `set.json`
(`spinescore.result-set/1`) lists the files. Its DICOM objects are sent as they are here: made again after an update of
the software they would have other UIDs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from spinescore.runtime import durable
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.store.places import new_part
from spinescore.runtime.codes import CODES
from spinescore.runtime.documents import document_of, read
from spinescore.runtime.errors import InputRejected, OutputError
from spinescore.runtime.fields import OPTIONAL, Length
from spinescore.runtime.files import file_sha256
from spinescore.runtime.jsonfile import read_json
from spinescore.runtime.outputs.dicomobjects import write_dicom
from spinescore.runtime.outputs.formats import FORMATS, ResultFormat, write_file
from spinescore.runtime.outputs.structured import structured_report
from spinescore.runtime.reading.studies import load_study
from spinescore.runtime.scoring.correction import Correction, correct, keypoints_of, left_behind
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.study import Study

__all__ = ["NOT_SCORED", "SET", "Document", "Job", "JobFault", "JobObject", "ResultFile", "ResultSet", "Score",
           "load_objects", "make_results", "outcome_of", "read_results", "score_corrected",
           "write_formats"]  # fmt: skip

SCHEMA: Literal["spinescore.result-set/1"] = "spinescore.result-set/1"
SET, NOT_SCORED = "set.json", "not-scored.json"

_Text = Annotated[str, Length(0, 8192)]
Score = Callable[..., StudyReport]  # of a study; also takes options of `Scorer.score`
Beat = Callable[[str], None]  # says that work goes on, and which step begins


@dataclass(frozen=True)
class Document:
    """The DICOM structured report of a revision, as a later one names its predecessor (0040,A360)."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class JobObject:
    sha256: str
    path: str


@dataclass(frozen=True)
class Job:
    """One revision of a study to score; `results` and `incoming` are folders of the spool.

    `corrections` by readers count in it; `seen` is the report that the last of them saw, if it is still there. Those
    that are `left` were of an earlier revision, and do not count.
    """

    study: int
    study_instance_uid: str
    revision: int
    input_key: str
    objects: tuple[JobObject, ...]
    formats: tuple[ResultFormat, ...]
    predecessor: Document | None
    predecessor_folder: str | None  # with the files of the predecessor, if they are still there
    results: str
    incoming: str
    corrections: Annotated[tuple[Correction, ...], OPTIONAL] = ()
    left: Annotated[tuple[Correction, ...], OPTIONAL] = ()
    seen: Annotated[str | None, OPTIONAL] = None


@dataclass(frozen=True)
class ResultFile:
    name: str
    kind: str
    sha256: str
    sop_instance_uid: str | None


@dataclass(frozen=True)
class ResultSet:
    """`code` and `message` say why a study was not scored; `not_made` has a sentence for each format that failed."""

    schema: Literal["spinescore.result-set/1"]
    input_key: str
    study_instance_uid: str
    revision: int
    scored: bool
    code: str | None
    message: _Text | None
    predecessor: Document | None
    document: Document | None
    not_made: Mapping[str, _Text]
    files: tuple[ResultFile, ...]


class JobFault(Exception):
    """A study that cannot be scored now, for a reason that is not in its pictures."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def make_results(job: Job, score: Score, beat: Beat) -> None:
    """Score a study and write its results. Raises JobFault, and whatever `score` and the disk raise.

    If the results are there already, nothing is done.
    """
    final = Path(job.results) / job.input_key
    if final.is_dir():
        return
    part = new_part(Path(job.incoming), ".results")
    part.mkdir(mode=0o700)
    try:
        study, report, code, message = _score(job, score, beat)
        not_made = {}
        if report is not None and study is not None:
            not_made = write_formats(part, job.formats, study, report, beat, job.predecessor)
            _take_over(part, job)
        if code is not None:
            text = {"schema": "spinescore.not-scored/1", "study_instance_uid": job.study_instance_uid, "code": code,
                    "message": message, "next_step": CODES[code].next_step}  # fmt: skip
            (part / NOT_SCORED).write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
        beat("write")
        files, document = _files(part, job.formats)
        results = ResultSet(SCHEMA, job.input_key, job.study_instance_uid, job.revision, code is None, code,
                            message, job.predecessor, document, not_made, files)  # fmt: skip
        (part / SET).write_text(json.dumps(document_of(results), indent=2) + "\n", encoding="utf-8")
        durable.sync_tree(part)
        durable.move(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_results(folder: Path) -> ResultSet:
    """Return the list of a folder with results. Raises `OSError` or `ValueError`."""
    return read(ResultSet, read_json(folder / SET))


def _score(job: Job, score: Score, beat: Beat) -> tuple[Study | None, StudyReport | None, str | None, str | None]:
    """Return the study and its report, and code and message of the reason if no region was scored."""
    try:
        study = load_objects(job.objects, beat)
        beat("score")
        report = score_corrected(study, job.corrections, job.seen, score)
    except InputRejected as error:
        return None, None, error.code, str(error)
    report = left_behind(report, job.left) if job.left else report
    code, message = outcome_of(report) or (None, None)
    return study, report, code, message


def load_objects(objects: Sequence[JobObject], beat: Beat) -> Study:
    """Return the study of objects in the spool. Raises JobFault, InputRejected."""
    beat("read")
    for one in objects:
        try:
            digest = file_sha256(one.path)
        except FileNotFoundError:
            text = "a radiograph of the study is not in the spool any more; have the study sent again"
            raise JobFault(Fault("object-missing", text)) from None
        if digest != one.sha256:
            text = f"the object {one.sha256}.dcm is damaged on the disk; check the disk, and have the study sent again"
            raise JobFault(Fault("object-damaged", text))
    return load_study(*(one.path for one in objects))


def score_corrected(study: Study, corrections: Sequence[Correction], seen: str | None, score: Score) -> StudyReport:
    """Return the report of a study with corrections; `seen` is the file of the report that their last reader saw.

    Raises JobFault if a correction does not fit, and whatever `score` raises.
    """
    if not corrections:
        return score(study)
    keypoints = keypoints_of(corrections)
    report = score(study, keypoints=keypoints) if keypoints else score(study)
    try:
        before = None if seen is None else StudyReport.from_json(Path(seen).read_bytes())
    except (OSError, ValueError):  # it was removed after its time
        before = None
    try:
        return correct(report, corrections, before=before)
    except ValueError as error:
        text = f"the reader's correction does not fit the study as it is scored now ({error}); correct it anew"
        raise JobFault(Fault("correction-refused", text)) from None


def outcome_of(report: StudyReport) -> tuple[str, str] | None:
    """Return code and message of the reason if no region was scored; None if one was."""
    if any(region.status == "scored" for region in report.regions.values()):
        return None
    rejects = [*(region.reject for region in report.regions.values() if region.reject), *report.rejects]
    if rejects:
        return rejects[0].code, rejects[0].message
    return "no-image", "the study holds no radiograph that can be scored"


def write_formats(
    part: Path, formats: Sequence[ResultFormat], study: Study, report: StudyReport, beat: Beat,
    predecessor: Document | None = None,
) -> dict[str, str]:  # fmt: skip
    """Write the files of all formats; return a sentence for each format that cannot be made of this study.

    The structured report names its `predecessor`.

    `outputs.write_results` does the same for people, but does not tell a full disk from a format that cannot be made.
    """
    not_made: dict[str, str] = {}
    created = datetime.now(timezone.utc).replace(tzinfo=None)
    for name in formats:
        beat(name)
        try:
            if name == "sr":
                write_dicom(part / FORMATS["sr"].file, _report(predecessor, study, report, created))
                continue
            for file, content in FORMATS[name].files(study, report, created).items():
                write_file(part / file, content)
        except OutputError as error:
            not_made[name] = str(error)
    return not_made


def _report(before: Document | None, study: Study, report: StudyReport, created: datetime) -> Any:
    """Return the structured report; it names the report of the revision that it replaces (PS3.3 C.17.2.3)."""
    from pydicom.dataset import Dataset

    ds = structured_report(study, report, created=created)
    if before is not None and before.sop_instance_uid != ds.SOPInstanceUID:
        reference, series, item = Dataset(), Dataset(), Dataset()
        reference.ReferencedSOPClassUID = before.sop_class_uid
        reference.ReferencedSOPInstanceUID = before.sop_instance_uid
        series.SeriesInstanceUID, series.ReferencedSOPSequence = before.series_instance_uid, [reference]
        item.StudyInstanceUID, item.ReferencedSeriesSequence = ds.StudyInstanceUID, [series]
        ds.PredecessorDocumentsSequence = [item]
    return ds


def _take_over(part: Path, job: Job) -> None:
    """Replace DICOM files by those of the predecessor that have their UID: one UID never stands for two contents."""
    if job.predecessor_folder is None or not Path(job.predecessor_folder).is_dir():
        return
    for path in part.glob("*.dcm"):
        before = Path(job.predecessor_folder) / path.name
        if before.exists() and _uids(before) == _uids(path):
            shutil.copyfile(before, path)


def _files(part: Path, formats: Sequence[ResultFormat]) -> tuple[tuple[ResultFile, ...], Document | None]:
    """Return the files of a folder, and the structured report among them."""
    files, document = [], None
    for path in sorted(part.iterdir()):
        kind = "not-scored" if path.name == NOT_SCORED else _kind(path.name, formats)
        uids = _uids(path) if path.suffix == ".dcm" else None
        files.append(ResultFile(path.name, kind, file_sha256(path), uids.sop_instance_uid if uids else None))
        document = uids if kind == "sr" else document
    return tuple(files), document


def _kind(name: str, formats: Sequence[ResultFormat]) -> str:
    return next(kind for kind in formats if name.startswith(FORMATS[kind].file.partition("{")[0].removesuffix(".dcm")))


def _uids(path: Path) -> Document:
    from pydicom import dcmread

    ds = dcmread(path, stop_before_pixels=True)
    return Document(str(ds.SeriesInstanceUID), str(ds.SOPClassUID), str(ds.SOPInstanceUID))
