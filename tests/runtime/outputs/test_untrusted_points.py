"""A region that is rejected for its points shows them as untrusted, in the report and in pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from helpers import pages, tiny
from spinescore.runtime import OutputError, Scorer, StudyReport
from spinescore.runtime.outputs.html import html
from spinescore.runtime.outputs.overlay import draw_untrusted
from spinescore.runtime.outputs.results import write_results
from spinescore.runtime.scoring.report import report_schema

CAUTION = (0, 159, 230)  # blue, green, red
DRAWN = tiny.draw("cervical", pages.GRADES)
SWAPPED = {"cervical": dict(zip(("C3/C4", "C4/C5"), DRAWN.points[[2, 1]].tolist(), strict=True))}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle")), device="cpu") as scorer:
        yield scorer


@pytest.fixture(scope="module")
def study():
    return replace(pages.complete(), radiographs=(replace(DRAWN.radiograph, source="Doe.dcm"),))


@pytest.fixture(scope="module")
def report(scorer, study):
    return scorer.score(study, keypoints=SWAPPED)


def test_the_report_has_the_points_apart_from_discs(report):
    cervical = report.regions["cervical"]
    assert (cervical.status, cervical.reject.code, cervical.discs) == ("rejected", "implausible-geometry", ())
    points = {disc.level: disc for disc in cervical.untrusted_points}
    assert len(points) == 6
    np.testing.assert_allclose(points["C3/C4"].centre_px, DRAWN.points[2, 0], atol=0.01)
    np.testing.assert_allclose(points["C2/C3"].anterior_px, DRAWN.points[0, 1], atol=2)
    assert [disc.points for disc in points.values()] == ["found", "given", "given", "found", "found", "found"]
    assert report.regions["lumbar"].untrusted_points == ()
    document = json.loads(report.to_json())
    jsonschema.validate(document, report_schema())
    assert StudyReport.from_json(report.to_json()) == report


def test_a_scored_region_has_none_and_older_reports_read(scorer, report):
    scored = scorer.score(pages.complete())
    assert all(region.untrusted_points == () for region in scored.regions.values())
    document = json.loads(report.to_json())
    for region in document["regions"].values():
        del region["untrusted_points"]
    jsonschema.validate(document, report_schema())
    assert StudyReport.from_json(json.dumps(document)).regions["cervical"].untrusted_points == ()


def test_low_confidence_shows_what_was_found(scorer):
    """Three discs are wiped out; the others are still shown."""
    pixels = DRAWN.radiograph.pixels.copy()
    for centre, anterior in DRAWN.points[3:]:
        for x, y in (centre, anterior):
            pixels[int(y) - 25 : int(y) + 25, int(x) - 25 : int(x) + 25] = 0
    cervical = scorer.score(replace(DRAWN.radiograph, pixels=pixels)).regions["cervical"]
    assert cervical.reject.code == "low-confidence"
    assert [disc.level for disc in cervical.untrusted_points][:3] == ["C2/C3", "C3/C4", "C4/C5"]
    np.testing.assert_allclose(cervical.untrusted_points[0].centre_px, DRAWN.points[0, 0], atol=2)


def test_the_overlay_shows_the_points_and_says_so(study, report):
    cervical, radiograph = report.regions["cervical"], study.radiographs[0]
    picture = draw_untrusted(radiograph, cervical, "mSASSS cervical: rejected", "Tests.")
    scale = min(1.0, 1000 / radiograph.rows)
    top = picture.shape[0] - round(radiograph.rows * scale)
    assert top > 0
    for disc in cervical.untrusted_points:
        x, y = np.round((np.array(disc.centre_px) + 0.5) * scale - 0.5).astype(int)
        assert tuple(picture[top + y, x]) == CAUTION


def test_results_of_a_rejected_region(scorer, study, report, tmp_path):
    names = sorted(path.name for path in write_results(study, report, tmp_path, formats=("json", "png", "html")))
    assert names == ["overlay-cervical.png", "report.html", "report.json"]
    page = html(study, report)
    assert "The points shown are not to be trusted." in page
    assert page.count('class="anterior"') == 6
    assert 'class="grades"' not in page


@pytest.mark.parametrize("far", [1e7, -3e9, 3e37])
@pytest.mark.parametrize("count", [1, 3])
def test_points_far_outside_of_the_picture_can_be_drawn(scorer, study, tmp_path, far, count):
    """One disc with such points becomes unreadable; with three, the region is rejected."""
    levels = ("C2/C3", "C3/C4", "C4/C5")[:count]
    given = {"cervical": dict.fromkeys(levels, ((far, far), (far, -far)))}
    report = scorer.score(study, keypoints=given)
    assert report.regions["cervical"].status == ("scored" if count == 1 else "rejected")
    write_results(study, report, tmp_path, formats=("json", "png", "html"))
    assert (tmp_path / "overlay-cervical.png").exists()


def test_a_study_without_the_radiograph_is_refused(study, report, tmp_path):
    with pytest.raises(OutputError, match="radiograph of the cervical region is not in the study"):
        write_results(replace(study, radiographs=()), report, tmp_path, formats=("png",))
