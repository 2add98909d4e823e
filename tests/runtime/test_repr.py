"""The `repr` of objects, as debuggers and notebooks show it, names neither patient, file nor study."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.dicom_files import radiograph_dataset
from helpers.scoring import CERVICAL
from helpers.tiny import write_bundle
from spinescore.runtime import Radiograph, Scorer, Study, load_study, radiograph_from_array
from spinescore.runtime.study import Reject

WHO = {"PatientID": "MRN735", "PatientName": "Quorvexel^Anna", "AccessionNumber": "ACC88", "StudyDate": "20251231"}
WINDOW = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "127.5", "WindowWidth": "255"}
WORDS = [*WHO.values(), "Quorvexel", "1.2.3.4", "1.2.826"]


@pytest.fixture(scope="module")
def study() -> Study:
    pixels = CERVICAL.radiograph.pixels
    array = radiograph_from_array(pixels, region="lumbar", name="Quorvexel.dcm", patient="MRN735")
    read = load_study(
        radiograph_dataset(pixels, 8, BurnedInAnnotation="YES", PatientOrientation=["P", "F"], **WHO, **WINDOW)
    )
    image = read.radiographs[0]
    reject = Reject("not-dicom", "Quorvexel.txt is not DICOM", "Quorvexel.txt")
    return Study((image, array), (reject,), "1.2.3.4", "20251231", image.patient_key, ("skipped: Quorvexel",))


def test_radiographs_and_studies(study) -> None:
    words = [*WORDS, study.patient_key]
    for shown in (study, *study.radiographs):
        assert not [word for word in words if word in repr(shown) or word in f"{shown}"]
    assert repr(study.radiographs[0]) == "<Radiograph: cervical, 1024 x 768 uint8, facing left, 0.15 x 0.2 mm>"
    assert repr(Study(())) == "<Study: no radiograph; refused: none>"
    assert repr(study).endswith("refused: not-dicom>")
    assert repr(Radiograph(np.zeros((2, 3), np.uint8), np.zeros(256, np.float32))).startswith("<Radiograph: region not")


def test_reports(study, tmp_path) -> None:
    with Scorer.open(write_bundle(tmp_path), "cpu") as scorer:
        report = scorer.score(Study(study.radiographs[:1], study.rejects, "1.2.3.4", "20251231", study.patient_key))
    words = [*WORDS, study.patient_key, "dataset"]
    for shown in (report, report.study, report.regions["cervical"], report.regions["cervical"].radiograph):
        assert not [word for word in words if word in repr(shown)], repr(shown)
    assert repr(report) == ("<StudyReport: cervical scored 13, lumbar rejected; mSASSS none (incomplete); bundle tiny>")
