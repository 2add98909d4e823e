"""Places of marks: in front of and behind the spine, mirrored with it, and never outside the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers import tiny
from spinescore.runtime import Scorer, Study
from spinescore.runtime.outputs.marks import disc_marks, disc_spacing
from spinescore.runtime.scoring.bundleinfo import bundle_info


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle")), device="cpu") as opened:
        yield opened


def region_of(scorer, **options):
    return scorer.score(Study((tiny.draw("lumbar", **options).radiograph,))).regions["lumbar"]


def marks_of(scorer, region):
    return disc_marks(region, bundle_info(scorer.bundle).rules)


@pytest.mark.parametrize(("facing", "front"), [("left", -1), ("right", 1)])
def test_badges_stand_in_front_and_names_behind_at_the_disc_s_height(scorer, facing, front):
    region = region_of(scorer, facing=facing)
    spacing = disc_spacing(region.discs)
    for marks in marks_of(scorer, region):
        upper, lower = marks.badges
        assert [badge.corner for badge in marks.badges] == list(marks.disc.corners)
        assert upper.centre[1] < lower.centre[1]
        assert np.linalg.norm(upper.centre - lower.centre) == pytest.approx(0.5 * spacing)
        assert all((badge.centre[0] - marks.anterior[0]) * front > 0 for badge in marks.badges)
        assert marks.label == pytest.approx(marks.centre - [1.1 * front * spacing, 0])


def test_marks_of_a_mirrored_radiograph_are_mirrored(scorer):
    left, right = (region_of(scorer, facing=facing) for facing in ("left", "right"))
    for one, other in zip(marks_of(scorer, left), marks_of(scorer, right), strict=True):
        mirrored = [left.radiograph.columns - 1 - other.label[0], other.label[1]]
        assert one.label == pytest.approx(mirrored, abs=1)


def test_no_mark_is_outside_the_picture(scorer):
    region = region_of(scorer)
    spacing, columns = disc_spacing(region.discs), region.discs[0].centre_px[0] + 1
    narrow = replace(region, radiograph=replace(region.radiograph, columns=round(columns)))
    for marks in marks_of(scorer, narrow):
        assert marks.label[0] <= columns - 0.34 * spacing
    moved = [
        replace(disc, centre_px=(80.0, disc.centre_px[1]), anterior_px=(5.0, disc.anterior_px[1]))
        for disc in region.discs
    ]
    for marks in marks_of(scorer, replace(region, discs=tuple(moved))):
        assert all(badge.centre[0] >= 0.19 * spacing for badge in marks.badges)


def test_discs_without_points_have_no_marks(scorer):
    region = region_of(scorer)
    lost = replace(region.discs[0], confidence=0.0, centre_px=(0.0, 0.0), anterior_px=(0.0, 0.0))
    assert [marks.disc.level for marks in marks_of(scorer, replace(region, discs=(lost, *region.discs[1:])))] == [
        disc.level for disc in region.discs[1:]
    ]
    assert marks_of(scorer, replace(region, discs=(lost,) * 6)) == ()
