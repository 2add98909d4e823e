"""warp.cu, compiled for the host, against its reference: within 5e-4 of the range on white noise, 2e-5 on waves.

The range of an output is 1 / std; half precision adds the half step of its last place.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import host_run
from spinescore.benchmarks.gpu.warpcases import (
    DTYPES,
    excess,
    largest_warps,
    noise,
    random_warp,
    region,
    source_of,
    warp_edges,
)
from spinescore.kernels.launch import warp_launch
from spinescore.kernels.layouts import line_of, source_record
from spinescore.kernels.warp import Source, WarpSpec, warp


@st.composite
def sources(draw):
    dtype = draw(st.sampled_from(DTYPES))
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    pixels = noise(rows, columns, dtype, draw(st.integers(0, 2**32 - 1)))
    limits = np.iinfo(dtype)
    lowest = draw(st.sampled_from([int(limits.min), 0, -5, 40]))
    lengths = draw(st.lists(st.sampled_from([1, 2, 100, 256, 65536]), min_size=2, max_size=2))
    rng = np.random.default_rng(rows)
    return Source(pixels, tuple(rng.random(length, np.float32) for length in lengths), lowest)


@st.composite
def specs(draw):
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 37))
    channels = draw(st.sampled_from([1, 3]))
    mean = tuple(draw(st.floats(-1, 1, width=32)) for _ in range(channels))
    std = tuple(draw(st.floats(0.125, 2, width=32)) for _ in range(channels))
    return WarpSpec(height, width, draw(st.integers(1, 4)), mean, std, draw(st.integers(0, 1)))


@st.composite
def regions(draw, size, count):
    """Any turn and zoom about a point in or near an image, relative to an origin in or near it."""
    centre = draw(st.floats(-30, 70)), draw(st.floats(-30, 70))
    away = np.array(draw(st.tuples(st.integers(-3, 3), st.integers(-3, 3))))
    angle, scale = draw(st.floats(-np.pi, np.pi)), draw(st.sampled_from([0.01, 0.3, 1.0, 1.7, 3.0]))
    number = draw(st.integers(-1, count))
    return region(angle, scale, centre, size, draw(st.booleans()), number, np.floor(centre) + away)


RANDOM = given(data=st.data(), half=st.booleans(), margin=st.integers(1, 5))


def assert_random_close(kernels, data, half, margin):
    images = data.draw(st.lists(st.none() | sources(), min_size=1, max_size=3))
    spec = data.draw(specs())
    one = regions((spec.height, spec.width), len(images))
    rois = np.concatenate(data.draw(st.lists(one, min_size=1, max_size=8)))
    found = host_run.warp(kernels, images, rois, spec, half, margin)
    assert excess(found, warp(images, rois, spec), spec, 2e-5, half) <= 0


@settings(max_examples=150)
@RANDOM
def test_random_sources_and_regions(kernels, data, half, margin):
    assert_random_close(kernels, data, half, margin)


@pytest.mark.slow
@settings(max_examples=600)
@RANDOM
def test_many_random_sources_and_regions(kernels, data, half, margin):
    assert_random_close(kernels, data, half, margin)


def assert_close(kernels, case, half):
    found = host_run.warp(kernels, case.sources, case.rois, case.spec, half)
    assert excess(found, warp(case.sources, case.rois, case.spec), case.spec, case.bound, half) <= 0, case.name


def test_largest_images(kernels):
    """Whole images are warped in both precisions. Crops have one precision for noise, and the other for waves."""
    for number, case in enumerate(largest_warps(np.random.default_rng(5))):
        expected = warp(case.sources, case.rois, case.spec)
        precisions = (False, True) if case.name.endswith("whole") else ((number + number // 4) % 2 == 1,)
        for half in precisions:
            found = host_run.warp(kernels, case.sources, case.rois, case.spec, half)
            assert excess(found, expected, case.spec, case.bound, half) <= 0, (case.name, half)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("case", list(warp_edges()), ids=lambda case: case.name)
def test_edges(kernels, case, half):
    """Matrices that are no numbers, origins and sources that are none, many channels, images of 65,000 columns."""
    assert_close(kernels, case, half)


def test_origins_far_outside_and_missing_sources_are_grey_zero():
    """In the reference too: nothing leads back into the image."""
    for case in warp_edges():
        if case.name in ("far origins", "no source"):
            grey = warp(case.sources, case.rois, case.spec) * np.array(case.spec.std)[:, None, None]
            assert np.allclose(grey + np.array(case.spec.mean)[:, None, None], 0), case.name


def test_the_cases_that_a_gpu_is_given(kernels):
    """Without hypothesis, as `python -m spinescore.benchmarks.gpu` draws them."""
    for seed in range(60):
        assert_close(kernels, random_warp(np.random.default_rng(seed)), bool(seed % 2))


def test_the_order_of_threads_does_not_matter(kernels):
    source = source_of(noise(50, 50, "int16"))
    spec = WarpSpec(33, 35, 3, (0.1,), (0.7,))
    roi = region(1.0, 1.5, (25, 25), (33, 35))
    forward = host_run.warp(kernels, [source], roi, spec, True)
    kernels.reverse_threads(True)
    try:
        assert np.array_equal(forward, host_run.warp(kernels, [source], roi, spec, True))
    finally:
        kernels.reverse_threads(False)


def test_what_the_kernel_cannot_read_is_refused():
    with pytest.raises(ValueError, match="8 or 16 bits"):
        source_record(0, 400, (10, 100), np.dtype("uint32"), 0, [(0, 256)])
    with pytest.raises(ValueError, match="pitch of 199 bytes"):
        source_record(0, 199, (10, 100), np.dtype("uint16"), 0, [(0, 256)])
    with pytest.raises(ValueError, match="3 tables"):
        source_record(0, 200, (10, 100), np.dtype("uint16"), 0, [(0, 256)] * 3)
    with pytest.raises(ValueError, match="table 2"):
        warp_launch(0, 1, 0, 1, WarpSpec(4, 4, 1, (0.0,), (1.0,), 2), 0, True)
    with pytest.raises(ValueError, match="17 channels"):
        warp_launch(0, 1, 0, 1, WarpSpec(4, 4, 1, (0.0,) * 17, (1.0,) * 17), 0, True)


def windowed(low, high, entries, inverted=False, dtype=np.float32):
    """A linear window over a table's entries, as the headers of radiographs give it."""
    ramp = np.clip((np.arange(entries) - low) / (high - low), 0, 1)
    return (1 - ramp if inverted else ramp).astype(dtype)


WINDOWS = {
    "whole": windowed(0, 4095, 4096),
    "inverted": windowed(300, 3000, 4096, inverted=True),
    "narrow": windowed(30_000, 30_050, 65_536),
    "wide": windowed(-5000, 90_000, 65_536),
    "late": windowed(60_000, 65_000, 65_536),
}


@pytest.mark.parametrize("name", list(WINDOWS))
@pytest.mark.parametrize(("dtype", "stored_min"), [("uint8", 0), ("uint16", 0), ("int16", -32_768), ("int16", -100)])
def test_linear_windows_are_computed_and_not_read(kernels, name, dtype, stored_min):
    """The table's memory holds other values, so that a kernel that read it would be far off."""
    table = WINDOWS[name]
    line = line_of(table, stored_min, np.dtype(dtype))
    assert line is not None
    source = Source(noise(60, 50, dtype, 4), (table,), stored_min)
    spec = WarpSpec(20, 30, 2, (0.0,), (1.0,))
    roi = region(0.6, 1.4, (25, 30), (20, 30))
    expected = warp([source], roi, spec)
    assert excess(host_run.warp(kernels, [source], roi, spec, poisoned=True), expected, spec, 2e-5, False) <= 0


@pytest.mark.parametrize(
    "table",
    [
        np.zeros(100, np.float32),
        np.array([0.5], np.float32),
        np.array([0, 1], np.float32),
        np.repeat([0, 1], 50).astype(np.float32),
        windowed(10, 200, 256) ** 2,
        np.round(windowed(0, 4095, 4096) * 255).astype(np.float32) / 255,
        np.minimum(windowed(0, 100, 200), windowed(100, 199, 200, inverted=True)),
        np.concatenate([windowed(0, 99, 100), windowed(0, 99, 100)]),
        np.full(100, np.nan, np.float32),
        np.random.default_rng(0).random(4096, np.float32),
    ],
)
def test_other_tables_are_read(table):
    assert line_of(table, 0, np.dtype("uint16")) is None


@given(
    low=st.integers(-2000, 70_000),
    width=st.integers(2, 70_000),
    entries=st.integers(4, 65_536),
    inverted=st.booleans(),
    stored_min=st.sampled_from([-32_768, -1024, 0]),
)
def test_a_line_gives_the_tables_values(low, width, entries, inverted, stored_min):
    """In float32, as the kernel computes it."""
    table = windowed(low, low + width, entries, inverted)
    dtype = np.dtype("int16" if stored_min else "uint16")
    line = line_of(table, stored_min, dtype)
    if line is None:
        assert ((table > 0) & (table < 1)).sum() < 2 or abs(float(table[-1]) - float(table[0])) < 0.2
        return
    sign = 0x8000 if stored_min else 0
    value = np.arange(entries) + stored_min + sign
    steps = (np.float32(2**23) + value.astype(np.float32)) - line["origin"]
    computed = np.clip(line["slope"] * steps + line["offset"], line["low"], line["high"])
    assert np.abs(computed - table).max() < 4e-6
