"""Lookup tables as devices write them: VR, declared bits, first value mapped, order of bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.pixels import apply_presentation_lut

from helpers.dicom_files import picture, radiograph_dataset, write
from spinescore.runtime import load_radiograph
from spinescore.runtime.reading.greyscale import table as fold

LATE = np.round(65535 * np.linspace(0, 1, 4096) ** 3).astype(np.uint16)
EARLY_BYTES = np.round(255 * np.linspace(0, 1, 4096) ** 0.5).astype(np.uint8)


def lut(entries: np.ndarray | bytes | list, first: int = 0, bits: int = 16, vr: str = "OW", count: int | None = None):
    """An item; numbers become words for OW, and signed ones for SS."""
    item = Dataset()
    count = (len(entries) if count is None else count) % 65536
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count, first, bits])
    if vr == "SS":
        entries = np.asarray(entries, np.uint16).view(np.int16).tolist()
    elif vr in ("US", "IS"):
        entries = [int(entry) for entry in entries]
    elif isinstance(entries, np.ndarray):
        entries = entries.tobytes()
    item.add_new("LUTData", vr, entries)
    return item


def seen(tmp_path: Path, item: Dataset, keyword: str = "VOILUTSequence", **tags):
    """The table of a file with this LUT, and the file's warnings."""
    syntax, pixels = tags.pop("syntax", uid.ExplicitVRLittleEndian), picture(12, tags.pop("signed", False))
    ds = radiograph_dataset(pixels, 12, **tags)
    ds.file_meta.TransferSyntaxUID = syntax
    setattr(ds, keyword, [item])
    found = load_radiograph(write(ds, tmp_path / "image"))
    return found.table, found.warnings


@pytest.mark.parametrize("vr", ["OW", "OB", "UN", "US", "SS", "IS"])
def test_entries_are_unsigned_whatever_their_vr(tmp_path: Path, vr: str) -> None:
    entries = LATE[::2]  # short enough for text
    table, said = seen(tmp_path, lut(entries, vr=vr))
    expected = entries[np.minimum(np.arange(4096), entries.size - 1)] / 65535
    np.testing.assert_allclose(table, expected, atol=1e-6)
    assert said == ()


@pytest.mark.parametrize("keyword", ["LUTDescriptor", "LUTData"])
def test_elements_that_were_written_as_un(tmp_path: Path, keyword: str) -> None:
    """Archives write unknown elements as UN, which is the only VR here with a length of four bytes."""
    as_known = {"LUTDescriptor": b"\x28\x00\x02\x30US\x06\0", "LUTData": b"\x28\x00\x06\x30OW\0\0"}[keyword]
    as_unknown = {"LUTDescriptor": b"\x28\x00\x02\x30UN\0\0\x06\0\0\0", "LUTData": b"\x28\x00\x06\x30UN\0\0"}[keyword]
    ds, item = radiograph_dataset(), lut(LATE)
    ds.VOILUTSequence = [item]
    ds["VOILUTSequence"].is_undefined_length = item.is_undefined_length_sequence_item = True
    path = write(ds, tmp_path / "image")
    assert as_known in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(as_known, as_unknown))
    np.testing.assert_allclose(load_radiograph(path).table, LATE / 65535, atol=1e-6)


@pytest.mark.parametrize("count", [4096, 60000])
def test_sequence_that_was_written_as_un(tmp_path: Path, count: int) -> None:
    """A sequence as UN holds implicit VR little endian under any transfer syntax (PS3.5 6.2.2)."""
    entries = LATE if count == 4096 else np.r_[LATE, np.full(count - 4096, 65535, np.uint16)]
    content = DicomBytesIO()
    content.is_little_endian = content.is_implicit_VR = True
    write_dataset(content, lut(entries))
    items = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content.getvalue())) + content.getvalue()
    path = write(radiograph_dataset(), tmp_path / "image")
    header, pixels = path.read_bytes().split(b"\xe0\x7f\x10\0OW")
    element = b"\x28\0\x10\x30UN\0\0" + struct.pack("<I", len(items)) + items
    path.write_bytes(header + element + b"\xe0\x7f\x10\0OW" + pixels)
    found = load_radiograph(path)
    np.testing.assert_allclose(found.table, LATE / 65535, atol=1e-6)
    assert found.has_window


@pytest.mark.parametrize(
    ("bits", "top"),
    [(16, 32767), (16, 4095), (16, 255), (12, 65535), (8, 4095), (0, 1023), (32, 1023), (12, 16383)],
)
def test_entries_have_the_last_word_on_their_bits(tmp_path: Path, bits: int, top: int) -> None:
    entries = np.round(top * np.linspace(0, 1, 4096) ** 0.6).astype(np.uint16)
    table, said = seen(tmp_path, lut(entries, bits=bits))
    np.testing.assert_allclose(table, entries / top, atol=1e-6)
    assert len(said) == 1
    assert said[0].startswith("the VOI LUT does not use the bits that it declares")


def test_brightest_entry_need_not_be_white(tmp_path: Path) -> None:
    """A curve that uses the topmost bit is scaled by all bits, and needs no note."""
    entries = np.round(40000 * np.linspace(0, 1, 4096)).astype(np.uint16)
    table, said = seen(tmp_path, lut(entries))
    np.testing.assert_allclose(table, entries / 65535, atol=1e-6)
    assert said == ()


def test_modality_lut_is_not_scaled(tmp_path: Path) -> None:
    """The window refers to the values that the Modality LUT gives."""
    entries = np.round(4095 * np.linspace(0, 1, 4096) ** 0.6).astype(np.uint16)
    tags = {"WindowCenter": "2048", "WindowWidth": "4096"}
    table, said = seen(tmp_path, lut(entries, bits=16), keyword="ModalityLUTSequence", **tags)
    np.testing.assert_allclose(table, entries / 4095, atol=1e-3)
    assert said == ()


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize("first", [-1024, 64512])
@pytest.mark.parametrize(("signed", "intercept"), [(False, -1024), (True, 1024)])
def test_first_value_is_the_word_that_overlaps(tmp_path, first: int, syntax, signed: bool, intercept: int) -> None:
    """Values from -1024 on, for unsigned and signed pixels, with the descriptor as SS and as US."""
    table, said = seen(tmp_path, lut(LATE, first), syntax=syntax, signed=signed,
                       RescaleSlope="1", RescaleIntercept=str(intercept))  # fmt: skip
    np.testing.assert_allclose(table, LATE / 65535, atol=1e-6)
    assert said == ()


def test_first_value_beyond_the_signed_ones() -> None:
    """With 16 bits, 40000 is no negative number if the values reach beyond it."""
    ds = radiograph_dataset(picture(16), 16)
    entries = np.round(65535 * np.linspace(0, 1, 20000) ** 2).astype(np.uint16)
    ds.VOILUTSequence = [lut(entries, 40000)]
    expected = entries[np.clip(np.arange(65536) - 40000, 0, 19999)] / 65535
    np.testing.assert_allclose(fold(ds, picture(16), 16, 0)[0], expected, atol=1e-6)


def test_65536_entries(tmp_path: Path) -> None:
    entries = np.arange(65535, -1, -1).astype(np.uint16)
    ds = radiograph_dataset(picture(16), 16)
    ds.VOILUTSequence = [lut(entries)]
    found = load_radiograph(write(ds, tmp_path / "image"))
    np.testing.assert_allclose(found.table, entries / 65535, atol=1e-6)


def swapped(data: bytes) -> bytes:
    return np.frombuffer(data, np.uint16).byteswap().tobytes()


@pytest.mark.parametrize(
    ("entries", "bits"),
    [
        (LATE.tobytes(), 16),
        (EARLY_BYTES[:256].tobytes(), 8),
        (EARLY_BYTES.tobytes(), 8),
        (EARLY_BYTES[::-1].tobytes(), 8),
    ],
)
def test_order_of_bytes(tmp_path: Path, entries: bytes, bits: int) -> None:
    """Both orders of bytes give the same table. The wrong one gives a warning if it makes a difference."""
    count = len(entries) // (bits // 8)
    right, said = seen(tmp_path, lut(entries, bits=bits, count=count))
    assert not [note for note in said if "order" in note]
    turned, said = seen(tmp_path, lut(swapped(entries), bits=bits, count=count))
    np.testing.assert_array_equal(turned, right)
    assert bool([note for note in said if "wrong order" in note]) == (swapped(entries) != entries)


def test_a_curve_that_rises_and_falls_is_left_as_it_is(tmp_path: Path) -> None:
    entries = np.round(32767 + 32768 * np.sin(np.linspace(0, 9, 4096))).astype(np.uint16)
    table, said = seen(tmp_path, lut(entries))
    np.testing.assert_allclose(table, entries / 65535, atol=1e-6)
    assert said == ()


def test_odd_number_of_packed_bytes(tmp_path: Path) -> None:
    table, _ = seen(tmp_path, lut(EARLY_BYTES[:4095].tobytes() + b"\0", bits=8, count=4095))
    top = int(EARLY_BYTES[4094])
    np.testing.assert_allclose(table[:4095], EARLY_BYTES[:4095] / 255, atol=1e-6)
    assert table[4095] == pytest.approx(top / 255)


@pytest.mark.parametrize("item", [
    lut(np.zeros(4096, np.uint16)),
    lut(LATE[:100], count=4096),
    lut(np.random.default_rng(1).integers(0, 256, 4096).astype(np.uint8), count=4096, bits=12),
    Dataset(),
], ids=["black", "short", "packed 12 bits", "empty"])  # fmt: skip
def test_luts_that_cannot_be_used_leave_the_window(tmp_path: Path, item: Dataset) -> None:
    tags = {"WindowCenter": "1000", "WindowWidth": "900"}
    plain = load_radiograph(write(radiograph_dataset(**tags), tmp_path / "plain"))
    table, said = seen(tmp_path, item, **tags)
    np.testing.assert_array_equal(table, plain.table)
    assert "VOILUTSequence cannot be used and was ignored" in said[0]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("count", "bits"), [(256, 8), (1024, 12), (4096, 16)])
def test_presentation_lut_gives_what_is_shown(tmp_path: Path, photometric: str, count: int, bits: int) -> None:
    """The entries of a Presentation LUT are P-Values, which MONOCHROME1 does not invert again (PS3.3 C.11.6.1)."""
    item = lut(np.round(((1 << bits) - 1) * np.linspace(0, 1, count) ** 2).astype(np.uint16), bits=bits)
    tags = {"WindowCenter": "2048", "WindowWidth": "4096", "PhotometricInterpretation": photometric}
    table, said = seen(tmp_path, item, keyword="PresentationLUTSequence", **tags)
    ds = Dataset()
    ds.PresentationLUTSequence = [item]
    item["LUTData"].VR, item.LUTData = "US", np.frombuffer(item.LUTData, "<u2").tolist()
    expected = apply_presentation_lut(np.arange(4096.0), ds) / ((1 << bits) - 1)
    np.testing.assert_allclose(table, expected, atol=2.5 / count)  # pydicom cuts where we round
    assert said == ()


def test_function_that_is_not_known_is_not_quoted(tmp_path: Path) -> None:
    ds = radiograph_dataset(WindowCenter="1000", WindowWidth="900")
    ds.add_new("VOILUTFunction", "LO", "Doe^Jane")
    plain = radiograph_dataset(WindowCenter="1000", WindowWidth="900")
    found = load_radiograph(write(ds, tmp_path / "image"))
    np.testing.assert_array_equal(found.table, load_radiograph(write(plain, tmp_path / "plain")).table)
    assert "none of LINEAR, LINEAR_EXACT, SIGMOID" in found.warnings[0]
    assert "Doe" not in " ".join(found.warnings)
