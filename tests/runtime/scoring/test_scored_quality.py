"""Findings on a radiograph after its points were found: each code is raised, and not raised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers import phantom_views
from helpers.phantom_views import radiograph, result, truth, unread
from spinescore.benchmarks.spoiled import SPOILS
from spinescore.runtime.errors import CODES
from spinescore.runtime.phantom.shape import sample_spine
from spinescore.runtime.scoring.scoredquality import of_results
from spinescore.runtime.scoring.shape import SHAPE
from spinescore.runtime.study import LEVELS, REGIONS, Reject

MIN_CONFIDENCE = 0.3


def found_of(*results):
    findings = of_results({item.region: item for item in results}, MIN_CONFIDENCE)
    assert all(said.message.endswith(f"; {CODES[said.code].next_step}.") for said in findings)
    return {said.code: said for said in findings}


def spoiled(name, region):
    known = {each: truth(each) for each in REGIONS}
    radiographs, _ = SPOILS[name].make(np.random.default_rng(1), phantom_views.study(), known)
    return radiographs[REGIONS.index(region)]


def test_sound_results_raise_nothing():
    assert found_of(*(result(region) for region in REGIONS)) == {}
    assert of_results({}, MIN_CONFIDENCE) == []


@pytest.mark.parametrize(
    ("name", "region"),
    [("screw by a corner", "cervical"), ("text by a corner", "cervical"), ("text by a corner", "lumbar")],
)
def test_metal_and_text_by_a_corner(name, region):
    said = found_of(result(region, spoiled(name, region)))["obscured-corner"]
    assert (said.severity, said.region, said.source) == ("warning", region, f"{region}.dcm")
    assert sum(level in said.message for level in LEVELS[region]) >= 1


def test_corners_in_white():
    at = truth("lumbar").anterior[5].astype(int)
    pixels = radiograph("lumbar").pixels.copy()
    rising = radiograph("lumbar").table[-1] > radiograph("lumbar").table[0]
    pixels[at[1] - 60 : at[1] + 60, at[0] - 60 : at[0] + 60] = radiograph("lumbar").table.size - 1 if rising else 0
    assert "L5/S1" in found_of(result("lumbar", replace(radiograph("lumbar"), pixels=pixels)))["saturated"].message


def test_a_disc_at_the_border():
    whole, known = radiograph("cervical"), truth("cervical")
    cut = int(known.centre[0, 1])
    image = replace(whole, pixels=whole.pixels[cut:])
    moved = {"centre": known.centre - [0, cut], "anterior": known.anterior - [0, cut]}
    said = found_of(result("cervical", image, **moved))["cropped-spine"]
    assert "C2/C3" in said.message
    assert "C7/T1" not in said.message


def test_a_disc_beyond_the_border_was_not_found():
    whole, known = radiograph("lumbar"), truth("lumbar")
    cut = int(known.centre[-2:, 1].mean())
    image = replace(whole, pixels=whole.pixels[:cut])
    assert "L5/S1" in found_of(unread(result("lumbar", image), 5))["cropped-spine"].message
    assert "cropped-spine" not in found_of(unread(result("lumbar"), 5))  # not found, but the picture goes on


def test_points_with_less_confidence_than_usual():
    confidence = np.array([0.9, 0.9, 0.42, 0.9, 0.9, 0.9])
    said = found_of(result("lumbar", confidence=confidence))["unsure-points"]
    assert "L2/L3" in said.message
    assert "0.42" in said.message
    assert found_of(result("lumbar", confidence=np.full(6, 0.53))) == {}


@pytest.mark.parametrize(("name", "where"), [("lower", "lower"), ("higher", "higher")])
def test_levels_off_by_one(name, where):
    _, given = SPOILS[f"points one level {name}"].make(
        np.random.default_rng(3), phantom_views.study(), {each: truth(each) for each in REGIONS}
    )
    centre, anterior = (np.array([pair[i] for pair in given["cervical"].values()]) for i in range(2))
    said = found_of(result("cervical", centre=centre, anterior=anterior))["level-shift"]
    assert f"one level {where}" in said.message


def test_the_shape_statistics_are_those_of_the_phantoms_spines():
    rng = np.random.default_rng(5)
    for region in REGIONS:
        spines = [sample_spine(rng, region) for _ in range(300)]
        centre = np.array([[spine.disc_centre(i) for i in range(6)] for spine in spines])
        anterior = np.array([[spine.disc_anterior(i) for i in range(6)] for spine in spines])
        reach = anterior - centre
        steps = np.linalg.norm(np.diff(centre, axis=1), axis=2)
        lengths = np.linalg.norm(reach, axis=2)
        drawn = {
            "rotation": np.degrees(np.arctan2(reach[..., 1], -reach[..., 0])),
            "step": np.log(steps[:, 1:] / steps[:, :-1]),
            "reach": np.log(lengths[:, 1:] / lengths[:, :-1]),
        }
        for name, (means, deviations) in SHAPE[region].items():
            values = drawn[name]
            assert np.all(np.abs(values.mean(0) - means) < 0.25 * np.array(deviations))
            assert np.allclose(values.std(0), deviations, rtol=0.2, atol=1e-3)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_spacing_that_no_person_fits(factor):
    rows, columns = radiograph("cervical").spacing_mm
    image = replace(radiograph("cervical"), spacing_mm=(rows * factor, columns * factor))
    assert "mm apart" in found_of(result("cervical", image))["implausible-spacing"].message
    assert found_of(result("cervical", replace(image, spacing_mm=None))) == {}


def test_sizes_are_taken_from_discs_that_were_found():
    centre = truth("cervical").centre.copy()
    centre[[0, 2]] = 0
    found = found_of(unread(result("cervical", centre=centre), 0, 2))
    assert "unsure-points" in found
    assert "implausible-spacing" not in found


def other_day(region, **tags):
    return result(region, replace(radiograph(region), **tags))


def test_views_that_contradict_each_other():
    def said(cervical, lumbar):
        return found_of(other_day("cervical", **cervical), other_day("lumbar", **lumbar)).get("views-contradict")

    assert "dates differ" in said({"study_date": "20250101"}, {"study_date": "20260101"}).message
    assert "different studies" in said({"study_instance_uid": "1.2"}, {"study_instance_uid": "1.3"}).message
    larger, smaller = (
        {"spacing_mm": tuple(factor * mm for mm in radiograph(region).spacing_mm)}
        for region, factor in (("cervical", 1.4), ("lumbar", 0.65))
    )
    assert "about twice" in said(larger, smaller).message
    assert said(larger, {}) is None
    assert said({"study_date": "20250101"}, {}) is None
    twice = found_of(result("cervical"), result("lumbar", radiograph("cervical")))["views-contradict"]
    assert "same picture" in twice.message
    assert twice.region is None


def test_rejected_regions_are_not_looked_at():
    refused = result("cervical", reject=Reject("low-confidence", "Not sure."), confidence=np.zeros(6))
    assert found_of(refused, result("lumbar")) == {}
