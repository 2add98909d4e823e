"""A network that gives no finite number costs its corners, or its region, and never the report."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import tiny
from helpers.tiny_study import TOTAL, write_study
from spinescore.runtime import Scorer, load_study
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.outputs.results import write_results


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study(write_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle"))) as opened:
        yield opened


@pytest.fixture
def spoil(monkeypatch):
    """Change what networks give, by the number of an output's axes: 4 for heatmaps, 2 for logits."""

    def spoil(axes, change):
        run = HostDevice.run

        def spoiled(self, engine, inputs, outputs):
            run(self, engine, inputs, outputs)
            if np.ndim(outputs) == axes:
                change(np.asarray(outputs))

        monkeypatch.setattr(HostDevice, "run", spoiled)

    return spoil


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [1, None])
def test_a_grader_without_numbers_leaves_corners_unread(scorer, study, tmp_path, spoil, bad, count):
    def change(logits):
        if count is None:
            logits[...] = bad
        else:
            logits[0, 3] = bad

    spoil(2, change)
    report = scorer.score(study)
    corners = [c for region in report.regions.values() for disc in region.discs for c in disc.corners]
    unread = [corner for corner in corners if corner.grade is None]
    assert len(unread) == (24 if count is None else 4)  # of one disc in each half of the batch
    assert all(corner.status in ("unreadable", "imputed") for corner in unread)
    assert {region.status for region in report.regions.values()} == {"scored"}
    assert (report.total.value is None) is (count is None)
    assert write_results(study, report, tmp_path, formats=("json", "html", "csv", "png"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_localizer_without_numbers_rejects_its_regions(scorer, study, tmp_path, spoil, bad):
    spoil(4, lambda heatmaps: heatmaps.fill(bad))
    report = scorer.score(study)
    rejects = [region.reject for region in report.regions.values()]
    assert [reject.code for reject in rejects if reject] == ["low-confidence"] * 2
    assert write_results(study, report, tmp_path, formats=("json", "html", "csv", "png"))


def test_one_heatmap_pixel_that_is_no_number_is_no_peak(scorer, study, spoil):
    def change(heatmaps):
        heatmaps[:, :, 0, 0] = np.nan

    spoil(4, change)
    assert scorer.score(study).total.value == TOTAL
