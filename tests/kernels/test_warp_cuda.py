"""warp.cu, compiled for the host, against its reference: within 5e-4 of the range on white noise, 2e-5 on waves.

The range of an output is 1 / std; half precision adds the half step of its last place.
"""

import host_run
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinescore.kernels.launch import source_record, warp_launch
from spinescore.kernels.warp import FAR, NO_SOURCE, ROI, Source, WarpSpec, warp

NOISE, WAVES = 5e-4, 2e-5
DTYPES = ("uint8", "int8", "uint16", "int16")


def region(angle=0.0, scale=1.0, centre=(0.0, 0.0), size=(8, 8), mirrored=False, source=0, origin=None):
    """A ROI whose output (height, width) shows `centre` in its middle, turned by `angle`, `scale` pixels per pixel."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn[:, 0] *= -1
    middle = np.array([size[1] - 1, size[0] - 1]) / 2
    record = np.zeros(1, ROI)
    record["source"] = source
    record["origin"] = np.floor(centre) if origin is None else origin
    record["matrix"][0, :, :2] = turn
    record["matrix"][0, :, 2] = np.asarray(centre) - record["origin"][0] - turn @ middle
    return record


def noise(rows, columns, dtype, seed=0):
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, (rows, columns), dtype, endpoint=True)


def waves(rows, columns, dtype):
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    limits = np.iinfo(dtype)
    picture = 0.5 + 0.24 * np.sin(x / 7 + y / 11) + 0.24 * np.sin(y / 9 - x / 23)
    return (limits.min + picture * (limits.max - limits.min)).astype(dtype)


def source_of(pixels, tables=2):
    limits = np.iinfo(pixels.dtype)
    table = np.linspace(0, 1, int(limits.max) - int(limits.min) + 1, dtype=np.float32)
    return Source(pixels, (table, 1 - table)[:tables], int(limits.min))


def excess(found, expected, spec, bound, half):
    """By how much the largest error goes beyond the bound (at most 0 where it keeps it)."""
    allowed = np.broadcast_to(bound / np.array(spec.std)[:, None, None], expected.shape)
    if half:
        allowed = allowed + np.maximum(np.abs(expected), 2.0**-14) * 2.0**-11
    return float((np.abs(found.astype(np.float64) - expected) - allowed).max())


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


@settings(max_examples=600)
@given(data=st.data(), half=st.booleans(), margin=st.integers(1, 5))
def test_random_sources_and_regions(kernels, data, half, margin):
    images = data.draw(st.lists(st.none() | sources(), min_size=1, max_size=3))
    spec = data.draw(specs())
    one = regions((spec.height, spec.width), len(images))
    rois = np.concatenate(data.draw(st.lists(one, min_size=1, max_size=8)))
    found = host_run.warp(kernels, images, rois, spec, half, margin)
    assert excess(found, warp(images, rois, spec), spec, 2e-5, half) <= 0


@pytest.mark.parametrize(("picture", "bound"), [(noise, NOISE), (waves, WAVES)])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8"])
@pytest.mark.parametrize("half", [False, True])
def test_largest_images(kernels, picture, bound, dtype, half):
    source = source_of(picture(4096, 4096, dtype))
    rng = np.random.default_rng(5)
    whole = WarpSpec(256, 192, 4, (0.0,), (1.0,))
    rois = np.concatenate([
        region(0.0, 16.0, (2047.5, 2047.5), (256, 192), mirrored=True, origin=(0, 0)),
        region(0.02, 21.3, (2047.5, 2047.5), (256, 192), origin=(0, 0)),
        region(0.0, 16.0, (2047.5, 2047.5), (256, 192)),
    ])  # fmt: skip
    assert (
        excess(host_run.warp(kernels, [source], rois, whole, half), warp([source], rois, whole), whole, bound, half)
        <= 0
    )
    for antialias in (1, 2, 3):
        spec = WarpSpec(224, 224, antialias, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), antialias % 2)
        rois = np.concatenate([
            region(rng.uniform(-4, 4), rng.uniform(0.3, 4), rng.uniform(-100, 4196, 2), (224, 224), bool(number % 2))
            for number in range(4)
        ])  # fmt: skip
        found = host_run.warp(kernels, [source], rois, spec, half)
        assert excess(found, warp([source], rois, spec), spec, bound, half) <= 0


@pytest.mark.parametrize("shift", [0.0, 1e-6, 0.25, 0.3001, -0.0007])
def test_coordinates_are_exact_far_from_the_origin(kernels, shift):
    """A checkerboard of the largest contrast, read 65,000 pixels away from the origin."""
    columns = 65535
    board = np.indices((2, columns)).sum(0) % 2 * 255
    source = Source(board.astype(np.uint8), (np.linspace(0, 1, 256, dtype=np.float32),))
    roi = np.zeros(1, ROI)
    roi["matrix"][0] = [[1023.5 + shift, 0.0, 3.0 + shift], [0, 0.5, 0.25]]
    spec = WarpSpec(3, 64, 1, (0.0,), (1.0,))
    found = host_run.warp(kernels, [source], roi, spec)
    assert np.abs(found - warp([source], roi, spec)).max() <= 1e-5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e10, 1e-40])
@pytest.mark.parametrize("antialias", [1, 2, 3])
def test_matrices_that_are_no_numbers_or_degenerate(kernels, bad, antialias):
    source = source_of(noise(9, 7, "uint16"))
    spec = WarpSpec(4, 6, antialias, (0.5,), (2.0,))
    for place in np.ndindex(2, 3):
        for start in ([[1, 0, 0.5], [0, 1, 0.25]], np.zeros((2, 3)), [[1, 1, 0], [1, 1, 0]]):
            roi = np.zeros(1, ROI)
            roi["matrix"][0] = start
            roi["matrix"][0][place] = bad
            found = host_run.warp(kernels, [source], roi, spec)
            assert np.abs(found - warp([source], roi, spec)).max() <= 1e-5


@pytest.mark.parametrize("origin", [FAR, -FAR, 2**30, 2**31 - 1, -(2**31)])
def test_origins_far_outside_are_grey_zero(kernels, origin):
    """Also where the matrix leads back into the image, or a sum of integers could."""
    source = source_of(noise(40, 40, "uint8"))
    spec = WarpSpec(4, 4, 1, (0.0,), (1.0,))
    for axis in (0, 1):
        for back in (0.0, -float(origin), float(origin), 32 - FAR, FAR - 32):
            roi = region()
            roi["origin"][0, axis] = origin
            roi["matrix"][0, axis, 2] = back
            assert not warp([source], roi, spec).any()
            assert not host_run.warp(kernels, [source], roi, spec).any()


@pytest.mark.parametrize("number", [NO_SOURCE, 1, 2, 2**31 - 1, -(2**31)])
def test_no_such_source_is_grey_zero(kernels, number):
    spec = WarpSpec(3, 5, 2, (0.25, 0.5, 0.75), (0.5, 0.5, 0.5))
    out = host_run.warp(kernels, [source_of(noise(4, 4, "uint8")), None], region(source=number), spec)
    assert (out[0] == np.array([-0.5, -1.0, -1.5])[:, None, None]).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_channels_come_from_one_grey(kernels, channels):
    source = source_of(noise(20, 20, "uint16"))
    mean, std = np.linspace(0, 1, channels), np.linspace(0.5, 2, channels)
    spec = WarpSpec(6, 7, 2, tuple(mean), tuple(std))
    roi = region(0.3, 1.5, (10, 10), (6, 7))
    found = host_run.warp(kernels, [source], roi, spec)
    assert excess(found, warp([source], roi, spec), spec, 1e-6, False) <= 0


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
