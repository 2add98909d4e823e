"""Input of a scorer: studies that it takes, rejects with their reasons, and a reader's points."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from helpers.scoring import CERVICAL, LUMBAR, assert_found, blank, checked, grades, points, spineless
from helpers.tiny import draw, write_bundle
from spinescore.runtime import InputRejected, Radiograph, Scorer, Study
from spinescore.runtime.study import LEVELS, Reject


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(write_bundle(tmp_path_factory.mktemp("plain")), "cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """One head of 12 channels for both regions."""
    with Scorer.open(write_bundle(tmp_path_factory.mktemp("twelve"), heads=12), "cpu") as opened:
        yield opened


def test_one_head_for_both_regions_cannot_tell_them(twelve):
    radiograph = replace(draw("cervical", heads=12).radiograph, region=None)
    report = checked(twelve.score([radiograph]))
    assert report.regions["cervical"].reject.code == "wrong-region"
    assert "name the region" in report.regions["cervical"].reject.message
    assert twelve.score({"cervical": radiograph}).regions["cervical"].status == "scored"


def both_regions():
    upper, lower = CERVICAL.radiograph.pixels, LUMBAR.radiograph.pixels
    return replace(CERVICAL.radiograph, pixels=np.where(np.arange(1024)[:, None] < 512, upper, lower), region=None)


@pytest.mark.parametrize(
    ("radiograph", "code", "message"),
    [
        (replace(CERVICAL.radiograph, modality="CT"), "not-radiograph", "modality CT"),
        (replace(CERVICAL.radiograph, view="other"), "not-lateral", "no lateral"),
        (replace(CERVICAL.radiograph, pixels=np.zeros((1024, 127), np.uint8)), "too-small", "1024 x 127"),
        (blank(), "blank", "one grey"),
        (spineless(), "low-confidence", "C2/C3, C3/C4"),
        (spineless(region=None), "wrong-region", "neither"),
        (both_regions(), "wrong-region", "either region"),
        (replace(LUMBAR.radiograph, region="cervical"), "wrong-region", "looks like the lumbar one"),
    ],
)
def test_rejects(scorer, radiograph, code, message):
    report = checked(scorer.score([radiograph, LUMBAR.radiograph]))
    region = report.regions["cervical"]
    assert (region.status, region.reject.code, region.discs, region.missing) == ("rejected", code, (), 12)
    assert message in region.reject.message
    assert_found(report.regions["lumbar"], LUMBAR)


def test_points_out_of_order_are_implausible(tmp_path):
    folder = write_bundle(tmp_path / "b")
    document = json.loads((folder / "bundle.json").read_text())
    keypoints = document["localizer"]["keypoints"]["cervical"]
    for first, second in ((4, 6), (5, 7)):
        keypoints[first]["channel"], keypoints[second]["channel"] = (
            keypoints[second]["channel"],
            keypoints[first]["channel"],
        )
    (folder / "bundle.json").write_text(json.dumps(document))
    with Scorer.open(folder, "cpu") as scorer:
        report = checked(scorer.score(CERVICAL.radiograph))
    assert report.regions["cervical"].reject.code == "implausible-geometry"
    assert "order" in report.regions["cervical"].reject.message


def test_files_that_were_refused_stand_for_the_region_that_has_no_radiograph(scorer):
    named = Reject("corrupt-pixels", "a.dcm is truncated.", "a.dcm", "lumbar")
    nameless = Reject("not-dicom", "b.txt is not DICOM.", "b.txt")
    third = Reject("no-pixels", "c.dcm holds no image.", "c.dcm")
    report = checked(scorer.score(Study((CERVICAL.radiograph,), (nameless, named), warnings=("odd",))))
    assert report.regions["lumbar"].reject.code == "corrupt-pixels"
    assert [reject.source for reject in report.rejects] == ["b.txt", "a.dcm"]
    assert report.warnings == ("odd",)
    report = checked(scorer.score(Study((), (nameless,))))
    assert [region.reject.code for region in report.regions.values()] == ["not-dicom", "not-dicom"]
    report = checked(scorer.score(Study((), (nameless, third))))
    assert [region.reject.code for region in report.regions.values()] == ["not-dicom", "no-pixels"]
    assert report.timings_ms.localize is None
    report = checked(scorer.score(Study(())))
    assert [region.status for region in report.regions.values()] == ["missing", "missing"]


def test_of_several_candidates_the_best_evidence_wins(scorer):
    faint = replace(spineless(), source="faint.dcm")
    report = checked(scorer.score([faint, CERVICAL.radiograph]))
    assert_found(report.regions["cervical"], CERVICAL)
    assert report.regions["cervical"].radiograph.source == "cervical.dcm"
    assert report.warnings == ("Several cervical radiographs: cervical.dcm was scored, not faint.dcm.",)


def test_points_of_several_candidates_are_assigned_to_the_one_that_is_scored(scorer):
    faint = replace(spineless(), source="faint.dcm")
    report = checked(scorer.score([faint, CERVICAL.radiograph], keypoints=given(CERVICAL, *range(6))))
    assert [note.code for note in report.notices] == ["several-radiographs", "points-assigned"]
    assert report.notices[1].values == {"scored": "cervical.dcm"}
    assert report.warnings[1] == "The given cervical points were assigned to cervical.dcm."


def without(drawn, *discs):
    """The radiograph with the dots of some discs wiped out."""
    pixels = drawn.radiograph.pixels.copy()
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    for point in drawn.points[list(discs)].reshape(-1, 2):
        pixels[(x - point[0]) ** 2 + (y - point[1]) ** 2 <= 15**2] = 0
    return replace(drawn.radiograph, pixels=pixels)


def test_discs_that_are_not_found_are_imputed_while_they_are_few(scorer):
    region = checked(scorer.score(without(CERVICAL, 5))).regions["cervical"]
    assert [corner.status for corner in region.discs[5].corners] == ["imputed", "imputed"]
    assert grades(region)[5] == (None, None)
    assert region.discs[5].corners[0].imputed == pytest.approx(1.3)
    assert (region.total, region.range, region.missing) == (pytest.approx(15.6), (13, 19), 2)
    assert (region.discs[5].total, region.discs[5].range) == (pytest.approx(2.6), (0, 6))
    assert region.expected.mean == pytest.approx(region.total, abs=0.01)  # both take the disc for the others' mean
    low, high = region.expected.interval
    assert low <= region.total <= high
    report = checked(scorer.score([without(CERVICAL, 5), LUMBAR.radiograph]))
    assert (report.total.status, report.total.imputed_sites) == ("imputed", ("C7-inferior", "T1-superior"))
    means = [found.expected.mean for found in report.regions.values()]
    assert report.total.expected.mean == pytest.approx(sum(means), abs=0.002)
    assert scorer.score(CERVICAL.radiograph).total.expected is None  # a whole region is not known
    region = checked(scorer.score(without(CERVICAL, 0, 5))).regions["cervical"]
    assert [corner.status for corner in region.discs[0].corners] == ["unreadable", "unreadable"]
    assert (region.total, region.range, region.missing) == (None, (12, 24), 4)
    assert scorer.score(without(CERVICAL, 0, 1, 5)).regions["cervical"].reject.code == "low-confidence"


def given(drawn, *discs):
    levels = LEVELS[drawn.radiograph.region]
    return {drawn.radiograph.region: {levels[disc]: drawn.points[disc].tolist() for disc in discs}}


def test_a_readers_points_replace_the_decoded_ones(scorer):
    found = scorer.score(without(CERVICAL, 1, 2, 5), keypoints=given(CERVICAL, 1, 2, 5)).regions["cervical"]
    assert np.allclose(points(found)[[1, 2, 5]], CERVICAL.points[[1, 2, 5]], atol=1e-3)
    assert [found.discs[disc].confidence for disc in (1, 2, 5)] == [1, 1, 1]
    assert found.discs[0].confidence < 1
    # the patch of disc 2's bridge and others are partly wiped with the dots, so only untouched cells are compared
    assert grades(found) == CERVICAL.grades


def test_a_readers_points_tell_the_facing(scorer):
    drawn = draw("cervical", facing="right")
    untagged = replace(drawn.radiograph, facing=None)
    report = checked(scorer.score(untagged, keypoints=given(drawn, *range(6))))
    assert_found(report.regions["cervical"], drawn)
    assert report.regions["cervical"].radiograph.facing == "right"
    wrong = replace(drawn.radiograph, facing="left")
    report = checked(scorer.score(wrong, keypoints=given(drawn, *range(6))))
    assert_found(report.regions["cervical"], drawn)
    assert "states that the patient faces left" in report.warnings[0]


def test_a_readers_points_outside_of_the_picture_are_unreadable_and_swapped_ones_implausible(scorer):
    outside = given(CERVICAL, 5)
    outside["cervical"]["C7/T1"][1][0] = -2.0
    assert grades(scorer.score(CERVICAL.radiograph, keypoints=outside).regions["cervical"])[5] == (None, None)
    swapped = {"cervical": dict(zip(("C3/C4", "C4/C5"), CERVICAL.points[[2, 1]].tolist(), strict=True))}
    assert (
        scorer.score(CERVICAL.radiograph, keypoints=swapped).regions["cervical"].reject.code == "implausible-geometry"
    )


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        ({"thoracic": {}}, "'thoracic' is not a region"),
        ({"cervical": {"L1/L2": [[1, 2], [3, 4]]}}, "no level 'L1/L2'"),
        ({"cervical": {"C2/C3": [[1, 2]]}}, "cervical C2/C3 needs"),
        ({"cervical": {"C2/C3": [[1, 2], [3, "x"]]}}, "cervical C2/C3 needs"),
        ({"cervical": {"C2/C3": [[1, 2], [3, float("nan")]]}}, "cervical C2/C3 needs"),
        ({"cervical": {"C2/C3": [[1, 2], [1, 2]]}}, "same place"),
        ({"cervical": [1]}, "is not a region with its levels"),
    ],
)
def test_keypoints_of_the_wrong_form(scorer, keypoints, message):
    with pytest.raises(ValueError, match=message):
        scorer.score(CERVICAL.radiograph, keypoints=keypoints)


def test_arrays(scorer):
    report = checked(scorer.score({"lumbar": LUMBAR.radiograph.pixels, "cervical": CERVICAL.radiograph.pixels}))
    assert_found(report.regions["cervical"], CERVICAL)
    assert_found(report.regions["lumbar"], LUMBAR)
    assert report.regions["lumbar"].radiograph.source == "lumbar array"


@pytest.mark.parametrize(
    "study",
    [
        {"thoracic": CERVICAL.radiograph.pixels},
        {"cervical": CERVICAL.radiograph.pixels.astype(float)},
        {"cervical": CERVICAL.radiograph.pixels[None]},
        {"cervical": np.zeros((0, 5), np.uint8)},
        {"cervical": "a.dcm"},
        ["a.dcm"],
        replace(CERVICAL.radiograph, pixels=CERVICAL.radiograph.pixels.astype(np.int32)),
        replace(CERVICAL.radiograph, table=np.zeros(0, np.float32)),
    ],
)
def test_studies_of_the_wrong_form(scorer, study):
    with pytest.raises(ValueError, match=r"region|array|study|stored values|table"):
        scorer.score(study)


ODD = (None, -3, 2.5, float("nan"), "text", (), {}, object(), True, np.zeros(0), b"x", (1, 2, 3))


@pytest.mark.parametrize("field", [field.name for field in fields(Radiograph)])
def test_an_odd_field_of_a_radiograph_is_refused_by_its_name_or_scored(scorer, field):
    for odd in ODD:
        try:
            json.loads(scorer.score(replace(CERVICAL.radiograph, **{field: odd})).to_json())
        except ValueError as error:  # noqa: PERF203
            assert field.removesuffix("s") in str(error), (odd, error)  # noqa: PT017


@pytest.mark.parametrize("field", [field.name for field in fields(Study)])
def test_an_odd_field_of_a_study_is_refused_by_its_name_or_scored(scorer, field):
    for odd in ODD:
        try:
            json.loads(scorer.score(replace(Study((CERVICAL.radiograph,)), **{field: odd})).to_json())
        except ValueError as error:  # noqa: PERF203
            assert f"the study's {field}" in str(error), (odd, error)  # noqa: PT017


def test_a_study_may_hold_an_iterator(scorer):
    assert_found(scorer.score(Study(iter([CERVICAL.radiograph]))).regions["cervical"], CERVICAL)


@pytest.mark.parametrize("budget", [0, -5, float("nan"), float("inf")])
def test_budgets_that_are_none(scorer, budget):
    with pytest.raises(ValueError, match="budget_ms"):
        scorer.score(CERVICAL.radiograph, budget_ms=budget)


def test_two_patients_are_refused(scorer):
    with pytest.raises(InputRejected) as refused:
        scorer.score([replace(CERVICAL.radiograph, patient_key="a"), replace(LUMBAR.radiograph, patient_key="b")])
    assert refused.value.code == "two-patients"


def test_radiographs_of_any_contrast_come_through_their_table(scorer):
    inverted = replace(
        CERVICAL.radiograph,
        pixels=(3000 - CERVICAL.radiograph.pixels.astype(np.int16) * 8).astype(np.int16),
        table=np.clip(np.linspace(1, -1.5, 5000, dtype=np.float32), 0, 1),
        stored_min=1000,
    )
    stored = np.arange(5000) + 1000
    grey = np.clip((3000 - stored) / 8 / 255, 0, 1).astype(np.float32)
    assert_found(scorer.score(replace(inverted, table=grey)).regions["cervical"], CERVICAL)


def test_pixels_may_be_read_only_strided_and_of_either_byte_order(scorer):
    pixels = np.repeat(CERVICAL.radiograph.pixels.astype(">u2") * 257, 2, axis=1)[:, ::2]
    pixels.flags.writeable = False
    radiograph = replace(CERVICAL.radiograph, pixels=pixels, table=np.linspace(0, 1, 65536, dtype=np.float32))
    assert_found(scorer.score(radiograph).regions["cervical"], CERVICAL)


@pytest.mark.parametrize("study", [{}, [], Study(())])
def test_a_study_without_images_says_so(scorer, study):
    report = checked(scorer.score(study))
    assert [one.code for one in report.notices] == ["no-image"]
    assert report.total.value is None


def test_a_radiograph_of_the_other_region_is_not_renamed(scorer):
    with pytest.raises(ValueError, match="shows the lumbar spine and was given as the cervical image"):
        scorer.score({"cervical": LUMBAR.radiograph})
