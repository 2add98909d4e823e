"""Headers that state the wrong bits of sound pixels: read with a note if that is certain, refused if not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

from helpers.dicom_files import assert_stored, compressed, radiograph_dataset, rejected, write
from spinescore.runtime.reading.studies import load_radiograph


def waves(bits: int = 12, noise: float = 4.0) -> np.ndarray:
    """Soft shapes over the whole range of values, as in a radiograph."""
    rows, columns = np.mgrid[0:160, 0:120]
    soft = (0.5 + 0.45 * np.sin(columns / 17.0) * np.cos(rows / 23.0)) * ((1 << bits) - 1)
    drawn = soft + np.random.default_rng(bits).normal(0, noise, soft.shape)
    return np.clip(np.rint(drawn), 0, (1 << bits) - 1).astype(np.uint16)


@pytest.mark.parametrize("high_bit", [12, 13, 15])
def test_high_bit_of_pixels_in_the_lowest_bits(tmp_path: Path, high_bit: int) -> None:
    found = load_radiograph(write(radiograph_dataset(waves(), HighBit=high_bit), tmp_path / "image"))
    assert_stored(found, waves())
    (note,) = found.warnings
    assert note.code == "header-contradicts"
    assert f"High Bit is {high_bit}" in note


@pytest.mark.parametrize("below", [1, 3, 4])
def test_high_bit_of_pixels_in_the_highest_bits(tmp_path: Path, below: int) -> None:
    ds = radiograph_dataset(waves() << below | (1 << below) - 1, HighBit=11 + below)
    found = load_radiograph(write(ds, tmp_path / "image"))
    assert_stored(found, waves())
    assert found.warnings == ()


TORN = {
    "too few bits": (waves(), {"BitsStored": 10, "HighBit": 9}),
    "one bit too few": (waves(15), {"BitsStored": 14, "HighBit": 13}),
    "no sign, as the header says one": (waves(), {"PixelRepresentation": 1}),
    "no sign in 16 bits": (waves(16), {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1}),
    "a sign that the header leaves out": ((waves().astype(np.int16) - 2048).view(np.uint16), {}),
}


@pytest.mark.parametrize("name", TORN)
def test_values_that_are_torn_by_their_header(tmp_path: Path, name: str) -> None:
    pixels, tags = TORN[name]
    fault = rejected(write(radiograph_dataset(pixels, **tags), tmp_path / "image"))
    assert fault.code == "corrupt-pixels"
    assert "Bits Stored and Pixel Representation" in str(fault)


def test_values_that_a_compressed_file_tears(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    ds = compressed(waves(), 10, uid.JPEGLSLossless, imagecodecs.jpegls_encode(waves()))
    assert rejected(write(ds, tmp_path / "image")).code == "corrupt-pixels"


WHOLE = {
    "signed values": ((waves().astype(np.int16) - 2048), {}),
    "signed values with text": ((waves().astype(np.int16) - 2048), {"text": (2040, -2040)}),
    "an overlay above the stored bits": (waves(), {"overlay": 0x8000}),
    "overlays in all bits above": (waves(), {"overlay": 0xF000}),
    "an edge from end to end": (waves(), {"text": (4090, 3)}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_values_that_are_whole(tmp_path: Path, name: str) -> None:
    pixels, drawn = WHOLE[name]
    expected = pixels.copy()
    for place, value in enumerate(drawn.get("text", ())):  # letters of 12 rows, on a ground of their own
        expected[40 + 4 * place : 60 - 4 * place, 10 + place : 110 - place : 3] = value
    words = expected.view(np.uint16).copy()
    words[20:90, 30:70] |= np.uint16(drawn.get("overlay", 0))
    found = load_radiograph(write(radiograph_dataset(words.view(expected.dtype), 12), tmp_path / "image"))
    assert_stored(found, expected)
    assert found.warnings == ()
