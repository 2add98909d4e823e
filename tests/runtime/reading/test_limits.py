"""Limits that are checked before memory or time is spent: bytes, elements, nesting, long values, fragments."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from pydicom import uid
from pydicom.data import get_testdata_file

from helpers.dicom_files import picture, radiograph_dataset, rejected, write
from spinescore.runtime.reading import dicomfile
from spinescore.runtime.reading.studies import load_radiograph, load_studies

SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
PIXELS = b"\xe0\x7f\x10\x00"
UNDEFINED = 0xFFFFFFFF


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Explicit VR Little Endian."""
    size = len(value) if length is None else length
    if vr in (b"OB", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHI", group, number, vr, 0, size) + value
    return struct.pack("<HH2sH", group, number, vr, size) + value


def implicit(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


def item(value: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


def with_elements(
    path: Path, more: bytes, before: bytes = PIXELS, syntax: uid.UID = uid.ExplicitVRLittleEndian
) -> Path:
    ds = radiograph_dataset()
    ds.file_meta.TransferSyntaxUID = syntax
    whole = write(ds, path).read_bytes()
    at = whole.index(before)
    path.write_bytes(whole[:at] + more + whole[at:])
    return path


def nested(depth: int) -> bytes:
    opened = element(0x0008, 0x1140, b"SQ", b"", UNDEFINED) + item(length=UNDEFINED)
    return opened * depth + (ITEM_END + SEQUENCE_END) * depth


def test_sequences_in_sequences(tmp_path: Path) -> None:
    assert load_radiograph(with_elements(tmp_path / "usual", nested(10))).rows
    for depth in (1000, 10_000):
        fault = rejected(with_elements(tmp_path / "deep", nested(depth)))
        assert fault.code == "not-dicom"
        assert "nests sequences" in str(fault)


def test_nested_with_lengths_is_never_unfolded(tmp_path: Path) -> None:
    inner = b""
    for _ in range(1000):
        inner = element(0x0008, 0x2218, b"SQ", item(inner))
    assert load_radiograph(with_elements(tmp_path / "image", inner)).region == "cervical"


def test_elements_and_items_by_the_million(tmp_path: Path) -> None:
    empty = element(0x0029, 0x1010, b"LO", b"") * 60_000
    items = element(0x0029, 0x1010, b"SQ", item() * 60_000 + SEQUENCE_END, UNDEFINED)
    large = element(0x0029, 0x1010, b"OB", bytes(3 << 20)) * 6
    for more in (empty, items, large):
        fault = rejected(with_elements(tmp_path / "image", more))
        assert fault.code == "too-large"
        assert "before its pixels" in str(fault)


def test_elements_of_a_deflated_file(tmp_path: Path) -> None:
    plain = with_elements(tmp_path / "plain", element(0x0029, 0x1010, b"LO", b"") * 60_000).read_bytes()
    ds = radiograph_dataset()
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    packed = write(ds, tmp_path / "packed").read_bytes()
    body, start = (144 + struct.unpack_from("<I", data, 140)[0] for data in (plain, packed))
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    (tmp_path / "packed").write_bytes(packed[:start] + deflater.compress(plain[body:]) + deflater.flush())
    assert rejected(tmp_path / "packed").code == "too-large"


@pytest.mark.parametrize(("group", "number", "value"), [
    (0x0028, 0x1050, b"1\\" * 1_500_000),  # Window Center
    (0x0008, 0x2218, item() * 200_000),  # Anatomic Region Sequence
    (0x0028, 0x3010, item() * 200_000),  # VOI LUT Sequence
    (0x0008, 0x103E, b"LSPINE \\" * 200_000),  # Series Description
])  # fmt: skip
def test_long_values_are_not_unfolded(tmp_path: Path, group: int, number: int, value: bytes) -> None:
    path = with_elements(tmp_path / "image", implicit(group, number, value), syntax=uid.ImplicitVRLittleEndian)
    load_radiograph(write(radiograph_dataset(), tmp_path / "first"))  # imports are not counted
    tracemalloc.start()
    try:
        found = load_radiograph(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.region == "cervical"
    assert peak < 5 * len(value)


def test_warnings_by_the_million(tmp_path: Path) -> None:
    more = implicit(0x0008, 0x0005, b"A\\" * 50_000)  # each name of a character set that is none is a warning
    path = with_elements(tmp_path / "image", more, struct.pack("<HH", 8, 0x16), uid.ImplicitVRLittleEndian)
    fault = rejected(path)
    assert fault.code == "not-dicom"
    assert "more than 10000 warnings" in str(fault)


def test_fragments(tmp_path: Path) -> None:
    ds = radiograph_dataset(picture(8), 8)
    ds.compress(uid.RLELossless, encoding_plugin="pydicom")
    after_offsets = ds.PixelData[8 + struct.unpack_from("<I", ds.PixelData, 4)[0] :]
    for pieces, code in (([item()] * 1000, None), ([item()] * 70_000, "fragments"), ([item(bytes(8192))], "offsets")):
        ds.PixelData = item() * (code != "offsets") + b"".join(pieces) + after_offsets
        path = write(ds, tmp_path / "image")
        if code is None:
            assert load_radiograph(path).rows
        else:
            fault = rejected(path)
            assert fault.code == "corrupt-pixels"
            assert code in str(fault)


def test_file_bytes(monkeypatch, tmp_path: Path) -> None:
    path = write(radiograph_dataset(), tmp_path / "image")
    monkeypatch.setattr(dicomfile, "MAX_FILE_BYTES", path.stat().st_size - 1)
    fault = rejected(path)
    assert fault.code == "too-large"
    assert str(path.stat().st_size) in str(fault)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert rejected(tmp_path / "pipe").code == "not-dicom"


@pytest.mark.parametrize("end", [*range(-14, 4, 2), 5000, 500_000])
def test_headers_of_any_length(tmp_path: Path, end: int) -> None:
    """The first 64 KiB are in memory when the header is read. The header, or an element, may end at their edge."""
    path = with_elements(tmp_path / "image", element(0x0029, 0x1010, b"OB", b""))
    value = bytes((64 << 10) + end - path.read_bytes().index(PIXELS))
    expected = load_radiograph(path)
    found = load_radiograph(with_elements(path, element(0x0029, 0x1010, b"OB", value)))
    assert (found.pixels == expected.pixels).all()
    assert found.header[0x0029, 0x1010].value == value
    assert found.header.PatientID == "P-1"


def test_large_elements_are_left_out_of_the_header(tmp_path: Path) -> None:
    found = load_radiograph(with_elements(tmp_path / "image", element(0x0029, 0x1010, b"OB", bytes(5 << 20))))
    assert (0x0029, 0x1010) not in found.header
    assert found.header.PatientID == "P-1"


@pytest.mark.parametrize("records", [item() * 10_001, item(element(0x0029, 0x1000, b"LO", b"") * 600_000)])
def test_records_of_a_dicomdir(tmp_path: Path, records: bytes) -> None:
    whole = Path(get_testdata_file("dicomdirtests/DICOMDIR", download=False)).read_bytes()
    at = whole.index(struct.pack("<HH2s", 0x0004, 0x1220, b"SQ"))
    (tmp_path / "DICOMDIR").write_bytes(whole[:at] + element(0x0004, 0x1220, b"SQ", records))
    (study,) = load_studies([tmp_path / "DICOMDIR"])
    assert [reject.code for reject in study.rejects] == ["too-large"]
    assert "give the folder instead" in study.rejects[0].message


def test_a_member_without_a_name(tmp_path: Path) -> None:
    """zipfile cuts a name at its first zero byte, and looks at the last letter of the rest."""
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("xy.dcm", write(radiograph_dataset(), tmp_path / "image").read_bytes())
    path = tmp_path / "study.zip"
    path.write_bytes(path.read_bytes().replace(b"xy.dcm", b"\0y.dcm"))
    assert rejected(path).code == "not-dicom"


@pytest.mark.parametrize(("colour", "side", "code"), [(0, 40, None), (0, 41, "too-large"), (6, 20, "not-radiograph"),
                                                      (6, 21, "too-large")])  # fmt: skip
def test_channels_of_a_picture(tmp_path: Path, colour: int, side: int, code: str | None) -> None:
    """A limit of 1600 pixels of 16 bits; with colour and alpha a pixel takes 8 bytes, so a quarter of that."""
    line = b"\0" + bytes(side * (8 if colour else 2))
    header = struct.pack(">IIBBBBB", side, side, 16, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(line * side)), (b"IEND", b""))
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ))  # fmt: skip
    if code is None:
        assert load_radiograph(path, max_pixels=1600).rows == side
    else:
        assert rejected(path, max_pixels=1600).code == code


def test_a_long_comment_hides_no_zip64_directory(tmp_path):
    """The record before the end of the directory is seen for any length of the comment."""
    locator = b"PK\x06\x07" + bytes(16)
    end = b"PK\x05\x06" + bytes(16) + (65535).to_bytes(2, "little")
    path = tmp_path / "long.zip"
    path.write_bytes(b"PK\x03\x04" + bytes(1000) + locator + end + b"x" * 65535)
    assert rejected(path).code == "too-large"
