"""Radiographs in all eight orientations of the square: points, grades and facing are right for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.scoring import OTHER_GRADES, assert_found, checked
from helpers.tiny import draw, write_bundle
from spinescore.kernels.decode import in_source
from spinescore.runtime import Scorer
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.outputs.marks import disc_marks
from spinescore.runtime.reading.orientation import (
    ORIENTATIONS,
    TURNS,
    from_cosines,
    from_letters,
    principal,
    to_upright,
)
from spinescore.runtime.scoring.bundleinfo import bundle_info
from spinescore.runtime.scoring.selection import Chosen, Selection

EVERY = list(ORIENTATIONS)


def turned(drawn, turn, **tags):
    """Return the picture that a clockwise turn by so many degrees brings upright, and its points."""
    pixels, points = drawn.radiograph.pixels, np.array(drawn.points, np.float64)
    for _ in range(turn // 90):
        points = np.stack([points[..., 1], pixels.shape[1] - 1 - points[..., 0]], -1)
        pixels = np.rot90(pixels)
    tags = {"turn_deg": turn, "source": f"turned-{turn}.dcm", **tags}
    return replace(
        drawn, radiograph=replace(drawn.radiograph, pixels=np.ascontiguousarray(pixels), **tags), points=points
    )


def opened(tmp_path_factory, passes):
    folder = write_bundle(tmp_path_factory.mktemp("turns") / "b", **{"localizer.passes": passes})
    return Scorer(Bundle.open(folder), HostDevice(1))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with opened(tmp_path_factory, 2) as found:
        yield found


@pytest.fixture(scope="module", params=[1, 2])
def by_passes(request, tmp_path_factory):
    with opened(tmp_path_factory, request.param) as found:
        yield found


def scored(scorer, *drawn, **options):
    return checked(scorer.score([one.radiograph for one in drawn], **options))


@pytest.mark.parametrize(("turn_deg", "facing"), EVERY)
def test_a_stored_orientation_changes_no_grade(by_passes, turn_deg, facing):
    scorer = by_passes
    drawn = [
        turned(draw("cervical", facing=facing), turn_deg),
        turned(draw("lumbar", OTHER_GRADES, facing=facing), turn_deg),
    ]
    report = scored(scorer, *drawn)
    upright = scored(scorer, draw("cervical", facing=facing), draw("lumbar", OTHER_GRADES, facing=facing))
    for region, one in zip(report.regions, drawn, strict=True):
        found = report.regions[region]
        assert_found(found, one)
        assert (found.radiograph.facing, found.radiograph.turn_deg) == (facing, turn_deg)
        for disc, same in zip(found.discs, upright.regions[region].discs, strict=True):
            assert disc.rotation_deg == pytest.approx(same.rotation_deg, abs=0.2)
    assert not {"not-upright", "orientation-contradicts"} & {found.code for found in report.findings}


@pytest.mark.parametrize(("turn_deg", "facing"), EVERY)
def test_a_silent_header_is_no_obstacle(scorer, turn_deg, facing):
    drawn = turned(draw("lumbar", OTHER_GRADES, facing=facing), turn_deg, turn_deg=None, facing=None)
    report = scored(scorer, drawn)
    assert_found(report.regions["lumbar"], drawn)
    assert (report.regions["lumbar"].radiograph.turn_deg, report.regions["lumbar"].radiograph.facing) == (
        turn_deg,
        facing,
    )
    assert [found.code for found in report.findings if found.code == "not-upright"] == ["not-upright"] * bool(turn_deg)


@pytest.mark.parametrize("turn_deg", [0, 90, 180, 270])
def test_a_facing_that_a_user_states_does_not_make_a_film_upright(scorer, turn_deg):
    """Leaving out the header, as `anonymous` does, changes nothing either."""
    tags = {"turn_deg": None, "facing": "left", "facing_from": "user"}
    drawn = turned(draw("lumbar", OTHER_GRADES, facing="left"), turn_deg, **tags)
    assert drawn.radiograph.header is None
    report = scored(scorer, drawn)
    assert_found(report.regions["lumbar"], drawn)
    assert report.regions["lumbar"].radiograph.turn_deg == turn_deg


@pytest.mark.parametrize(
    ("true", "stated"),
    [
        ((0, "left"), (None, "right")),
        ((0, "left"), (0, "right")),
        ((0, "left"), (180, "right")),
        ((180, "left"), (0, "left")),
        ((180, "left"), (0, "right")),
        ((90, "right"), (None, "right")),
        ((270, "left"), (90, "right")),
    ],
)
def test_a_header_that_is_wrong_is_named_and_the_picture_followed(scorer, true, stated):
    tags = {"turn_deg": stated[0], "facing": stated[1]}
    drawn = turned(draw("cervical", facing=true[1]), true[0], **tags)
    other = draw("lumbar", OTHER_GRADES)
    report = scored(scorer, drawn, other)
    assert_found(report.regions["cervical"], drawn)
    assert_found(report.regions["lumbar"], other)
    seen = report.regions["cervical"].radiograph
    assert (seen.turn_deg, seen.facing) == true
    expected = "not-upright" if stated[0] is None and true[0] else "orientation-contradicts"
    codes = {"not-upright", "orientation-contradicts"}
    assert [(found.code, found.region) for found in report.findings if found.code in codes] == [(expected, "cervical")]
    strict = scored(scorer, drawn, other, strict=True)
    assert strict.regions["cervical"].reject.code == expected


@pytest.mark.parametrize(
    ("first", "last", "codes"),
    [
        ((90, "left"), (270, "left"), ["not-upright"]),
        ((90, "left"), (0, "left"), []),
        ((90, "left"), (0, "right"), ["orientation-contradicts"]),
        ((0, "right"), (0, "right"), []),
        ((0, "right"), (0, "left"), []),
        ((0, "left"), (0, "right"), ["orientation-contradicts"]),
    ],
)
def test_only_the_orientation_that_was_scored_is_named(first, last, codes):
    """The selection may turn a picture on its side the wrong way, which is seen when its discs are."""
    image = replace(draw("cervical", facing="left").radiograph, turn_deg=None, facing="left")
    selection = Selection({"cervical": Chosen(image, first[1], first[0])})
    selection.follow({"cervical": Chosen(image, last[1], last[0])})
    assert [one.code for one in selection.findings] == codes
    assert all(one.values["turn_deg"] == last[0] for one in selection.findings)


@pytest.mark.parametrize(("turn_deg", "facing"), EVERY)
def test_a_readers_points_are_in_the_stored_picture(scorer, turn_deg, facing):
    drawn = turned(draw("cervical", facing=facing), turn_deg, facing=None)
    levels = ("C2/C3", "C3/C4", "C4/C5", "C5/C6", "C6/C7", "C7/T1")
    given = {level: pair.tolist() for level, pair in zip(levels, drawn.points, strict=True)}
    report = scored(scorer, drawn, keypoints={"cervical": given})
    region = report.regions["cervical"]
    assert_found(region, drawn)
    assert region.radiograph.facing == facing
    assert {disc.points for disc in region.discs} == {"given"}


@pytest.mark.parametrize(("turn_deg", "facing"), EVERY)
def test_marks_turn_with_the_picture(scorer, turn_deg, facing):
    drawn = turned(draw("cervical", facing=facing), turn_deg)
    marks = disc_marks(scored(scorer, drawn).regions["cervical"], bundle_info(scorer.bundle).rules)
    forward = 1 if facing == "right" else -1
    for mark in marks:
        behind, above, below = (
            to_upright(place - mark.centre, turn_deg)
            for place in (mark.label, *(badge.centre for badge in mark.badges))
        )
        assert behind[0] * forward < 0
        assert above[1] < below[1]
        assert above[0] * forward > 0


def test_directions_turn_there_and_back():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, -2.0]])
    for turn_deg in TURNS:
        assert np.array_equal(to_upright(in_source(vectors, turn_deg // 90), turn_deg), vectors)


@pytest.mark.parametrize(("orientation", "letters"), ORIENTATIONS.items())
def test_letters_name_an_orientation(orientation, letters):
    assert from_letters(*letters) == orientation


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        ("A", None, (None, "right")),
        ("P", None, (None, "left")),
        ("F", None, (90, None)),
        ("H", None, (270, None)),
        (None, "H", (180, None)),
        (None, "F", (0, None)),
        (None, "A", (None, None)),
        ("L", "F", (None, None)),
        ("A", "P", (None, None)),
        (None, None, (None, None)),
    ],
)
def test_what_letters_leave_open_stays_open(row, column, expected):
    assert from_letters(row, column) == expected


@pytest.mark.parametrize(
    ("direction", "letter"),
    [
        ("A", "A"),
        ("a", "A"),
        ("AF", "A"),
        (" fp ", "F"),
        ("HPL", "H"),
        ("AP", None),
        ("X", None),
        ("AFPL", None),
        ("", None),
    ],
)
def test_the_first_letter_counts_most(direction, letter):
    assert principal(direction) == letter


def test_cosines_name_the_nearest_axes():
    assert from_cosines([0, 1, 0, 0, 0, -1]) == ("P", "F")
    assert from_cosines([0.1, -0.9, 0.2, 0, 0.1, 0.95]) == ("A", "H")
    assert from_cosines([1, 0, 0, 0, 1, 0]) == ("L", "P")
