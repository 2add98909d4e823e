"""The grey scale of generated pictures against dcmtk's own rendering of the same files.

dcm2pnm applies no VOI transformation unless it is asked to: `+Wi 1` is the first window, `+Wl 1` the first VOI LUT,
`+Ww` a window that is given. It shows an overlay unless told not to (`-O`). A case in which the two differ on purpose
says why, and gives dcmtk a file or option that means the same.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from helpers.dcmtk_pictures import (
    PLAIN,
    at_high_bit,
    coded,
    curve,
    modality,
    of_class,
    plain,
    rle,
    with_lut,
    with_overlay,
    written_as,
)
from helpers.dicom_files import write
from spinescore.runtime import load_radiograph

pytestmark = pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="dcm2pnm is not installed (Debian's dcmtk)")

WINDOW, LUT = ("+Wi", "1"), ("+Wl", "1")


@dataclass(frozen=True)
class Case:
    """A file for us, and the options for dcmtk. `for_dcmtk` is another file that means the same to dcmtk."""

    make: Callable[[], Dataset]
    options: tuple[str, ...] = WINDOW
    for_dcmtk: Callable[[], Dataset] | None = None
    tool: str = "dcm2pnm"
    tolerance: float = 1e-3
    commas: bool = False  # in place of the points in our file


LATE = curve(4096, 65535, 3.0)  # rises late, through the values that a signed word cannot hold
CASES = {
    **{
        f"{function} {bits} bits{' signed' if signed else ''}": Case(
            plain(
                bits,
                signed,
                WindowCenter=f"{(1 << bits) * (0.45 - 0.5 * signed):.0f}",
                WindowWidth=f"{(1 << bits) * 0.6:.0f}",
                VOILUTFunction=function,
            )
        )
        for function in ("LINEAR", "SIGMOID")
        for bits, signed in ((8, False), (8, True), (10, False), (12, True), (15, False), (16, False), (16, True))
    },
    "narrow window": Case(plain(WindowCenter="1800", WindowWidth="20")),
    "window of one": Case(plain(WindowCenter="1800", WindowWidth="1")),
    "the first of two windows": Case(plain(WindowCenter=["1000", "3000"], WindowWidth=["500", "100"])),
    "MONOCHROME1": Case(plain(PhotometricInterpretation="MONOCHROME1", **PLAIN)),
    "MONOCHROME1 INVERSE": Case(
        plain(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE", **PLAIN)
    ),
    "MONOCHROME2 IDENTITY": Case(plain(PresentationLUTShape="IDENTITY", **PLAIN)),
    "MONOCHROME2 INVERSE": Case(plain(PresentationLUTShape="INVERSE", **PLAIN)),
    "rescale": Case(plain(RescaleSlope="2", RescaleIntercept="-1024", WindowCenter="2500", WindowWidth="3000")),
    "fractional rescale": Case(  # dcmtk rounds what comes out of it
        plain(RescaleSlope="0.5", RescaleIntercept="-20.25", WindowCenter="800", WindowWidth="900"), tolerance=1.5e-3
    ),
    "negative slope": Case(plain(RescaleSlope="-1", RescaleIntercept="4095", WindowCenter="1800", WindowWidth="900")),
    "signed rescale": Case(
        plain(12, True, RescaleSlope="1", RescaleIntercept="2048", WindowCenter="1800", WindowWidth="900")
    ),
    "modality LUT": Case(modality(plain(WindowCenter="30000", WindowWidth="40000"), 4096, 0, 16)),
    "modality LUT in US": Case(modality(plain(WindowCenter="30000", WindowWidth="40000"), 4096, 0, 16, vr="US")),
    "short modality LUT": Case(modality(plain(WindowCenter="2000", WindowWidth="4000"), 700, 512, 12)),
    "modality LUT from below zero": Case(
        modality(plain(12, True, WindowCenter="30000", WindowWidth="40000"), 4096, -2048, 16, descriptor="SS")
    ),
    **{
        f"{name} {relation} with a modality LUT": Case(
            modality(of_class(name, PixelIntensityRelationship=relation, **PLAIN), 4096, 0, 12, curve(4096, 4095, 2.0))
        )
        for name, relation in (
            *((name, relation) for name in ("XA", "RF", "XAB") for relation in ("LOG", "DISP")),
            *((name, "LOG") for name in ("CR", "DX", "DX for processing", "SC")),
        )
    },
    **{
        f"{name} {relation} with a rescale": Case(
            of_class(name, PixelIntensityRelationship=relation, RescaleSlope="0.5", RescaleIntercept="500", **PLAIN)
        )
        for name, relation in (("XA", "LOG"), ("RF", "DISP"), ("DX", "LOG"))
    },
    "RF LOG with modality and VOI LUT": Case(
        modality(with_lut(of_class("RF", PixelIntensityRelationship="LOG"), 4096, 0, 16), 4096, 0, 12), LUT
    ),
    # dcm2pnm divides by 256, not by 255, if it writes more bits than the LUT has
    **{
        f"VOI LUT of {bits} bits in {vr}": Case(
            with_lut(plain(), 4000, 50, bits, vr=vr), LUT, tolerance=1.1 / (1 << bits) + 1e-3
        )
        for bits in (8, 10, 12, 16)
        for vr in ("OW", "US")
    },
    "VOI LUT of 65536 entries": Case(with_lut(plain(16), 65536, 0, 16), LUT),
    "VOI LUT before a window": Case(with_lut(plain(**PLAIN), 4096, 0, 16), LUT),
    "VOI LUT after a modality LUT": Case(modality(with_lut(plain(), 60000, 10, 16), 4096, 0, 16), LUT),
    "VOI LUT from below zero": Case(
        with_lut(plain(RescaleSlope="1", RescaleIntercept="-1024"), 4096, -1024, 16, descriptor="SS"), LUT
    ),
    "VOI LUT from below zero as US": Case(
        with_lut(plain(RescaleSlope="1", RescaleIntercept="-1024"), 4096, 64512, 16), LUT
    ),
    "VOI LUT of packed bytes": Case(
        with_lut(plain(), 4096, 0, 8, curve(4096, 255).astype(np.uint8)), LUT, tolerance=5e-3
    ),
    "falling VOI LUT": Case(with_lut(plain(), 4096, 0, 16, curve(4096, 65535)[::-1].copy()), LUT),
    "VOI LUT, MONOCHROME1": Case(with_lut(plain(PhotometricInterpretation="MONOCHROME1"), 4096, 0, 16), LUT),
    # The descriptor often holds the allocated bits: with `+Mv` dcmtk looks at the entries, as we do
    "VOI LUT of 15 bits in 16": Case(with_lut(plain(), 4096, 0, 16, curve(4096, 32767)), (*LUT, "+Mv")),
    "VOI LUT of 16 bits called 12": Case(with_lut(plain(), 4096, 0, 12, curve(4096, 65535)), (*LUT, "+Mv")),
    "high bit 15": Case(at_high_bit(15, rubbish=False)),
    "high bit 13 with rubbish": Case(at_high_bit(13, rubbish=True)),
    "high bit 14, signed": Case(at_high_bit(14, rubbish=True, signed=True)),
    "overlay in an unused bit": Case(with_overlay(plain(**PLAIN))),
    "implicit VR": Case(written_as(uid.ImplicitVRLittleEndian, plain(**PLAIN))),
    "implicit VR, VOI LUT": Case(written_as(uid.ImplicitVRLittleEndian, with_lut(plain(), 4096, 0, 16)), LUT),
    "implicit VR, VOI LUT from below zero": Case(
        written_as(
            uid.ImplicitVRLittleEndian,
            with_lut(plain(RescaleSlope="1", RescaleIntercept="-1024"), 4096, -1024, 16, descriptor="SS"),
        ),
        LUT,
    ),
    "deflated": Case(written_as(uid.DeflatedExplicitVRLittleEndian, plain(**PLAIN))),
    "big endian": Case(written_as(uid.ExplicitVRBigEndian, plain(**PLAIN))),
    "big endian, VOI LUT": Case(written_as(uid.ExplicitVRBigEndian, with_lut(plain(), 4096, 0, 16)), LUT),
    "big endian, VOI LUT of packed bytes": Case(
        written_as(uid.ExplicitVRBigEndian, with_lut(plain(), 4096, 0, 8, curve(4096, 255, 0.5).astype(np.uint8))),
        LUT,
        tolerance=5e-3,
    ),
    "RLE": Case(rle(plain(**PLAIN))),
    "RLE, signed": Case(rle(plain(12, True, WindowCenter="-100", WindowWidth="1500"))),
    "RLE with an overlay": Case(rle(with_overlay(plain(**PLAIN)))),
    "JPEG": Case(
        coded(
            uid.JPEGBaseline8Bit, 8, lambda codecs, x: codecs.jpeg8_encode(x, level=95),
            WindowCenter="120", WindowWidth="200",
        ),
        tool="dcmj2pnm", tolerance=0.02,
    ),
    "JPEG of 12 bits": Case(
        coded(uid.JPEGExtended12Bit, 12, lambda codecs, x: codecs.jpeg8_encode(x, level=95, bitspersample=12), **PLAIN),
        tool="dcmj2pnm", tolerance=0.005,
    ),
    **{
        f"JPEG lossless, predictor {predictor}, {bits} bits{', overlay' if words else ''}": Case(
            coded(
                uid.JPEGLosslessSV1 if predictor == 1 else uid.JPEGLossless, 12,
                lambda codecs, x, p=predictor, b=bits: codecs.jpeg8_encode(
                    x, lossless=True, predictor=p, bitspersample=b
                ),
                words=words, **PLAIN,
            ),
            tool="dcmj2pnm",
        )
        for predictor, bits, words in ((1, 12, False), (4, 16, False), (1, 16, True), (4, 16, True))
    },
    "JPEG-LS": Case(coded(uid.JPEGLSLossless, 12, lambda codecs, x: codecs.jpegls_encode(x), **PLAIN), tool="dcml2pnm"),
    "JPEG-LS with an overlay": Case(
        coded(uid.JPEGLSLossless, 12, lambda codecs, x: codecs.jpegls_encode(x), words=True, **PLAIN), tool="dcml2pnm"
    ),
    "JPEG-LS near lossless": Case(
        coded(uid.JPEGLSNearLossless, 12, lambda codecs, x: codecs.jpegls_encode(x, level=2), **PLAIN), tool="dcml2pnm"
    ),
    # Intended differences
    "LINEAR_EXACT": Case(  # dcmtk takes it for LINEAR (PS3.3 C.11.2.1.3.2): its ends are half a value farther out there
        plain(VOILUTFunction="LINEAR_EXACT", WindowCenter="1800", WindowWidth="300"), ("+Ww", "1800.5", "301")
    ),
    "MONOCHROME1 IDENTITY": Case(  # a contradiction (C.8.11.3.1.2), in which we believe the photometric interpretation
        plain(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY", **PLAIN),
        for_dcmtk=plain(PhotometricInterpretation="MONOCHROME1", **PLAIN),
    ),
    "XA LIN with a modality LUT": Case(  # only LOG and DISP lead back to intensity (C.8.7.1.1.2); dcmtk leaves out any
        modality(of_class("XA", PixelIntensityRelationship="LIN", **PLAIN), 4096, 0, 12),
        for_dcmtk=modality(of_class("CR", **PLAIN), 4096, 0, 12),
    ),
    "VOI LUT in SS": Case(  # entries are unsigned (C.11.2.1.1), and many write them so; dcmtk does not read them
        with_lut(plain(), 4096, 0, 16, LATE, vr="SS", descriptor="SS"), LUT,
        for_dcmtk=with_lut(plain(), 4096, 0, 16, LATE),
    ),
    "decimal comma": Case(  # not allowed (PS3.5 6.2), with one meaning here
        plain(WindowCenter="1800.5", WindowWidth="1500.50"), commas=True
    ),
}  # fmt: skip


def seen(path: Path) -> np.ndarray:
    found = load_radiograph(path)
    assert found.has_window
    return found.table[found.pixels.astype(int) - found.stored_min]


def shown_by_dcmtk(path: Path, tool: str, options: tuple[str, ...]) -> np.ndarray:
    to = path.with_suffix(".png")
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian's dcmtk)")
    made = subprocess.run(
        [tool, "+on2", "-O", *options, str(path), str(to)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert "cannot" not in made.stderr
    return cv2.imread(str(to), cv2.IMREAD_UNCHANGED) / 65535.0


@pytest.mark.parametrize("name", CASES)
def test_grey_is_dcmtks(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = write(case.make(), tmp_path / "ours.dcm")
    if case.commas:
        path.write_bytes(path.read_bytes().replace(b"1800.5", b"1800,5").replace(b"1500.50", b"1500,50"))
    ours = seen(path)
    theirs = write((case.for_dcmtk or case.make)(), tmp_path / "theirs.dcm")
    np.testing.assert_allclose(ours, shown_by_dcmtk(theirs, case.tool, case.options), rtol=0, atol=case.tolerance)
    assert ours.max() - ours.min() > 0.5


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("lut_before", [False, True])
def test_contrast_from_the_pixels_is_a_window(tmp_path: Path, photometric: str, lut_before: bool) -> None:
    """Without a window the table is linear between two values after the modality step."""
    make = plain(PhotometricInterpretation=photometric)
    path = write((modality(make, 4096, 0, 16) if lut_before else make)(), tmp_path / "image.dcm")
    found = load_radiograph(path)
    assert not found.has_window
    values = curve(4096, 65535).astype(float) if lut_before else np.arange(4096.0)
    grey = found.table.astype(float) if photometric == "MONOCHROME2" else 1.0 - found.table
    low, high = values[grey <= 0][-1], values[grey >= 1][0]
    window = ("+Ww", f"{(low + high) / 2 + 0.5}", f"{high - low + 1}")
    shown = shown_by_dcmtk(path, "dcm2pnm", window)
    np.testing.assert_allclose(found.table[found.pixels], shown, rtol=0, atol=1e-3)


def test_padding_alone_is_black(tmp_path: Path) -> None:
    """Padding is no exposure (C.7.5.1.1.2) and is black here; dcmtk shows its value like any other."""
    path = write(plain(PixelPaddingValue=4095, **PLAIN)(), tmp_path / "image.dcm")
    padded = load_radiograph(path).pixels == 4095
    ours, theirs = seen(path), shown_by_dcmtk(path, "dcm2pnm", WINDOW)
    assert padded.any()
    assert not ours[padded].any()
    np.testing.assert_allclose(ours[~padded], theirs[~padded], rtol=0, atol=1e-3)
