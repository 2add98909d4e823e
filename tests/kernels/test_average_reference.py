"""The float64 reference of kernel 3 against what it stands for: PyTorch's flip test in NumPy, and positions that follow
from how the larger input is cut."""

import numpy as np
import pytest

from spinescore.kernels.average import AverageSpec, Run, average, mirror
from spinescore.kernels.decode import peaks

BASE = (16, 12)
RNG = np.random.default_rng(5)


def flip_test(plain, flipped, shift):
    """validate() of the official repository, without pairs of points: heatmaps (N, J, h, w)."""
    back = flipped[:, :, :, ::-1].copy()
    if shift:
        back[:, :, :, 1:] = back.copy()[:, :, :, 0:-1]
    return (plain + back) / 2


@pytest.mark.parametrize("shift", [False, True])
def test_a_flip_is_the_official_flip_test(shift):
    plain, flipped = RNG.normal(size=(2, 2, 3, *BASE))
    spec = AverageSpec((Run(), Run(flipped=True)), "stride", 4, shift)
    np.testing.assert_allclose(average([plain, flipped], spec, BASE), flip_test(plain, flipped, shift), atol=1e-15)


def test_one_run_stays_as_it_is_and_what_is_not_finite_counts_as_nothing():
    maps = RNG.normal(size=(1, 2, *BASE))
    spec = AverageSpec((Run(),), "stride", 4)
    assert np.array_equal(average([maps], spec, BASE), maps)
    spoiled = maps.copy()
    spoiled[0, 0, 3, 4], spoiled[0, 1, 5, 5] = np.nan, np.inf
    expected = maps.copy()
    expected[0, 0, 3, 4] = expected[0, 1, 5, 5] = 0
    assert np.array_equal(average([spoiled], spec, BASE), expected)


def test_mirror_reverses_rows():
    images = RNG.normal(size=(2, 3, 4, 5))
    assert np.array_equal(mirror(images)[..., 0], images[..., 4])
    assert np.array_equal(mirror(mirror(images)), images)


def gaussian(size, x, y, sigma=2.0):
    columns, rows = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))[None, None]


@pytest.mark.parametrize("align", ["stride", "centre"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.25, 1.5, 2.0])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_point_of_the_field_comes_to_lie_where_the_base_run_has_it(align, scale, flipped):
    """The point is put into each input by hand, through inputs that show the same field, and found on the base grid."""
    base, size = (64, 48), (round(64 * scale), round(48 * scale))
    x, y = 29.37, 37.81  # in pixels of the base heatmap

    def to_input(h):
        return 4 * h if align == "stride" else 4 * (h + 0.5) - 0.5

    def to_heatmap(i):
        return i / 4 if align == "stride" else (i + 0.5) / 4 - 0.5

    x_in, y_in = (scale * (to_input(h) + 0.5) - 0.5 for h in (x, y))
    if flipped:
        x_in = 4 * size[1] - 1 - x_in
    maps = gaussian(size, to_heatmap(x_in), to_heatmap(y_in), 3 * scale)
    found = average([maps], AverageSpec((Run(scale, flipped),), align, 4), base)
    place = peaks(found, "dark")[0][0, 0]
    turned_back = -0.75 / scale if flipped and align == "stride" else 0  # what `flip_shift` is there for
    np.testing.assert_allclose(place, (x + turned_back, y), atol=0.02)


def test_the_shift_brings_a_flipped_stride_nearer_to_the_plain_run():
    off = {}
    for shift in (False, True):
        maps = gaussian((64, 48), (4 * 48 - 1 - 4 * 20.0) / 4, 30.0)  # of a point at 20, flipped
        found = average([maps], AverageSpec((Run(flipped=True),), "stride", 4, shift), (64, 48))
        off[shift] = peaks(found, "dark")[0][0, 0, 0] - 20.0
    np.testing.assert_allclose([off[False], off[True]], [-0.75, 0.25], atol=0.01)


def test_scales_are_bilinear_and_repeat_the_border():
    maps = RNG.normal(size=(1, 1, 8, 6))  # of half the base grid
    found = average([maps], AverageSpec((Run(0.5),), "centre", 4), BASE)[0, 0]
    padded = np.pad(maps[0, 0], 1, mode="edge")
    for y, x in ((0, 0), (1, 1), (15, 11), (7, 4), (8, 0)):
        row, column = 0.5 * (y + 0.5) - 0.5 + 1, 0.5 * (x + 0.5) - 0.5 + 1
        top, left = int(row), int(column)
        part = padded[top : top + 2, left : left + 2]
        down, right = row - top, column - left
        expected = np.array([1 - down, down]) @ part @ np.array([1 - right, right])
        assert found[y, x] == pytest.approx(expected, abs=1e-12)


def test_float32_is_as_good_as_the_network_gives():
    runs = (Run(), Run(flipped=True), Run(1.5), Run(1.5, True), Run(0.5))
    sizes = [BASE, BASE, (24, 18), (24, 18), (8, 6)]
    maps = [RNG.normal(size=(2, 3, *size)).astype(np.float32) for size in sizes]
    spec = AverageSpec(runs, "stride", 4, True)
    quick, exact = (average(maps, spec, BASE, kind) for kind in (np.float32, np.float64))
    assert quick.dtype == np.float32
    np.testing.assert_allclose(quick, exact, atol=1e-5)
