"""Scoring end to end on the host device, with networks whose right answers are known (see `tiny`)."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from tiny import CROP, EXTENT, HEIGHT, draw, write_bundle

from spinescore.kernels.decode import POINT, VIEW, CropSpec, crops
from spinescore.kernels.warp import Source, WarpSpec, warp
from spinescore.runtime import BundleError, DeviceError, InputRejected, Scorer, Study, StudyReport
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.report import report_schema
from spinescore.runtime.study import LEVELS, REGIONS, Reject

OTHER_GRADES = ((3, 3), (0, 0), (1, 2), (2, 2), (0, 1), (2, 1))
CERVICAL = draw("cervical")
LUMBAR = draw("lumbar", OTHER_GRADES)
VALIDATOR = jsonschema.Draft202012Validator(report_schema())


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(write_bundle(tmp_path_factory.mktemp("plain")), "cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """One head of 12 channels for both regions."""
    with Scorer.open(write_bundle(tmp_path_factory.mktemp("twelve"), heads=12), "cpu") as opened:
        yield opened


def checked(report):
    """The report, after its JSON was found valid and to give the same report again."""
    VALIDATOR.validate(json.loads(report.to_json()))
    assert StudyReport.from_json(report.to_json()) == report
    return report


def grades(region):
    return tuple(tuple(corner.grade for corner in disc.corners) for disc in region.discs)


def points(region):
    return np.array([[disc.centre_px, disc.anterior_px] for disc in region.discs])


def assert_found(region, drawn):
    """All grades right, every point within three quarters of a pixel of the localizer's input."""
    assert region.status == "scored"
    assert grades(region) == drawn.grades
    assert np.abs(points(region) - drawn.points).max() < 0.75 * drawn.radiograph.rows / HEIGHT


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"localizer.passes": 2},
        {"localizer.passes": 2, "heads": "separate"},
        {"heads": "separate", "grader.head": "corner4"},
        {"heads": 12, "grader.head": "bridge+grades"},
        {"grader.head": "corner4", "localizer.passes": 2},
        {"precision": "fp16", "localizer.passes": 2},
    ],
    ids=str,
)
def test_every_kind_of_bundle_finds_points_and_grades_in_both_facings(tmp_path, changes):
    heads = changes.get("heads", 24)
    with Scorer.open(write_bundle(tmp_path / "b", **changes), "cpu", threads=1) as scorer:
        for facing in ("left", "right"):
            cervical = draw("cervical", facing=facing, heads=heads)
            lumbar = draw("lumbar", OTHER_GRADES, rows=1536, facing=facing, dtype="int16", heads=heads)
            report = checked(scorer.score([cervical.radiograph, lumbar.radiograph]))
            assert_found(report.regions["cervical"], cervical)
            assert_found(report.regions["lumbar"], lumbar)
            assert report.total.value == sum(map(sum, cervical.grades + lumbar.grades))
            assert report.total.status == "complete"


def test_what_the_report_says(scorer):
    report = checked(scorer.score(Study((CERVICAL.radiograph, LUMBAR.radiograph), read_ms=12.5), budget_ms=1e6))
    assert report.bundle.sha256 == scorer.bundle.sha256
    assert (report.device.kind, report.device.precision) == ("cpu", "fp32")
    assert report.device.engine.startswith("onnxruntime ")
    assert (report.timings_ms.read, report.within_budget, report.budget_ms) == (12.5, True, 1e6)
    assert (
        report.timings_ms.total >= 12.5 + report.timings_ms.localize + report.timings_ms.crop + report.timings_ms.grade
    )
    region = report.regions["cervical"]
    assert [disc.level for disc in region.discs] == list(LEVELS["cervical"])
    assert [corner.site for corner in region.discs[0].corners] == ["C2-inferior", "C3-superior"]
    assert all(disc.confidence > 0.3 for disc in region.discs)
    assert np.allclose([disc.rotation_deg for disc in region.discs], np.linspace(-20, 30, 6), atol=2.5)
    assert (region.total, region.range, region.missing) == (13, (13, 13), 0)
    assert json.loads(report.to_json())["regions"]["cervical"]["total"] == 13
    assert not report.warnings
    assert scorer.score(CERVICAL.radiograph, budget_ms=1e-3).within_budget is False


def test_the_same_study_gives_the_same_bytes(scorer, tmp_path):
    def text(one, study):
        return replace(one.score(study), timings_ms=None).to_json()

    both = [CERVICAL.radiograph, LUMBAR.radiograph]
    first = text(scorer, both)
    scorer.score(LUMBAR.radiograph)
    assert text(scorer, both) == first
    assert text(scorer, both[::-1]) == first
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: text(scorer, both), range(8))) == {first}


class Spy(HostDevice):
    """A host device that notes how many images each network is given."""

    def __init__(self):
        super().__init__(1)
        self.batches = []

    def run(self, engine, inputs, outputs):
        self.batches.append(len(inputs))
        super().run(engine, inputs, outputs)


@pytest.mark.parametrize("drawn", [CERVICAL, LUMBAR])
def test_one_radiograph_alone_costs_half_and_leaves_no_total(tmp_path, drawn):
    spy = Spy()
    with Scorer(Bundle.open(write_bundle(tmp_path / "b", **{"localizer.passes": 2})), spy) as scorer:
        assert spy.batches == [2, 2, 12]
        spy.batches.clear()
        report = checked(scorer.score(drawn.radiograph))
        assert spy.batches == [1, 1, 6]
    region = drawn.radiograph.region
    missing = report.regions[next(other for other in REGIONS if other != region)]
    assert_found(report.regions[region], drawn)
    assert (missing.status, missing.range, missing.missing, missing.reject) == ("missing", (0, 36), 12, None)
    low = sum(map(sum, drawn.grades))
    assert (report.total.value, report.total.range, report.total.status) == (None, (low, low + 36), "incomplete")


@pytest.mark.parametrize("heads", [24, "separate"])
@pytest.mark.parametrize("facing", ["left", "right"])
def test_region_and_facing_by_evidence(tmp_path, heads, facing):
    folder = write_bundle(tmp_path / "b", heads=heads, prefers_left=True, **{"localizer.min_confidence": 0.25})
    cervical = draw("cervical", facing=facing, tagged=False)
    lumbar = draw("lumbar", OTHER_GRADES, facing=facing, tagged=False)
    with Scorer.open(folder, "cpu") as scorer:
        report = checked(scorer.score([lumbar.radiograph, cervical.radiograph]))
    for region, drawn in (("cervical", cervical), ("lumbar", lumbar)):
        assert report.regions[region].radiograph.facing == facing
        assert grades(report.regions[region]) == drawn.grades


def test_one_head_for_both_regions_cannot_tell_them(twelve):
    radiograph = replace(draw("cervical", heads=12).radiograph, region=None)
    report = checked(twelve.score([radiograph]))
    assert report.regions["cervical"].reject.code == "wrong-region"
    assert "name the region" in report.regions["cervical"].reject.message
    assert twelve.score({"cervical": radiograph}).regions["cervical"].status == "scored"


def blank(**tags):
    return replace(CERVICAL.radiograph, pixels=np.zeros_like(CERVICAL.radiograph.pixels), **tags)


def both_regions():
    upper, lower = CERVICAL.radiograph.pixels, LUMBAR.radiograph.pixels
    return replace(CERVICAL.radiograph, pixels=np.where(np.arange(1024)[:, None] < 512, upper, lower), region=None)


@pytest.mark.parametrize(
    ("radiograph", "code", "message"),
    [
        (replace(CERVICAL.radiograph, modality="CT"), "not-radiograph", "modality CT"),
        (replace(CERVICAL.radiograph, view="other"), "not-lateral", "no lateral"),
        (replace(CERVICAL.radiograph, pixels=np.zeros((1024, 127), np.uint8)), "too-small", "1024 x 127"),
        (blank(), "low-confidence", "C2/C3, C3/C4"),
        (blank(region=None), "wrong-region", "neither"),
        (both_regions(), "wrong-region", "either region"),
        (replace(LUMBAR.radiograph, region="cervical"), "wrong-region", "looks like the lumbar one"),
        (replace(draw("cervical", facing="right").radiograph, facing="left"), "implausible-geometry", "behind"),
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
    faint = replace(blank(), source="faint.dcm")
    report = checked(scorer.score([faint, CERVICAL.radiograph]))
    assert_found(report.regions["cervical"], CERVICAL)
    assert report.regions["cervical"].radiograph.source == "cervical.dcm"
    assert report.warnings == ("Several cervical radiographs: cervical.dcm was scored, not faint.dcm.",)


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
    report = checked(scorer.score([without(CERVICAL, 5), LUMBAR.radiograph]))
    assert (report.total.status, report.total.imputed_sites) == ("imputed", ("C7-inferior", "T1-superior"))
    region = checked(scorer.score(without(CERVICAL, 0, 5))).regions["cervical"]
    assert [corner.status for corner in region.discs[0].corners] == ["unreadable", "unreadable"]
    assert (region.total, region.range, region.missing) == (None, (12, 24), 4)
    assert scorer.score(without(CERVICAL, 0, 1, 5)).regions["cervical"].reject.code == "low-confidence"


def test_abstention(tmp_path):
    with Scorer.open(write_bundle(tmp_path / "b", **{"grader.abstain_below": 1.0}), "cpu") as scorer:
        region = checked(scorer.score(CERVICAL.radiograph)).regions["cervical"]
    assert {corner.status for disc in region.discs for corner in disc.corners} == {"abstained"}
    assert (region.status, region.total, region.range) == ("scored", None, (0, 36))
    with Scorer.open(tmp_path / "b", "cpu", max_imputed_per_region=12) as scorer:
        assert scorer.score(CERVICAL.radiograph).regions["cervical"].total is None


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


@pytest.mark.parametrize("budget", [0, -5, float("nan"), float("inf")])
def test_budgets_that_are_none(scorer, budget):
    with pytest.raises(ValueError, match="budget_ms"):
        scorer.score(CERVICAL.radiograph, budget_ms=budget)


def test_two_patients_are_refused(scorer):
    with pytest.raises(InputRejected) as refused:
        scorer.score([replace(CERVICAL.radiograph, patient_key="a"), replace(LUMBAR.radiograph, patient_key="b")])
    assert refused.value.code == "two-patients"


def test_a_closed_scorer_says_so(tmp_path):
    with Scorer.open(write_bundle(tmp_path / "b"), "cpu") as scorer:
        pass
    scorer.close()
    with pytest.raises(DeviceError, match="closed"):
        scorer.score(CERVICAL.radiograph)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grader.input": {"height": 32, "width": 32, "channels": 1, "mean": [0.0], "std": [1.0], "antialias": 1,
                           "levels": None}}, "grader-corners.fp32.onnx: tensor image is"),
        ({"localizer.input.channels": 3, "localizer.input.mean": [0.0] * 3, "localizer.input.std": [1.0] * 3}, None),
        ({"heads": 12, "localizer.keypoints": None}, "localizer.fp32.onnx: tensor heatmaps is"),
    ],
)  # fmt: skip
def test_networks_that_do_not_fit_the_manifest(tmp_path, changes, message):
    if changes.get("localizer.keypoints", 0) is None:
        from tiny import manifest

        changes["localizer.keypoints"] = manifest(24)["localizer"]["keypoints"]
    folder = write_bundle(tmp_path / "b", **changes)
    if message is None:
        Scorer.open(folder, "cpu").close()
        return
    with pytest.raises(BundleError, match=message):
        Scorer.open(folder, "cpu")


@pytest.mark.parametrize(("head", "networks"), [("corners4", 1), ("corner4", 2), ("bridge+grades", 3)])
@pytest.mark.parametrize("facing", ["left", "right"])
def test_crops_are_what_the_grader_sees(tmp_path, head, networks, facing):
    drawn = draw("cervical", facing=facing)
    with Scorer.open(
        write_bundle(tmp_path / "b", **{"grader.head": head, "grader.input.levels": 256}), "cpu"
    ) as scorer:
        found = scorer.crops([drawn.radiograph, blank(region="lumbar")])
    assert found.report.regions["lumbar"].status == "rejected"
    assert len(found.crops) == 6 * networks
    assert {crop.region for crop in found.crops} == {"cervical"}
    view, reported = np.zeros(1, VIEW), np.zeros((1, 6, 2), POINT)
    view["faces_right"] = facing == "right"
    reported["xy"][0], reported["confidence"] = points(found.report.regions["cervical"]), 1
    rois = crops(reported, view, CropSpec(CROP, "anterior-distance", EXTENT, "left"))
    source = Source(drawn.radiograph.pixels, (np.round(drawn.radiograph.table * 255) / 255,))
    expected = warp([source], rois.reshape(-1), WarpSpec(CROP, CROP, 2, (0.0,), (1.0,)))[:, 0]
    sites = []
    for crop in found.crops:
        disc = LEVELS["cervical"].index(crop.level)
        flipped = len(crop.sites) == 1 and crop.sites[0].endswith("inferior")
        picture = expected[disc, ::-1] if flipped else expected[disc]
        assert np.abs(crop.image - picture).max() < 0.005
        sites += crop.sites
    assert len(sites) == 12 * (2 if head == "bridge+grades" else 1)


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
