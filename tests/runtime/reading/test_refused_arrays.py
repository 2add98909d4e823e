"""Arrays that are refused: another picture than the header says, impossible pixels and options."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from helpers.dicom_files import picture, radiograph_dataset
from spinescore.runtime import InputRejected, radiograph_from_array


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
