"""Patient, study, series and UIDs of DICOM results, and refused headers."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from datetime import datetime

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from helpers import dicom_results
from spinescore.runtime import OutputError
from spinescore.runtime.outputs.dicomobjects import write_dicom
from spinescore.runtime.scoring.report import TimingsMs

KINDS = tuple(dicom_results.KINDS)


def written(ds) -> bytes:
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def uids(case, kinds=KINDS) -> list[tuple[str, str]]:
    return [(ds.SeriesInstanceUID, ds.SOPInstanceUID) for kind in kinds for ds in case.made(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_results_join_the_patient_and_study(whole, kind):
    source = whole.study.radiographs[0].header
    for ds in whole.made(kind):
        assert ds.StudyInstanceUID == source.StudyInstanceUID
        assert ds.SeriesInstanceUID != source.SeriesInstanceUID
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate"):
            assert ds[keyword].value == source[keyword].value, keyword
        assert ds.SpecificCharacterSet == "ISO_IR 100"
        assert "not a medical device" in ds.SeriesDescription
    assert len({ds.SeriesInstanceUID for ds in whole.made(kind)}) == 1


def test_the_same_input_gives_the_same_uids_and_bytes(whole):
    report = replace(
        whole.report, timings_ms=TimingsMs(1.0, 2.0, 3.0, 4.0, 5.0), budget_ms=9.0, warnings=("file.dcm was skipped",)
    )
    again = replace(whole, report=report)
    assert uids(again) == uids(whole)
    for kind in KINDS:
        for first, second in zip(whole.made(kind), again.made(kind), strict=True):
            assert written(first) == written(second)


def test_dates_are_when_it_was_made_and_no_part_of_the_uids(whole):
    later = datetime(2027, 3, 4, 5, 6, 7)
    for kind, keyword in (
        ("sr", "ContentDate"),
        ("gsps", "PresentationCreationDate"),
        ("sc", "DateOfSecondaryCapture"),
    ):
        first, second = whole.made(kind)[0], whole.made(kind, later)[0]
        assert (first[keyword].value, second[keyword].value) == ("20260106", "20270304")
        assert first.SOPInstanceUID == second.SOPInstanceUID


def test_another_result_has_other_uids(whole):
    bundle = replace(whole.report, bundle=replace(whole.report.bundle, sha256="f" * 64))
    device = replace(whole.report, device=replace(whole.report.device, precision="fp16"))
    gaps = dicom_results.with_gaps(whole).report
    reports = (whole.report, bundle, device, gaps)
    found = [set(sum(uids(replace(whole, report=report), ("gsps", "sc")), ())) for report in reports]
    assert sum(map(len, found)) == len(set().union(*found))


def test_uids_are_of_uuids(whole):
    for uid in sum(uids(whole), ()):
        root, number = uid.rsplit(".", 1)
        assert root == "2.25"
        assert 0 < int(number) < 2**128
        assert len(uid) <= 64


def test_undeclared_letters_are_declared(tiny_scorer, tmp_path):
    case = dicom_results.score(tmp_path, tiny_scorer, regions=("lumbar",), SpecificCharacterSet=None)
    (ds,) = case.made("gsps")
    assert (ds.SpecificCharacterSet, str(ds.PatientName)) == ("ISO_IR 100", "Müller^Anna")


def test_what_the_standard_does_not_allow_is_empty(tiny_scorer, tmp_path):
    bad = {"PatientBirthDate": "19701399x", "PatientSex": "X", "StudyTime": "10:15", "PatientID": None}
    (ds,) = dicom_results.score(tmp_path, tiny_scorer, regions=("lumbar",), **bad).made("gsps")
    assert [ds[keyword].value or "" for keyword in bad] == ["", "", "", ""]


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_header_it_is_refused(tiny_scorer, kind):
    case = dicom_results.on_header(tiny_scorer, None)
    with pytest.raises(OutputError, match=r"image\.dcm has no DICOM header.*choose another format"):
        case.made(kind)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_header_without_uids_is_refused(tiny_scorer, keyword):
    header = Dataset()
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    header.SOPInstanceUID = header.StudyInstanceUID = header.SeriesInstanceUID = "1.2.3"
    delattr(header, keyword)
    with pytest.raises(OutputError, match=f"no valid {keyword}"):
        dicom_results.on_header(tiny_scorer, header).made("gsps")


def test_other_classes_are_refused(tiny_scorer):
    header = Dataset()
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    header.SOPInstanceUID = header.StudyInstanceUID = header.SeriesInstanceUID = "1.2.3"
    with pytest.raises(OutputError, match="SOP class Ultrasound Image Storage"):
        dicom_results.on_header(tiny_scorer, header).made("sc")


@pytest.mark.parametrize("kind", ["gsps", "sc"])
def test_a_missing_library_is_one_sentence(whole, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(OutputError, match=r'pip install "spinescore\[results\]"'):
        replace(whole).made(kind)


def test_files_are_whole(whole, tmp_path):
    (ds,) = whole.made("sr")
    path = write_dicom(tmp_path / "new" / "sr.dcm", ds)
    assert path.read_bytes() == written(ds)
    assert [found.name for found in path.parent.iterdir()] == ["sr.dcm"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_backslash_parts_is_taken_over_whole(tiny_scorer, tmp_path, kind):
    tags = {
        "PatientID": ["QA", "1"],
        "AccessionNumber": ["A", "2"],
        "StudyID": ["3", "4"],
        "StudyDescription": ["L", "C"],
    }
    case = dicom_results.score(tmp_path, tiny_scorer, **tags)
    for ds in case.made(kind):
        read = dcmread(io.BytesIO(written(ds)))
        for keyword, values in tags.items():
            if keyword in read:
                assert list(read[keyword].value) == values, keyword
        assert "PatientID" in read
    assert (
        case.report.study.patient_key
        != dicom_results.score(tmp_path / "b", tiny_scorer, PatientID="QA").report.study.patient_key
    )


@pytest.mark.parametrize("kind", KINDS)
def test_two_images_with_one_uid_are_refused(whole, kind):
    first = whole.report.regions["cervical"].radiograph
    lumbar = whole.report.regions["lumbar"]
    image = replace(lumbar.radiograph, sop_instance_uid=first.sop_instance_uid, pixels_digest=None)
    report = replace(whole.report, regions={**whole.report.regions, "lumbar": replace(lumbar, radiograph=image)})
    with pytest.raises(OutputError, match="one SOP Instance UID"):
        replace(whole, report=report).made(kind)
