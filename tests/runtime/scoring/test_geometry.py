"""Whole-image matrices, rotation and facing under mirroring, and which points can be a spine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinescore.runtime.phantom.shape import sample_spine
from spinescore.runtime.scoring.geometry import (
    crop_outline,
    facing_of,
    implausible,
    rotation_deg,
    to_source,
    whole_image,
)
from spinescore.runtime.study import REGIONS

SIZES = st.integers(16, 4096)
SIZE = (256, 192)


@given(rows=SIZES, columns=SIZES)
def test_stretch_is_cv2_resize(rows, columns):
    roi = whole_image(1, rows, columns, SIZE, "stretch", "left")
    x_in, y_in = np.array([0, 50, 191]), np.array([0, 99, 255])
    expected = np.stack([(x_in + 0.5) * columns / 192 - 0.5, (y_in + 0.5) * rows / 256 - 0.5], 1)
    assert roi["source"] == 1
    assert np.allclose(to_source(roi, np.stack([x_in, y_in], 1)), expected, atol=2e-3)


@given(rows=SIZES, columns=SIZES)
def test_letterbox_keeps_the_aspect_shows_everything_and_centres(rows, columns):
    roi = whole_image(0, rows, columns, SIZE, "letterbox", "left")
    first, last = to_source(roi, np.array([[-0.5, -0.5], [191.5, 255.5]]))
    assert roi["matrix"][0, 0] == roi["matrix"][1, 1]
    assert np.allclose(first + last, [columns - 1, rows - 1], atol=5e-3)
    assert (first <= -0.49).all()
    assert (last >= np.array([columns, rows]) - 0.51).all()
    assert np.isclose(last - first, [columns, rows], atol=5e-3).any()


@given(
    rows=SIZES, columns=SIZES, x=st.floats(0, 191), y=st.floats(0, 255), fit=st.sampled_from(["stretch", "letterbox"])
)
def test_a_right_facing_radiograph_is_seen_mirrored(rows, columns, x, y, fit):
    left = to_source(whole_image(0, rows, columns, SIZE, fit, "left"), np.array([x, y]))
    right = to_source(whole_image(0, rows, columns, SIZE, fit, "right"), np.array([x, y]))
    assert np.allclose(right, [columns - 1 - left[0], left[1]], atol=5e-3)


@given(angle=st.floats(-179, 179), distance=st.floats(1, 500))
def test_rotation_is_that_of_the_mirror_image_and_positive_where_the_front_lies_lower(angle, distance):
    centre = np.array([1000.0, 800.0])
    reach = distance * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    right = rotation_deg(centre, centre + reach, "right")
    left = rotation_deg(centre, centre + reach * [-1, 1], "left")
    assert right == pytest.approx(angle, abs=1e-6)
    assert left == pytest.approx(right, abs=1e-9)


def test_outline_of_a_crop():
    outline = crop_outline(whole_image(0, 100, 100, (50, 50), "stretch", "left"), 50)
    assert np.allclose(outline, [[-0.5, -0.5], [99.5, -0.5], [99.5, 99.5], [-0.5, 99.5]])


CENTRE = np.stack([[400, 390, 385, 385, 390, 400], 100 + 90.0 * np.arange(6)], 1)
ANTERIOR = CENTRE + np.array([-40, 5])
ALL = np.ones(6, bool)


def changed(points, **rows):
    points = points.copy()
    for name, value in rows.items():
        points[int(name[1:])] = value
    return points


def test_a_spine_is_plausible_and_so_is_its_mirror_image():
    mirror = np.array([-1, 1])
    assert implausible(CENTRE, ANTERIOR, ALL, "left") is None
    assert implausible(CENTRE * mirror, ANTERIOR * mirror, ALL, "right") is None
    assert "faces right" in implausible(CENTRE, ANTERIOR, ALL, "right")
    assert facing_of(CENTRE, ANTERIOR) == "left"
    assert facing_of(CENTRE * mirror, ANTERIOR * mirror) == "right"


@pytest.mark.parametrize(
    ("centre", "anterior", "reason"),
    [
        (CENTRE[::-1], ANTERIOR[::-1], "leans"),
        (CENTRE[:, ::-1], ANTERIOR[:, ::-1], "leans"),
        (CENTRE[[0, 2, 1, 3, 4, 5]], ANTERIOR[[0, 2, 1, 3, 4, 5]], "order"),
        (CENTRE[[0, 1, 1, 3, 4, 5]], ANTERIOR[[0, 1, 1, 3, 4, 5]], "order"),
        (changed(CENTRE, d3=(385, 290)), changed(ANTERIOR, d3=(345, 295)), "distances"),
        (changed(CENTRE, d3=(270, 370)), changed(ANTERIOR, d3=(230, 375)), "bends"),
        (CENTRE, changed(ANTERIOR, d2=(430, 280)), "behind"),
        (CENTRE, changed(ANTERIOR, d2=(200, 285)), "does not fit"),
        (CENTRE, changed(ANTERIOR, d2=CENTRE[2] - [2, 0]), "does not fit"),
    ],
)
def test_what_cannot_be_a_spine_is_named(centre, anterior, reason):
    assert reason in implausible(centre, anterior, ALL, "left")


def test_only_known_discs_are_judged_and_gaps_are_counted():
    centre = changed(CENTRE, d2=(9999, -50))
    assert implausible(centre, ANTERIOR, ALL, "left")
    assert implausible(centre, ANTERIOR, ALL & (np.arange(6) != 2), "left") is None
    assert implausible(centre, ANTERIOR, np.zeros(6, bool), "left") is None


@pytest.mark.parametrize("region", REGIONS)
def test_spines_as_real_ones_vary_are_plausible(region):
    rng = np.random.default_rng(0)
    for _ in range(300):
        spine = sample_spine(rng, region)
        centre = np.array([spine.disc_centre(disc) for disc in range(6)])
        anterior = np.array([spine.disc_anterior(disc) for disc in range(6)])
        assert implausible(centre, anterior, ALL, "left") is None


@given(
    turn=st.floats(-0.5, 0.5),
    scale=st.floats(0.1, 10),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    noise=st.lists(st.floats(-0.08, 0.08), min_size=12, max_size=12),
)
def test_plausible_under_rotation_scale_shift_and_small_errors(turn, scale, shift, noise):
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    centre = (CENTRE + 90 * np.reshape(noise, (6, 2))) @ rotation * scale + shift
    anterior = ANTERIOR @ rotation * scale + shift
    assert implausible(centre, anterior, ALL, "left") is None
