"""Studies that were scored from DICOM files, their results as DICOM objects, and dciodvfy's judgement of these."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from helpers import tiny, tiny_study
from spinescore.runtime import Scorer, Study, StudyReport, load_study
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.outputs.dicomobjects import write_dicom
from spinescore.runtime.outputs.presentation import presentation_states
from spinescore.runtime.outputs.secondary import secondary_captures
from spinescore.runtime.outputs.structured import structured_report
from spinescore.runtime.scoring.report import DiscReport

WHEN = datetime(2026, 1, 6, 12, 30, 15)


def _structured_reports(study, report, *, created=None) -> list[Dataset]:
    return [structured_report(study, report, created=created)]


KINDS = {"sr": _structured_reports, "gsps": presentation_states, "sc": secondary_captures}
PATIENT = {
    "PatientName": "Müller^Anna",
    "PatientID": "P-1",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "SpecificCharacterSet": "ISO_IR 100",
    "AccessionNumber": "A-7",
    "StudyTime": "101500",
}

needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian's dicom3tools)"
)


@dataclass(frozen=True, eq=False)
class Case:
    study: Study
    report: StudyReport
    bundle: Bundle
    _made: dict = field(default_factory=dict, init=False)

    def made(self, kind: str, created: datetime = WHEN) -> list[Dataset]:
        """The results of one kind, made once."""
        if (kind, created) not in self._made:
            self._made[kind, created] = KINDS[kind](self.study, self.report, created=created)
        return self._made[kind, created]


def score(folder: Path, scorer: Scorer, blank: str | None = None, regions=("cervical", "lumbar"), **tags) -> Case:
    """Score a study of files; `blank` is a region whose radiograph shows nothing, `tags` go into the headers."""
    tiny_study.write_study(folder, regions=regions)
    for path in folder.iterdir():
        _rewrite(path, {**PATIENT, **tags}, path.stem == blank)
    study = load_study(folder)
    return Case(study, scorer.score(study), scorer.bundle)


def _rewrite(path: Path, tags: dict, blank: bool) -> None:
    ds = dcmread(path)
    with warnings.catch_warnings():  # pydicom warns of values that are not valid
        warnings.simplefilter("ignore")
        for keyword, found in tags.items():
            if found is not None:
                setattr(ds, keyword, found)
            elif keyword in ds:
                delattr(ds, keyword)
        if blank:
            ds.PixelData = bytes(len(ds.PixelData))
        ds.save_as(path)


def on_header(scorer: Scorer, header: Dataset | None, **fields) -> Case:
    """The cervical radiograph with another file's header."""
    drawn = tiny.draw("cervical", tiny_study.GRADES).radiograph
    uids = {} if header is None else {"sop_instance_uid": str(header.get("SOPInstanceUID", ""))}
    study = Study((replace(drawn, header=header, modality="CR", source="image.dcm", **uids, **fields),))
    return Case(study, scorer.score(study), scorer.bundle)


def with_gaps(case: Case) -> Case:
    """Return the case with lumbar corners that are abstained, unreadable and imputed, and without one disc."""
    lumbar = case.report.regions["lumbar"]
    discs = list(lumbar.discs)
    discs[0] = _marked(discs[0], ("abstained", "unreadable"))
    discs[2] = _marked(discs[2], ("imputed", "scored"))
    nowhere = replace(discs[4], centre_px=(0.0, 0.0), anterior_px=(0.0, 0.0), confidence=0.0)
    discs[4] = _marked(nowhere, ("unreadable", "unreadable"))
    changed = replace(lumbar, discs=tuple(discs), total=None, missing=5, expected=None)
    total = replace(case.report.total, value=None, status="incomplete", expected=None)
    regions = {**case.report.regions, "lumbar": changed}
    return replace(case, report=replace(case.report, regions=regions, total=total))


def _marked(disc: DiscReport, statuses: tuple[str, str]) -> DiscReport:
    def marked(corner, status):
        if status == "scored":
            return corner
        return replace(corner, grade=None, status=status, imputed=0.8 if status == "imputed" else None)

    return replace(disc, corners=tuple(map(marked, disc.corners, statuses)), total=None)


def violations(ds: Dataset, folder: Path) -> list[str]:
    """Return the errors that dciodvfy reports for the written object."""
    path = write_dicom(folder / f"{ds.SOPInstanceUID}.dcm", ds)
    found = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, check=False)
    lines = (found.stderr + found.stdout).decode("utf-8", "replace").splitlines()
    assert any(name in "".join(lines) for name in ("Comprehensive3DSR", "GrayscaleSoftcopy", "SCImage"))
    return [line for line in lines if line.startswith(("Error", "Abort"))]
