"""The benchmark of quality findings: every way of spoiling changes what it should, and cases are counted by region."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from spinescore.benchmarks import quality
from spinescore.benchmarks.quality import Cases
from spinescore.benchmarks.spoiled import SPOILS, Truth
from spinescore.runtime.errors import CODES
from spinescore.runtime.phantom.study import draw_view
from spinescore.runtime.scoring.report import BundleInfo, DeviceInfo, RegionReport, StudyInfo, StudyReport, TimingsMs
from spinescore.runtime.scoring.report import TotalReport as Total
from spinescore.runtime.study import LEVELS, REGIONS, Finding, Radiograph


@pytest.fixture(scope="module")
def phantom():
    radiographs, truth = [], {}
    for region in REGIONS:
        view = draw_view(1_000_003, region, 0.2)
        table = np.linspace(0, 1, 2**view.image.bits, dtype=np.float32)
        radiographs.append(Radiograph(view.image.pixels, table, spacing_mm=(0.7, 0.7), source=f"{region}.dcm"))
        truth[region] = Truth(view.centres_px, view.anteriors_px, (0,) * 12)
    return radiographs, truth


def _stated(image):
    return image.spacing_mm, image.study_date, image.turn_deg, image.facing


@pytest.mark.parametrize("name", SPOILS)
def test_a_spoiled_study_is_another_one_of_the_same_form(phantom, name):
    radiographs, truth = phantom
    made, given = SPOILS[name].make(np.random.default_rng(1), radiographs, truth)
    assert SPOILS[name].code in CODES
    assert [image.region for image in made] == list(REGIONS)
    for before, after in zip(radiographs, made, strict=True):
        assert after.pixels.dtype == before.pixels.dtype
        assert after.pixels.max() < after.table.size
        assert 0 <= after.table.min() <= after.table.max() <= 1
        same = np.array_equal(before.pixels, after.pixels) and np.array_equal(before.table, after.table)
        stated = _stated(before) == _stated(after)
        assert given is not None or not (same and stated)


def test_points_one_level_off_are_those_of_the_neighbours(phantom):
    radiographs, truth = phantom
    for name, shift in (("lower", 1), ("higher", -1)):
        _, given = SPOILS[f"points one level {name}"].make(np.random.default_rng(1), radiographs, truth)
        for region in REGIONS:
            centre = np.array([given[region][level][0] for level in LEVELS[region]])
            inner = slice(0, 5) if shift == 1 else slice(1, 6)
            assert np.allclose(centre[inner], np.roll(truth[region].centre, -shift, axis=0)[inner])


def test_cases_are_counted_by_region():
    lost = RegionReport("rejected", None, None, (), None, (0, 36), 12)
    report = StudyReport(
        study=StudyInfo(None, None, None),
        bundle=BundleInfo("b", "1", "0" * 64, "Tests."),
        device=DeviceInfo("cpu", "CPU", "none", "fp32"),
        regions=dict.fromkeys(REGIONS, lost),
        total=Total(None, (0, 72), "incomplete", ()),
        timings_ms=TimingsMs(None, None, None, None, None),
        budget_ms=None,
        within_budget=None,
        warnings=(),
        findings=(Finding("inverted", "warning", "Odd.", "lumbar"), Finding("views-contradict", "warning", "Odd.")),
    )
    truth = {region: Truth(np.zeros((6, 2)), np.zeros((6, 2)), (0,) * 12) for region in REGIONS}
    cases = Cases("inverted")
    cases.add(report, truth)
    cases.add(replace(report, findings=()), truth)
    figures = cases.figures()
    assert (figures["radiographs"], figures["hit_rate"], figures["scored"]) == (4, 0.25, 0)
    assert figures["rates"] == {"inverted": 0.25, "views-contradict": 0.5}
    assert figures["corners_right_of_scored"] is None


def test_a_sound_and_a_spoiled_study_are_scored_and_timed(capsys) -> None:
    assert quality.main(["--count", "1", "--spoiled", "1", "--only", "inverted"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("inverted") >= 2  # the way to spoil, and the code
    costs = json.loads(printed.splitlines()[-1])
    assert min(costs["before"]["p50"], costs["after"]["p50"]) > 0
