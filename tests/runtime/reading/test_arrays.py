"""An array gives the same radiograph as a DICOM file with its pixels, for any type, byte order and layout."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from helpers.dicom_files import picture, radiograph_dataset, write
from spinescore.runtime import load_radiograph, radiograph_from_array
from spinescore.runtime.study import Radiograph

WINDOWED = {"WindowCenter": 900, "WindowWidth": 1500}


def from_file(ds: Dataset) -> Radiograph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that no device should write
        ds.save_as(stream := io.BytesIO(), enforce_file_format=True)
    stream.seek(0)
    return load_radiograph(stream)


def header_of(ds: Dataset) -> Dataset:
    header = Dataset()
    header.update({element.tag: element for element in ds if element.keyword != "PixelData"})
    return header


def assert_same(found: Radiograph, expected: Radiograph) -> None:
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.pixels.dtype == expected.pixels.dtype
    np.testing.assert_array_equal(found.table, expected.table)
    for field in ("stored_min", "has_window", "padding", "occluded", "spacing_mm", "region", "view", "facing"):
        assert getattr(found, field) == getattr(expected, field), field
    for field in ("turn_deg", "modality", "sop_instance_uid", "study_instance_uid", "study_date", "patient_key"):
        assert getattr(found, field) == getattr(expected, field), field
    assert found.warnings == expected.warnings
    assert [one.code for one in found.findings] == [one.code for one in expected.findings]


@pytest.mark.parametrize(
    ("bits", "signed", "tags"),
    [
        (12, False, {}),
        (12, False, WINDOWED),
        (12, False, {**WINDOWED, "PhotometricInterpretation": "MONOCHROME1"}),
        (12, True, {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 0, "WindowWidth": 3000}),
        (16, False, {"PatientOrientation": ["A", "F"]}),
        (8, False, {}),
        (8, True, {"RescaleSlope": 2, "RescaleIntercept": -10}),
        (12, False, {"PixelPaddingValue": 0, "VOILUTFunction": "SIGMOID", **WINDOWED}),
        (12, False, {"ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 5, "ShutterRightVerticalEdge": 30,
                     "ShutterUpperHorizontalEdge": 4, "ShutterLowerHorizontalEdge": 33}),
    ],
)  # fmt: skip
def test_an_array_with_a_header_is_what_its_file_is(bits: int, signed: bool, tags: dict[str, Any]) -> None:
    pixels = picture(bits, signed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = radiograph_dataset(pixels, bits, **tags)
        header = header_of(ds)
        before = header.to_json(suppress_invalid_tags=True)
        kept = pixels.copy()
        found = radiograph_from_array(pixels, header=header)
        assert header.to_json(suppress_invalid_tags=True) == before
    np.testing.assert_array_equal(pixels, kept)
    assert_same(found, from_file(ds))
    assert (found.source, found.header.PatientID) == ("array", "P-1")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_an_array_without_a_header_is_what_its_file_is(seed: int, photometric: str, tmp_path: Path) -> None:
    """The contrast, which is taken from the pixels, is also the same."""
    rng = np.random.default_rng(seed)
    pixels = (rng.gamma(2.0, 90.0, (240, 200)) + 3).clip(0, 1023).astype(np.uint16)
    ds = radiograph_dataset(pixels, BitsStored=10, HighBit=9, PhotometricInterpretation=photometric)
    file = load_radiograph(write(ds, tmp_path / "file"))
    array = radiograph_from_array(pixels, bits_stored=10, photometric=photometric)
    assert not file.has_window
    np.testing.assert_array_equal(array.table, file.table)


def test_later_changes_of_the_header_do_not_reach_the_radiograph() -> None:
    ds = radiograph_dataset()
    found = radiograph_from_array(picture(), header=ds)
    ds.PatientID, ds["PatientName"].value = "another", "Other^One"
    assert (found.header.PatientID, found.header.PatientName) == ("P-1", "Test^Case")
    assert "PixelData" not in found.header


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_window_photometric_and_bits_are_those_of_a_file(photometric: str, signed: bool) -> None:
    pixels = picture(12, signed)
    centre = -1000.5 if signed else 1000.5
    tags = {"PhotometricInterpretation": photometric, "WindowCenter": str(centre), "WindowWidth": "1800"}
    expected = from_file(radiograph_dataset(pixels, 12, **tags))
    found = radiograph_from_array(pixels, photometric=photometric, window=(centre, 1800), bits_stored=12)
    np.testing.assert_array_equal(found.table, expected.table)
    assert (found.table.size, found.stored_min, found.has_window) == (4096, -2048 if signed else 0, True)
    assert (found.header, found.findings, found.warnings) == (None, (), ())
    darker = found.table[0] > found.table[-1]
    assert darker == (photometric == "MONOCHROME1")


def test_a_window_takes_the_place_of_the_headers() -> None:
    tags = {**WINDOWED, "VOILUTFunction": "SIGMOID"}
    found = radiograph_from_array(picture(), header=header_of(radiograph_dataset(**tags)), window=(2000, 400))
    expected = from_file(radiograph_dataset(WindowCenter=2000, WindowWidth=400))
    np.testing.assert_array_equal(found.table, expected.table)


def layouts(pixels: np.ndarray) -> dict[str, np.ndarray]:
    other = pixels.astype(pixels.dtype.newbyteorder())
    wide = np.repeat(pixels, 2, axis=1)
    locked = pixels.copy()
    locked.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.matrix(pixels)
    return {
        "other byte order": other,
        "columns first": np.asfortranarray(pixels),
        "strided": wide[:, ::2],
        "backwards": np.ascontiguousarray(pixels[::-1, ::-1])[::-1, ::-1],
        "read-only": locked,
        "matrix": matrix,
        "nothing masked": np.ma.array(pixels),
        "other byte order, strided, read-only": np.repeat(other, 2, axis=0)[::2],
    }


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_layouts(dtype: str) -> None:
    pixels = picture(8 if dtype.endswith("8") else 16, dtype.startswith("i"))
    expected = radiograph_from_array(pixels)
    assert expected.pixels is pixels or np.shares_memory(expected.pixels, pixels)
    for name, layout in layouts(pixels).items():
        found = radiograph_from_array(layout)
        np.testing.assert_array_equal(found.pixels, pixels, err_msg=name)
        np.testing.assert_array_equal(found.table, expected.table, err_msg=name)
        assert (type(found.pixels), found.pixels.dtype) == (np.ndarray, np.dtype(dtype)), name
        assert found.pixels.flags.c_contiguous, name


def test_masked_pixels_are_black_and_no_part_of_the_contrast() -> None:
    rng = np.random.default_rng(7)
    inside = rng.integers(300, 900, (200, 300)).astype(np.uint16)
    pixels = np.full((260, 360), 60000, np.uint16)
    pixels[30:230, 30:330] = inside
    masked = np.ma.masked_greater(pixels, 50000)
    found = radiograph_from_array(masked)
    seen = found.table[found.pixels]
    assert seen[:30].max() == seen[:, 330:].max() == 0
    np.testing.assert_array_equal(found.table[300:900], radiograph_from_array(inside).table[300:900])
    assert pixels.max() == 60000  # the caller's array is as it was
    white = radiograph_from_array(masked, photometric="MONOCHROME1")
    assert white.table[white.pixels][:30].max() == 0


def test_bits_beyond_those_stored_are_dropped_as_in_a_file_and_said() -> None:
    pixels = picture(12)
    overlaid = pixels | np.uint16(0x8000)
    found = radiograph_from_array(overlaid, bits_stored=12)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert (overlaid & 0x8000).all()
    assert f"{pixels.size} pixels have values beyond 12 unsigned bits" in found.warnings[0]
    assert radiograph_from_array(pixels, bits_stored=12).warnings == ()


def test_pixels_of_the_other_sign_than_the_header_says() -> None:
    header = header_of(radiograph_dataset())
    pixels = picture(12)
    found = radiograph_from_array(pixels.astype(np.int16), header=header)  # all of them can be unsigned
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.pixels.dtype == np.uint16
    with pytest.raises(ValueError, match="header states unsigned pixels, but 1 values of the int16 array"):
        radiograph_from_array(np.where(np.arange(pixels.size).reshape(pixels.shape) == 3, -1, pixels).astype(np.int16),
                              header=header)  # fmt: skip


def test_what_is_given_beside_the_header_fills_what_it_leaves_out() -> None:
    header = header_of(radiograph_dataset(BodyPartExamined=None, PixelSpacing=None, PatientID=None))
    found = radiograph_from_array(
        picture(), header=header, region="lumbar", facing="right", spacing_mm=0.2, patient="X"
    )
    assert (found.region, found.facing, found.spacing_mm) == ("lumbar", "right", (0.2, 0.2))
    assert [one.code for one in found.findings] == []
    assert found.patient_key == from_file(radiograph_dataset(PatientID="X")).patient_key
    given = radiograph_from_array(picture(), study="my study", study_date="20250131", name="Raum 2", patient="X")
    assert (given.study_instance_uid, given.study_date, given.source) == ("my study", "20250131", "Raum 2")
    assert given.patient_key == found.patient_key
