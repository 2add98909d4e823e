"""Enhanced XA and XRF images of one frame: their functional groups are read like the header of any other image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from helpers.dicom_files import radiograph_dataset, write
from spinescore.runtime import InputRejected, load_radiograph, radiograph_from_array

ENHANCED = {"XA": "1.2.840.10008.5.1.4.1.1.12.1.1", "RF": "1.2.840.10008.5.1.4.1.1.12.2.1"}
WINDOW = {"WindowCenter": "1800", "WindowWidth": "1500", "VOILUTFunction": "SIGMOID"}
OTHER = {"WindowCenter": "900", "WindowWidth": "700"}
RECTANGLE = {
    "ShutterShape": "RECTANGULAR",
    "ShutterUpperHorizontalEdge": 10,
    "ShutterLowerHorizontalEdge": 40,
    "ShutterLeftVerticalEdge": 5,
    "ShutterRightVerticalEdge": 30,
}


def item(**tags) -> Dataset:
    ds = Dataset()
    for keyword, found in tags.items():
        setattr(ds, keyword, found)
    return ds


def enhanced(modality: str, frame: dict | None, shared: dict | None, **tags) -> Dataset:
    """An image with functional groups: sequence -> attributes, of the frame and of all frames."""
    ds = radiograph_dataset(SOPClassUID=ENHANCED[modality], **tags)
    ds.file_meta.MediaStorageSOPClassUID, ds.Modality = ENHANCED[modality], modality
    ds.NumberOfFrames = 1
    for keyword, groups in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", shared)):
        if groups is not None:
            setattr(ds, keyword, [item(**{sequence: [item(**found)] for sequence, found in groups.items()})])
    return ds


def plain(**tags) -> Dataset:
    return radiograph_dataset(**tags)


def table(ds: Dataset, path: Path) -> np.ndarray:
    found = load_radiograph(write(ds, path))
    assert found.has_window
    assert found.warnings == ()
    return found.table


@pytest.mark.parametrize("modality", ENHANCED)
@pytest.mark.parametrize(
    ("frame", "shared"),
    [
        ({"FrameVOILUTSequence": WINDOW}, None),
        (None, {"FrameVOILUTSequence": WINDOW}),
        ({"FrameVOILUTSequence": WINDOW}, {"FrameVOILUTSequence": OTHER}),
    ],
)
def test_the_window_of_the_frame(tmp_path: Path, modality: str, frame: dict, shared: dict) -> None:
    ds = enhanced(modality, frame, shared)
    np.testing.assert_array_equal(table(ds, tmp_path / "enhanced"), table(plain(**WINDOW), tmp_path / "plain"))


def test_what_the_header_states_stays(tmp_path: Path) -> None:
    ds = enhanced("XA", {"FrameVOILUTSequence": OTHER}, None, **WINDOW)
    np.testing.assert_array_equal(table(ds, tmp_path / "enhanced"), table(plain(**WINDOW), tmp_path / "plain"))


def test_shutter_spacing_orientation_and_region(tmp_path: Path) -> None:
    code = item(CodeValue="122494006", CodingSchemeDesignator="SCT", CodeMeaning="Cervical spine")
    groups = {
        "FrameDisplayShutterSequence": RECTANGLE,
        "FramePixelDataPropertiesSequence": {"ImagerPixelSpacing": [0.3, 0.4]},
        "PatientOrientationInFrameSequence": {"PatientOrientation": ["A", "F"]},
        "FrameAnatomySequence": {"AnatomicRegionSequence": [code]},
    }
    ds = enhanced("XA", groups, None, PixelSpacing=None, BodyPartExamined=None, **WINDOW)
    found = load_radiograph(write(ds, tmp_path / "enhanced"))
    flat = plain(PixelSpacing=None, **WINDOW, **RECTANGLE, PatientOrientation=["A", "F"], ImagerPixelSpacing=[0.3, 0.4])
    like = load_radiograph(write(flat, tmp_path / "plain"))
    assert (found.spacing_mm, found.facing, found.region) == ((0.3, 0.4), like.facing, "cervical")
    assert found.facing is not None
    assert found.occluded == like.occluded
    assert found.occluded is not None
    np.testing.assert_array_equal(found.pixels, like.pixels)


def test_a_window_is_never_put_together_from_two_places(tmp_path: Path) -> None:
    ds = enhanced("XA", {"FrameVOILUTSequence": OTHER}, None, WindowWidth="1500")
    assert not load_radiograph(write(ds, tmp_path / "enhanced")).has_window


@pytest.mark.parametrize("modality", ENHANCED)
def test_an_array_with_that_header_is_the_same_radiograph(tmp_path: Path, modality: str) -> None:
    groups = {
        "FrameVOILUTSequence": WINDOW,
        "FrameDisplayShutterSequence": RECTANGLE,
        "FramePixelDataPropertiesSequence": {"ImagerPixelSpacing": [0.3, 0.4]},
        "PatientOrientationInFrameSequence": {"PatientOrientation": ["A", "F"]},
    }
    ds = enhanced(modality, groups, None, PixelSpacing=None)
    file = load_radiograph(write(ds, tmp_path / "enhanced"))
    array = radiograph_from_array(ds.pixel_array, header=ds)
    np.testing.assert_array_equal(array.pixels, file.pixels)
    np.testing.assert_array_equal(array.table, file.table)
    assert (array.spacing_mm, array.facing, array.turn_deg) == (file.spacing_mm, file.facing, file.turn_deg)
    assert (array.occluded, array.has_window) == (file.occluded, True)


def test_other_classes_keep_to_their_header(tmp_path: Path) -> None:
    ds = enhanced("XA", {"FrameVOILUTSequence": WINDOW}, None)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    assert not load_radiograph(write(ds, tmp_path / "cr")).has_window


@pytest.mark.parametrize("spoiled", ["no sequence", [], [item()], [item(FrameVOILUTSequence=[])]])
def test_groups_that_say_nothing(tmp_path: Path, spoiled) -> None:
    ds = enhanced("RF", None, None)
    if isinstance(spoiled, str):
        ds.add_new(0x52009230, "LO", spoiled)
    else:
        ds.PerFrameFunctionalGroupsSequence = spoiled
    assert not load_radiograph(write(ds, tmp_path / "enhanced")).has_window


def test_several_frames_are_refused_as_ever(tmp_path: Path) -> None:
    ds = enhanced("XA", {"FrameVOILUTSequence": WINDOW}, None)
    ds.NumberOfFrames = 2
    with pytest.raises(InputRejected, match="has 2 frames"):
        load_radiograph(write(ds, tmp_path / "enhanced"))
