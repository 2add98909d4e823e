"""The warp's reference against what its contract says, case by case."""

import numpy as np
import pytest

from spinescore.kernels.warp import NO_SOURCE, ROI, Source, WarpSpec, warp

RAMP = np.arange(256, dtype=np.float32) / 255


def roi(matrix, origin=(0, 0), source=0):
    record = np.zeros(1, ROI)
    record["source"], record["origin"], record["matrix"] = source, origin, matrix
    return record


def grey(source, matrix, height, width, antialias=1, **options):
    spec = WarpSpec(height, width, antialias, (0.0,), (1.0,))
    return warp([source], roi(matrix, **options), spec)[0, 0]


@pytest.fixture
def source():
    return Source(np.random.default_rng(0).integers(0, 256, (7, 9)).astype(np.uint8), (RAMP,))


def test_identity_gives_the_table_of_each_pixel(source):
    assert np.allclose(grey(source, [[1, 0, 0], [0, 1, 0]], 7, 9), source.pixels / 255, atol=1e-7)


def test_mirror_and_quarter_turn(source):
    mirrored = grey(source, [[-1, 0, 8], [0, 1, 0]], 7, 9)
    turned = grey(source, [[0, 1, 0], [-1, 0, 6]], 9, 7)  # x_source = y, y_source = 6 - x
    assert np.allclose(mirrored, source.pixels[:, ::-1] / 255, atol=1e-7)
    assert np.allclose(turned, np.rot90(source.pixels, -1) / 255, atol=1e-7)


def test_between_pixels_is_bilinear_and_outside_is_grey_zero(source):
    half = grey(source, [[1, 0, 0.25], [0, 1, 0.5]], 6, 8)
    p = source.pixels / 255
    top = 0.75 * p[:-1, :-1] + 0.25 * p[:-1, 1:]
    bottom = 0.75 * p[1:, :-1] + 0.25 * p[1:, 1:]
    assert np.allclose(half, (top + bottom) / 2, atol=1e-7)
    edge = grey(source, [[1, 0, -0.5], [0, 1, 0]], 7, 10)
    assert np.allclose(edge[:, 0], p[:, 0] / 2, atol=1e-7)
    assert np.allclose(edge[:, 9], p[:, 8] / 2, atol=1e-7)
    assert not grey(source, [[1, 0, 9], [0, 1, 0]], 3, 3).any()


def test_outside_is_zero_after_the_table_even_where_the_table_maps_zero_to_one():
    inverted = Source(np.zeros((4, 4), np.uint8), (1 - RAMP,))
    picture = grey(inverted, [[1, 0, -2], [0, 1, 0]], 4, 8)
    assert picture[:, :2].max() == 0
    assert np.allclose(picture[:, 2:6], 1)


def test_origin_and_matrix_translation_add_up(source):
    split = grey(source, [[0.5, 0, 0.25], [0, 0.5, -0.5]], 8, 8, origin=(3, 2))
    whole = grey(source, [[0.5, 0, 3.25], [0, 0.5, 1.5]], 8, 8)
    assert np.allclose(split, whole, atol=1e-12)


def test_antialias_is_the_mean_of_samples_about_the_pixel_centre(source):
    fine = grey(source, [[0.5, 0, -0.25], [0, 0.5, -0.25]], 14, 18)
    averaged = grey(source, [[1, 0, 0], [0, 1, 0]], 7, 9, antialias=2)
    assert np.allclose(averaged, fine.reshape(7, 2, 9, 2).mean((1, 3)), atol=1e-7)


def test_index_is_relative_to_the_smallest_stored_value_and_clamped():
    table = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    source = Source(np.array([[-2, -1, 1, 5, -9]], np.int16), (table,), stored_min=-2)
    assert np.allclose(grey(source, [[1, 0, 0], [0, 1, 0]], 1, 5)[0], [0.1, 0.2, 0.4, 0.4, 0.1], atol=1e-7)


def test_normalisation_per_channel_and_choice_of_table(source):
    two = Source(source.pixels, (RAMP, 1 - RAMP))
    spec = WarpSpec(7, 9, 1, (0.5, 0.25), (2.0, 0.5), table=1)
    out = warp([two], roi([[1, 0, 0], [0, 1, 0]]), spec)[0]
    expected = 1 - source.pixels / 255
    assert np.allclose(out[0], (expected - 0.5) / 2, atol=1e-6)
    assert np.allclose(out[1], (expected - 0.25) / 0.5, atol=1e-6)


@pytest.mark.parametrize("number", [NO_SOURCE, 1, 99])
def test_no_such_source_is_grey_zero(source, number):
    spec = WarpSpec(3, 3, 2, (0.25,), (0.5,))
    assert np.allclose(warp([source], roi([[1, 0, 0], [0, 1, 0]], source=number), spec), -0.5)
    assert np.allclose(warp([None], roi([[1, 0, 0], [0, 1, 0]]), spec), -0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_coordinates_that_are_no_numbers_are_grey_zero(source, bad):
    for place in np.ndindex(2, 3):
        matrix = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
        matrix[place] = bad
        out = grey(source, matrix, 4, 4, antialias=2)
        assert np.isfinite(out).all()
        assert not out[1:, 1:].any()


def test_a_zero_matrix_reads_one_pixel(source):
    assert np.allclose(grey(source, np.zeros((2, 3)), 2, 2, origin=(4, 3)), source.pixels[3, 4] / 255, atol=1e-7)
