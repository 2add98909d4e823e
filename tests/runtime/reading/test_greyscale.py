"""The folded table against pydicom's own greyscale chain, value by value."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_presentation_lut, apply_voi_lut

from helpers.dicom_files import picture, radiograph_dataset, write
from spinescore.runtime.reading.greyscale import _shows_dark_and_bright, contrast_table
from spinescore.runtime.reading.greyscale import table as fold
from spinescore.runtime.reading.percentiles import displayed_percentiles
from spinescore.runtime.reading.studies import load_radiograph
from spinescore.runtime.study import Radiograph

FORMATS = [(8, False), (8, True), (10, False), (12, False), (12, True), (15, False), (16, False), (16, True)]


def lut_item(count: int, first: int, bits: int, signed: bool, packed: bool = False) -> Dataset:
    """A LUT that bends, so that a shifted or swapped one shows."""
    item = Dataset()
    entries = np.round(((1 << bits) - 1) * np.linspace(0, 1, count) ** 0.6).astype(np.uint16)
    item.add_new("LUTDescriptor", "SS" if signed else "US", [count % 65536, first, bits])
    if packed:
        item.add_new("LUTData", "OW", entries.astype(np.uint8).tobytes())
    else:
        item.add_new("LUTData", "US", entries.tolist())
    return item


def folded(ds: Dataset) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The table, and all stored values that it covers."""
    stored = picture(ds.BitsStored, bool(ds.PixelRepresentation))
    low = -(1 << (ds.BitsStored - 1)) if ds.PixelRepresentation else 0
    grey, has_window, notes = fold(ds, stored, ds.BitsStored, low)
    assert has_window
    values = (low + np.arange(1 << ds.BitsStored)).astype(np.int32)
    return grey, values, notes


def expected_window(ds: Dataset, values: np.ndarray) -> np.ndarray:
    """pydicom's chain, whose values from y_min to y_max are scaled to [0, 1]."""
    with np.errstate(over="ignore"):  # pydicom's sigmoid
        shown = apply_voi_lut(apply_modality_lut(values, ds), ds).astype(np.float64)
    ends = np.array([values[0], values[-1]], dtype=np.float64)
    if "ModalityLUTSequence" in ds:
        ends = np.array([0.0, (1 << ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1])
    elif "RescaleSlope" in ds:
        ends = ends * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    return (shown - ends[0]) / (ends[1] - ends[0])


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("bits", "signed"), FORMATS)
def test_window_is_pydicoms(function: str | None, bits: int, signed: bool) -> None:
    span = 1 << bits
    for center, width in ((span * 0.5, span * 0.7), (span * 0.31, 17), (span * 0.5, span), (span * 0.5 + 0.5, 2)):
        middle = center - span / 2 if signed else center
        ds = radiograph_dataset(picture(bits, signed), bits, WindowCenter=middle, WindowWidth=width)
        if function:
            ds.VOILUTFunction = function
        grey, values, notes = folded(ds)
        np.testing.assert_allclose(grey, expected_window(ds, values), atol=1e-6)
        assert grey.dtype == np.float32
        assert grey.size == span
        assert notes == []


def test_window_of_one_is_a_step() -> None:
    grey, values, _ = folded(radiograph_dataset(WindowCenter=2000, WindowWidth=1))
    np.testing.assert_array_equal(grey, (values > 1999.5).astype(np.float32))


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, 3.25), (2.0, 0)])
def test_rescale_comes_before_the_window(slope: float, intercept: float) -> None:
    center, width = 1900 * slope + intercept, 1500 * slope
    ds = radiograph_dataset(RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=center, WindowWidth=width)
    grey, values, _ = folded(ds)
    np.testing.assert_allclose(grey, expected_window(ds, values), atol=1e-6)


def test_negative_slope_shows_large_stored_values_dark() -> None:
    ds = radiograph_dataset(RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2047.5, WindowWidth=4096)
    grey, _, _ = folded(ds)
    np.testing.assert_allclose(grey, np.linspace(1, 0, 4096), atol=1e-3)


@pytest.mark.parametrize(("count", "first", "bits", "signed"), [(4096, 0, 16, False), (700, 512, 16, False),
                                                                 (3000, -1500, 16, True)])  # fmt: skip
def test_modality_lut(count: int, first: int, bits: int, signed: bool) -> None:
    ds = radiograph_dataset(picture(12, signed), WindowCenter=2 ** (bits - 1), WindowWidth=2 ** (bits - 1))
    ds.ModalityLUTSequence = [lut_item(count, first, bits, signed)]
    grey, values, notes = folded(ds)
    np.testing.assert_allclose(grey, expected_window(ds, values), atol=1e-6)
    assert notes == []


@pytest.mark.parametrize(
    ("count", "first", "bits", "signed"),
    [(200, 20, 8, False), (256, 1000, 12, False), (4096, -2048, 16, True), (65536, 0, 16, False)],
)
def test_voi_lut(count: int, first: int, bits: int, signed: bool) -> None:
    stored_bits = {65536: 16, 200: 8}.get(count, 12)  # pydicom wraps larger values for LUTs of 8 bits
    ds = radiograph_dataset(picture(stored_bits, signed), stored_bits, WindowCenter=1, WindowWidth=2)
    ds.VOILUTSequence = [lut_item(count, first, bits, signed)]  # a LUT goes before a window
    grey, values, notes = folded(ds)
    np.testing.assert_allclose(grey, apply_voi_lut(values, ds) / ((1 << bits) - 1), atol=1e-6)
    assert notes == []


def test_lut_of_packed_bytes_is_the_one_of_words() -> None:
    words, packed = radiograph_dataset(), radiograph_dataset()
    words.VOILUTSequence = [lut_item(4096, 0, 8, False)]
    packed.VOILUTSequence = [lut_item(4096, 0, 8, False, packed=True)]
    expected = np.round(255 * np.linspace(0, 1, 4096) ** 0.6) / 255
    np.testing.assert_allclose(folded(words)[0], expected, atol=1e-6)
    np.testing.assert_allclose(folded(packed)[0], expected, atol=1e-6)


def test_broken_lut_leaves_the_window_and_says_so() -> None:
    ds = radiograph_dataset(WindowCenter=2048, WindowWidth=4096)
    whole = folded(ds)[0]
    ds.VOILUTSequence = [lut_item(4096, 0, 12, False)]
    ds.VOILUTSequence[0].LUTData = [1, 2, 3]
    grey, _, notes = folded(ds)
    np.testing.assert_array_equal(grey, whole)
    assert "VOILUTSequence" in notes[0]
    assert "4096 declared" in notes[0]


def test_lut_sequence_that_is_none(tmp_path) -> None:
    ds = radiograph_dataset(WindowCenter=2048, WindowWidth=4096)
    ds.add_new("VOILUTSequence", "LO", ["a", "b"])
    found = load_radiograph(write(ds, tmp_path / "image"))
    assert found.has_window
    assert "VOILUTSequence cannot be used" in found.warnings[0]


def test_several_windows_the_first_counts() -> None:
    one = radiograph_dataset(WindowCenter=1000, WindowWidth=500)
    two = radiograph_dataset(WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    np.testing.assert_array_equal(folded(one)[0], folded(two)[0])


@pytest.mark.parametrize(("photometric", "shape", "inverted", "doubt"), [
    ("MONOCHROME2", None, False, False),
    ("MONOCHROME2", "IDENTITY", False, False),
    ("MONOCHROME1", None, True, False),
    ("MONOCHROME1", "INVERSE", True, False),
    ("MONOCHROME1", "IDENTITY", True, True),
    ("MONOCHROME2", "INVERSE", True, True),
])  # fmt: skip
def test_polarity(photometric: str, shape: str | None, inverted: bool, doubt: bool) -> None:
    ds = radiograph_dataset(WindowCenter=2048, WindowWidth=4096)
    straight = folded(ds)[0]
    ds.PhotometricInterpretation = photometric
    if shape:
        ds.PresentationLUTShape = shape
    grey, _, notes = folded(ds)
    np.testing.assert_allclose(grey, 1 - straight if inverted else straight, atol=1e-6)
    assert bool(notes) == doubt
    if shape and not doubt:
        np.testing.assert_allclose(grey, apply_presentation_lut(straight.astype(np.float64), ds), atol=1e-6)


@pytest.mark.parametrize(("padding", "limit", "zeroed"), [(4095, None, (4095, 4095)), (100, 50, (50, 100)),
                                                          (0, 20, (0, 20))])  # fmt: skip
def test_padding_is_black_and_not_counted(tmp_path, padding: int, limit: int | None, zeroed: tuple[int, int]) -> None:
    pixels = np.clip(picture(), 200, 3000)
    pixels[:, :30] = padding
    ds = radiograph_dataset(pixels, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=padding)
    if limit is not None:
        ds.PixelPaddingRangeLimit = limit
    shown = load_radiograph(write(ds, tmp_path / "padded"))
    assert shown.padding == zeroed
    assert not shown.table[zeroed[0] : zeroed[1] + 1].any()
    low, high = displayed_percentiles(shown.pixels, 1, 99, [shown.padding])
    assert 200 <= low < high <= 3000
    assert shown.table[210] > 0.9
    assert shown.table[2990] < 0.1


def test_signed_padding_written_as_unsigned(tmp_path) -> None:
    ds = radiograph_dataset(picture(12, signed=True))
    ds.add_new("PixelPaddingValue", "US", 63488)  # -2048
    assert load_radiograph(write(ds, tmp_path / "padded")).padding == (-2048, -2048)


def collimated(border: int, rows: int = 400, columns: int = 300) -> np.ndarray:
    """A ramp from 1000 to 3000 inside a border of one value with a little noise."""
    rng = np.random.default_rng(5)
    pixels = np.full((rows, columns), border) + rng.integers(-3, 4, (rows, columns))
    pixels[90:-90, 70:-70] = np.linspace(1000, 3000, columns - 140)[None, :] + rng.integers(-3, 4, (rows - 180, 1))
    return pixels.astype(np.uint16)


@pytest.mark.parametrize("border", [10, 4090])
def test_without_window_contrast_is_of_the_exposed_field(tmp_path, border: int) -> None:
    shown = load_radiograph(write(radiograph_dataset(collimated(border)), tmp_path / "collimated"))
    assert not shown.has_window
    inside = shown.pixels[90:-90, 70:-70]
    low, high = np.percentile(inside, (1, 99))
    stored = np.arange(4096.0)
    np.testing.assert_allclose(shown.table, np.clip((stored - low) / (high - low), 0, 1), atol=0.01)


def test_window_that_shows_nothing_gives_way_to_the_pixels(tmp_path) -> None:
    ds = radiograph_dataset(np.clip(picture(), 3000, 4000), WindowCenter=500, WindowWidth=300)
    shown = load_radiograph(write(ds, tmp_path / "window"))
    assert not shown.has_window
    assert any("one grey" in note for note in shown.warnings)
    assert shown.table[3000] == 0
    assert shown.table[4000] == 1


@pytest.mark.parametrize("tags", [{"WindowWidth": 0}, {"WindowWidth": -5}, {}])
def test_impossible_window_is_ignored(tmp_path, tags: dict[str, int]) -> None:
    ds = radiograph_dataset(WindowCenter=2000, **tags)
    assert not load_radiograph(write(ds, tmp_path / "window")).has_window


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [("1e308", "1"), ("-1e308", "1e308"), ("1e308", "1e-308")])
def test_windows_of_huge_numbers_show_nothing_and_overflow_nowhere(tmp_path, function: str, center, width) -> None:
    ds = radiograph_dataset(WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    assert {note.code for note in load_radiograph(write(ds, tmp_path / "image")).warnings} <= {
        "window-replaced", "greyscale-ignored"
    }  # fmt: skip


def test_flat_picture_has_a_table(tmp_path) -> None:
    shown = load_radiograph(write(radiograph_dataset(np.full((20, 20), 7, np.uint16)), tmp_path / "flat"))
    assert np.isfinite(shown.table).all()
    assert shown.table[7] == 0


def seen(photometric: str = "MONOCHROME2") -> Radiograph:
    rng = np.random.default_rng(2)
    pixels = rng.integers(-2048, 2048, (300, 200)).astype(np.int16)
    ds = radiograph_dataset(pixels, WindowCenter=100, WindowWidth=300, PhotometricInterpretation=photometric)
    table, has_window, _ = fold(ds, pixels, 12, -2048)
    return Radiograph(pixels=pixels, table=table, stored_min=-2048, has_window=has_window)


def test_contrast_dicom_is_the_table() -> None:
    radiograph = seen()
    np.testing.assert_array_equal(contrast_table(radiograph, "dicom"), radiograph.table)


def test_contrast_percentile_is_linear_and_keeps_polarity() -> None:
    radiograph = seen()
    low, high = np.percentile(radiograph.pixels, (2, 90))
    stored = np.arange(-2048.0, 2048.0)
    expected = np.clip((stored - low) / (high - low), 0, 1)
    np.testing.assert_allclose(contrast_table(radiograph, "percentile", 2, 90), expected, atol=1e-6)
    dark = contrast_table(seen("MONOCHROME1"), "percentile", 10, 98)  # from dark to bright, so from large to small
    np.testing.assert_allclose(dark, 1 - expected, atol=1e-6)


def test_contrast_levels_round() -> None:
    grey = contrast_table(seen(), "percentile", 1, 99, levels=256)
    np.testing.assert_array_equal(grey, np.round(grey * 255) / np.float32(255))
    np.testing.assert_allclose(grey, contrast_table(seen(), "percentile", 1, 99), atol=0.5 / 255 + 1e-6)
    assert np.unique(grey).size == 256
    with pytest.raises(ValueError, match="levels is 1"):
        contrast_table(seen(), levels=1)
    with pytest.raises(ValueError, match="unknown contrast mode"):
        contrast_table(seen(), "other")  # type: ignore[arg-type]


@pytest.mark.parametrize("grey", [np.linspace(0, 1, 16), np.linspace(1, 0, 16), np.repeat((0.0, 1.0), 8)])
def test_dark_and_bright_means_that_percentiles_differ(grey: np.ndarray) -> None:
    """Each number of values on both sides of the middle grey, in pictures of all small sizes."""
    for size in range(1, 250):
        for dark in {*range(min(size, 16)), *range(max(0, size - 16), size + 1), size // 2}:
            exposed = np.repeat(np.array([-1, 0], np.int8), (dark, size - dark))
            if _shows_dark_and_bright(grey, exposed, -8):
                low, high = (round(edge) + 8 for edge in np.percentile(exposed, (1, 99)))
                assert grey[low] != grey[high], (size, dark)
            else:
                assert min(dark, size - dark) <= size // 20 + 1
    lut = np.array([0.0, 1.0] * 8)  # dark and bright by turns: here the percentiles decide
    assert not _shows_dark_and_bright(lut, exposed, -8)
