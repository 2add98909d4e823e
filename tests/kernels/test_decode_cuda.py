"""decode.cu, compiled for the host, against its float64 reference: the same points and regions but for rounding."""

import host_run
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinescore.kernels.decode import DISCS, POINT, VIEW, BoxSpec, CropSpec, DecodeSpec, boxes, crops, decode
from spinescore.kernels.launch import crops_launch, decode_launch
from spinescore.kernels.warp import FAR, NO_SOURCE, ROI

CHANNELS = tuple(
    tuple((2 * disc + 12 * region, 2 * disc + 1 + 12 * region) for disc in range(6)) for region in range(2)
)
METHODS = ("argmax", "quarter", "dark")
LEAST_PX = 1e-4  # the bound of a point, and of a region's corner, at coordinates up to 4096: less than their last place


def close(found, expected, least=LEAST_PX):
    """Equal but for the rounding of float32."""
    return np.allclose(found, expected, rtol=2.0**-22, atol=least)


def roi_close(found, expected, size):
    """The same source, and corners of the output that show the same places."""
    corners = np.array([[x, y, 1] for x in (0, size[1] - 1) for y in (0, size[0] - 1)], np.float64)

    def shown(rois):
        matrices = rois["matrix"].astype(np.float64)
        return corners @ np.swapaxes(matrices, -1, -2) + rois["origin"][..., None, :]

    return np.array_equal(found["source"], expected["source"]) and close(shown(found), shown(expected), 1e-3)


def heatmap(kind, rng, shape):
    """One heatmap of the sorts that a network, or a broken one, may give."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    place = rng.uniform(-2, [width + 2, height + 2])
    blob = rng.uniform(0.05, 1) * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * rng.uniform(0.7, 3) ** 2))
    return {
        "blob": blob,
        "noisy": blob + rng.normal(0, 0.02, shape),
        "two": np.maximum(blob, blob[::-1, ::-1]),
        "noise": rng.random(shape),
        "steps": rng.integers(-2, 3, shape) / 4,  # ties everywhere
        "flat": np.full(shape, 0.5),
        "nothing": np.zeros(shape),
        "below": -rng.random(shape),
        "broken": np.where(rng.random(shape) < 0.3, rng.choice([np.nan, np.inf, -np.inf], shape), blob),
        "nan": np.full(shape, np.nan),
    }[kind]


KINDS = ("blob", "noisy", "two", "noise", "steps", "flat", "nothing", "below", "broken", "nan")


def random_views(rng, count, given=0.2):
    views = np.zeros(count, VIEW)
    views["source"], views["region"] = np.arange(count), rng.integers(0, 2, count)
    views["faces_right"] = rng.integers(0, 2, count)
    views["given"] = rng.random((count, DISCS)) < given
    views["given_xy"] = rng.uniform(0, 4096, (count, DISCS, 2, 2))
    return views


def random_rois(rng, count):
    rois = np.zeros(count, ROI)
    rois["source"] = np.arange(count)
    rois["origin"] = rng.integers(0, 2000, (count, 2))
    rois["matrix"][..., :2] = rng.uniform(-3, 3, (count, 2, 2))
    rois["matrix"][..., 2] = rng.uniform(-500, 500, (count, 2))
    return rois


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
    rng = np.random.default_rng(seed)
    maps = np.stack([heatmap(kinds[number % len(kinds)], rng, shape) for number in range(48)])
    maps = maps.reshape(2, 24, *shape).astype(np.float16 if half else np.float32)
    rois, views, spec = random_rois(rng, 2), random_views(rng, 2), DecodeSpec(method, align, 4, CHANNELS)
    found, expected = host_run.decode(kernels, maps, rois, views, spec), decode(maps, rois, views, spec)
    assert np.array_equal(found["confidence"], expected["confidence"])
    assert close(found["xy"], expected["xy"])


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
    """No source, matrices that are no numbers or reach too far, and given points that are none."""
    rng = np.random.default_rng(1)
    maps = np.stack([heatmap("blob", rng, (64, 48)) for _ in range(7 * 24)]).reshape(7, 24, 64, 48).astype(np.float32)
    maps[:, :, 30, 20] = 1
    rois, views = random_rois(rng, 7), random_views(rng, 7, given=0)
    rois["source"][0] = NO_SOURCE
    for number, bad in enumerate([np.nan, np.inf, 3e38, FAR], start=1):
        rois["matrix"][number, number % 2, 2] = bad
    views["given"][5] = 1
    views["given_xy"][5].reshape(-1)[::5] = [np.nan, np.inf, -np.inf, FAR, 2 * FAR]
    spec = DecodeSpec("dark", "stride", 4, CHANNELS)
    found, expected = host_run.decode(kernels, maps, rois, views, spec), decode(maps, rois, views, spec)
    assert np.array_equal(found["confidence"], expected["confidence"])
    assert close(found["xy"], expected["xy"])
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


def random_points(rng, count, lost):
    """Spines with some points lost and some discs whose points coincide."""
    points = np.zeros((count, DISCS, 2), POINT)
    steps = np.cumsum(rng.uniform(20, 400, (count, DISCS)), axis=1)
    centre = np.stack([rng.uniform(100, 3000) + rng.normal(0, 60, steps.shape), steps], axis=-1)
    away = rng.normal(0, 120, centre.shape) * (rng.random((count, DISCS, 1)) > 0.05)
    points["xy"] = np.stack([centre, centre + away], axis=2)
    points["confidence"] = np.where(rng.random((count, DISCS, 2)) < lost, 0, rng.uniform(0.01, 1, (count, DISCS, 2)))
    points["xy"][points["confidence"] == 0] = 0
    return points


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
