"""Compressed pixels: every transfer syntax with every installed decoder, and broken codestreams."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid

from helpers.dicom_files import COLUMNS, ROWS, assert_stored, compressed, picture, radiograph_dataset, rejected, write
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.phantom import draw_view
from spinescore.runtime.reading.decoding import codecs, decode, withimagecodecs
from spinescore.runtime.reading.decoding.syntaxes import SYNTAXES, codecs_of
from spinescore.runtime.reading.studies import load_radiograph

imagecodecs = pytest.importorskip("imagecodecs", reason="the files of this module are written with imagecodecs")


def _htj2k(pixels: np.ndarray, bits: int, reversible: bool = True, level: float | None = None) -> bytes:
    if not hasattr(imagecodecs, "HTJ2K") or not imagecodecs.HTJ2K.available:
        pytest.skip("this imagecodecs writes no HTJ2K")
    return imagecodecs.htj2k_encode(pixels, level=level, reversible=reversible, tlm=True)


LOSSLESS = [
    (uid.JPEGLossless, lambda x, bits: imagecodecs.jpeg8_encode(x, lossless=True, predictor=4, bitspersample=bits)),
    (uid.JPEGLosslessSV1, lambda x, bits: imagecodecs.jpeg8_encode(x, lossless=True, predictor=1, bitspersample=bits)),
    (uid.JPEGLSLossless, lambda x, bits: imagecodecs.jpegls_encode(x)),
    (uid.JPEG2000Lossless, lambda x, bits: imagecodecs.jpeg2k_encode(
        x, level=0, codecformat="j2k", reversible=True, bitspersample=bits)),
    (uid.JPEG2000, lambda x, bits: imagecodecs.jpeg2k_encode(
        x, level=0, codecformat="j2k", reversible=True, bitspersample=bits)),
    (uid.HTJ2KLossless, _htj2k),
    (uid.HTJ2KLosslessRPCL, _htj2k),
    (uid.HTJ2K, _htj2k),
]  # fmt: skip
DECODERS = [(syntax, encode, name) for syntax, encode in LOSSLESS for name in codecs_of(syntax)]


@functools.cache
def spine(bits: int, signed: bool = False) -> np.ndarray:
    """A drawn cervical spine of some 200 rows, over the whole range of stored values."""
    drawn = draw_view(1_000_003, "cervical", scale=0.1).image.pixels.astype(np.float64)
    grey = (drawn - drawn.min()) / np.ptp(drawn)
    low = -(1 << (bits - 1)) if signed else 0
    return (np.round(grey * ((1 << bits) - 1)) + low).astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def only(monkeypatch: pytest.MonkeyPatch, syntax: str, name: str) -> None:
    """Only the decoder `name` is used."""
    if name not in codecs.installed(syntax):
        pytest.skip(f"{name} is not here")
    monkeypatch.setitem(SYNTAXES, syntax, SYNTAXES[syntax]._replace(codecs=(name,)))


@pytest.mark.parametrize(("syntax", "encode", "name"), DECODERS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless(monkeypatch, tmp_path: Path, syntax: uid.UID, encode, bits: int, name: str) -> None:
    only(monkeypatch, syntax, name)
    expected = spine(bits)
    found = load_radiograph(write(compressed(expected, bits, syntax, encode(expected, bits)), tmp_path / "image"))
    assert_stored(found, expected)
    assert found.decoder == name


@pytest.mark.parametrize(("syntax", "encode", "name"), DECODERS)
@pytest.mark.parametrize("bits", [12, 16])
def test_signed_lossless(monkeypatch, tmp_path: Path, syntax: uid.UID, encode, bits: int, name: str) -> None:
    """JPEG and JPEG-LS code bit patterns, JPEG 2000 knows the sign; with 12 bits the sign must be extended."""
    only(monkeypatch, syntax, name)
    expected = spine(bits, signed=True)
    knows_signs = "2000" in syntax.name
    frame = encode(expected if knows_signs else expected.view("u2") & ((1 << bits) - 1), bits)
    assert_stored(load_radiograph(write(compressed(expected, bits, syntax, frame), tmp_path / "image")), expected)


@pytest.mark.parametrize("name", codecs_of(uid.HTJ2KLosslessRPCL))
def test_htj2k_that_was_written_elsewhere(monkeypatch, tmp_path: Path, name: str) -> None:
    """A codestream of OpenJPH, for builds of imagecodecs that cannot write one."""
    only(monkeypatch, uid.HTJ2KLosslessRPCL, name)
    frame = (Path(__file__).parents[3] / "golden" / "htj2k-12-bits.j2c").read_bytes()
    ds = compressed(picture(12), 12, uid.HTJ2KLosslessRPCL, frame)
    assert_stored(load_radiograph(write(ds, tmp_path / "image")), picture(12))


@pytest.mark.parametrize("name", codecs_of(uid.RLELossless))
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True), (16, False), (16, True)])
def test_rle(monkeypatch, tmp_path: Path, bits: int, signed: bool, name: str) -> None:
    only(monkeypatch, uid.RLELossless, name)
    ds = radiograph_dataset(spine(bits, signed), bits)
    ds.compress(uid.RLELossless, encoding_plugin="pydicom")
    found = load_radiograph(write(ds, tmp_path / "image"))
    assert_stored(found, spine(bits, signed))
    assert found.decoder == name


@pytest.mark.parametrize(("syntax", "bits", "frame"), [
    (uid.JPEGBaseline8Bit, 8, lambda x: imagecodecs.jpeg8_encode(x, level=95)),
    (uid.JPEGExtended12Bit, 12, lambda x: imagecodecs.jpeg8_encode(x, level=95, bitspersample=12)),
    (uid.JPEGLSNearLossless, 8, lambda x: imagecodecs.jpegls_encode(x, level=2)),
    (uid.JPEGLSNearLossless, 12, lambda x: imagecodecs.jpegls_encode(x, level=2)),
    (uid.JPEG2000, 12, lambda x: imagecodecs.jpeg2k_encode(x, level=50, codecformat="j2k", bitspersample=12)),
    (uid.HTJ2K, 12, lambda x: _htj2k(x, 12, reversible=False, level=1e-3)),
])  # fmt: skip
def test_lossy(tmp_path: Path, syntax: uid.UID, bits: int, frame) -> None:
    smooth = np.linspace(0, (1 << bits) - 1, ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype("u1" if bits == 8 else "u2")
    found = load_radiograph(write(compressed(smooth, bits, syntax, frame(smooth)), tmp_path / "image"))
    np.testing.assert_allclose(found.pixels.astype(int), smooth.astype(int), atol=0.02 * (1 << bits))
    assert found.table.size == 1 << bits


def test_decoded_beyond_the_declared_range_is_clamped(tmp_path: Path) -> None:
    """A lossy 12-bit codestream of an image with 10 bits overshoots: 1024 must become 1023, never 0."""
    blocks = np.kron(np.indices((6, 6)).sum(0) % 2, np.ones((9, 9)))[:ROWS, :COLUMNS].astype("u2") * 1023
    frame = imagecodecs.jpeg8_encode(blocks, level=40, bitspersample=12)
    assert imagecodecs.jpeg8_decode(frame).max() > 1023
    found = load_radiograph(write(compressed(blocks, 10, uid.JPEGExtended12Bit, frame), tmp_path / "image"))
    np.testing.assert_array_equal(found.pixels, np.minimum(imagecodecs.jpeg8_decode(frame), 1023))
    assert any("clamped" in note for note in found.warnings)


def test_the_next_decoder_is_tried(monkeypatch, tmp_path: Path) -> None:
    def broken(codec: str, codestream: bytes, syntax: str, declared) -> np.ndarray:
        raise RuntimeError("no")

    if "pyjpegls" not in codecs.installed(uid.JPEGLSLossless):
        pytest.skip("pyjpegls is not here")
    monkeypatch.setenv(decode.IN_PROCESS_VARIABLE, "1")
    monkeypatch.setattr(withimagecodecs, "decode", broken)
    ds = compressed(picture(16), 16, uid.JPEGLSLossless, imagecodecs.jpegls_encode(picture(16)))
    assert load_radiograph(write(ds, tmp_path / "image")).decoder == "pyjpegls"


@pytest.mark.parametrize("padding", [b"\0", b"\xff", b"\0" * 7])
def test_padding_after_the_codestream(tmp_path: Path, padding: bytes) -> None:
    frame = imagecodecs.jpeg8_encode(picture(8), lossless=True, predictor=1) + padding
    assert_stored(
        load_radiograph(write(compressed(picture(8), 8, uid.JPEGLosslessSV1, frame), tmp_path / "a")), picture(8)
    )


def test_decoder_that_fails_alone(monkeypatch, tmp_path: Path) -> None:
    def broken(codec: str, codestream: bytes, syntax: str, declared) -> np.ndarray:
        raise RuntimeError("bit stream ends")

    monkeypatch.setenv(decode.IN_PROCESS_VARIABLE, "1")
    monkeypatch.setattr(withimagecodecs, "decode", broken)
    frame = imagecodecs.jpeg8_encode(picture(8), level=95)
    fault = rejected(write(compressed(picture(8), 8, uid.JPEGBaseline8Bit, frame), tmp_path / "image"))
    assert fault.code == "corrupt-pixels"
    assert "imagecodecs.jpeg8: RuntimeError: bit stream ends" in str(fault)


def test_missing_decoder_names_syntax_and_remedy(monkeypatch, tmp_path: Path) -> None:
    syntax = SYNTAXES[uid.JPEGLSLossless]
    monkeypatch.setitem(SYNTAXES, uid.JPEGLSLossless, syntax._replace(codecs=()))
    ds = compressed(picture(16), 16, uid.JPEGLSLossless, imagecodecs.jpegls_encode(picture(16)))
    fault = rejected(write(ds, tmp_path / "image"))
    assert fault.code == "unsupported-syntax"
    assert "JPEG-LS Lossless" in str(fault)
    assert 'pip install "spinescore[dicom]"' in str(fault)


def test_syntax_that_no_decoder_is_for(tmp_path: Path) -> None:
    ds = compressed(picture(), 12, uid.MPEG2MPML, b"\0" * 64)
    fault = rejected(write(ds, tmp_path / "image"))
    assert fault.code == "unsupported-syntax"
    assert "MPEG2" in str(fault)


@pytest.mark.parametrize(("syntax", "encode"), LOSSLESS)
def test_codestream_of_another_size_never_meets_a_decoder(monkeypatch, tmp_path, syntax, encode) -> None:
    monkeypatch.setattr(decode, "installed", lambda syntax: pytest.fail("a decoder was asked for"))
    ds = compressed(picture(8), 8, syntax, encode(picture(8, rows=64, columns=80), 8))
    fault = rejected(write(ds, tmp_path / "image"))
    assert fault.code == "corrupt-pixels"
    assert "64 x 80" in str(fault)


@pytest.mark.parametrize(("syntax", "encode"), LOSSLESS)
def test_truncated_codestream(tmp_path: Path, syntax: uid.UID, encode) -> None:
    frame = encode(picture(8), 8)
    for size in (len(frame) // 8, len(frame) // 2, len(frame) - 2):
        path = write(compressed(picture(8), 8, syntax, frame[:size]), tmp_path / "image")
        assert rejected(path).code == "corrupt-pixels"


HOLED = [
    (uid.JPEGBaseline8Bit, lambda x, bits: imagecodecs.jpeg8_encode(x, level=95)),
    *(pair for pair in LOSSLESS if pair[0] in (uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.HTJ2KLossless)),
    (uid.JPEG2000Lossless, LOSSLESS[3][1]),
]


@pytest.mark.parametrize(("syntax", "encode"), HOLED)
@pytest.mark.parametrize("edge", [False, True], ids=["to the edge", "collimated"])
def test_codestream_whose_end_is_there_and_the_middle_is_not(tmp_path: Path, syntax: uid.UID, encode, edge) -> None:
    """Some codecs fill the missing part with grey and report nothing."""
    pixels = spine(8).copy()
    if edge:
        pixels[-20:] = 0
    frame = encode(pixels, 8)
    load_radiograph(write(compressed(pixels, 8, syntax, frame), tmp_path / "image"))
    for share in (0.5, 0.9):
        holed = frame[: int(share * len(frame))] + b"\xff\xd9"
        assert rejected(write(compressed(pixels, 8, syntax, holed), tmp_path / "image")).code == "corrupt-pixels"


edit = st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=6))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, len(LOSSLESS) - 1), edits=st.lists(edit, min_size=1, max_size=4))
def test_mutated_codestreams(tmp_path: Path, which: int, edits: list) -> None:
    """A decoder that ends the process, as some do, fails this test."""
    syntax, encode = LOSSLESS[which]
    frame = encode(picture(8), 8)
    data = bytearray(frame)
    for where, what in edits:
        at = where % len(data)
        data[at : at + len(what)] = what
    path = write(compressed(picture(8), 8, syntax, bytes(data[: len(frame)])), tmp_path / "mutated")
    try:
        found, code = load_radiograph(path), None
    except InputRejected as fault:
        found, code = None, fault.code
    assert code == "corrupt-pixels" if found is None else found.pixels.shape == (ROWS, COLUMNS)
