"""Training pictures are what a bundle of the same manifest hands to its networks, bit by bit; their points fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.scoring import OTHER_GRADES, blank
from helpers.spy_device import Spy
from helpers.tiny import draw, write_bundle
from spinescore.kernels.warp import ROI
from spinescore.runtime import Scorer, Study
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.scoring.geometry import to_input, to_source
from spinescore.runtime.scoring.inputs import input_greys
from spinescore.runtime.scoring.intake import given_points
from spinescore.runtime.scoring.training import TrainingInputs
from spinescore.runtime.study import LEVELS, REGIONS

DRAWN = {
    side: {"cervical": draw("cervical", facing=side), "lumbar": draw("lumbar", OTHER_GRADES, facing=side)}
    for side in ("left", "right")
}


def keypoints(drawn, discs=range(6)):
    return {
        region: {LEVELS[region][disc]: tuple(map(tuple, one.points[disc])) for disc in discs}
        for region, one in drawn.items()
    }


def films(drawn):
    return Study(tuple(one.radiograph for one in drawn.values()))


def seen_of(folder, drawn, study=None, localizer_inputs=True, **options):
    given = given_points(options.pop("keypoints", keypoints(drawn)))
    with TrainingInputs(Bundle.open(folder).manifest, localizer_inputs) as inputs:
        return inputs.of(study or films(drawn), given, **options)


PERCENTILES = {"mode": "percentile", "low": 2.0, "high": 97.0}
NORMALISED = (("mean", 0.4), ("std", 0.3))
CHANGES = [
    {},
    {"localizer.input.fit": "letterbox", "localizer.passes": 2, "localizer.facing": "right"},
    {"localizer.facing": "as-is", "localizer.passes": 2, "grader.crop.anterior": "right"},
    {"localizer.contrast": PERCENTILES, "grader.contrast": {**PERCENTILES, "over": "picture"}},
    {"localizer.contrast": {**PERCENTILES, "over": "picture"}, "localizer.input.levels": 256},
    {
        "localizer.input.mean": [0.4],
        "localizer.input.std": [0.3],
        "grader.input.mean": [0.4],
        "grader.input.std": [0.3],
    },
    {"grader.head": "bridge+grades", "grader.crop.unit": "disc-spacing"},
    {"grader.head": "corner4", "grader.crop.extent": 2.5, "localizer.align": "centre"},
]


def names(changes):
    return "+".join(changes) or "plain"


@pytest.mark.parametrize("side", DRAWN)
@pytest.mark.parametrize("changes", CHANGES, ids=names)
def test_pictures_are_what_a_bundle_hands_to_its_networks(tmp_path, changes, side):
    folder, drawn, spy = write_bundle(tmp_path, **changes), DRAWN[side], Spy()
    with Scorer(Bundle.open(folder), spy) as scorer:
        spy.inputs.clear()
        crops = scorer.crops(films(drawn), keypoints(drawn)).crops
    manifest = Bundle.open(folder).manifest
    seen = seen_of(folder, drawn)
    found = {(one.region, one.network, *one.sites): one.image for one in seen.pictures}
    expected = {(one.region, one.network, *one.sites): one.image for one in crops}
    passes = manifest.localizer.passes
    for number, inputs in enumerate(spy.inputs[:passes]):  # later ones are looks at where the levels are
        greys = input_greys(inputs, manifest.localizer.input)
        network = "localizer" if number == 0 else "localizer-pass-2"
        expected |= {(region, network): grey for region, grey in zip(REGIONS, greys, strict=True)}
    assert len(spy.inputs) >= passes
    assert set(found) == set(expected)
    for key, image in expected.items():
        assert np.ptp(image) > 0.3
        np.testing.assert_array_equal(found[key], image, err_msg=str(key))
    assert seen.left_out == []


@pytest.mark.parametrize("changes", CHANGES[:3], ids=names)
@pytest.mark.parametrize("align", ["stride", "centre"])
def test_points_in_the_localizers_input_lie_on_what_was_drawn_there(tmp_path, changes, align):
    """The tiny radiographs show every point as a dot of its own grey."""
    folder, drawn = write_bundle(tmp_path, **changes, **{"localizer.align": align}), DRAWN["right"]
    pictures = [one for one in seen_of(folder, drawn).pictures if not one.sites]
    assert {one.network for one in pictures} == {"localizer", *(["localizer-pass-2"] if changes else [])}
    for one in pictures:
        assert [disc.level for disc in one.discs] == list(LEVELS[one.region])
        source = drawn[one.region]
        for disc, true in zip(one.discs, source.points, strict=True):
            np.testing.assert_allclose(disc.source_px, true, atol=1e-3)
            shift = 0.0 if align == "stride" else 0.5
            np.testing.assert_allclose(disc.heatmap_px, (disc.input_px + shift) / 4 - shift)
            for (x, y), (x_source, y_source) in zip(disc.input_px, true, strict=True):
                grey = source.radiograph.pixels[round(y_source), round(x_source)] / 255
                assert one.image[round(y), round(x)] == pytest.approx(grey, abs=0.01)


def test_discs_without_points_have_no_picture(tmp_path):
    folder, drawn = write_bundle(tmp_path), DRAWN["left"]
    points = keypoints(drawn, (1, 4))
    del points["cervical"]
    seen = seen_of(folder, drawn, keypoints=points)
    shown = [(one.network, [disc.level for disc in one.discs]) for one in seen.pictures]
    levels = ["L1/L2", "L4/L5"]
    assert shown == [("localizer", levels), *(("corners", [level]) for level in levels)]
    assert seen.left_out == ["cervical.dcm: no points of cervical discs are given for it."]


def test_what_is_wrong_with_points_is_said(tmp_path):
    folder, drawn = write_bundle(tmp_path), DRAWN["left"]
    points = keypoints(drawn)
    (x, y), anterior = points["lumbar"]["L5/S1"]
    points["lumbar"]["L5/S1"] = ((x, y + 4000), anterior)
    points["cervical"]["C2/C3"], points["cervical"]["C3/C4"] = points["cervical"]["C3/C4"], points["cervical"]["C2/C3"]
    seen = seen_of(folder, drawn, keypoints=points)
    assert "L5/S1 lie outside of the picture, which has 768 x 1024 pixels" in seen.left_out[0]
    assert any(
        "cervical.dcm: the discs are not in order along the spine; scoring would refuse" in w for w in seen.warnings
    )
    assert len(seen.pictures) == 2 + 6 + 5


def test_points_tell_the_facing(tmp_path):
    """As in scoring, also against the header."""
    drawn = DRAWN["left"]
    wrong = Study(tuple(replace(one.radiograph, facing="right") for one in drawn.values()))
    folder = write_bundle(tmp_path)
    seen, right = seen_of(folder, drawn, wrong), seen_of(folder, drawn)
    assert [chosen.facing for chosen in seen.chosen.values()] == ["left", "left"]
    assert sum("the points were followed" in warning for warning in seen.warnings) == 2
    for one, other in zip(seen.pictures, right.pictures, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_a_radiograph_without_a_region(tmp_path):
    folder, drawn = write_bundle(tmp_path), DRAWN["left"]
    untagged = {name: replace(one.radiograph, region=None, source=f"{name}.png") for name, one in drawn.items()}
    cervical = drawn["cervical"].radiograph
    seen = seen_of(folder, drawn, Study((cervical, untagged["lumbar"])))
    assert any("lumbar.png does not state its region; it was taken for the lumbar one" in w for w in seen.warnings)
    assert len(seen.pictures) == 14
    for study in (Study((untagged["lumbar"],)), Study(tuple(untagged.values()))):  # which region's points are its?
        seen = seen_of(folder, drawn, study)
        assert seen.pictures == []
        assert (
            "lumbar.png: nothing states the region, and no network is asked; state it with --region" in seen.left_out[0]
        )


def test_points_are_of_one_radiograph_of_a_region(tmp_path):
    drawn = DRAWN["left"]
    other = replace(drawn["cervical"].radiograph, source="again.dcm", sop_instance_uid="1")
    seen = seen_of(write_bundle(tmp_path), drawn, Study((*films(drawn).radiographs, other)))
    assert {one.region for one in seen.pictures} == {"lumbar"}
    assert "cervical.dcm, again.dcm show the cervical spine of one study" in seen.left_out[0]


def test_what_scoring_would_refuse_is_left_out(tmp_path):
    folder, drawn = write_bundle(tmp_path), DRAWN["left"]
    lumbar = drawn["lumbar"].radiograph
    for refused, words in ((blank(), "cervical.dcm"), (replace(lumbar, view="other"), "no lateral projection")):
        seen = seen_of(folder, drawn, Study((refused,)))
        assert seen.pictures == []
        assert words in seen.left_out[0]
    strict = seen_of(folder, drawn, strict=True)
    lax = seen_of(folder, drawn)
    assert len(strict.pictures) + 7 * len(strict.left_out) == len(lax.pictures) == 14


def test_to_input_undoes_to_source():
    roi = np.zeros((), ROI)
    roi["origin"], roi["matrix"] = (100, -7), [[-0.5, 1.25, 3.0], [2.0, 0.25, -1.0]]
    points = np.array([[1.0, 2.0], [-3.5, 40.25]])
    np.testing.assert_allclose(to_input(roi, to_source(roi, points)), points, atol=1e-9)
