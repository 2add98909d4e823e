"""The structured report read back: every value is the report's, and a corner without a grade has no number."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread, dcmwrite

from helpers import dicom_results
from helpers.highdicom_report import highdicom_report
from spinescore.runtime import OutputError
from spinescore.runtime.outputs import codes
from spinescore.runtime.outputs.structured import structured_report

HALF_PIXEL = 0.5
FAILURE = ("114006", "DCM", "Measurement failure")


def read_back(ds):
    """The document as another program reads it: written to a file, then parsed by highdicom."""
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return hd.sr.Comprehensive3DSR.from_dataset(dcmread(io.BytesIO(buffer.getvalue())))


@pytest.fixture(scope="module")
def gaps(whole):
    return dicom_results.with_gaps(whole)


@pytest.fixture(scope="module")
def document(gaps):
    (made,) = gaps.made("sr")
    return read_back(made)


@pytest.fixture(scope="module")
def found(document):
    return groups(document)


def groups(document) -> dict:
    """Tracking identifier -> (group, its region of interest or None)."""
    content = document.content
    found = {group.tracking_identifier: (group, group.roi) for group in content.get_planar_roi_measurement_groups()}
    found.update({group.tracking_identifier: (group, None) for group in content.get_image_measurement_groups()})
    return found


def triple(concept) -> tuple[str, str, str]:
    return concept.value, concept.scheme_designator, concept.meaning


def numbers(group) -> dict[str, float]:
    found = group.get_measurements()
    assert all(measurement.name.scheme_designator == codes.PRIVATE_SCHEME for measurement in found)
    return {measurement.name.value: measurement.value for measurement in found}


def evaluations(group) -> dict[str, tuple]:
    return {
        found.name.value: triple(found.value)
        for found in group.get_qualitative_evaluations()
        if found.name.scheme_designator == codes.PRIVATE_SCHEME
    }


def discs(report):
    return [disc for region in report.regions.values() for disc in region.discs]


def test_every_corner_has_its_site_grade_probabilities_and_point(gaps, found):
    corners = [(corner, disc) for disc in discs(gaps.report) for corner in disc.corners]
    assert len(corners) == 24
    for corner, disc in corners:
        group, roi = found[corner.site]
        (site,) = group.finding_sites
        vertebra, endplate = corner.site.split("-")
        assert triple(site.value) == codes.VERTEBRAE[vertebra]
        modifiers = [triple(item.value) for item in site.ContentSequence]
        assert modifiers == [codes.ENDPLATES[endplate], codes.ANTERIOR]
        values = numbers(group)
        if corner.grade is not None:
            assert values.pop("GRADE") == corner.grade
        if corner.status in ("scored", "abstained"):
            assert [values.pop(f"P{grade}") for grade in range(4)] == pytest.approx(corner.probabilities, abs=1e-6)
        assert values == {}
        if disc.confidence > 0:
            point = (np.array(disc.anterior_px) + HALF_PIXEL).astype(np.float32)
            np.testing.assert_array_equal(roi.value.astype(np.float32).ravel(), point)
        else:
            assert roi is None


def test_a_corner_without_a_grade_says_why(gaps, found):
    wanted = {"abstained": "ABSTAINED", "imputed": "IMPUTED"}
    seen = set()
    for corner in (corner for disc in discs(gaps.report) for corner in disc.corners if corner.grade is None):
        said = evaluations(found[corner.site][0])
        value = FAILURE if corner.status == "unreadable" else codes.private(wanted[corner.status])
        assert said == {"GRADE": value}
        seen.add(corner.status)
    assert seen == {"abstained", "unreadable", "imputed"}


def test_every_disc_has_its_points(gaps, found):
    for disc in discs(gaps.report):
        group, roi = found[disc.level]
        assert triple(group.finding_sites[0].value) == codes.DISCS[disc.level]
        values = numbers(group)
        assert values["CONFIDENCE"] == pytest.approx(disc.confidence)
        assert values["ROTATION"] == pytest.approx(disc.rotation_deg)
        assert values.get("DISC-TOTAL") == disc.total
        if disc.confidence > 0:
            line = (np.array([disc.centre_px, disc.anterior_px]) + HALF_PIXEL).astype(np.float32)
            np.testing.assert_array_equal(roi.value.astype(np.float32), line)


def test_regions_and_totals(whole):
    (made,) = whole.made("sr")
    found = groups(read_back(made))
    total = whole.report.total
    values = numbers(found["mSASSS"][0])
    assert values["MSASSS"] == total.value
    assert (values["LOWEST"], values["HIGHEST"]) == total.range
    assert values["EXPECTED"] == pytest.approx(total.expected.mean, abs=1e-6)
    assert (values["EXPECTED-LOW"], values["EXPECTED-HIGH"]) == total.expected.interval
    assert evaluations(found["mSASSS"][0]) == {"TOTAL-STATUS": codes.private("COMPLETE")}
    for name, region in whole.report.regions.items():
        values = numbers(found[name][0])
        assert values["REGION-TOTAL"] == region.total
        assert values["UNSCORED"] == region.missing == 0
        assert triple(found[name][0].finding_sites[0].value) == codes.REGION_SITES[name]


def test_no_total_is_no_number(found):
    for name, status in (("mSASSS", "TOTAL-STATUS"), ("lumbar", "TOTAL-STATUS")):
        group = found[name][0]
        assert not {"MSASSS", "REGION-TOTAL"} & set(numbers(group))
        assert evaluations(group)[status] == codes.private("INCOMPLETE")


def test_a_rejected_region_names_its_code(tiny_scorer, tmp_path):
    case = dicom_results.score(tmp_path, tiny_scorer, blank="cervical")
    found = groups(read_back(case.made("sr")[0]))
    code = case.report.regions["cervical"].reject.code
    said = evaluations(found["cervical"][0])
    assert said["REGION-STATUS"] == codes.private("REJECTED")
    assert said["REJECT"] == codes.reject_code(code)
    assert "C2-inferior" not in found
    assert "L1-superior" in found


def test_who_made_it_of_what(whole):
    (made,) = whole.made("sr")
    document = read_back(made)
    assert {uids[2] for uids in document.get_evidence()} == {
        image.sop_instance_uid for image in whole.study.radiographs
    }
    bundle = whole.report.bundle
    equipment = made.ContributingEquipmentSequence
    assert [item.DeviceSerialNumber for item in equipment if item.Manufacturer == "spinescore"] == [bundle.sha256]
    texts = [str(element.value) for element in made.iterall() if element.keyword == "TextValue"]
    assert f"bundle_sha256={bundle.sha256}" in texts
    assert {bundle.name, bundle.version} <= set(texts)
    assert texts[-1].startswith("Not a medical device.")
    assert bundle.intended_use in texts[-1]


def test_an_alternative_localizer_is_among_the_algorithms_parameters(whole):
    named = replace(whole.report, bundle=replace(whole.report.bundle, localizer="narrow"))
    for report, found in ((whole.report, False), (named, True)):
        made = structured_report(whole.study, report, created=dicom_results.WHEN)
        texts = [str(element.value) for element in made.iterall() if element.keyword == "TextValue"]
        assert ("localizer=narrow" in texts) == found


def test_a_report_of_another_study_is_refused(whole):
    other = replace(whole.study, radiographs=())
    with pytest.raises(OutputError, match="radiograph of the cervical region is not in the study"):
        structured_report(other, whole.report)
    nothing = replace(whole.report, regions={})
    with pytest.raises(OutputError, match="holds no radiograph"):
        structured_report(other, nothing)


ODD = {
    "PatientSex": "X",
    "StudyTime": "10:15",
    "StudyDate": None,
    "StudyDescription": "Wirbelsäule",
    "Manufacturer": "Maker",
    "ManufacturerModelName": "Model",
    "PatientIdentityRemoved": "YES",
    "PixelSpacing": ["0.15", "0.2"],
}
CASES = {
    "one region": {"regions": ("lumbar",)},
    "rejected": {"blank": "cervical"},
    "nothing scored": {"blank": "lumbar", "regions": ("lumbar",)},
    "odd header": ODD,
    "names": {"PatientName": "山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
    "no orientation": {"PatientOrientation": None, "PixelSpacing": None},
}


def elements(ds, where: str = "") -> list[str]:
    """Every element of a document with its place, VR and value, as read from a file."""
    found = []
    for element in ds:
        if element.VR == "SQ":
            found.append(f"{where}{element.keyword}: {len(element.value)} items")
            for number, item in enumerate(element.value):
                found += elements(item, f"{where}{element.keyword}[{number}].")
        else:
            found.append(f"{where}{element.keyword} {element.VR} {element.value!r}")
    return found


def reread(ds):
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return dcmread(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize("kind", ["whole", "gaps", *CASES])
def test_every_element_is_as_highdicom_builds_it(tiny_scorer, whole, gaps, tmp_path, kind):
    scored = {"whole": whole, "gaps": gaps}
    case = scored.get(kind) or dicom_results.score(tmp_path, tiny_scorer, **CASES[kind])
    if kind == "names":  # of the bundle, in letters of another character set
        bundle = replace(case.report.bundle, name="Wirbelsäule", intended_use="頸椎", localizer="ä")
        case = replace(case, report=replace(case.report, bundle=bundle))
    wanted = reread(highdicom_report(case.study, case.report, dicom_results.WHEN))
    assert wanted.ContributingEquipmentSequence.pop().ManufacturerModelName == "highdicom"
    assert elements(case.made("sr")[0]) == elements(wanted)


@pytest.mark.parametrize("name", ["a\\b", "Wirbelsäule", "頸椎", "two\nlines", "half \udcff", "long " * 400])
def test_any_name_of_a_bundle_can_be_written(whole, name):
    bundle = replace(whole.report.bundle, name=name)
    made = reread(structured_report(whole.study, replace(whole.report, bundle=bundle)))
    texts = {str(element.value) for element in made.iterall() if element.keyword == "TextValue"}
    assert name.rstrip().replace("\udcff", "?") in texts
    assert made.ManufacturerModelName == " ".join(name.replace("\\", "/").split())[:64].strip().replace("\udcff", "?")


def test_a_document_without_highdicom(whole, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert structured_report(whole.study, whole.report).Modality == "SR"


def test_it_is_a_dataset_like_any_other(whole):
    """Elements are written unchanged, whether they were read or not; the document can be copied and changed."""
    made = structured_report(whole.study, whole.report, created=dicom_results.WHEN)
    first, again = io.BytesIO(), io.BytesIO()
    made.save_as(first, enforce_file_format=True)
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
    assert len(list(made.iterall())) > 5_000
    made.save_as(again, enforce_file_format=True)
    assert first.getvalue() == again.getvalue()
    made.PatientName, made.SpecificCharacterSet = "山田^太郎", "ISO_IR 192"
    assert str(reread(made).PatientName) == "山田^太郎"
