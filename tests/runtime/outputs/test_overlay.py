"""Overlays: every grade, point and crop stands where the report says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers import tiny
from spinescore.runtime import Scorer, Study
from spinescore.runtime.outputs.marks import SHAPES
from spinescore.runtime.outputs.overlay import _badge, draw_overlay

GRADES = ((0, 1), (2, 0), (3, 3), (1, 1), (0, 2), (0, 0))
BLUE, YELLOW, ORANGE, RED, GREY = (233, 180, 86), (66, 228, 240), (0, 159, 230), (92, 102, 244), (170, 170, 170)
HEADER_PX = 62  # above the radiograph, for a title and a note of one line each


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle"))) as opened:
        yield opened


def drawn(scorer, change=lambda region: region, **options):
    picture = tiny.draw("lumbar", GRADES, **options).radiograph
    report = scorer.score(Study((picture,)))
    region = change(report.regions["lumbar"])
    return draw_overlay(picture, region, report.bundle.rules, "mSASSS lumbar", "Not for clinical use."), region


def places(image, colour) -> np.ndarray:
    """(n, 2) x and y of the pixels of exactly this colour, without the legend."""
    y, x = np.nonzero((image[:-60] == colour).all(axis=2))
    return np.stack([x, y], axis=1)


def outlines(image) -> np.ndarray:
    """(n, 2) x and y of the pixels of the crops' green lines, which are smoothed and so have no exact colour."""
    y, x = np.nonzero((image[:-60, :, 1].astype(int) - image[:-60, :, 2] > 50) & (image[:-60, :, 0] < 160))
    return np.stack([x, y], axis=1).astype(float)


@pytest.mark.parametrize("facing", ["left", "right"])
def test_grades_have_their_colour_in_front_of_their_disc(scorer, facing):
    image, region = drawn(scorer, facing=facing, rows=900)
    for disc in region.discs:
        centre, anterior = (np.add(point, (0, HEADER_PX)) for point in (disc.centre_px, disc.anterior_px))
        reach = np.linalg.norm(anterior - centre)
        for corner in disc.corners:
            found = places(image, (BLUE, YELLOW, ORANGE, RED)[corner.grade])
            in_front = found[np.linalg.norm(found - (anterior + 0.75 * (anterior - centre)), axis=1) < reach]
            assert len(in_front) > 100
            assert ((in_front[:, 0] < anterior[0]) == (facing == "left")).all()


def test_crops_are_outlined_where_the_grader_looks(scorer):
    image, region = drawn(scorer, rows=900)
    green = outlines(image)
    side = tiny.EXTENT * np.linalg.norm(np.subtract(region.discs[0].anterior_px, region.discs[0].centre_px))
    distances = np.linalg.norm(green - np.add(region.discs[2].centre_px, (0, HEADER_PX)), axis=1)
    near = distances[distances < 0.72 * side]
    assert len(near) > side
    assert near.min() == pytest.approx(side / 2, abs=2)
    assert near.max() == pytest.approx(side / np.sqrt(2), abs=3)


def test_what_was_not_scored_is_grey(scorer):
    def without_first(region):
        corners = tuple(replace(corner, grade=None, status="abstained") for corner in region.discs[0].corners)
        return replace(region, discs=(replace(region.discs[0], corners=corners), *region.discs[1:]))

    assert len(places(drawn(scorer)[0], GREY)) < 100
    assert len(places(drawn(scorer, without_first)[0], GREY)) > 200


def test_discs_without_points_are_left_out(scorer):
    def lost(region):
        nowhere = replace(region.discs[0], centre_px=(0.0, 0.0), anterior_px=(0.0, 0.0), confidence=0.0)
        return replace(region, discs=(nowhere, *region.discs[1:]))

    whole, partial = (len(outlines(drawn(scorer, change)[0])) for change in (lambda region: region, lost))
    assert 0.75 * whole < partial < 0.9 * whole


def test_large_radiographs_are_made_smaller_and_small_ones_are_not_enlarged(scorer):
    assert drawn(scorer, rows=2048)[0].shape[0] < 1200
    assert drawn(scorer, rows=512)[0].shape[0] < 700


@pytest.mark.parametrize("radius", [7, 9, 13])
def test_grades_are_told_apart_without_colour(radius):
    """The outlines of two grades' badges differ by more than a tenth of a badge, whatever their colours are."""
    outlines = {}
    for grade in (0, 1, 2, 3, None):
        picture = np.full((60, 60, 3), 255, np.uint8)
        _badge(picture, np.array([30.0, 30.0]), radius, grade)
        inside = np.hypot(*np.mgrid[-30:30, -30:30]) < radius - 2
        outlines[grade] = np.where(inside, True, (picture < 128).all(axis=2))  # the black edge, and what it encloses
    grades = list(outlines)
    for number, first in enumerate(grades):
        for second in grades[:number]:
            different = (outlines[first] != outlines[second]).sum()
            assert different > 0.1 * np.pi * radius**2, (first, second)
    assert set(SHAPES) == {1, 2, 3}


def test_a_bridge_is_joined(scorer):
    image, region = drawn(scorer, rows=900)
    red = places(image, RED)
    bridged = [marks for marks in region.discs if {corner.grade for corner in marks.corners} == {3}]
    (disc,) = bridged
    ahead = np.add(disc.anterior_px, (0, HEADER_PX)) + 0.75 * np.subtract(disc.anterior_px, disc.centre_px)
    assert np.linalg.norm(red - ahead, axis=1).min() < 3


def test_a_text_with_half_of_a_character_is_drawn(scorer):
    """OpenCV ends the process on a lone surrogate."""
    picture = tiny.draw("lumbar", GRADES).radiograph
    report = scorer.score(Study((picture,)))
    drawn = draw_overlay(picture, report.regions["lumbar"], None, "half \udcff", "of \ud800 one")
    assert drawn.shape[0] > HEADER_PX
