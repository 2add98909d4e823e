"""PNG and JPEG files, and arrays with spacing, as radiographs."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.dicom_files import picture, radiograph_dataset, write
from helpers.scoring import CERVICAL, LUMBAR, assert_found, checked
from helpers.tiny import write_bundle
from spinescore.runtime import InputRejected, Scorer, load_radiograph, load_study, radiograph_from_array
from spinescore.runtime.reading import pictures
from spinescore.runtime.reading.greyscale import contrast_table


def encoded(pixels: np.ndarray, kind: str = ".png") -> bytes:
    done, data = cv2.imencode(kind, pixels)
    assert done
    return data.tobytes()


def saved(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(encoded(pixels, path.suffix))
    return path


def refused(given: Path | bytes, **options: int) -> InputRejected:
    with pytest.raises(InputRejected) as caught:
        load_radiograph(given, **options)
    return caught.value


@pytest.mark.parametrize("bits", [8, 16])
def test_png(tmp_path: Path, bits: int) -> None:
    found = load_radiograph(saved(tmp_path / "film.png", picture(bits)))
    np.testing.assert_array_equal(found.pixels, picture(bits))
    assert found.pixels.dtype == picture(bits).dtype
    assert (found.decoder, found.source, found.spacing_mm, found.region) == ("opencv", "film.png", None, None)
    assert "film.png is a PNG picture" in found.warnings[0]
    assert "research" in found.warnings[0]
    expected = np.linspace(0, 1, 256) if bits == 8 else contrast_table(radiograph_from_array(picture(16)), "percentile")
    np.testing.assert_allclose(found.table, expected, atol=1 / 65535)  # the edges of the contrast are whole values


def test_jpeg_and_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path / "film.jpg", picture(8))
    for given in (path, path.read_bytes()):
        found = load_radiograph(given)
        np.testing.assert_allclose(found.pixels.astype(int), picture(8).astype(int), atol=25)
        assert "is a JPEG picture" in found.warnings[0]


@pytest.mark.parametrize("opaque", [False, True])
def test_grey_that_was_saved_as_colour(tmp_path: Path, opaque: bool) -> None:
    channels = [picture(16)] * 3 + [np.full_like(picture(16), 65535)] * opaque
    found = load_radiograph(saved(tmp_path / "film.png", np.dstack(channels)))
    np.testing.assert_array_equal(found.pixels, picture(16))
    assert found.pixels.flags.c_contiguous


def test_colour_is_refused(tmp_path: Path) -> None:
    coloured = np.dstack([picture(8)] * 3)
    coloured[5, 5, 1] ^= 1
    assert refused(saved(tmp_path / "film.png", coloured)).code == "not-radiograph"
    see_through = np.dstack([picture(8)] * 4)
    assert "colour" in str(refused(saved(tmp_path / "film.png", see_through)))


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_size_is_checked_before_decoding(monkeypatch, kind: str) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the picture was decoded"))
    data = encoded(picture(8), kind)
    assert refused(data, max_pixels=picture(8).size - 1).code == "too-large"
    if kind == ".png":
        header = b"IHDR" + struct.pack(">II", 60000, 60000) + data[24:29]
        bomb = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
        assert refused(bomb).code == "too-large"
    monkeypatch.setattr(pictures, "_MAX_BYTES", len(data) - 1)
    assert refused(data).code == "too-large"


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_broken_pictures(kind: str) -> None:
    data = encoded(picture(8), kind)
    for size in (10, 30, len(data) // 2, len(data) - 3):
        assert refused(data[:size]).code in ("corrupt-pixels", "not-dicom")
    swapped = bytearray(data)
    at = data.index(b"IDAT") + 10 if kind == ".png" else 3
    swapped[at : at + 6] = b"\0\1\2\3\4\5"
    assert refused(bytes(swapped)).code == "corrupt-pixels"


def test_pictures_in_a_folder_are_left_alone(tmp_path: Path) -> None:
    write(radiograph_dataset(), tmp_path / "image")
    path = saved(tmp_path / "overlay.png", picture(8))
    study = load_study(tmp_path)
    assert [radiograph.source for radiograph in study.radiographs] == ["image"]
    assert "overlay.png is a PNG picture" in study.warnings[0]
    both = load_study(tmp_path / "image", path)  # named by hand it joins the study
    assert [radiograph.decoder for radiograph in both.radiographs] == ["opencv", "none"]


def test_pictures_are_scored_and_flagged(tmp_path: Path) -> None:
    paths = [
        saved(tmp_path / f"{number}.png", drawn.radiograph.pixels) for number, drawn in enumerate((LUMBAR, CERVICAL))
    ]
    with Scorer.open(write_bundle(tmp_path / "bundle"), "cpu") as scorer:
        report = checked(scorer.score(load_study(*paths)))
    assert_found(report.regions["cervical"], CERVICAL)
    assert_found(report.regions["lumbar"], LUMBAR)
    assert [name in " ".join(report.warnings) for name in ("0.png is a PNG", "1.png is a PNG")] == [True, True]


# ---- arrays ----------------------------------------------------------------------------------------------------------


def test_array_with_spacing(tmp_path: Path) -> None:
    image = radiograph_from_array(CERVICAL.radiograph.pixels, region="cervical", spacing_mm=(0.15, 0.2), facing="left")
    assert (image.spacing_mm, image.region, image.facing) == ((0.15, 0.2), "cervical", "left")
    assert radiograph_from_array(image.pixels, spacing_mm=0.1).spacing_mm == (0.1, 0.1)
    with Scorer.open(write_bundle(tmp_path / "bundle"), "cpu") as scorer:
        region = checked(scorer.score(image)).regions["cervical"]
    assert_found(region, CERVICAL)
    assert region.radiograph.pixel_spacing_mm == (0.15, 0.2)


@pytest.mark.parametrize(("options", "message"), [
    ({"spacing_mm": 0}, "spacing_mm"),
    ({"spacing_mm": (0.1, -0.1)}, "spacing_mm"),
    ({"spacing_mm": (0.1, 0.1, 0.1)}, "spacing_mm"),
    ({"spacing_mm": float("nan")}, "spacing_mm"),
    ({"spacing_mm": ("wide", 1.0)}, "spacing_mm"),
    ({"region": "thoracic"}, "thoracic"),
    ({"facing": "up"}, "up"),
])  # fmt: skip
def test_array_with_what_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        radiograph_from_array(picture(), **options)
