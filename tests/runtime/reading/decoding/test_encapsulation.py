"""Pixel data that are wrapped in another way than the file states: offset tables, fragments, syntaxes, VRs, lengths."""

from __future__ import annotations

import functools
import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info

from helpers.dicom_files import COLUMNS, ROWS, assert_stored, compressed, picture, radiograph_dataset, rejected, write
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading.decoding.syntaxes import family_of
from spinescore.runtime.reading.studies import load_radiograph

imagecodecs = pytest.importorskip("imagecodecs", reason="the files of this module are written with imagecodecs")

PIXELS = picture(12)
END = b"\xfe\xff\xdd\xe0" + bytes(4)
BYTE_COUNT = ROWS * COLUMNS * 2


def item(data: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(data)) + data


def offsets(*numbers: int) -> bytes:
    return item(struct.pack(f"<{len(numbers)}I", *numbers))


def jpeg_2000(pixels: np.ndarray, **options) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, **{"codecformat": "j2k", **options})


def htj2k(pixels: np.ndarray) -> bytes:
    if not hasattr(imagecodecs, "HTJ2K") or not imagecodecs.HTJ2K.available:
        pytest.skip("this imagecodecs writes no HTJ2K")
    return imagecodecs.htj2k_encode(pixels, reversible=True, tlm=True)


def rle(pixels: np.ndarray) -> bytes:
    ds = radiograph_dataset(pixels)
    ds.compress(uid.RLELossless, encoding_plugin="pydicom")
    return get_frame(ds.PixelData, 0, number_of_frames=1)


def jpeg_lossless(pixels: np.ndarray, bits: int = 12) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=bits)


CODINGS = {
    uid.JPEGLosslessSV1: jpeg_lossless,
    uid.JPEGLSLossless: lambda pixels: imagecodecs.jpegls_encode(pixels),
    uid.JPEG2000Lossless: functools.partial(jpeg_2000, bitspersample=12),
    uid.HTJ2KLossless: htj2k,
    uid.RLELossless: rle,
}
SYNTAXES = [pytest.param(syntax, id=syntax.keyword) for syntax in CODINGS]


@functools.cache
def frame_of(syntax: uid.UID) -> bytes:
    frame = CODINGS[syntax](PIXELS)
    return frame + b"\0" * (len(frame) % 2)


def file_of(path: Path, value: bytes, syntax: str, vr: bytes = b"OB", length: int | None = 0xFFFFFFFF, **tags) -> Path:
    """A file whose Pixel Data are exactly these bytes. If `length` is None, it is that of `value`."""
    ds = radiograph_dataset(PIXELS, **tags)
    del ds.PixelData
    write(ds, path)
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    head = DicomBytesIO()
    head.is_little_endian, head.is_implicit_VR = True, syntax == uid.ImplicitVRLittleEndian
    head.write(bytes(128) + b"DICM")
    write_file_meta_info(head, ds.file_meta)
    write_dataset(head, ds)
    length = len(value) if length is None else length
    if syntax == uid.ImplicitVRLittleEndian:
        element = struct.pack("<HHI", 0x7FE0, 0x0010, length)
    elif vr == b"US":
        element = struct.pack("<HH2sH", 0x7FE0, 0x0010, vr, length)
    else:
        element = struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, length)
    path.write_bytes(head.getvalue() + element + value)
    return path


WRAPPED = {
    "wrong offset": lambda frame: offsets(8) + item(frame) + END,
    "offsets of three frames": lambda frame: offsets(0, 50, 100) + item(frame) + END,
    "offsets of an odd size": lambda frame: item(b"\1\2\3\4\5\6") + item(frame) + END,
    "no offsets, three fragments": lambda frame: b"".join(
        (item(b""), item(frame[:100]), item(frame[100:300]), item(frame[300:]), END)
    ),
    "an offset for each fragment": lambda frame: offsets(0, 108) + item(frame[:100]) + item(frame[100:]) + END,
    "no offset table": lambda frame: item(frame) + END,
    "no offset table, two fragments": lambda frame: item(frame[:200]) + item(frame[200:]) + END,
    "an empty fragment": lambda frame: item(b"") + item(b"") + item(frame) + END,
    "no delimiter": lambda frame: item(b"") + item(frame),
}  # fmt: skip


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_one_frame_is_all_fragments(tmp_path: Path, syntax: uid.UID, wrapped: str) -> None:
    path = file_of(tmp_path / "image", WRAPPED[wrapped](frame_of(syntax)), syntax)
    found = load_radiograph(path)
    assert_stored(found, PIXELS)
    assert found.warnings == ()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_extended_offset_table_does_not_matter(tmp_path: Path, syntax: uid.UID) -> None:
    tags = {"ExtendedOffsetTable": struct.pack("<Q", 77), "ExtendedOffsetTableLengths": struct.pack("<Q", 3)}
    assert_stored(
        load_radiograph(file_of(tmp_path / "image", item(b"") + item(frame_of(syntax)) + END, syntax, **tags)), PIXELS
    )


@pytest.mark.parametrize("value", [b"", END, item(b"")[:6], item(b"") + item(b"1234")[:-2]], ids=range(4))
def test_items_that_are_none(tmp_path: Path, value: bytes) -> None:
    fault = rejected(file_of(tmp_path / "image", value, uid.JPEGLosslessSV1))
    assert fault.code == "corrupt-pixels"


@pytest.mark.parametrize("named", [
    uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.JPEGBaseline8Bit, uid.JPEG2000, uid.RLELossless,
    uid.MPEG2MPML, "1.2.3.4.5",
])  # fmt: skip
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_codestream_tells_what_it_is(tmp_path: Path, syntax: uid.UID, named: str) -> None:
    found = load_radiograph(file_of(tmp_path / "image", item(b"") + item(frame_of(syntax)) + END, named))
    assert_stored(found, PIXELS)
    assert len(found.warnings) == (named not in family_of(syntax))
    name = syntax.name.split(" (")[0].removesuffix(", First-Order Prediction")
    assert all(name in note and "were read as that" in note for note in found.warnings)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_compressed_pixels_with_a_length(tmp_path: Path, syntax: uid.UID) -> None:
    """In items or bare. Bytes of the length of uncompressed pixels are read as uncompressed pixels."""
    bare = () if syntax == uid.RLELossless else (frame_of(syntax),)  # RLE has no mark to be told by
    for value in (item(b"") + item(frame_of(syntax)) + END, *bare):
        assert_stored(load_radiograph(file_of(tmp_path / "named", value, syntax, length=None)), PIXELS)
        if len(value) < BYTE_COUNT:
            path = file_of(tmp_path / "image", value, uid.ExplicitVRLittleEndian, length=None)
            assert_stored(load_radiograph(path), PIXELS)


@pytest.mark.parametrize("named", [uid.JPEGLosslessSV1, uid.JPEG2000Lossless, uid.RLELossless])
def test_pixels_that_are_not_compressed(tmp_path: Path, named: uid.UID) -> None:
    found = load_radiograph(file_of(tmp_path / "image", PIXELS.tobytes(), named, b"OW", length=None))
    assert_stored(found, PIXELS)
    assert found.decoder == "none"
    assert "are not compressed" in found.warnings[0]
    fault = rejected(file_of(tmp_path / "short", PIXELS.tobytes()[:-2], named, b"OW", length=None))
    assert fault.code == "corrupt-pixels"
    assert f"has {BYTE_COUNT - 2} bytes" in str(fault)


def test_a_transfer_syntax_that_is_no_uid_is_not_quoted(tmp_path: Path) -> None:
    for value in (item(b"") + item(frame_of(uid.JPEGLSLossless)) + END, item(b"") + item(bytes(64)) + END):
        path = file_of(tmp_path / "image", value, "1.2.840.10008.1.2.1")
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"Doe^Jane^1970-01-01\0"))
        try:
            said = load_radiograph(path).warnings
        except InputRejected as fault:
            said = (str(fault),)
        assert "no known transfer syntax" in said[0]
        assert "Doe" not in said[0]


def test_compressed_pixels_of_no_known_kind(tmp_path: Path) -> None:
    """The advice can be followed: it does not ask for a conversion that no program can do."""
    fault = rejected(file_of(tmp_path / "image", item(b"") + item(bytes(range(256))) + END, uid.ExplicitVRLittleEndian))
    assert fault.code == "unsupported-syntax"
    assert "have the modality or the archive send it again" in str(fault)
    assert "convert" not in str(fault)


@pytest.mark.parametrize("vr", [b"OB", b"UN", b"US", b"OW"])
def test_vr_of_pixels_that_are_not_compressed(tmp_path: Path, vr: bytes) -> None:
    path = file_of(tmp_path / "image", PIXELS.tobytes(), uid.ExplicitVRLittleEndian, vr, length=None)
    assert_stored(load_radiograph(path), PIXELS)


def overlay(pixels: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(pixels.shape)
    return ((pixels.view(np.uint16) & 0xFFF) | (((rows // 4 + columns // 4) % 2) << 15)).astype(np.uint16)


OVERLAID = {
    uid.JPEGLosslessSV1: lambda words: jpeg_lossless(words, 16),
    uid.JPEGLSLossless: lambda words: imagecodecs.jpegls_encode(words),
    uid.JPEGLSNearLossless: lambda words: imagecodecs.jpegls_encode(words),  # with a difference of 0 allowed
    uid.JPEG2000Lossless: jpeg_2000,
    uid.JPEG2000: jpeg_2000,
    uid.HTJ2KLossless: htj2k,
    uid.HTJ2KLosslessRPCL: htj2k,
    uid.RLELossless: rle,
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [pytest.param(syntax, id=syntax.keyword) for syntax in OVERLAID])
def test_overlay_in_an_unused_bit_is_dropped(tmp_path: Path, syntax: uid.UID, signed: bool) -> None:
    pixels = picture(12, signed)
    ds = compressed(pixels, 12, syntax, OVERLAID[syntax](overlay(pixels)), LossyImageCompression="00")
    found = load_radiograph(write(ds, tmp_path / "image"))
    assert_stored(found, pixels)
    assert found.warnings == ()


@pytest.mark.parametrize("syntax", [pytest.param(syntax, id=syntax.keyword) for syntax in OVERLAID])
def test_stored_bits_at_the_top_of_the_word(tmp_path: Path, syntax: uid.UID) -> None:
    ds = compressed(PIXELS, 12, syntax, OVERLAID[syntax](PIXELS << 4 | 7), LossyImageCompression="00")
    ds.HighBit = 15
    assert_stored(load_radiograph(write(ds, tmp_path / "image")), PIXELS)


@pytest.mark.parametrize(("syntax", "encode", "lossy"), [
    (uid.JPEG2000, jpeg_2000, None),  # reversible, and may have been cut to a size
    (uid.JPEG2000, jpeg_2000, "01"),
    (uid.JPEG2000Lossless, jpeg_2000, "01"),  # coded anew without loss
    (uid.JPEGLosslessSV1, lambda pixels: jpeg_lossless(pixels, 16), "01"),
    (uid.JPEGLSLossless, lambda pixels: imagecodecs.jpegls_encode(pixels), "01"),
])  # fmt: skip
def test_what_may_be_lossy_is_clamped(tmp_path: Path, syntax: uid.UID, encode, lossy: str | None) -> None:
    """A value that a lossy decoder made too large is white, never black."""
    beyond = PIXELS.copy()
    beyond[5, 5] = 4096
    ds = compressed(PIXELS, 12, syntax, encode(beyond), **({"LossyImageCompression": lossy} if lossy else {}))
    found = load_radiograph(write(ds, tmp_path / "image"))
    assert found.pixels[5, 5] == 4095
    assert "clamped" in found.warnings[0]
