"""Levels that may be off by one: by a level left out, by no end to count from, by what the localizer counts itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.phantom_views import result, truth, unread
from spinescore.kernels.decode import POINT
from spinescore.runtime.scoring.scoredquality import miscounted, of_results
from spinescore.runtime.scoring.shape import upside_down_odds
from spinescore.runtime.study import REGIONS

MIN_CONFIDENCE = 0.3


def said(found):
    return [one.message for one in of_results({found.region: found}, MIN_CONFIDENCE) if one.code == "level-shift"]


@pytest.mark.parametrize("region", REGIONS)
def test_a_level_named_twice_across_a_disc_that_was_not_found(region):
    """The discs above the third are found one level too high, so that the third seems to lie between neighbours."""
    known = truth(region)
    centre, anterior = known.centre.copy(), known.anterior.copy()
    for points in (centre, anterior):
        points[:2] = points[1:3]
    (message,) = said(unread(result(region, centre=centre, anterior=anterior), 2))
    assert "times as far apart as elsewhere" in message
    assert said(unread(result(region), 2)) == []


@pytest.mark.parametrize(("region", "end", "level"), [("cervical", 0, "C2/C3"), ("lumbar", 5, "L5/S1")])
def test_no_end_to_count_from(region, end, level):
    confidence = np.full(6, 0.9)
    confidence[end] = 0.4
    (message,) = said(replace(result(region), confidence=confidence))
    assert f"{level}, from which levels are counted" in message
    assert said(replace(result(region), confidence=confidence[::-1])) == []


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("shift", [1, -1])
def test_points_given_one_level_off(region, shift):
    points = np.zeros((6, 2), POINT)
    known = truth(region)
    points["xy"] = np.stack([known.centre, known.anterior], 1)
    points["confidence"] = 0.9
    off = result(region, centre=np.roll(known.centre, -shift, axis=0), anterior=np.roll(known.anterior, -shift, axis=0))
    given = replace(off, given=tuple(range(6)))
    found = miscounted(given, points, MIN_CONFIDENCE)
    assert found.code == "level-shift"
    assert ("lower" if shift == 1 else "higher") in found.message
    assert miscounted(replace(result(region), given=tuple(range(6))), points, MIN_CONFIDENCE) is None
    unsure = points.copy()
    unsure["confidence"] = 0.4
    assert miscounted(given, unsure, MIN_CONFIDENCE) is None
    assert miscounted(replace(off, given=(2, 3)), points, MIN_CONFIDENCE) is None


@pytest.mark.parametrize("region", REGIONS)
def test_a_spine_upside_down_has_the_greater_odds(region):
    """The same points, named from below and seen in the picture turned by 180 degrees, as a robust localizer would."""
    upright = result(region)
    known = truth(region)
    down = replace(upright, centre=-known.centre[::-1], anterior=-known.anterior[::-1])
    assert upside_down_odds(upright) < 0 < upside_down_odds(down)
    codes = [one.code for one in of_results({region: down}, MIN_CONFIDENCE)]
    confirmed = of_results({region: replace(down, stands_as_seen=True)}, MIN_CONFIDENCE)
    assert "not-upright" not in {one.code for one in confirmed}
    assert ("not-upright" in codes) == (region == "cervical")  # lumbar discs are too alike for the higher bound
