"""Scoring end to end on the host device, with networks whose right answers are known (see `tiny`)."""

import gc
import json
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from helpers.scoring import CERVICAL, LUMBAR, OTHER_GRADES, assert_found, blank, checked, grades, points
from helpers.tiny import CROP, EXTENT, draw, manifest, write_bundle
from spinescore.kernels.decode import POINT, VIEW, CropSpec, crops
from spinescore.kernels.warp import Source, WarpSpec, warp
from spinescore.runtime import BudgetExceeded, BundleError, DeviceError, Scorer, Study
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.reading.greyscale import contrast_table
from spinescore.runtime.study import LEVELS, REGIONS


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(write_bundle(tmp_path_factory.mktemp("plain")), "cpu") as opened:
        yield opened


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
        {"localizer.input.channels": 3, "localizer.input.mean": [0.0] * 3, "localizer.input.std": [1.0] * 3},
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


@pytest.mark.parametrize(
    ("options", "changes", "runs"),
    [({}, {}, True), ({"warm_up": False}, {}, False), ({"warm_up": False, "budget_ms": 1e6}, {}, True),
     ({"warm_up": False}, {"budget_ms": 1e6}, True)],
)  # fmt: skip
def test_networks_run_at_opening_unless_that_is_left_to_the_first_study(tmp_path, monkeypatch, options, changes, runs):
    counted = []
    run = HostDevice.run
    monkeypatch.setattr(HostDevice, "run", lambda *call: (counted.append(call), run(*call)))
    with Scorer.open(write_bundle(tmp_path / "b", **changes), "cpu", **options) as opened:
        assert bool(counted) is runs
        report = checked(opened.score([CERVICAL.radiograph, LUMBAR.radiograph]))
    assert_found(report.regions["cervical"], CERVICAL)
    assert_found(report.regions["lumbar"], LUMBAR)


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
    """A host device that notes what is uploaded and how many images each network is given."""

    def __init__(self):
        super().__init__(1)
        self.batches = []
        self.sources = []

    def upload(self, slot, source):
        self.sources.append(source)
        super().upload(slot, source)

    def run(self, engine, inputs, outputs):
        self.batches.append(len(inputs))
        super().run(engine, inputs, outputs)


@pytest.mark.parametrize("drawn", [CERVICAL, LUMBAR])
def test_one_radiograph_alone_costs_half_and_leaves_no_total(tmp_path, drawn):
    spy = Spy()
    with Scorer(Bundle.open(write_bundle(tmp_path / "b", **{"localizer.passes": 2})), spy) as scorer:
        assert spy.batches == [2, 12]
        spy.batches.clear()
        report = checked(scorer.score(drawn.radiograph))
        assert spy.batches == [1, 1, 6]
    region = drawn.radiograph.region
    missing = report.regions[next(other for other in REGIONS if other != region)]
    assert_found(report.regions[region], drawn)
    assert (missing.status, missing.range, missing.missing, missing.reject) == ("missing", (0, 36), 12, None)
    low = sum(map(sum, drawn.grades))
    assert (report.total.value, report.total.range, report.total.status) == (None, (low, low + 36), "incomplete")


@pytest.mark.parametrize("fails", [False, True])
def test_the_pixels_belong_to_the_caller_again_after_a_study(scorer, fails):
    radiographs = [draw(region).radiograph for region in REGIONS]
    pixels = [weakref.ref(radiograph.pixels) for radiograph in radiographs]
    if fails:
        with pytest.raises(BudgetExceeded):
            scorer.score(radiographs, budget_ms=1e-6, hard=True)
    else:
        scorer.score(radiographs)
    del radiographs
    gc.collect()
    assert [pixel() for pixel in pixels] == [None, None]


@pytest.mark.parametrize(
    ("contrast", "levels"),
    [(("dicom", 1.0, 99.0), None), (("dicom", 1.0, 99.0), 256), (("percentile", 2.0, 90.0), None)],
)
def test_each_network_sees_its_own_contrast(tmp_path, contrast, levels):
    own = {"grader.contrast": dict(zip(("mode", "low", "high"), contrast, strict=True)), "grader.input.levels": levels}
    spy, radiograph = Spy(), draw("cervical", dtype="uint16").radiograph
    with Scorer(Bundle.open(write_bundle(tmp_path / "b", **own)), spy) as scorer:
        scorer.score(radiograph)
    localizer, grader = spy.sources[-1].tables
    assert localizer is radiograph.table
    assert np.array_equal(grader, contrast_table(radiograph, *contrast, levels))
    assert (grader is localizer) == (contrast[0] == "dicom" and levels is None)


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


def test_abstention(tmp_path):
    with Scorer.open(write_bundle(tmp_path / "b", **{"grader.abstain_below": 1.0}), "cpu") as scorer:
        region = checked(scorer.score(CERVICAL.radiograph)).regions["cervical"]
    assert {corner.status for disc in region.discs for corner in disc.corners} == {"abstained"}
    assert (region.status, region.total, region.range) == ("scored", None, (0, 36))
    assert [(disc.total, disc.range) for disc in region.discs] == [(None, (0, 6))] * 6
    assert region.expected.mean == pytest.approx(sum(map(sum, CERVICAL.grades)), abs=0.01)  # what it abstained from
    with Scorer.open(tmp_path / "b", "cpu", max_imputed_per_region=12) as scorer:
        assert scorer.score(CERVICAL.radiograph).regions["cervical"].total is None


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
        ({"heads": 12, "localizer.keypoints": manifest(24)["localizer"]["keypoints"]},
         "localizer.fp32.onnx: tensor heatmaps is"),
    ],
)  # fmt: skip
def test_networks_that_do_not_fit_the_manifest(tmp_path, changes, message):
    folder = write_bundle(tmp_path / "b", **changes)
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
