"""The decoding reference: known peaks, ties and degenerate heatmaps, boxes and crops."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinescore.kernels.decode import DISCS, POINT, VIEW, BoxSpec, CropSpec, DecodeSpec, boxes, crops, decode, peaks
from spinescore.kernels.warp import NO_SOURCE, ROI

METHODS = ("argmax", "quarter", "dark")
CHANNELS = tuple(
    tuple((2 * disc + 12 * region, 2 * disc + 1 + 12 * region) for disc in range(6)) for region in range(2)
)


def blob(x, y, height=64, width=48, sigma=2.0, peak=0.9):
    rows, columns = np.mgrid[:height, :width]
    return peak * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


@given(x=st.floats(12, 35), y=st.floats(12, 51), dtype=st.sampled_from([np.float32, np.float16]))
def test_dark_finds_a_gaussian_between_pixels(x, y, dtype):
    xy, value = peaks(blob(x, y).astype(dtype), "dark")
    assert np.abs(xy - [x, y]).max() < 0.02
    assert value == pytest.approx(blob(x, y).max(), abs=1e-3)


@given(x=st.floats(3, 44), y=st.floats(3, 60))
def test_quarter_is_within_three_eighths_of_a_pixel(x, y):
    xy, _ = peaks(blob(x, y), "quarter")
    whole, _ = peaks(blob(x, y), "argmax")
    assert np.abs(xy - [x, y]).max() <= 0.25 + 1e-6
    assert set(np.abs(xy - whole)) <= {0.0, 0.25}


def test_quarter_leaves_equal_neighbours_and_the_rim_alone():
    flat = np.zeros((9, 9))
    flat[4, 4] = 1
    assert peaks(flat, "quarter")[0].tolist() == [4, 4]
    for x, y, moved in ((1, 4, False), (2, 4, True), (7, 4, True), (8, 4, False)):
        heatmap = np.zeros((9, 9))
        heatmap[y, x] = 1
        heatmap[y, x - 1] = 0.5
        assert (peaks(heatmap, "quarter")[0][0] != x) == moved


@pytest.mark.parametrize("method", METHODS)
def test_ties_go_to_the_lowest_index(method):
    heatmap = np.zeros((8, 8))
    heatmap[1, 6] = heatmap[5, 1] = heatmap[1, 7] = 0.5
    xy, value = peaks(heatmap, method)
    assert xy.tolist() == [6, 1]
    assert value == 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fill", [0.0, -1.0, np.nan, -np.inf, np.inf])
def test_nothing_above_zero_is_no_point(method, fill):
    xy, value = peaks(np.full((2, 8, 8), fill, np.float32), method)
    assert not xy.any()
    assert not value.any()


@pytest.mark.parametrize("method", METHODS)
def test_nan_and_infinity_never_win(method):
    heatmap = blob(20, 30)
    heatmap[2, 2], heatmap[3, 3], heatmap[30, 21] = np.nan, np.inf, np.nan
    xy, value = peaks(heatmap, method)
    assert np.abs(xy - [20, 30]).max() <= 2
    assert np.isfinite(value)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_beside_a_peak_is_a_0(method, bad):
    zero = blob(20.3, 30.2)
    zero[28, 22], zero[30, 21] = 0, 0
    assert np.array_equal(peaks(np.where(zero == 0, bad, zero), method)[0], peaks(zero, method)[0])


@pytest.mark.parametrize("method", METHODS)
def test_each_heatmap_is_read_as_if_it_were_alone(method):
    places = np.random.default_rng(5).uniform(-1, 20, (40, 2))  # on the rim, too
    heatmaps = np.array([blob(x, y, 20, 20) for x, y in places], np.float32)
    heatmaps[7], heatmaps[8, 3, 3] = 0, np.nan
    xy, value = peaks(heatmaps.reshape(5, 8, 20, 20), method)
    alone = [peaks(heatmap, method) for heatmap in heatmaps]
    assert np.array_equal(xy.reshape(-1, 2), [point for point, _ in alone])
    assert np.array_equal(value.ravel(), [peak for _, peak in alone])


def test_dark_does_not_move_where_the_peak_is_no_maximum_of_the_blurred_map():
    heatmap = np.full((20, 20), 0.5)
    heatmap[10, 10] = 0.5 + 1e-9
    heatmap[4:8, 8:13] = 0.49
    xy, _ = peaks(heatmap, "dark")
    assert np.abs(xy - [10, 10]).max() <= 2


@given(seed=st.integers(0, 2**32 - 1), blur=st.sampled_from([3, 7, 15]))
def test_dark_is_the_published_formula(seed, blur):
    heatmap = cv2.GaussianBlur(np.random.default_rng(seed).random((40, 30)), (blur, blur), 0)
    h = np.log(np.maximum(cv2.GaussianBlur(heatmap, (11, 11), 0, borderType=cv2.BORDER_CONSTANT), 1e-10))
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    shift = np.zeros(2)
    if 1 < x < 28 and 1 < y < 38:
        gradient = 0.5 * np.array([h[y, x + 1] - h[y, x - 1], h[y + 1, x] - h[y - 1, x]])
        dxx = 0.25 * (h[y, x + 2] - 2 * h[y, x] + h[y, x - 2])
        dyy = 0.25 * (h[y + 2, x] - 2 * h[y, x] + h[y - 2, x])
        dxy = 0.25 * (h[y + 1, x + 1] - h[y - 1, x + 1] - h[y + 1, x - 1] + h[y - 1, x - 1])
        hessian = np.array([[dxx, dxy], [dxy, dyy]])
        if (np.linalg.eigvalsh(hessian) < 0).all():
            shift = np.clip(-np.linalg.inv(hessian) @ gradient, -2, 2)
    xy, value = peaks(heatmap, "dark")
    assert np.allclose(xy, np.array([x, y]) + shift, atol=1e-6)
    assert value == heatmap.max()


def views(count=1, **values):
    found = np.zeros(count, VIEW)
    for name, value in values.items():
        found[name] = value
    return found


def identity(count=1):
    rois = np.zeros(count, ROI)
    rois["matrix"][:] = [[1, 0, 0], [0, 1, 0]]
    return rois


def maps(positions, count=24):
    heatmaps = np.zeros((1, count, 64, 48))
    for channel, (x, y) in positions.items():
        heatmaps[0, channel] = blob(x, y)
    return heatmaps


@pytest.mark.parametrize(("align", "x", "y"), [("stride", 40, 80), ("centre", 41.5, 81.5)])
def test_heatmap_to_source_by_alignment_matrix_and_origin(align, x, y):
    rois = identity()
    rois["matrix"][:] = [[-2, 0, 5], [0, 3, 7]]
    rois["origin"] = (100, 200)
    points = decode(maps({13: (10, 20)}), rois, views(region=1), DecodeSpec("argmax", align, 4, CHANNELS))
    assert np.allclose(points["xy"][0, 0, 1], [100 + 5 - 2 * x, 200 + 7 + 3 * y])
    assert points["confidence"][0, 0, 1] == pytest.approx(0.9)
    assert np.count_nonzero(points["confidence"]) == 1


def test_the_region_chooses_the_channels():
    heatmaps = np.concatenate([maps({0: (5, 6)}), maps({12: (7, 8)})])
    points = decode(heatmaps, identity(2), views(2, region=[0, 1]), DecodeSpec("argmax", "stride", 4, CHANNELS))
    assert points["xy"][:, 0, 0].tolist() == [[20, 24], [28, 32]]


def test_given_points_replace_the_decoded_ones():
    given_views = views(region=0)
    given_views["given"][0, 2] = 1
    given_views["given_xy"][0, 2] = [[11, 12], [13, 14]]
    points = decode(maps({4: (5, 6)}), identity(), given_views, DecodeSpec("argmax", "stride", 4, CHANNELS))
    assert points["xy"][0, 2].tolist() == [[11, 12], [13, 14]]
    assert points["confidence"][0, 2].tolist() == [1, 1]


def test_a_view_without_source_or_with_a_broken_matrix_has_no_points():
    for rois in (identity(), identity()):
        rois["source"] = NO_SOURCE
        assert not decode(maps({0: (5, 6)}), rois, views(), DecodeSpec("dark", "stride", 4, CHANNELS))[
            "confidence"
        ].any()
    broken = identity()
    broken["matrix"][0, 0, 0] = np.nan
    points = decode(maps({0: (5, 6)}), broken, views(), DecodeSpec("dark", "stride", 4, CHANNELS))
    assert not points["confidence"].any()
    assert not points["xy"].any()


def spine(scale=100.0, faces_right=False):
    centre = np.stack([np.array([0, 10, 15, 15, 10, 0]) + 300.0, 150 + scale * np.arange(6)], 1)
    angle = np.radians([-30, -10, 0, 10, 30, 50])
    anterior = centre + 0.5 * scale * np.stack([-np.cos(angle), np.sin(angle)], 1)
    points = np.zeros((1, DISCS, 2), POINT)
    points["xy"][0, :, 0], points["xy"][0, :, 1] = centre, anterior
    if faces_right:
        points["xy"][..., 0] = 599 - points["xy"][..., 0]
    points["confidence"] = 0.9
    return points


def apply(roi, x, y):
    return roi["matrix"].astype(np.float64) @ [x, y, 1] + roi["origin"]


@pytest.mark.parametrize("faces_right", [False, True])
def test_box_holds_the_points_padded_and_keeps_the_aspect(faces_right):
    points = spine(faces_right=faces_right)
    roi = boxes(points, views(source=1, faces_right=faces_right), BoxSpec(256, 192, 1.25))[0]
    xy = points["xy"].reshape(-1, 2)
    low, high = xy.min(0), xy.max(0)
    assert roi["source"] == 1
    assert np.allclose(apply(roi, 95.5, 127.5), (low + high) / 2, atol=1e-3)
    scale = roi["matrix"][1, 1]
    assert roi["matrix"][0, 0] == (-scale if faces_right else scale)
    assert scale * 256 == pytest.approx(1.25 * (high - low)[1], rel=1e-5)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("faces_right", [False, True])
def test_box_of_a_turned_source_shows_what_that_of_an_upright_one_shows(turns, faces_right):
    points, spec = spine(faces_right=faces_right), BoxSpec(256, 192, 1.25)
    upright = boxes(points, views(faces_right=faces_right), spec)[0]
    stored = points.copy()
    for number in range(turns):  # the picture has 600 columns and 800 rows, then 800 columns, ..
        x, y = stored["xy"][..., 0].copy(), stored["xy"][..., 1].copy()
        stored["xy"][..., 0], stored["xy"][..., 1] = y, (600 if number % 2 == 0 else 800) - 1 - x
    found = boxes(stored, views(faces_right=faces_right, turns=turns), spec)[0]
    for corner in ((0, 0), (191, 0), (0, 255), (95.5, 127.5)):
        x, y = apply(upright, *corner)
        for number in range(turns):
            x, y = y, (600 if number % 2 == 0 else 800) - 1 - x
        assert np.allclose(apply(found, *corner), [x, y], atol=0.01)


@pytest.mark.parametrize("anterior", ["left", "right"])
@pytest.mark.parametrize("faces_right", [False, True])
@pytest.mark.parametrize("unit", ["anterior-distance", "disc-spacing"])
def test_crops_lie_level_with_the_anterior_end_on_its_side_and_upright(anterior, faces_right, unit):
    points = spine(faces_right=faces_right)
    spec = CropSpec(65, unit, 3.0, anterior, (True, False))
    rois = crops(points, views(faces_right=faces_right), spec)[0]
    centre, front = points["xy"][0, :, 0].astype(float), points["xy"][0, :, 1].astype(float)
    distance = np.linalg.norm(front - centre, axis=1)
    length = distance if unit == "anterior-distance" else np.linalg.norm(np.diff(centre, axis=0), axis=1).mean()
    shift = distance / (3.0 * length) * 65 * (1 if anterior == "right" else -1)
    for disc in range(DISCS):
        flipped, plain = rois[disc]
        assert np.allclose(apply(plain, 32, 32), centre[disc], atol=1e-3)
        assert np.allclose(apply(plain, 32 + np.broadcast_to(shift, 6)[disc], 32), front[disc], atol=1e-2)
        assert apply(plain, 32, 0)[1] < apply(plain, 32, 64)[1]  # the crop's top lies higher in the radiograph
        assert np.allclose(apply(flipped, 10, 5), apply(plain, 10, 59), atol=1e-3)


@given(
    centre=st.tuples(st.floats(0, 4000), st.floats(0, 4000)),
    angle=st.floats(-1.2, 1.2),
    distance=st.floats(5, 300),
    columns=st.integers(500, 4096),
)
def test_a_mirrored_radiograph_gives_the_mirrored_crop(centre, angle, distance, columns):
    points = np.zeros((1, DISCS, 2), POINT)
    points["confidence"] = 1
    points["xy"][0, :, 0] = centre
    points["xy"][0, :, 1] = np.array(centre) + distance * np.array([-np.cos(angle), np.sin(angle)])
    mirrored = points.copy()
    mirrored["xy"][..., 0] = columns - 1 - points["xy"][..., 0]
    spec = CropSpec(224, "anterior-distance", 3.2, "left")
    left = crops(points, views(), spec)[0, 0, 0]
    right = crops(mirrored, views(faces_right=1), spec)[0, 0, 0]
    for corner in ((0, 0), (223, 0), (0, 223), (111.5, 111.5)):
        x, y = apply(left, *corner)
        assert np.allclose(apply(right, *corner), [columns - 1 - x, y], atol=0.02)


def test_what_cannot_be_determined_is_a_zero_record():
    spec = CropSpec(64, "disc-spacing", 3.0, "left")
    lost = spine()
    lost["confidence"][0, 1, 0] = 0
    lost["xy"][0, 4, 1] = lost["xy"][0, 4, 0]
    rois = crops(lost, views(), spec)[0, :, 0]
    assert rois["source"].tolist() == [0, NO_SOURCE, 0, 0, NO_SOURCE, 0]
    assert not rois["matrix"][[1, 4]].any()
    lost["confidence"] = 0
    assert (crops(lost, views(), spec)["source"] == NO_SOURCE).all()
    assert boxes(lost, views(), BoxSpec(256, 192, 1.25))["source"] == NO_SOURCE
    same = spine()
    same["xy"][:] = 5
    assert boxes(same, views(), BoxSpec(256, 192, 1.25))["source"] == NO_SOURCE
