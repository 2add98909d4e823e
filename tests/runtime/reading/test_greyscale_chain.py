"""Files through the whole grey-scale chain against pydicom's own functions, and several windows in a header."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_presentation_lut, apply_voi_lut, apply_windowing
from pydicom.sequence import Sequence

from helpers.dicom_files import picture, radiograph_dataset, write
from spinescore.runtime import Radiograph, load_radiograph, load_study


def lut(count: int, first: int, bits: int, signed: bool = False, power: float = 0.6, name: str = "") -> Dataset:
    """A LUT that bends, so that a shifted or swapped one shows."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [count, first, bits])
    entries = np.round(((1 << bits) - 1) * np.linspace(0, 1, count) ** power)
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())  # as devices write what US is too short for
    if name:
        item.LUTExplanation = name
    return item


def seen(radiograph: Radiograph) -> np.ndarray:
    return radiograph.table[radiograph.pixels.astype(np.int64) - radiograph.stored_min]


def ends(ds: Dataset) -> tuple[float, float]:
    """The range that pydicom's windowing maps to: all values that the modality transformation can give."""
    if "ModalityLUTSequence" in ds:
        return 0.0, float((1 << ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    low = -(1 << (ds.BitsStored - 1)) if ds.PixelRepresentation else 0
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    return low * slope + intercept, (low + (1 << ds.BitsStored) - 1) * slope + intercept


def windowed(ds: Dataset, index: int = 0) -> np.ndarray:
    """pydicom's modality LUT and windowing, scaled to [0, 1]."""
    low, high = ends(ds)
    with np.errstate(over="ignore"):  # pydicom's sigmoid
        shown = apply_windowing(apply_modality_lut(ds.pixel_array.astype(np.int32), ds), ds, index)
    return (shown.astype(np.float64) - low) / (high - low)


STORED = [(8, False), (10, False), (12, False), (12, True), (13, True), (15, False), (16, True)]
MODALITY = ["none", "rescale", "lut"]
FUNCTIONS = ["LINEAR", "LINEAR_EXACT", "SIGMOID"]
POLARITY = [("MONOCHROME2", None), ("MONOCHROME2", "IDENTITY"), ("MONOCHROME1", None), ("MONOCHROME1", "INVERSE")]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("modality", MODALITY)
@pytest.mark.parametrize(("bits", "signed"), STORED)
def test_window_of_a_file_is_pydicoms(tmp_path, bits: int, signed: bool, modality: str, function: str) -> None:
    low = -(1 << (bits - 1)) if signed else 0
    ds = radiograph_dataset(picture(bits, signed), bits, VOILUTFunction=function)
    if modality == "rescale":
        ds.RescaleSlope, ds.RescaleIntercept = "0.5", "-20.25"
    elif modality == "lut":
        ds.ModalityLUTSequence = Sequence([lut((1 << bits) - 50, low + 17, 16, signed)])
    first, last = ends(ds)
    ds.WindowCenter, ds.WindowWidth = f"{first + 0.4 * (last - first):.2f}", f"{0.6 * (last - first):.2f}"
    path = write(ds, tmp_path / "image")
    np.testing.assert_allclose(seen(load_radiograph(path)), windowed(dcmread(path)), atol=1e-6)


@pytest.mark.parametrize(("photometric", "shape"), POLARITY)
@pytest.mark.parametrize(("bits", "signed"), STORED)
def test_polarity_of_a_file_is_pydicoms(tmp_path, bits: int, signed: bool, photometric: str, shape: str | None) -> None:
    """All three LUTs. pydicom inverts MONOCHROME1 only if a presentation LUT shape says so."""
    low = -(1 << (bits - 1)) if signed else 0
    ds = radiograph_dataset(picture(bits, signed), bits, PhotometricInterpretation=photometric)
    ds.ModalityLUTSequence = Sequence([lut((1 << bits) - 50, low + 9, 16, signed)])
    ds.VOILUTSequence = Sequence([lut(60000, 10, 16, power=1.7)])
    if shape:
        ds.PresentationLUTShape = shape
    path = write(ds, tmp_path / "image")
    again = dcmread(path)
    shown = apply_voi_lut(apply_modality_lut(again.pixel_array.astype(np.int32), again), again) / ((1 << 16) - 1)
    shown = apply_presentation_lut(shown, again) if shape else shown
    expected = 1 - shown if photometric == "MONOCHROME1" and not shape else shown
    np.testing.assert_allclose(seen(load_radiograph(path)), expected, atol=1e-6)


@pytest.mark.parametrize("bits_above", [0, 1, 3])
@pytest.mark.parametrize("signed", [False, True])
def test_unused_bits_change_nothing(tmp_path, bits_above: int, signed: bool) -> None:
    """10 bits anywhere in the word, with rubbish around them."""
    tags = {"WindowCenter": 0 if signed else 500, "WindowWidth": 700}
    plain = radiograph_dataset(picture(10, signed), 10, **tags)
    high_bit = 15 - bits_above
    rubbish = np.random.default_rng(1).integers(0, 1 << 16, plain.pixel_array.shape).astype(np.uint16)
    kept = np.uint16(((1 << 10) - 1) << (high_bit - 9))
    shifted = (picture(10, signed).view(np.uint16) << (high_bit - 9)) & kept | rubbish & ~kept
    ds = radiograph_dataset(
        picture(10, signed), 10, HighBit=high_bit, PixelData=shifted.astype("<u2").tobytes(), **tags
    )
    expected = seen(load_radiograph(write(plain, tmp_path / "plain")))
    np.testing.assert_array_equal(seen(load_radiograph(write(ds, tmp_path / "shifted"))), expected)


def several(**tags: object) -> Dataset:
    tags = {"WindowCenter": [1000, 3000, 2000], "WindowWidth": [500, 100, 3000], **tags}
    ds = radiograph_dataset(**tags)
    ds.WindowCenterWidthExplanation = ["NORMAL", "Bone ", "SOFTER"]
    return ds


@pytest.mark.parametrize(("window", "index"), [(None, 0), ("NORMAL", 0), ("bone", 1), (" Softer ", 2)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_window_by_its_explanation(tmp_path, window: str | None, index: int, function: str) -> None:
    path = write(several(VOILUTFunction=function), tmp_path / "image")
    found = load_radiograph(path, window=window)
    np.testing.assert_allclose(seen(found), windowed(dcmread(path), index), atol=1e-6)
    assert found.has_window
    assert found.warnings == ()
    (same,) = load_study(path, window=window).radiographs
    np.testing.assert_array_equal(same.table, found.table)


def test_explanation_that_is_not_there_is_named_and_the_first_is_used(tmp_path) -> None:
    path = write(several(), tmp_path / "image")
    found = load_radiograph(path, window="LUNG")
    np.testing.assert_array_equal(found.table, load_radiograph(path).table)
    assert found.warnings == (
        "no window has the explanation 'LUNG' (the header has: 'NORMAL', 'Bone', 'SOFTER'); the first was used",
    )
    plain = write(radiograph_dataset(WindowCenter=1000, WindowWidth=500), tmp_path / "plain")
    assert "the header has: none" in load_radiograph(plain, window="LUNG").warnings[0]


@pytest.mark.parametrize(("window", "index"), [(None, 0), ("flat", 0), ("STEEP", 1)])
def test_voi_lut_by_its_explanation(tmp_path, window: str | None, index: int) -> None:
    ds = several()
    ds.VOILUTSequence = Sequence([lut(4096, 0, 16, name="FLAT"), lut(4000, 50, 16, power=2.5, name="STEEP")])
    path = write(ds, tmp_path / "image")
    again = dcmread(path)
    shown = apply_voi_lut(again.pixel_array, again, index) / ((1 << again.VOILUTSequence[index].LUTDescriptor[2]) - 1)
    np.testing.assert_allclose(seen(load_radiograph(path, window=window)), shown, atol=1e-6)
    np.testing.assert_allclose(seen(load_radiograph(path, window="bone")), windowed(again, 1), atol=1e-6)


def test_explanations_that_devices_get_wrong(tmp_path) -> None:
    """More names than windows, a wrong sequence, a broken LUT: each gives a note, and the rest is used."""
    ds = several(WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    path = write(ds, tmp_path / "image")
    assert not load_radiograph(path, window="SOFTER").has_window
    ds.VOILUTSequence = Sequence([Dataset()])
    path = write(ds, tmp_path / "broken")
    found = load_radiograph(path)
    np.testing.assert_allclose(seen(found), windowed(dcmread(path)), atol=1e-6)
    assert "VOILUTSequence" in found.warnings[0]


@pytest.mark.parametrize("limit", [None, 30])
@pytest.mark.parametrize("padding", [0, 4095])
def test_padding_changes_no_other_value(tmp_path, padding: int, limit: int | None) -> None:
    tags = {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = load_radiograph(write(radiograph_dataset(**tags), tmp_path / "plain"))
    ds = radiograph_dataset(PixelPaddingValue=padding, **tags)
    if limit is not None:
        ds.PixelPaddingRangeLimit = abs(padding - limit)
    padded = load_radiograph(write(ds, tmp_path / "padded"))
    low, high = padded.padding
    assert {low, high} == {padding, padding if limit is None else abs(padding - limit)}
    assert not padded.table[low : high + 1].any()
    rest = np.r_[0:low, high + 1 : 4096]
    np.testing.assert_array_equal(padded.table[rest], plain.table[rest])
