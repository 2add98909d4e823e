"""Files and folders to studies, and what a header says of a radiograph."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from helpers.dicom_files import picture, radiograph_dataset, write
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading.facts import PATIENT_KEY_VARIABLE, Facts, read_facts
from spinescore.runtime.reading.studies import load_radiograph, load_studies, load_study


def coded(code: Code) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return [item]


def facts(**tags: object) -> Facts:
    """Facts of a header that holds nothing but `tags`."""
    ds = Dataset()
    with warnings.catch_warnings():  # pydicom warns of the values that devices write
        warnings.simplefilter("ignore")
        for keyword, value in tags.items():
            setattr(ds, keyword, value)
    return read_facts(ds)


# ---- tags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tags", "region"), [
    ({}, None),
    ({"BodyPartExamined": "CSPINE"}, "cervical"),
    ({"BodyPartExamined": "LSPINE"}, "lumbar"),
    ({"BodyPartExamined": "LSSPINE"}, "lumbar"),
    ({"BodyPartExamined": "LUMBAR SPINE"}, "lumbar"),
    ({"BodyPartExamined": "C-SPINE"}, "cervical"),
    ({"BodyPartExamined": "C SPINE"}, "cervical"),
    ({"BodyPartExamined": "L/S SPINE"}, "lumbar"),
    ({"BodyPartExamined": "CERVICAL"}, "cervical"),
    ({"BodyPartExamined": "TSPINE"}, None),
    ({"BodyPartExamined": "SPINE"}, None),
    ({"BodyPartExamined": "CHEST"}, None),
    ({"BodyPartExamined": "THORACOLUMBAR"}, None),
    ({"SeriesDescription": "HWS seitlich"}, "cervical"),
    ({"ProtocolName": "LWS lat"}, "lumbar"),
    ({"StudyDescription": "X-ray lumbar spine"}, "lumbar"),
    ({"StudyDescription": "cervical and lumbar spine"}, None),
    ({"BodyPartExamined": "CSPINE", "StudyDescription": "LUMBAR SPINE"}, "cervical"),
    ({"AnatomicRegionSequence": coded(Code("122494005", "SCT", "x"))}, "cervical"),
    ({"AnatomicRegionSequence": coded(Code("1217253001", "SCT", "x"))}, "lumbar"),
    ({"AnatomicRegionSequence": coded(Code("T-11503", "SRT", "x"))}, "lumbar"),
    ({"AnatomicRegionSequence": coded(Code("1", "99X", "Cervical spine"))}, "cervical"),
])  # fmt: skip
def test_region(tags: dict[str, object], region: str | None) -> None:
    found = facts(**tags)
    assert found.region == region
    assert found.notes == []


def test_contradictory_region_is_unknown() -> None:
    found = facts(BodyPartExamined="CSPINE", SeriesDescription="LUMBAR LAT")
    assert found.region is None
    assert found.view == "lateral"
    assert "BodyPartExamined says cervical, SeriesDescription says lumbar" in found.notes[0]


@pytest.mark.parametrize(("tags", "view", "facing"), [
    ({}, None, None),
    ({"ViewPosition": "LL"}, "lateral", None),
    ({"ViewPosition": "RL"}, "lateral", None),
    ({"ViewPosition": "LLD"}, "lateral", None),
    ({"ViewPosition": "Lateral"}, "lateral", None),
    ({"ViewPosition": "AP"}, "other", None),
    ({"ViewPosition": "PA"}, "other", None),
    ({"ViewPosition": "RAO"}, "other", None),
    ({"SeriesDescription": "C-Spine lat."}, "lateral", None),
    ({"SeriesDescription": "L-Spine oblique"}, "other", None),
    ({"SeriesDescription": "L-Spine AP/LAT"}, None, None),
    ({"ViewCodeSequence": coded(Code("399173006", "SCT", "left lateral"))}, "lateral", None),
    ({"ViewCodeSequence": coded(Code("399348003", "SCT", "antero-posterior"))}, "other", None),
    ({"PatientOrientation": ["A", "F"]}, "lateral", "right"),
    ({"PatientOrientation": ["P", "F"]}, "lateral", "left"),
    ({"PatientOrientation": ["PH", "FP"]}, "lateral", "left"),
    ({"PatientOrientation": ["L", "F"]}, "other", None),
    ({"PatientOrientation": ["A", "F"], "ViewPosition": "AP"}, "other", "right"),
    ({"PatientOrientation": ""}, None, None),
])  # fmt: skip
def test_view_and_facing(tags: dict[str, object], view: str | None, facing: str | None) -> None:
    found = facts(**tags)
    assert (found.view, found.facing) == (view, facing)
    assert found.notes == []


def test_contradictory_view_is_unknown() -> None:
    found = facts(ViewPosition="AP", SeriesDescription="lateral")
    assert found.view is None
    assert "about the view" in found.notes[0]


@pytest.mark.parametrize(("tags", "spacing"), [
    ({}, None),
    ({"PixelSpacing": [0.15, 0.2]}, (0.15, 0.2)),
    ({"ImagerPixelSpacing": [0.2, 0.3]}, (0.2, 0.3)),
    ({"ImagerPixelSpacing": [0.2, 0.3], "EstimatedRadiographicMagnificationFactor": 1.25}, (0.16, 0.24)),
    ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.2, 0.2]}, (0.1, 0.1)),
    ({"PixelSpacing": [0, 0.1]}, None),
    ({"PixelSpacing": [-1, 0.1]}, None),
])  # fmt: skip
def test_spacing(tags: dict[str, object], spacing: tuple[float, float] | None) -> None:
    assert facts(**tags).spacing_mm == (spacing if spacing is None else pytest.approx(spacing))


def test_patient_key_hides_the_id_and_follows_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PATIENT_KEY_VARIABLE, raising=False)
    plain = facts(PatientID="P-1").patient_key
    assert plain is not None
    assert len(plain) == 32
    assert "P-1" not in plain
    assert facts(PatientID="P-1 ").patient_key == plain
    assert facts(PatientID="P-2").patient_key != plain
    assert facts(PatientID="P-1", IssuerOfPatientID="A").patient_key != plain
    monkeypatch.setenv(PATIENT_KEY_VARIABLE, "a secret of the site")
    assert facts(PatientID="P-1").patient_key not in (None, plain)
    assert facts().patient_key is None
    assert facts(PatientID="").patient_key is None


def test_header_of_a_radiograph(tmp_path: Path) -> None:
    ds = radiograph_dataset(PatientOrientation=["A", "F"])
    found = load_radiograph(write(ds, tmp_path / "image.dcm"))
    assert (found.region, found.view, found.facing, found.modality) == ("cervical", "lateral", "right", "CR")
    assert (found.study_instance_uid, found.sop_instance_uid) == ("1.2.3.4", ds.SOPInstanceUID)
    assert (found.study_date, found.spacing_mm, found.source) == ("20260105", (0.15, 0.2), "image.dcm")


# ---- studies ---------------------------------------------------------------------------------------------------------


def image(folder: Path, name: str, uid: str, **tags: object) -> Path:
    return write(radiograph_dataset(picture(8), 8, SOPInstanceUID=uid, **tags), folder / name)


def test_study_does_not_depend_on_the_order(tmp_path: Path) -> None:
    paths = [image(tmp_path, f"{9 - number}.dcm", f"1.2.{number}") for number in range(6)]
    orders = [[], list(range(6))]
    for seed in range(3):
        shuffled = paths.copy()
        random.Random(seed).shuffle(shuffled)
        orders.append([radiograph.sop_instance_uid for radiograph in load_study(*shuffled).radiographs])
    orders.append([radiograph.sop_instance_uid for radiograph in load_study(tmp_path).radiographs])
    assert orders[2:] == [[f"1.2.{number}" for number in range(6)]] * 4


def test_folder_is_walked_and_what_is_no_radiograph_is_skipped(tmp_path: Path) -> None:
    image(tmp_path / "a" / "b", "IM1", "1.2.1")
    image(tmp_path / "c", "IM1", "1.2.2", BodyPartExamined="LSPINE")
    image(tmp_path, "slice", "1.2.3", Modality="CT", StudyInstanceUID="9.9", PatientID="other")
    image(tmp_path, "colour", "1.2.4", NumberOfFrames=3)
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / ".hidden").write_text("nothing")
    study = load_study(tmp_path)
    assert [radiograph.source for radiograph in study.radiographs] == ["a/b/IM1", "c/IM1"]
    assert study.rejects == ()
    assert (study.study_instance_uid, study.study_date) == ("1.2.3.4", "20260105")
    assert study.patient_key == study.radiographs[0].patient_key
    assert study.read_ms is not None
    skipped = " ".join(study.warnings)
    assert [name in skipped for name in ("slice", "colour", "notes.txt", "DICOMDIR", "hidden")] == [1, 1, 1, 0, 0]


def test_files_named_by_hand_are_rejects(tmp_path: Path) -> None:
    good = image(tmp_path, "good", "1.2.1")
    (tmp_path / "notes.txt").write_text("nothing")
    colour = image(tmp_path, "colour", "1.2.4", NumberOfFrames=3, BodyPartExamined="LSPINE")
    study = load_study(good, tmp_path / "notes.txt", colour)
    assert [(reject.source, reject.code, reject.region) for reject in study.rejects] == [
        ("colour", "not-radiograph", "lumbar"),
        ("notes.txt", "not-dicom", None),
    ]
    assert study.warnings == ()


def test_broken_radiograph_in_a_folder_is_a_reject(tmp_path: Path) -> None:
    image(tmp_path, "good", "1.2.1")
    image(tmp_path, "short", "1.2.2", Rows=4000, BodyPartExamined="LSPINE")
    (reject,) = load_study(tmp_path).rejects
    assert (reject.code, reject.source, reject.region) == ("corrupt-pixels", "short", "lumbar")


def test_modality_of_a_file_named_by_hand_is_the_scorers_to_judge(tmp_path: Path) -> None:
    study = load_study(image(tmp_path, "echo", "1.2.1", Modality="US"))
    assert study.radiographs[0].modality == "US"


def test_two_patients(tmp_path: Path) -> None:
    paths = [image(tmp_path, "one", "1.2.1"), image(tmp_path, "two", "1.2.2", PatientID="P-2")]
    with pytest.raises(InputRejected, match="2 patients") as caught:
        load_study(*paths)
    assert caught.value.code == "two-patients"
    (study,) = load_studies(paths)
    assert study.radiographs == ()
    assert study.patient_key is None
    assert [reject.code for reject in study.rejects] == ["two-patients"] * 2


def test_several_studies(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        for view in range(2):
            image(tmp_path / str(number), f"{view}", f"1.{number}.{view}", StudyInstanceUID=f"5.{number}")
    with pytest.raises(InputRejected, match="3 studies") as caught:
        load_study(tmp_path)
    assert caught.value.code == "several-studies"
    studies = load_studies([tmp_path])
    assert [study.study_instance_uid for study in studies] == ["5.1", "5.2", "5.3"]
    assert [len(study.radiographs) for study in studies] == [2, 2, 2]
    assert studies[0].read_ms is None
    (tmp_path / "stray").write_text("nothing")
    *same, last = load_studies([tmp_path / "1", tmp_path / "2", tmp_path / "stray"])
    assert [len(study.rejects) for study in same] == [0, 0]
    assert (last.study_instance_uid, last.radiographs, last.rejects[0].source) == (None, (), "stray")


def test_same_image_twice_counts_once(tmp_path: Path) -> None:
    first = image(tmp_path, "first", "1.2.1")
    assert len(load_study(first, first, tmp_path).radiographs) == 1
    image(tmp_path, "second", "1.2.1")
    study = load_study(tmp_path)
    assert [radiograph.source for radiograph in study.radiographs] == ["first"]
    assert "second is the same image as first" in study.warnings[0]


def test_other_pixels_under_the_same_uid_are_another_image(tmp_path: Path) -> None:
    for folder, body_part in (("a", "CSPINE"), ("b", "LSPINE"), ("c", "LSPINE")):
        pixels = picture(8) if folder == "a" else picture(8)[::-1]
        write(
            radiograph_dataset(pixels, 8, SOPInstanceUID="1.2.1", BodyPartExamined=body_part), tmp_path / folder / "im"
        )
    study = load_study(*(tmp_path / folder / "im" for folder in "abc"))
    assert [radiograph.region for radiograph in study.radiographs] == ["cervical", "lumbar"]
    assert [radiograph.source for radiograph in study.radiographs] == ["im", "im (2)"]
    assert any("im (2) and im have one SOP Instance UID but different pixels" in warning for warning in study.warnings)
    assert any("im is the same image as im (2)" in warning for warning in study.warnings)


def test_nothing_there(tmp_path: Path) -> None:
    empty = load_study(tmp_path)
    assert (empty.radiographs, empty.rejects) == ((), ())
    assert "no file" in empty.warnings[0]
    with pytest.raises(ValueError, match="there is no file or folder str 'nowhere'; give the path"):
        load_study(tmp_path / "nowhere")
    (reject,) = load_study(tmp_path, tmp_path / "nowhere").rejects
    assert reject.code == "not-dicom"


def test_reading_is_imported_only_when_something_is_read() -> None:
    heavy = ("pydicom", "onnxruntime", "onnx", "cv2", "imagecodecs", "gdcm")
    modules = "sys, spinescore.runtime, spinescore.runtime.reading.studies"
    code = f"import {modules}; print(sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
