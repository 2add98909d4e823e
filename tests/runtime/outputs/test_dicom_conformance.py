"""dciodvfy, an independent program, finds no error in any DICOM result."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread
from pydicom.data import get_charset_files

from helpers import dicom_results
from helpers.dicom_results import needs_dciodvfy
from spinescore.runtime import Scorer, load_study
from spinescore.runtime.outputs.dicomobjects import write_dicom
from spinescore.runtime.phantom import write_study

pytestmark = needs_dciodvfy

KINDS = tuple(dicom_results.KINDS)
ORDINARY = {"WindowCenter": "127.5", "WindowWidth": "255"}

# Headers as devices write them, some with elements left out: element -> value, None if it is absent.
HEADERS = {
    "no patient": dict.fromkeys(
        ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyTime", "StudyDate")
    ),
    "bad values": {"PatientBirthDate": "", "PatientSex": "X", "StudyTime": "10:15", "StudyDate": "2026.01.05"},
    "no body part": {"BodyPartExamined": None, "SeriesDescription": None, "PatientOrientation": ["P", "F"]},
    "UTF-8": {"PatientName": "山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
    "de-identified": {"PatientIdentityRemoved": "YES", "DeidentificationMethod": None},
    "lossy": {"LossyImageCompression": "01", "LossyImageCompressionRatio": "10.5"},
    "rescaled": {"RescaleSlope": "2", "RescaleIntercept": "-10", "WindowCenter": "245", "WindowWidth": "510"},
    "oblong pixels": {"PixelSpacing": ["0.15", "0.2"], "ImagerPixelSpacing": ["0.15", "0.2"]},
    "no spacing": {"PixelSpacing": None},
}


def assert_conforms(case, folder, kinds=KINDS):
    made = [ds for kind in kinds for ds in case.made(kind)]
    assert made
    assert {ds.SOPInstanceUID: dicom_results.violations(ds, folder) for ds in made} == {
        ds.SOPInstanceUID: [] for ds in made
    }
    assert len({ds.SOPInstanceUID for ds in made}) == len(made)


def test_a_whole_study(whole, tmp_path):
    assert_conforms(whole, tmp_path)


def test_corners_without_a_grade(whole, tmp_path):
    assert_conforms(dicom_results.with_gaps(whole), tmp_path)


def test_one_region(tiny_scorer, tmp_path):
    case = dicom_results.score(tmp_path / "study", tiny_scorer, regions=("lumbar",))
    assert case.report.regions["cervical"].status == "missing"
    assert_conforms(case, tmp_path / "out")


def test_a_rejected_region(tiny_scorer, tmp_path):
    case = dicom_results.score(tmp_path / "study", tiny_scorer, blank="cervical")
    assert case.report.regions["cervical"].status == "rejected"
    assert_conforms(case, tmp_path / "out")


def test_a_study_of_which_nothing_was_scored(tiny_scorer, tmp_path):
    case = dicom_results.score(tmp_path / "study", tiny_scorer, blank="lumbar", regions=("lumbar",))
    assert case.made("gsps") == case.made("sc") == []
    assert_conforms(case, tmp_path / "out", kinds=("sr",))


@pytest.mark.parametrize("name", HEADERS)
def test_headers_as_they_come(tiny_scorer, name, tmp_path):
    tags = {"VOILUTFunction": "LINEAR_EXACT", **ORDINARY, **HEADERS[name]}
    case = dicom_results.score(tmp_path / "study", tiny_scorer, regions=("lumbar",), **tags)
    assert_conforms(case, tmp_path / "out", KINDS if name in ("no patient", "bad values") else ("gsps", "sc"))


@pytest.mark.parametrize(
    "name", ["chrArab", "chrFrenMulti", "chrH32", "chrJapMulti", "chrKoreanMulti", "chrX1", "chrX2"]
)
def test_character_sets(tiny_scorer, name, tmp_path):
    """The patient's name is unchanged, in the character set of the source or in one that can hold it."""
    header = dcmread(get_charset_files(f"{name}.dcm")[0], stop_before_pixels=True)
    patient = str(header.PatientName)
    header.SOPClassUID, header.SeriesInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4.5"
    case = dicom_results.on_header(tiny_scorer, header)
    kinds = KINDS if name == "chrJapMulti" else ("gsps",)
    assert_conforms(case, tmp_path, kinds)
    for kind in kinds:
        again = dcmread(write_dicom(tmp_path / "again.dcm", case.made(kind)[0]))
        assert str(again.PatientName) == patient


@pytest.mark.parametrize("shape", ["MONOCHROME1", "MONOCHROME2"])
def test_a_header_without_a_window(tiny_scorer, whole, shape, tmp_path):
    header = deepcopy(whole.study.radiographs[0].header)
    header.PhotometricInterpretation = shape
    del header.WindowCenter, header.WindowWidth
    assert_conforms(dicom_results.on_header(tiny_scorer, header, has_window=False), tmp_path, ("gsps", "sc"))


def test_a_real_header(tiny_scorer, tmp_path):
    """A CR of the cervical spine that pydicom ships."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests" / "77654033"
    header = dcmread(folder / "CR1" / "6154", stop_before_pixels=True)
    assert_conforms(dicom_results.on_header(tiny_scorer, header, study_instance_uid=header.StudyInstanceUID), tmp_path)


def test_phantoms_with_the_shipped_bundle(tmp_path):
    write_study(1_000_003, tmp_path / "study")
    study = load_study(*sorted((tmp_path / "study").glob("*.dcm")))
    with Scorer.open() as scorer:
        case = dicom_results.Case(study, scorer.score(study), scorer.bundle)
    assert_conforms(case, tmp_path / "out")
