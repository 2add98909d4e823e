"""Findings in a report: as warnings, as rejects where it is strict, in JSON, and in what people read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from helpers import tiny_study
from helpers.scoring import CERVICAL, LUMBAR, assert_found, blank, checked
from helpers.tiny import write_bundle
from spinescore.runtime import Scorer, StudyReport, cli
from spinescore.runtime.reading.quality import finding
from spinescore.runtime.verbs.summary import study_summary


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def scorer(bundle):
    with Scorer.open(bundle, "cpu", threads=1) as opened:
        yield opened


TEXT = finding("burned-in-text", "cervical.dcm", "its header says that text is burned into the picture")
MARKED = replace(CERVICAL.radiograph, findings=(TEXT,))
FAR = replace(LUMBAR.radiograph, spacing_mm=(2.0, 2.0))  # seen only after the points were found


def test_a_warning_does_not_stop_a_score(scorer):
    report = checked(scorer.score([MARKED, FAR]))
    assert_found(report.regions["cervical"], CERVICAL)
    assert_found(report.regions["lumbar"], LUMBAR)
    assert [(found.code, found.severity, found.region) for found in report.findings] == [
        ("burned-in-text", "warning", "cervical"),
        ("implausible-spacing", "warning", "lumbar"),
    ]
    assert report.warnings == tuple(found.message for found in report.findings)
    assert "quality   burned-in-text (cervical), implausible-spacing (lumbar)" in study_summary(report)


def test_a_reject_is_a_finding_too(scorer):
    report = checked(scorer.score([blank(), LUMBAR.radiograph]))
    (found,) = report.findings
    assert (found.code, found.severity, found.region) == ("blank", "reject", "cervical")
    assert found.message == report.regions["cervical"].reject.message
    assert not report.warnings
    assert "quality" not in study_summary(report)


@pytest.mark.parametrize(
    ("radiographs", "region", "code", "other"),
    [([MARKED, LUMBAR.radiograph], "cervical", "burned-in-text", "lumbar"),
     ([CERVICAL.radiograph, FAR], "lumbar", "implausible-spacing", "cervical")],
)  # fmt: skip
def test_strict_rejects_the_region_of_a_warning(scorer, radiographs, region, code, other):
    report = checked(scorer.score(radiographs, strict=True))
    assert (report.regions[region].status, report.regions[region].reject.code) == ("rejected", code)
    assert report.regions[region].radiograph is None or report.regions[region].radiograph.source == f"{region}.dcm"
    assert report.regions[other].status == "scored"
    assert code in {found.code for found in report.findings if found.severity == "reject"}
    assert scorer.crops(radiographs, strict=True).report.regions[region].reject.code == code


def test_strict_rejects_both_regions_where_they_contradict_each_other(scorer):
    days = [replace(CERVICAL.radiograph, study_date="20250101"), replace(LUMBAR.radiograph, study_date="20260101")]
    assert {region.status for region in scorer.score(days).regions.values()} == {"scored"}
    report = checked(scorer.score(days, strict=True))
    assert {region.reject.code for region in report.regions.values()} == {"views-contradict"}


def test_strict_takes_the_other_candidate_where_one_has_a_warning(scorer):
    sound = replace(CERVICAL.radiograph, source="sound.dcm")
    report = checked(scorer.score([MARKED, sound], strict=True))
    assert report.regions["cervical"].radiograph.source == "sound.dcm"
    assert [reject.code for reject in report.rejects] == ["burned-in-text"]


def test_a_localizer_image_is_not_scored(scorer):
    scout = replace(MARKED, findings=(finding("localizer-image", "cervical.dcm", "it is a localizer"),))
    assert scorer.score(scout).regions["cervical"].reject.code == "localizer-image"


def test_reports_without_findings_are_read(scorer):
    document = json.loads(scorer.score([MARKED]).to_json())
    del document["findings"]
    assert StudyReport.from_json(json.dumps(document)).findings == ()


def test_strict_on_the_command_line(bundle, tmp_path, capsys):
    import pydicom

    folder = tiny_study.write_study(tmp_path / "study", regions=("cervical",))
    ds = pydicom.dcmread(folder / "cervical.dcm")
    ds.BurnedInAnnotation = "YES"
    ds.save_as(folder / "cervical.dcm")
    command = ["score", str(folder), "--bundle", str(bundle), "--device", "cpu", "--json"]
    assert cli.main(command) == 0
    assert "burned" in capsys.readouterr().err
    assert cli.main([*command, "--strict"]) == 3
    assert json.loads(capsys.readouterr().out)["regions"]["cervical"]["reject"]["code"] == "burned-in-text"
