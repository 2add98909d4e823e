"""decode.cu, compiled for the host, against its float64 reference: the same points and regions but for rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import host_run
from spinescore.benchmarks.gpu.decodecases import (
    CHANNELS,
    KINDS,
    METHODS,
    close,
    decode_edge,
    heatmap,
    random_decode,
    random_points,
    random_regions,
    random_rois,
    random_views,
    roi_close,
)
from spinescore.kernels.decode import DISCS, POINT, VIEW, BoxSpec, CropSpec, DecodeSpec, boxes, crops, decode
from spinescore.kernels.launch import crops_launch, decode_launch
from spinescore.kernels.warp import NO_SOURCE, ROI


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    shape=st.sampled_from([(64, 48), (16, 12), (5, 5), (1, 1), (3, 40), (33, 17)]),
    method=st.sampled_from(METHODS),
    align=st.sampled_from(["stride", "centre"]),
    half=st.booleans(),
)
def test_random_heatmaps(kernels, seed, kinds, shape, method, align, half):
    assert_same_points(kernels, random_decode(np.random.default_rng(seed), kinds, shape, method, align, half))


def assert_same_points(kernels, case):
    found = host_run.decode(kernels, case.heatmaps, case.rois, case.views, case.spec)
    expected = decode(case.heatmaps, case.rois, case.views, case.spec)
    assert np.array_equal(found["confidence"], expected["confidence"])
    assert close(found["xy"], expected["xy"])
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("half", [False, True])
def test_ties_go_to_the_lowest_index_in_any_order_of_threads(kernels, method, half):
    rng = np.random.default_rng(0)
    maps = np.stack([heatmap("steps", rng, (64, 48)) for _ in range(24)])[None].astype(np.float16 if half else "f4")
    maps[0, :12] = np.where(maps[0, :12] == 0.5, 0.25, maps[0, :12])
    rois, views, spec = random_rois(rng, 1), np.zeros(1, VIEW), DecodeSpec(method, "stride", 4, CHANNELS)
    forward = host_run.decode(kernels, maps, rois, views, spec)
    kernels.reverse_threads(True)
    try:
        backward = host_run.decode(kernels, maps, rois, views, spec)
    finally:
        kernels.reverse_threads(False)
    assert forward.tobytes() == backward.tobytes()
    assert close(forward["xy"], decode(maps, rois, views, spec)["xy"])


def test_lost_views_and_points(kernels):
    found = assert_same_points(kernels, decode_edge(np.random.default_rng(1)))
    assert not found["confidence"][:5].any()
    assert 0 < np.count_nonzero(found["confidence"][5]) < 12
    assert found["confidence"][6].all()


@pytest.mark.parametrize("region", [-1, 2, 2**31 - 1])
def test_a_region_that_does_not_exist_has_no_points(kernels, region):
    views = np.zeros(1, VIEW)
    views["region"] = region
    spec = DecodeSpec("argmax", "stride", 4, CHANNELS)
    points = host_run.decode(kernels, np.ones((1, 24, 8, 8), np.float32), np.zeros(1, ROI), views, spec)
    assert not points["confidence"].any()


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([1, 2, 7]),
    lost=st.sampled_from([0.0, 0.1, 0.6, 0.95, 1.0]),
    unit=st.sampled_from(["anterior-distance", "disc-spacing"]),
    anterior=st.sampled_from(["left", "right"]),
    flips=st.lists(st.booleans(), min_size=1, max_size=3),
    size=st.sampled_from([1, 65, 224, 300]),
)
def test_random_points(kernels, seed, count, lost, unit, anterior, flips, size):
    rng = np.random.default_rng(seed)
    points, views = random_points(rng, count, lost), random_views(rng, count)
    crop = CropSpec(size, unit, 3.2, anterior, tuple(flips))
    found, expected = host_run.crops(kernels, points, views, crop), crops(points, views, crop)
    assert roi_close(found, expected, (size, size))
    box = BoxSpec(256, 192, 1.25)
    assert roi_close(host_run.boxes(kernels, points, views, box), boxes(points, views, box), (256, 192))


def test_the_cases_that_a_gpu_is_given(kernels):
    """Without hypothesis, as `python -m spinescore.benchmarks.gpu` draws them."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        assert_same_points(kernels, random_decode(rng, half=bool(seed % 2)))
        case = random_regions(rng)
        size = (case.crop.size, case.crop.size)
        found = host_run.crops(kernels, case.points, case.views, case.crop)
        assert roi_close(found, crops(case.points, case.views, case.crop), size)
        found = host_run.boxes(kernels, case.points, case.views, case.box)
        assert roi_close(found, boxes(case.points, case.views, case.box), (case.box.height, case.box.width))


def test_what_cannot_be_determined_is_a_zero_record(kernels):
    points, views = np.zeros((1, DISCS, 2), POINT), np.zeros(1, VIEW)
    none = np.zeros(1, ROI)
    none["source"] = NO_SOURCE
    crop = CropSpec(64, "disc-spacing", 3.0, "left", (True, False))
    for confidence, xy in ((0, 0), (1, 5)):  # nothing found; everything at one place
        points["confidence"], points["xy"] = confidence, xy
        assert host_run.boxes(kernels, points, views, BoxSpec(256, 192, 1.25)).tobytes() == none.tobytes()
        assert (host_run.crops(kernels, points, views, crop) == none[0]).all()
    points["confidence"][0, 2, 0] = 1
    assert host_run.boxes(kernels, points, views, BoxSpec(256, 192, 1.25)).tobytes() == none.tobytes()


def test_what_the_kernel_cannot_do_is_refused():
    with pytest.raises(ValueError, match="do not fit 12 heatmaps"):
        decode_launch(0, (12, 64, 48), True, 0, 0, 2, DecodeSpec("dark", "stride", 4, CHANNELS), 0)
    with pytest.raises(ValueError, match="9 crops"):
        crops_launch(0, 0, 2, CropSpec(224, "disc-spacing", 3.0, "left", (True,) * 9), 0)
