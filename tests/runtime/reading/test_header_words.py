"""Words and codes of headers: body parts, views, directions, identifiers that contain a backslash."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from helpers.dicom_files import radiograph_dataset, write
from spinescore.runtime.reading.facts import other_parts, postures, read_facts
from spinescore.runtime.reading.studies import load_radiograph, load_studies


def header(**tags):
    ds = Dataset()
    for keyword, value in tags.items():
        tag = tag_for_keyword(keyword)
        ds.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE))  # devices write anything
    return ds


def coded(value, meaning, scheme="SCT"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("TSPINE", "thoracic spine"),
        ("T-SPINE LAT", "thoracic spine"),
        ("T_SPINE", "thoracic spine"),
        ("BWS seitlich", "thoracic spine"),
        ("rachis dorsal profil", "thoracic spine"),
        ("columna torácica", "thoracic spine"),
        ("SSPINE", "sacrum"),
        ("CHEST", "chest"),
        ("Thorax lat.", "chest"),
        ("PELVIS", "pelvis"),
        ("Becken", "pelvis"),
        ("HAND", "arm"),
        ("KNEE", "leg"),
        ("SKULL", "head"),
        ("ABDOMEN", "abdomen"),
        ("LSPINE", None),
        ("L-SPINE PELVIS", None),
        ("THORACOLUMBAR", None),
        ("TLSPINE", None),
        ("CTSPINE", None),
        ("SPINE", None),
        ("WHOLEBODY", None),
        ("NECK", None),
        ("", None),
    ],
)
def test_other_parts_are_named(words, part):
    for keyword in ("BodyPartExamined", "SeriesDescription", "ProtocolName"):
        assert other_parts(header(**{keyword: words})) == ((part,) if part else ()), keyword


@pytest.mark.parametrize(
    ("code", "meaning", "part"),
    [
        ("122495006", "Thoracic spine", "thoracic spine"),
        ("T-11502", "", "thoracic spine"),
        ("85562004", "", "arm"),
        ("816092008", "", "pelvis"),
        ("99", "Chest", "chest"),
        ("122496007", "Lumbar spine", None),
        ("421060004", "Spine", None),
    ],
)
def test_other_parts_are_coded(code, meaning, part):
    assert other_parts(header(AnatomicRegionSequence=[coded(code, meaning)])) == ((part,) if part else ())


@pytest.mark.parametrize(
    ("words", "posture"),
    [
        ("C-SPINE LAT FLEXION", "flexion"),
        ("HWS_seitl_Inklination", "flexion"),
        ("C SPINE FLEX", "flexion"),
        ("Colonna cervicale in flessione", "flexion"),
        ("flexión lateral", "side bending"),
        ("LWK flexie", "flexion"),
        ("L-SPINE LAT EXT", "extension"),
        ("Hyperextension", "extension"),
        ("estensione", "extension"),
        ("HWS Reklination", "extension"),
        ("Funktionsaufnahme", "functional view"),
        ("clichés dynamiques", "functional view"),
        ("SWIMMERS", "swimmer's view"),
        ("proyección del nadador", "swimmer's view"),
        ("zwemmersopname", "swimmer's view"),
        ("L5-S1 SPOT LAT", "spot view"),
        ("Zielaufnahme L5/S1", "spot view"),
        ("SIDE BENDING LEFT", "side bending"),
        ("Seitneigung", "side bending"),
        ("inclinaison latérale", "side bending"),
        ("TRACTION", "traction"),
        ("Traktion", "traction"),
        ("FULCRUM", "fulcrum view"),
        ("LAT OBLIQUE", "oblique view"),
        ("schräg", "oblique view"),
        ("C-SPINE LAT NEUTRAL", None),
        ("FLEX/NEUTRAL/EXT", None),
        ("LAT", None),
        ("EXTREMITY", None),
        ("FLEXIBLE", None),
        ("LL", None),
        ("", None),
    ],
)
def test_views_in_another_posture_are_named(words, posture):
    for keyword in ("ViewPosition", "SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription"):
        assert postures(header(**{keyword: words})) == ((posture,) if posture else ()), keyword


def test_views_in_another_posture_are_coded():
    view = coded("399067008", "lateral")
    assert postures(header(ViewCodeSequence=[view])) == ()
    view.ViewModifierCodeSequence = [coded("24154002", "")]
    assert postures(header(ViewCodeSequence=[view])) == ("extension",)
    assert postures(header(ViewModifierCodeSequence=[coded("9", "Flexion", "99X")])) == ("flexion",)


@pytest.mark.parametrize(
    ("tags", "turn_deg", "facing", "view"),
    [
        ({"PatientOrientation": ["P", "F"]}, 0, "left", "lateral"),
        ({"PatientOrientation": ["a", "h"]}, 180, "left", "lateral"),
        ({"PatientOrientation": ["AF", "FP"]}, 0, "right", "lateral"),
        ({"PatientOrientation": ["F", "P"]}, 90, "right", "lateral"),
        ({"PatientOrientation": "A"}, None, "right", "lateral"),
        ({"PatientOrientation": ["", "H"]}, 180, None, None),
        ({"PatientOrientation": ["L", "F"]}, None, None, "other"),
        ({"PatientOrientation": ["P", "A"]}, None, None, None),
        ({"PatientOrientation": ["X", "F"]}, 0, None, None),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, 0, "left", "lateral"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, 180, "right", "lateral"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, None, None, None),
        ({"PatientOrientation": ["P", "F"], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, 0, "left", "lateral"),
        ({"PatientOrientation": ["P", "F"], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, 0, "left", "lateral"),
        ({"PatientOrientation": ["P", "F"], "ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, None, None, None),
        ({"ImageLaterality": "L"}, None, None, None),
        ({}, None, None, None),
    ],
)
def test_directions_of_rows_and_columns(tags, turn_deg, facing, view):
    facts = read_facts(header(**tags))
    assert (facts.turn_deg, facts.facing, facts.view) == (turn_deg, facing, view)
    contradicts = turn_deg is None and len(tags.get("PatientOrientation", "")) == 2 and facts.view is None
    assert bool(facts.notes) == (contradicts or "X" in tags.get("PatientOrientation", ()))


def test_findings_of_the_header(tmp_path: Path):
    ds = radiograph_dataset(BodyPartExamined="TSPINE", SeriesDescription="LAT FLEXION", PatientOrientation=["A", "H"])
    radiograph = load_radiograph(write(ds, tmp_path / "one"))
    assert {found.code for found in radiograph.findings} == {"other-body-part", "not-neutral"}
    assert (radiograph.region, radiograph.turn_deg, radiograph.facing) == (None, 180, "left")


def test_a_region_stands_beside_another_part(tmp_path: Path):
    ds = radiograph_dataset(BodyPartExamined="CHEST", ProtocolName="L-SPINE LAT")
    radiograph = load_radiograph(write(ds, tmp_path / "one"))
    assert radiograph.region == "lumbar"
    assert [found.code for found in radiograph.findings] == ["other-body-part"]


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID"])
def test_an_identifier_is_taken_whole(keyword):
    keys = {
        read_facts(header(**{"PatientID": "A", keyword: value})).patient_key
        for value in (["QA", "1"], ["QA", "2"], "QA")
    }
    assert len(keys) == 3
    assert None not in keys


def test_a_study_uid_with_two_values_is_no_other_study(tmp_path: Path):
    for name, uid in (("a", ["1.2", "3"]), ("b", ["1.2", "4"])):
        write(radiograph_dataset(StudyInstanceUID=uid, SOPInstanceUID=generate_uid()), tmp_path / name)
    assert [study.study_instance_uid for study in load_studies([tmp_path])] == ["1.2\\3", "1.2\\4"]


def test_a_description_with_a_backslash_is_read_whole():
    assert read_facts(header(SeriesDescription=["WS", "LWS seitl."])).region == "lumbar"


def test_codes_of_regions_still_name_them():
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = Code("122496007", "SCT", "Lumbar spine")[:3]
    assert read_facts(header(AnatomicRegionSequence=[item])).region == "lumbar"
