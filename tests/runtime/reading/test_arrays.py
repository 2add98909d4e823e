"""An array gives the same radiograph as a DICOM file with its pixels, for any type, byte order and layout."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from helpers.dicom_files import picture, radiograph_dataset, write
from spinescore.runtime import InputRejected, load_radiograph, radiograph_from_array
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"region": "lumbar"}, "region contradicts the header, which states 'cervical'; leave region out"),
        ({"facing": "right"}, "facing contradicts the header, which states 'left'"),
        ({"spacing_mm": 0.3}, "spacing_mm contradicts the header"),
        ({"study": "1.2.5"}, "study contradicts the header"),
        ({"study_date": "20250131"}, "study_date contradicts the header"),
        ({"patient": "P-2"}, "patient contradicts the header; leave patient out"),
        ({"photometric": "MONOCHROME1"}, "photometric is MONOCHROME1"),
        ({"bits_stored": 10}, "header states BitsStored 12"),
    ],
)
def test_what_is_given_must_not_contradict_the_header(given: dict[str, Any], message: str) -> None:
    header = radiograph_dataset(PatientOrientation=["P", "F"])
    with pytest.raises(ValueError, match=message):
        radiograph_from_array(picture(), header=header, **given)
    agreeing = {"region": "cervical", "facing": "left", "spacing_mm": (0.15, 0.2), "study": "1.2.3.4", "patient": "P-1"}
    assert radiograph_from_array(picture(), header=header, bits_stored=12, **agreeing).region == "cervical"


def test_the_header_must_be_that_of_the_picture() -> None:
    with pytest.raises(ValueError, match=r"header states Rows 37, and the array's rows would be 36"):
        radiograph_from_array(picture()[:36], header=radiograph_dataset())
    with pytest.raises(ValueError, match="header states BitsStored 12, and the array has 8 bits"):
        radiograph_from_array(picture(8), header=radiograph_dataset())
    with pytest.raises(InputRejected) as refused:
        radiograph_from_array(picture(), header=radiograph_dataset(NumberOfFrames=3))
    assert refused.value.code == "not-radiograph"


def test_the_limit_of_pixels_is_that_of_files() -> None:
    large = np.broadcast_to(np.zeros((1, 1), np.uint16), (11_000, 10_000))
    with pytest.raises(InputRejected, match="11000 x 10000 pixels, the limit is 100000000") as refused:
        radiograph_from_array(large, region="cervical")
    assert refused.value.code == "too-large"
    with pytest.raises(InputRejected, match="the limit is 1886"):
        radiograph_from_array(picture(), max_pixels=37 * 51 - 1)


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (None, TypeError, "pixels must be a NumPy array .* got None"),
        ([[1, 2], [3, 4]], TypeError, "got a list; convert with numpy.asarray"),
        (b"\0\1", TypeError, "got bytes"),
        (np.zeros((200, 200)), ValueError, r"got float64 \(200, 200\); round them first"),
        (np.full((200, 200), np.nan, np.float32), ValueError, "got float32 .* round them first"),
        (np.zeros((200, 200), bool), ValueError, "got bool .* a mask"),
        (np.zeros((200, 200), object), ValueError, "got object"),
        (np.zeros((200, 200), [("a", "u2")]), ValueError, "give one field"),
        (np.zeros((200, 200), complex), ValueError, "complex128"),
        (np.zeros((200, 200), np.int32), ValueError, "16 bits first"),
        (np.array(3, np.uint16), ValueError, r"uint16 \(\)"),
        (np.zeros((3, 200, 200), np.uint16), ValueError, r"\(3, 200, 200\)"),
        (np.zeros((0, 5), np.uint8), ValueError, r"\(0, 5\)"),
    ],
)
def test_what_is_no_picture(pixels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        radiograph_from_array(pixels)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"spacing_mm": "0.1"}, TypeError, "spacing_mm .* got str '0.1'; call radiograph_from_array"),
        ({"spacing_mm": True}, TypeError, "spacing_mm"),
        ({"spacing_mm": ("0.1", "0.1")}, ValueError, "spacing_mm .* got a tuple"),
        ({"spacing_mm": [0.1]}, ValueError, "spacing_mm"),
        ({"spacing_mm": np.array([0.1, np.inf])}, ValueError, "spacing_mm"),
        ({"region": "neck"}, ValueError, "region must be one of None, 'cervical', 'lumbar', got str 'neck'"),
        ({"region": ["cervical"]}, TypeError, "region must be one of"),
        ({"facing": "west"}, ValueError, "facing must be one of None, 'left', 'right', got str 'west'"),
        ({"photometric": "RGB"}, ValueError, "photometric must be one of"),
        ({"window": 400}, TypeError, r"window is \(centre, width\)"),
        ({"window": (40, 0)}, ValueError, "second of at least 1"),
        ({"window": ("40", "400")}, ValueError, "window"),
        ({"window": (float("nan"), 400)}, ValueError, "window"),
        ({"bits_stored": 17}, ValueError, "bits_stored must be from 1 to 16, got int 17"),
        ({"bits_stored": 12.0}, TypeError, "bits_stored must be a whole number, got float 12.0"),
        ({"bits_stored": True}, TypeError, "bits_stored"),
        ({"header": {"PatientID": "secret"}}, TypeError, "header must be a pydicom Dataset or None, got a dict$"),
        ({"study_date": "31.01.2025"}, ValueError, "study_date must be a date as YYYYMMDD"),
        ({"study": 5}, TypeError, "study must be text or None, got int 5"),
        ({"name": " "}, ValueError, "name must not be empty"),
        ({"max_pixels": "3"}, TypeError, "max_pixels"),
        ({"max_pixels": -1}, ValueError, "max_pixels"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        radiograph_from_array(picture(16), **options)


def test_numbers_may_be_numpys() -> None:
    found = radiograph_from_array(
        picture(12), spacing_mm=np.float32(0.25), bits_stored=np.int64(12), window=np.array([500, 900])
    )
    assert (found.spacing_mm, found.table.size, found.has_window) == ((0.25, 0.25), 4096, True)
    assert radiograph_from_array(picture(12), spacing_mm=np.array([0.1, 0.2])).spacing_mm == (0.1, 0.2)


def test_an_array_without_a_header_needs_no_pydicom() -> None:
    """The import of pydicom takes longer than a study may take."""
    program = """
import sys, numpy as np
from spinescore.runtime import radiograph_from_array
pixels = np.ma.masked_less(np.arange(40000, dtype=">u2").reshape(200, 200), 50)
radiograph_from_array(pixels, region="lumbar", window=(500, 900), patient="X", study_date="20250131", spacing_mm=0.1)
print("pydicom" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
