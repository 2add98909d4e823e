"""Contrast by percentiles of the whole picture equals the lines in docs/bundle.md, and has its own field."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import tiny
from helpers.dicom_files import radiograph_dataset, write
from helpers.documentation import programs
from spinescore.runtime.bundle import manifest_sha256
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.reading.greyscale import contrast_table
from spinescore.runtime.reading.percentiles import PIXELS_AT_ONCE, median, picture_percentiles
from spinescore.runtime.reading.studies import load_radiograph
from spinescore.runtime.study import Radiograph

(LINES,) = programs("docs/bundle.md")


def percentiles_of(radiograph: Radiograph, low: float, high: float) -> tuple[float, float]:
    return picture_percentiles(radiograph.pixels, low, high, radiograph.stored_min, radiograph.table.size)


def by_the_page(path, low, high):
    names = {}
    lines = LINES.replace('"film.dcm"', repr(str(path))).replace("(1, 99)", f"({low}, {high})")
    exec(compile(lines, "docs/bundle.md", "exec"), names)
    return names["grey"]


@pytest.mark.parametrize(("low", "high"), [(1, 99), (0.5, 99.5), (0, 100), (2, 98), (37.3, 61.9)])
@pytest.mark.parametrize(
    "header",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": 2.5, "RescaleIntercept": -1024},
        {"RescaleSlope": -1, "RescaleIntercept": 4095},
        {"RescaleSlope": -1, "RescaleIntercept": 4095, "PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": 700, "WindowWidth": 300},
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_it_is_what_readme_computes(tmp_path, header, low, high, signed):
    rng = np.random.default_rng(5)
    pixels = np.clip(rng.normal(1500, 500, (211, 173)), 0, 4095).astype(np.uint16)
    pixels[:60], pixels[:, -20:] = 0, 4000  # collimation and a marker, which the exposed field leaves out
    if signed:
        pixels = (pixels.astype(np.int16) - 2048).astype(np.int16)
    path = write(radiograph_dataset(pixels, **header), tmp_path / "film.dcm")
    radiograph = load_radiograph(path)
    table = contrast_table(radiograph, "percentile", low, high, over="picture")
    seen = table[radiograph.pixels.astype(int) - radiograph.stored_min]
    np.testing.assert_allclose(seen, by_the_page(path, low, high), atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000])
def test_percentiles_are_numpys(dtype, size):
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(size).integers(limits.min, limits.max, (size, 3), dtype, endpoint=True)
    table = np.linspace(0, 1, limits.max - limits.min + 1, dtype=np.float32)
    radiograph = Radiograph(pixels, table, stored_min=int(limits.min))
    for low, high in ((0, 100), (1, 99), (12.3, 45.6), (50, 75)):
        expected = np.percentile(pixels.astype(np.float64), (low, high))
        np.testing.assert_allclose(percentiles_of(radiograph, low, high), expected, rtol=0, atol=1e-8)


def test_large_pictures_are_counted_in_parts():
    pixels = (np.arange(PIXELS_AT_ONCE + 5000, dtype=np.uint32) % 3001).astype(np.uint16).reshape(-1, 8)[::-1, ::2]
    radiograph = Radiograph(pixels, np.linspace(0, 1, 4096, dtype=np.float32))
    np.testing.assert_allclose(percentiles_of(radiograph, 1, 99), np.percentile(pixels, (1, 99)), atol=1e-8)


def test_the_field_is_left_out_unless_it_says_something():
    plain = tiny.listed(tiny.manifest())
    read = Manifest.from_dict(plain)
    stated = tiny.listed(tiny.manifest())
    stated["grader"]["contrast"]["over"] = "exposed"
    assert read.grader.contrast.over == "exposed"
    assert read.to_dict() == Manifest.from_dict(stated).to_dict() == plain
    stated["grader"]["contrast"] |= {"mode": "percentile", "over": "picture"}
    other = Manifest.from_dict(stated)
    assert other.to_dict() == stated
    assert manifest_sha256(other) != manifest_sha256(read)


def test_it_belongs_to_percentiles():
    stated = tiny.listed(tiny.manifest())
    stated["grader"]["contrast"]["over"] = "picture"
    with pytest.raises(
        BundleError, match=r'grader\.contrast\.over: "picture" applies to percentiles only; give mode = "percentile"'
    ):
        Manifest.from_dict(stated)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_median_is_numpys(values):
    assert median(np.array(values)) == np.median(values)
