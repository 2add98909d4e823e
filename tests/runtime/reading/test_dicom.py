"""Files to radiographs: uncompressed pixels, every limit, and hostile input."""

from __future__ import annotations

import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file

from helpers.dicom_files import COLUMNS, ROWS, assert_stored, picture, radiograph_dataset, rejected, write
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading.studies import load_radiograph

# ---- uncompressed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "signed"), [(7, False), (8, False), (8, True), (10, False), (12, False), (12, True),
                                              (13, True), (15, False), (16, False), (16, True)])  # fmt: skip
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian,
                                    uid.DeflatedExplicitVRLittleEndian])  # fmt: skip
def test_uncompressed(tmp_path: Path, bits: int, signed: bool, syntax: uid.UID) -> None:
    expected = picture(bits, signed)
    ds = radiograph_dataset(expected, bits)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == uid.ExplicitVRBigEndian:
        words = np.frombuffer(ds.PixelData, "<u2").astype(">u2")  # pixels of 8 bits are in words here too
        ds.PixelData = words.tobytes()
    found = load_radiograph(write(ds, tmp_path / "image"))
    assert_stored(found, expected)
    assert found.decoder == "none"
    assert found.stored_min == (-(1 << (bits - 1)) if signed else 0)
    assert found.table.size == 1 << bits
    assert found.warnings == ()


def test_big_endian_bytes(tmp_path: Path) -> None:
    expected = picture(8)
    ds = radiograph_dataset(expected, 8)
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    ds["PixelData"].VR = "OB"
    assert_stored(load_radiograph(write(ds, tmp_path / "image")), expected)


@pytest.mark.parametrize("signed", [False, True])
def test_unused_high_bits_are_masked(tmp_path: Path, signed: bool) -> None:
    expected = picture(12, signed)
    dirty = expected.view("u2") & 0x0FFF | (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 16 << 12).astype("u2")
    ds = radiograph_dataset(expected, 12)
    ds.PixelData = dirty.astype("<u2").tobytes()
    assert_stored(load_radiograph(write(ds, tmp_path / "image")), expected)


@pytest.mark.parametrize("signed", [False, True])
def test_high_bit_above_the_stored_bits(tmp_path: Path, signed: bool) -> None:
    expected = picture(12, signed)
    ds = radiograph_dataset(expected, 12, HighBit=13)
    ds.PixelData = (expected.view("u2") << 2 | 0x3).astype("<u2").tobytes()
    assert_stored(load_radiograph(write(ds, tmp_path / "image")), expected)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_data_set_that_is_not_written_as_the_file_says(tmp_path: Path, implicit: bool) -> None:
    """The elements have VRs where the transfer syntax has none, or the other way round."""
    syntaxes = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian)
    parts = []
    for syntax in syntaxes:
        ds = radiograph_dataset()
        ds.file_meta.TransferSyntaxUID = syntax
        data = write(ds, tmp_path / "image").read_bytes()
        start = 144 + int.from_bytes(data[140:144], "little")
        parts.append((data[:start], data[start:]))
    (tmp_path / "image").write_bytes(parts[not implicit][0] + parts[implicit][1])
    assert_stored(load_radiograph(tmp_path / "image"), picture())


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm",
                                  "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "CT_small.dcm",
                                  "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "image_dfl.dcm"])  # fmt: skip
def test_files_of_pydicom(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert_stored(load_radiograph(path), dcmread(path).pixel_array)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("keep_meta", [False, True])
def test_without_preamble(tmp_path: Path, syntax: uid.UID, keep_meta: bool) -> None:
    ds = radiograph_dataset()
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == uid.ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    whole = write(ds, tmp_path / "whole").read_bytes()
    meta = 12 + struct.unpack_from("<I", whole, 140)[0]
    (tmp_path / "bare").write_bytes(whole[132 if keep_meta else 132 + meta :])
    assert_stored(load_radiograph(tmp_path / "bare"), picture())


# ---- refused files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tags", "code"), [
    ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}, "not-radiograph"),
    ({"PhotometricInterpretation": "PALETTE COLOR"}, "not-radiograph"),
    ({"PhotometricInterpretation": None}, "not-radiograph"),
    ({"NumberOfFrames": 2}, "not-radiograph"),
    ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "not-radiograph"),
    ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "not-radiograph"),
    ({"BitsStored": 17}, "corrupt-pixels"),
    ({"BitsStored": 0}, "corrupt-pixels"),
    ({"BitsStored": None}, "corrupt-pixels"),
    ({"HighBit": 20}, "corrupt-pixels"),
    ({"PixelRepresentation": 2}, "corrupt-pixels"),
    ({"Rows": 0}, "corrupt-pixels"),
    ({"Rows": None}, "corrupt-pixels"),
    ({"Rows": ROWS + 1}, "corrupt-pixels"),
    ({"Rows": 65535, "Columns": 65535}, "too-large"),
    ({"PixelData": None}, "no-pixels"),
    ({"Rows": None, "Columns": None, "PixelData": None}, "no-pixels"),
])  # fmt: skip
def test_refused(tmp_path: Path, tags: dict[str, object], code: str) -> None:
    assert rejected(write(radiograph_dataset(**tags), tmp_path / "image")).code == code


def test_limit_is_a_parameter(tmp_path: Path) -> None:
    path = write(radiograph_dataset(), tmp_path / "image")
    assert rejected(path, max_pixels=ROWS * COLUMNS - 1).code == "too-large"
    assert load_radiograph(path, max_pixels=ROWS * COLUMNS).rows == ROWS


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"not an image", b"\x08\x00", b"\x89PNG\r\n" + b"\0" * 200,
                                     b"\0" * 128 + b"DICM", b"{" + b'"a": 1' * 99])  # fmt: skip
def test_not_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.bin").write_bytes(content)
    assert rejected(tmp_path / "file.bin").code == "not-dicom"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert rejected(tmp_path / "nowhere").code == "not-dicom"
    (tmp_path / "folder").mkdir()
    assert rejected(tmp_path / "folder").code == "not-dicom"
    assert rejected(tmp_path / ("long" * 1000)).code == "not-dicom"  # whether it is a folder cannot be said, either


def test_float_pixels(tmp_path: Path) -> None:
    ds = radiograph_dataset(PixelData=None)
    ds.FloatPixelData = np.zeros(ROWS * COLUMNS, "<f4").tobytes()
    assert rejected(write(ds, tmp_path / "image")).code == "not-radiograph"


def huge_declarations(tmp_path: Path) -> list[tuple[Path, str]]:
    """Small files that declare gigabytes, each in a different way."""
    large = {"Rows": 9000, "Columns": 9000}
    short = write(radiograph_dataset(**large), tmp_path / "short")
    rle = radiograph_dataset(picture(8), 8)
    rle.compress(uid.RLELossless, encoding_plugin="pydicom")
    rle.Rows, rle.Columns = 9000, 11000
    element = write(radiograph_dataset(PixelData=None), tmp_path / "element")
    element.write_bytes(element.read_bytes() + struct.pack("<HH2sHI", 0x7FDF, 0x0011, b"OB", 0, 0xF0000000))
    whole = write(radiograph_dataset(), tmp_path / "whole").read_bytes()
    at = whole.index(b"\xe0\x7f\x10\x00OW") + 8
    length = tmp_path / "length"
    length.write_bytes(whole[:at] + struct.pack("<I", 0xFFFFFFF0) + whole[at + 4 :])
    bomb = radiograph_dataset()
    bomb.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    packed = write(bomb, tmp_path / "bomb").read_bytes()
    start = 144 + struct.unpack_from("<I", packed, 140)[0]
    inflater = zlib.decompressobj(-15)
    plain = inflater.decompress(packed[start:])
    plain = plain[: plain.index(b"\xe0\x7f\x10\x00")] + struct.pack("<HH2sHI", 0x7FDF, 0x0011, b"OB", 0, 0xF0000000)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflater.compress(plain + b"\0" * (200 << 20)) + deflater.flush()
    (tmp_path / "bomb").write_bytes(packed[:start] + body)
    return [
        (short, "corrupt-pixels"),
        (write(rle, tmp_path / "rle"), "corrupt-pixels"),
        (element, "no-pixels"),
        (tmp_path / "bomb", "no-pixels"),
        (length, ""),
    ]


def test_declared_sizes_take_no_memory(tmp_path: Path) -> None:
    load_radiograph(write(radiograph_dataset(), tmp_path / "first"))  # imports are not counted
    for path, code in huge_declarations(tmp_path):
        tracemalloc.start()
        try:
            if code:
                assert rejected(path).code == code, path.name
            else:
                assert load_radiograph(path).rows == ROWS
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if path.name != "rle":  # its declared size is within the limit, and RLE has no size of its own
            assert peak < 64 << 20, path.name


# ---- hostile input ---------------------------------------------------------------------------------------------------


def small_files() -> list[bytes]:
    folder = Path(get_testdata_file("MR_small.dcm")).parent
    names = ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm")
    return [(folder / name).read_bytes() for name in names]


SMALL = small_files()
edit = st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=6))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, len(SMALL) - 1),
    edits=st.lists(edit, min_size=1, max_size=6),
    in_header=st.booleans(),
    cut=st.none() | st.integers(0, 1 << 20),
)
def test_mutated_files(tmp_path: Path, which: int, edits: list, in_header: bool, cut: int | None) -> None:
    """With any bytes changed or missing, a file gives a radiograph or a coded reject, and no warning."""
    data = bytearray(SMALL[which])
    for where, what in edits:
        at = where % min(len(data), 2500 if in_header else len(data))
        data[at : at + len(what)] = what
    path = tmp_path / "mutated"
    path.write_bytes(data if cut is None else data[: cut % len(data)])
    try:
        found = load_radiograph(path)
    except InputRejected:
        return
    index = found.pixels.astype(np.int64) - found.stored_min
    assert 0 <= index.min() <= index.max() < found.table.size
    assert np.isfinite(found.table).all()


def test_pydicoms_warnings_are_the_radiographs(tmp_path: Path) -> None:
    path = write(radiograph_dataset(), tmp_path / "image")
    data = path.read_bytes().replace(b"1.2.3.4.5\0", b"1.2.3.x.5\0")
    data = data.replace(b"20260105", b"2026o1o5")
    path.write_bytes(data)
    before = list(warnings.filters)
    found = load_radiograph(path)
    assert found.study_date is None
    assert warnings.filters == before


def test_warnings_of_threads_stay_apart(tmp_path: Path) -> None:
    """Readers in many threads at once do not change the warning filters of the process."""
    paths = [write(radiograph_dataset(picture(8), 8), tmp_path / f"{number}") for number in range(8)]
    for path in paths[::2]:
        ds = dcmread(path)
        ds.PixelData += b"\0" * 2000
        write(ds, path)
    before, found = list(warnings.filters), {}

    def read(path: Path) -> None:
        for _ in range(10):
            found[path] = load_radiograph(path).warnings

    threads = [threading.Thread(target=read, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
    assert [len(found[path]) for path in paths] == [1, 0] * 4
