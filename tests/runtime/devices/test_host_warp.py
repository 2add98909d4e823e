"""The host device's warp against the float64 reference: 0.1 grey level on noise, 0.02 on band-limited pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinescore.kernels.warp import ROI, Source, WarpSpec, warp
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.scoring.geometry import whole_image

NOISE_LEVELS, BAND_LEVELS = 0.1, 0.02


def noise(rows, columns, dtype="uint16", seed=0):
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, (rows, columns)).astype(dtype)


def waves(rows, columns, dtype="uint16"):
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    limits = np.iinfo(dtype)
    picture = 0.5 + 0.24 * np.sin(x / 7 + y / 11) + 0.24 * np.sin(y / 9 - x / 23)
    return (limits.min + picture * (limits.max - limits.min)).astype(dtype)


def source_of(pixels):
    limits = np.iinfo(pixels.dtype)
    table = np.linspace(0, 1, limits.max - limits.min + 1, dtype=np.float32)
    return Source(pixels, (table, 1 - table), int(limits.min))


def error_levels(source, rois, spec):
    """The largest difference between the host device and the reference, in levels of 255."""
    device = HostDevice(1)
    device.upload(0, source)
    out = device.allocate((rois.size, spec.channels, spec.height, spec.width), np.float32)
    device.warp(rois, spec, out)
    return 255 * np.abs(out - warp([source], rois.reshape(-1), spec)).max()


def crop(angle, scale, centre, size, mirrored):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn[:, 0] *= -1
    roi = np.zeros(1, ROI)
    roi["origin"] = np.floor(centre)
    roi["matrix"][0, :, :2] = turn
    roi["matrix"][0, :, 2] = np.asarray(centre) - np.floor(centre) - turn.sum(axis=1) * (size - 1) / 2
    return roi


def crops(rows, columns, size, count=8):
    rng = np.random.default_rng(3)
    found = [
        crop(
            rng.uniform(-np.pi, np.pi),
            rng.uniform(0.3, 4),
            rng.uniform(-100, [columns + 100, rows + 100]),
            size,
            number % 2,
        )
        for number in range(count)
    ]
    return np.concatenate(found)


@pytest.mark.parametrize(("picture", "bound"), [(noise, NOISE_LEVELS), (waves, BAND_LEVELS)])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_largest_images(picture, bound, dtype):
    source = source_of(picture(4096, 4096, dtype))
    whole = [whole_image(0, 4096, 4096, (256, 192), fit, facing) for fit in ("stretch", "letterbox")
             for facing in ("left", "right")]  # fmt: skip
    unit = ((0.0,), (1.0,))
    assert error_levels(source, np.array(whole, ROI), WarpSpec(256, 192, 4, *unit)) <= bound
    assert error_levels(source, crops(4096, 4096, 224), WarpSpec(224, 224, 1, *unit)) <= bound
    assert error_levels(source, crops(4096, 4096, 224), WarpSpec(224, 224, 2, *unit, table=1)) <= bound


@settings(max_examples=200)
@given(
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(1e-3, 60),
    centre=st.tuples(st.floats(-50, 250), st.floats(-50, 200)),
    size=st.integers(1, 70),
    mirrored=st.booleans(),
    antialias=st.integers(1, 4),
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16"]),
)
def test_any_region_of_noise(angle, scale, centre, size, mirrored, antialias, dtype):
    spec = WarpSpec(size, size, antialias, (0.0, 0.0), (1.0, 1.0))
    assert (
        error_levels(source_of(noise(150, 200, dtype)), crop(angle, scale, centre, size, mirrored), spec)
        <= NOISE_LEVELS
    )


@given(matrix=st.lists(st.floats(-200, 200, width=32), min_size=6, max_size=6), antialias=st.integers(1, 2))
def test_any_matrix_on_waves(matrix, antialias):
    roi = np.zeros(1, ROI)
    roi["matrix"] = np.reshape(matrix, (1, 2, 3))
    assert error_levels(source_of(waves(300, 200)), roi, WarpSpec(20, 30, antialias, (0.0,), (1.0,))) <= NOISE_LEVELS


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("entries", [1, 100, 4096, 65536])
@pytest.mark.parametrize("first", [0, -128, 77, -2048, 300, -70_000, 70_000])
def test_values_beyond_a_table_take_its_ends(dtype, entries, first):
    table = np.random.default_rng(entries).random(entries, np.float32)
    roi = np.zeros(1, ROI)
    roi["matrix"] = [[1, 0, 0], [0, 1, 0]]
    source = Source(noise(16, 16, dtype), (table,), first)
    assert error_levels(source, roi, WarpSpec(16, 16, 1, (0.0,), (1.0,))) <= NOISE_LEVELS


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_broken_matrices_and_missing_sources_are_grey_zero(bad):
    rois = np.zeros(8, ROI)
    rois["matrix"] = [[1, 0, 0], [0, 1, 0]]
    for number, place in enumerate(np.ndindex(2, 3)):
        rois["matrix"][number][place] = bad
    rois["source"][6:] = -1, 1
    spec = WarpSpec(5, 5, 2, (0.25,), (0.5,))
    device = HostDevice(1)
    device.upload(0, source_of(noise(50, 50)))
    out = device.allocate((8, 1, 5, 5), np.float32)
    device.warp(rois, spec, out)
    assert np.isfinite(out).all()
    assert (out[:, :, 1:, 1:] == -0.5).all()


def test_half_precision_output_and_views_of_buffers():
    source = source_of(noise(64, 64, "uint8"))
    device = HostDevice(1)
    device.upload(1, source)
    spec = WarpSpec(64, 64, 1, (0.5,), (0.25,))
    out = device.allocate((2, 1, 64, 64), np.float16)
    rois = device.allocate((2,), ROI)
    rois["source"], rois["matrix"] = 1, [[1, 0, 0], [0, 1, 0]]
    device.warp(rois[1:2], spec, out[1:2])
    assert not device.read(out[0:1]).any()
    assert np.allclose(device.read(out[1:2])[0, 0], (source.pixels / 255 - 0.5) / 0.25, atol=2e-3)
