"""Numbers with a decimal comma are read if they have only one meaning; otherwise a warning says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from helpers.dicom_files import radiograph_dataset, write
from spinescore.runtime import load_radiograph
from spinescore.runtime.reading.tags import is_stated, number


@pytest.mark.parametrize(("words", "expected"), [
    ("2047.5", 2047.5), ("2047,5", 2047.5), ("-0,5", -0.5), (",5", 0.5), ("+1,25", 1.25), ("1,5e2", 150),
    ("0,143", 0.143), ("0,1430", 0.143), ("1234,567", 1234.567), ("1,0000", 1.0),
    ("1.024,5", 1024.5), ("1,024.5", 1024.5), ("1,024,000", 1024000), ("1.024", 1.024),
    ("1,024", None), ("-12,500", None), ("999,999", None),  # thousands or a fraction
    ("1,5,5", None), ("1.5,5.5", None), ("1,2 3", None), ("1 024,5", None), ("0,15,0,15", None), ("1,", None),
    ("a", None), ("inf", None), ("nan", None), ("", None),
])  # fmt: skip
def test_number(words: str, expected: float | None) -> None:
    ds = Dataset()
    ds.add_new("WindowCenterWidthExplanation", "LO", words)  # text, as pydicom would refuse some of them as numbers
    assert number(ds, "WindowCenterWidthExplanation") == expected
    assert is_stated(ds, "WindowCenterWidthExplanation") == bool(words)


def patched(path: Path, ds: Dataset, *pairs: tuple[bytes, bytes]) -> Path:
    """Return the file with a text replaced by another of the same length, which pydicom itself would not write."""
    data = write(ds, path).read_bytes()
    for before, after in pairs:
        assert data.count(before) == 1
        assert len(before) == len(after)
        data = data.replace(before, after)
    path.write_bytes(data)
    return path


def test_window_and_rescale(tmp_path: Path) -> None:
    tags = {"WindowCenter": "1812.25", "WindowWidth": "1000.75", "RescaleSlope": "0.625", "RescaleIntercept": "-12.375"}
    expected = load_radiograph(write(radiograph_dataset(**tags), tmp_path / "points"))
    pairs = [(text.encode(), text.replace(".", ",").encode()) for text in ("1812.25", "1000.75", "0.625", "-12.3750")]
    found = load_radiograph(
        patched(tmp_path / "commas", radiograph_dataset(**{**tags, "RescaleIntercept": "-12.3750"}), *pairs)
    )
    np.testing.assert_array_equal(found.table, expected.table)
    assert found.has_window


@pytest.mark.parametrize(
    ("before", "after", "name"), [(b"1812.250", b"Doe^Jane", "Center"), (b"1000.75 ", b"1,000   ", "Width")]
)
def test_window_that_is_not_understood(tmp_path: Path, before: bytes, after: bytes, name: str) -> None:
    ds = radiograph_dataset(WindowCenter="1812.250", WindowWidth="1000.75")
    found = load_radiograph(patched(tmp_path / "image", ds, (before, after)))
    assert not found.has_window
    said = [note for note in found.warnings if not note.startswith("pydicom")]
    assert said == [f"Window {name} is stated but not understood, and was ignored"]


def test_spacing(tmp_path: Path) -> None:
    ds = radiograph_dataset(PixelSpacing=["0.155", "0.225"])
    found = load_radiograph(patched(tmp_path / "image", ds, (b"0.155\\0.225", b"0,155\\0,225")))
    assert found.spacing_mm == (0.155, 0.225)
    assert not found.findings


@pytest.mark.parametrize(
    "written", [b"1,155\\1,225", b"about  0.15", b"0.15 x 0.15", b"-0.15\\-0.15", b"0.1\\0.1\\0.1"]
)
def test_spacing_that_is_not_understood(tmp_path: Path, written: bytes) -> None:
    ds = radiograph_dataset(PixelSpacing=["0.155", "0.225"])
    found = load_radiograph(patched(tmp_path / "image", ds, (b"0.155\\0.225", written)))
    assert found.spacing_mm is None
    assert [finding.code for finding in found.findings] == ["no-spacing"]
    assert "states a pixel spacing that is not understood" in found.findings[0].message


def test_spacing_that_is_not_stated(tmp_path: Path) -> None:
    for tags in ({"PixelSpacing": None}, {"PixelSpacing": ""}):
        found = load_radiograph(write(radiograph_dataset(**tags), tmp_path / "image"))
        assert "states no pixel spacing" in found.findings[0].message
