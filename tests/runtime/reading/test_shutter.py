"""Display shutters: hidden pixels have the shutter's grey, and do not count for the contrast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from helpers.dicom_files import picture, radiograph_dataset, write
from spinescore.runtime import Radiograph, load_radiograph
from spinescore.runtime.reading.greyscale import contrast_table

ROWS, COLUMNS = 120, 90
DOWN, ACROSS = np.indices((ROWS, COLUMNS)) + 1  # DICOM counts from 1
RECTANGLE = {
    "ShutterUpperHorizontalEdge": 20,
    "ShutterLowerHorizontalEdge": 110,
    "ShutterLeftVerticalEdge": 11,
    "ShutterRightVerticalEdge": 70,
}
CIRCLE = {"CenterOfCircularShutter": [60, 40], "RadiusOfCircularShutter": 35}
TRIANGLE = {"VerticesOfThePolygonalShutter": [10, 45, 100, 10, 100, 80]}
SEEN = {
    "RECTANGULAR": (DOWN >= 20) & (DOWN <= 110) & (ACROSS >= 11) & (ACROSS <= 70),
    "CIRCULAR": (DOWN - 60) ** 2 + (ACROSS - 40) ** 2 <= 35**2,
    "POLYGONAL": (DOWN <= 100) & (np.abs(ACROSS - 45) * 90 <= (DOWN - 10) * 35),
}
TAGS = {"RECTANGULAR": RECTANGLE, "CIRCULAR": CIRCLE, "POLYGONAL": TRIANGLE}
WINDOW = {"WindowCenter": "1500", "WindowWidth": "2500"}


def exposed(bits: int = 12, signed: bool = False) -> np.ndarray:
    """Values that leave some of the range free."""
    low = -(1 << (bits - 1)) if signed else 0
    values = np.linspace(low + (200 << bits) // 4096, low + (3000 << bits) // 4096, ROWS * COLUMNS)
    return values.reshape(ROWS, COLUMNS).round().astype(picture(bits, signed).dtype)


def seen_through(shapes: list[str]) -> np.ndarray:
    return np.logical_and.reduce([SEEN[shape] for shape in shapes])


def at_edge(shapes: list[str]) -> np.ndarray:
    """Pixels that a polygon's outline may touch, so that they may count as visible or as hidden."""
    outline = SEEN["POLYGONAL"] if "POLYGONAL" in shapes else np.ones((ROWS, COLUMNS), bool)
    return np.logical_or.reduce([np.roll(outline, shift, axis) != outline for shift in (-1, 1) for axis in (0, 1)])


def shuttered(shapes: list[str], hidden: int | None = 4095, pixels: np.ndarray | None = None, **tags) -> Dataset:
    """A picture whose pixels outside the shutter are stored as `hidden`, usually white."""
    pixels = exposed() if pixels is None else pixels.copy()
    if hidden is not None:
        pixels[~seen_through(shapes) & ~at_edge(shapes)] = hidden
    for shape in shapes:
        tags = {**TAGS[shape], **tags}
    bits = tags.pop("bits", 12)
    return radiograph_dataset(pixels, bits, ShutterShape=shapes, **tags)


def grey(found: Radiograph, table: np.ndarray | None = None) -> np.ndarray:
    return (found.table if table is None else table)[found.pixels.astype(int) - found.stored_min]


ALL = ["RECTANGULAR", "CIRCULAR", "POLYGONAL"]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shapes", [*([shape] for shape in ALL), ["RECTANGULAR", "CIRCULAR"], ALL])
@pytest.mark.parametrize("tags", [{}, WINDOW], ids=["no window", "window"])
def test_what_lies_in_all_shapes_is_seen(tmp_path: Path, shapes: list[str], photometric: str, tags: dict) -> None:
    tags = {"PhotometricInterpretation": photometric, **tags}
    found = load_radiograph(write(shuttered(shapes, **tags), tmp_path / "shut"))
    seen, hidden = seen_through(shapes) & ~at_edge(shapes), ~seen_through(shapes) & ~at_edge(shapes)
    np.testing.assert_array_equal(found.pixels[seen], exposed()[seen])
    assert not grey(found)[hidden].any()
    assert found.warnings == ()
    shown = grey(found)[seen]
    if not tags.get("WindowCenter"):  # the contrast is of what is seen: white surroundings would darken all of it
        assert np.quantile(shown, 0.995) > 0.98
        assert np.quantile(shown, 0.005) < 0.02
    else:
        expected = load_radiograph(write(radiograph_dataset(exposed(), 12, **tags), tmp_path / "open"))
        np.testing.assert_array_equal(shown, grey(expected)[seen])


@pytest.mark.parametrize("over", ["exposed", "picture"])
def test_percentiles_are_of_what_is_seen(tmp_path: Path, over: str) -> None:
    found = load_radiograph(write(shuttered(["CIRCULAR"], **WINDOW), tmp_path / "shut"))
    table = contrast_table(found, "percentile", 5, 95, over=over)
    low, high = np.percentile(exposed()[SEEN["CIRCULAR"]], (5, 95))
    shown = grey(found, table)
    expected = np.clip((exposed() - low) / (high - low), 0, 1)
    np.testing.assert_allclose(shown[SEEN["CIRCULAR"]], expected[SEEN["CIRCULAR"]], atol=1e-3)
    assert not shown[~SEEN["CIRCULAR"]].any()


@pytest.mark.parametrize("value", [0, 20000, 65535, 70000])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_grey_of_the_shutter(tmp_path: Path, value: int, photometric: str) -> None:
    """A P-Value: 0 is black whatever the photometric interpretation."""
    ds = shuttered(["CIRCULAR"], PhotometricInterpretation=photometric, **WINDOW)
    ds.add_new("ShutterPresentationValue", "UL" if value > 65535 else "US", value)
    found = load_radiograph(write(ds, tmp_path / "shut"))
    np.testing.assert_allclose(grey(found)[~SEEN["CIRCULAR"]], min(value / 65535, 1), atol=1e-6)
    table = contrast_table(found, "percentile", 1, 99)
    np.testing.assert_allclose(grey(found, table)[~SEEN["CIRCULAR"]], min(value / 65535, 1), atol=1e-6)


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, True), (16, False), (16, True)])
def test_stored_formats(tmp_path: Path, bits: int, signed: bool) -> None:
    pixels = exposed(bits, signed)
    found = load_radiograph(write(shuttered(["RECTANGULAR"], int(pixels.max()), pixels, bits=bits), tmp_path / "shut"))
    assert not grey(found)[~SEEN["RECTANGULAR"]].any()
    np.testing.assert_array_equal(found.pixels[SEEN["RECTANGULAR"]], pixels[SEEN["RECTANGULAR"]])
    assert grey(found)[SEEN["RECTANGULAR"]].max() == 1


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_all_values_in_use(tmp_path: Path, photometric: str) -> None:
    """The darkest value then stands for the shutter, and the picture keeps it too."""
    pixels = np.tile(np.arange(256, dtype=np.uint8), (ROWS * COLUMNS) // 256 + 1)[: ROWS * COLUMNS].reshape(
        ROWS, COLUMNS
    )
    tags = {"PhotometricInterpretation": photometric, "WindowCenter": "128", "WindowWidth": "256"}
    found = load_radiograph(write(shuttered(["RECTANGULAR"], None, pixels, bits=8, **tags), tmp_path / "shut"))
    seen = SEEN["RECTANGULAR"]
    np.testing.assert_array_equal(found.pixels[seen], pixels[seen])
    assert not grey(found)[~seen].any()
    np.testing.assert_allclose(np.sort(np.unique(grey(found)[seen])), np.linspace(0, 1, 256), atol=0.01)


def test_padding_stays_padding(tmp_path: Path) -> None:
    ds = shuttered(["RECTANGULAR"], PixelPaddingValue=4000, PhotometricInterpretation="MONOCHROME1")
    found = load_radiograph(write(ds, tmp_path / "shut"))
    assert found.padding == (4000, 4000)
    assert not grey(found)[~SEEN["RECTANGULAR"]].any()
    assert grey(found)[SEEN["RECTANGULAR"]].max() == 1


@pytest.mark.parametrize(("tags", "note"), [
    ({"ShutterShape": "BITMAP"}, "cannot be understood"),
    ({"ShutterShape": "RECTANGULAR", **RECTANGLE, "ShutterLeftVerticalEdge": None}, "cannot be understood"),
    ({"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": 5, "RadiusOfCircularShutter": 3}, "cannot be understood"),
    ({"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 5, 5]}, "cannot be understood"),
    ({"ShutterShape": "RECTANGULAR", **RECTANGLE, "ShutterUpperHorizontalEdge": 999}, "hides all"),
    ({"ShutterShape": "RECTANGULAR", **dict.fromkeys(RECTANGLE, 0)}, "hides all"),
    ({"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [60, 45], "RadiusOfCircularShutter": 900}, None),
    ({"ShutterShape": ""}, None),
    (RECTANGLE, None),  # edges without a shape
])  # fmt: skip
def test_shutters_that_change_nothing(tmp_path: Path, tags: dict, note: str | None) -> None:
    ds = radiograph_dataset(exposed(), 12, **{keyword: found for keyword, found in tags.items() if found is not None})
    found = load_radiograph(write(ds, tmp_path / "shut"))
    np.testing.assert_array_equal(found.pixels, exposed())
    assert found.occluded is None
    assert [note in said for said in found.warnings] == ([True] if note else [])


@pytest.mark.parametrize(("shape", "words"), [("BITMAP", "the bitmap of the"), ("TRIANGULAR", "a shape of the")])
def test_a_shape_that_is_not_understood_leaves_the_others(tmp_path: Path, shape: str, words: str) -> None:
    ds = shuttered(["CIRCULAR"])
    ds.ShutterShape = [shape, "CIRCULAR"]
    found = load_radiograph(write(ds, tmp_path / "shut"))
    assert not grey(found)[~SEEN["CIRCULAR"]].any()
    assert f"{words} Display Shutter" in found.warnings[0]


def with_bitmap(ds: Dataset, hidden: np.ndarray, group: int = 0x6002, origin: tuple[int, int] = (1, 1), vr="OW"):
    """A shutter that an overlay draws."""
    packed = np.packbits(hidden, bitorder="little").tobytes()
    ds.add_new(group << 16 | 0x10, "US", hidden.shape[0])
    ds.add_new(group << 16 | 0x11, "US", hidden.shape[1])
    ds.add_new(group << 16 | 0x40, "CS", "G")
    ds.add_new(group << 16 | 0x50, "SS", list(origin))
    ds.add_new(group << 16 | 0x100, "US", 1)
    ds.add_new(group << 16 | 0x102, "US", 0)
    ds.add_new(group << 16 | 0x3000, vr, packed + b"\0" * (len(packed) % 2))
    shape = ds.get("ShutterShape", [])
    ds.ShutterShape = [*([shape] if isinstance(shape, str) else shape), "BITMAP"]
    ds.add_new("ShutterOverlayGroup", "US", group)
    return ds


RING = ((DOWN - 60) ** 2 + (ACROSS - 45) ** 2 > 40**2) | (DOWN < 30)  # what no other shape can say


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"])
@pytest.mark.parametrize("vr", ["OW", "OB"])
def test_a_bitmap_hides_its_ones(tmp_path: Path, syntax: str, vr: str) -> None:
    ds = with_bitmap(radiograph_dataset(np.where(RING, 4095, exposed()).astype(np.uint16), 12, **WINDOW), RING, vr=vr)
    ds.ShutterPresentationValue = 30000
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax.endswith(".2.2"):
        ds["PixelData"].value = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
        if vr == "OW":
            element = ds[0x60023000]
            element.value = np.frombuffer(element.value, "<u2").byteswap().tobytes()
    path = tmp_path / "shut"
    ds.save_as(path, enforce_file_format=True)
    found = load_radiograph(path)
    assert found.warnings == ()
    np.testing.assert_array_equal(found.pixels[~RING], exposed()[~RING])
    np.testing.assert_allclose(grey(found)[RING], 30000 / 65535, atol=1e-6)
    assert found.occluded is not None


def test_a_bitmap_and_a_shape_show_what_lies_in_both(tmp_path: Path) -> None:
    ds = with_bitmap(shuttered(["RECTANGULAR"], None, **WINDOW), RING)
    found = load_radiograph(write(ds, tmp_path / "shut"))
    assert not grey(found)[RING | ~SEEN["RECTANGULAR"]].any()
    np.testing.assert_array_equal(found.pixels[~RING & SEEN["RECTANGULAR"]], exposed()[~RING & SEEN["RECTANGULAR"]])


@pytest.mark.parametrize("origin", [(11, 21), (-9, -19), (81, 61)])
def test_an_overlay_may_be_smaller_and_elsewhere(tmp_path: Path, origin: tuple[int, int]) -> None:
    small = np.ones((50, 40), bool)
    ds = with_bitmap(radiograph_dataset(exposed(), 12, **WINDOW), small, origin=origin)
    found = load_radiograph(write(ds, tmp_path / "shut"))
    covered = (origin[0] <= DOWN) & (origin[0] + 50 > DOWN) & (origin[1] <= ACROSS) & (origin[1] + 40 > ACROSS)
    assert covered.any()
    assert not grey(found)[covered].any()
    np.testing.assert_array_equal(found.pixels[~covered], exposed()[~covered])


def spoil(**elements):
    def change(ds: Dataset) -> None:
        for tag, found in elements.items():
            element = int(tag[1:], 16)
            if found is None:
                del ds[element]
            else:
                ds[element].value = found

    return change


@pytest.mark.parametrize(
    "change",
    [
        spoil(x00181623=None),
        spoil(x00181623=0x6004),
        spoil(x00181623=0x7FE0),
        spoil(x60023000=None),
        spoil(x60023000=b"\xff\xff"),
        spoil(x60020010=None),
        spoil(x60020010=0),
        spoil(x60020011=65535),
        spoil(x60020050=None),
        spoil(x60020050=[1]),
    ],
)
def test_a_bitmap_that_cannot_be_understood_is_said(tmp_path: Path, change) -> None:
    ds = with_bitmap(radiograph_dataset(exposed(), 12, **WINDOW), RING)
    change(ds)
    found = load_radiograph(write(ds, tmp_path / "shut"))
    assert found.warnings == ("the bitmap of the Display Shutter cannot be understood and was ignored",)
    assert found.occluded is None
    np.testing.assert_array_equal(found.pixels, exposed())


def test_an_overlay_that_no_shutter_names_hides_nothing(tmp_path: Path) -> None:
    ds = with_bitmap(radiograph_dataset(exposed(), 12, **WINDOW), RING)
    del ds.ShutterShape
    found = load_radiograph(write(ds, tmp_path / "open"))
    assert (found.occluded, found.warnings) == (None, ())
