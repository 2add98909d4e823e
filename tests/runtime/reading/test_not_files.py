"""A pipe or a device instead of a document is refused at once, with its name. Among several it is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers import tiny
from helpers.tiny_study import TOTAL, write_study
from spinescore.runtime import BundleError, EngineError, Scorer, cli, load_study
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.followup.cohort import read_cohort
from spinescore.runtime.followup.tables import csv_text, tables_of
from spinescore.runtime.scoring.report import StudyReport

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.fixture(params=[pipe, device])
def replaced(request):
    return request.param


@pytest.fixture
def folder(tmp_path) -> Path:
    return tiny.write_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("name", ["bundle.json", "localizer.fp32.onnx"])
def test_a_bundle_is_refused(folder, replaced, name):
    replaced(folder / name)
    with pytest.raises(BundleError, match=f"{name}.*(not a file|leaves the bundle)"):
        Bundle.open(folder)


def test_a_record_and_a_plan_are_passed_over(folder, replaced, tmp_path):
    (folder / "acceptance").mkdir()
    for name in ("acceptance-x.json", "plan-cpu-x.json"):
        replaced(folder / "acceptance" / name)
    with Scorer.open(folder, "cpu") as scorer:
        report = scorer.score(load_study(write_study(tmp_path / "study")))
    assert report.total.value == TOTAL
    assert any("not a file" in warning for warning in report.warnings)


def test_a_plan_and_points_that_are_named_are_refused(folder, replaced, tmp_path, capsys):
    study = write_study(tmp_path / "study")
    replaced(tmp_path / "named.json")
    asked = ["score", str(study), "--bundle", str(folder)]
    for option, status in (("--plan", 4), ("--keypoints", 2)):
        assert cli.main([*asked, option, str(tmp_path / "named.json")]) == status
        assert "not a file" in capsys.readouterr().err


def test_a_sidecar_is_refused(replaced, tmp_path):
    replaced(tmp_path / "x.engine.json")
    with pytest.raises(EngineError, match="not a file"):
        Sidecar.read(tmp_path / "x.engine")


def test_reports_of_others_are_named_and_their_formulas_guarded(folder, replaced, tmp_path):
    with Scorer.open(folder, "cpu") as scorer:
        report = scorer.score(load_study(write_study(tmp_path / "study")))
    reports = tmp_path / "reports"
    reports.mkdir()
    spoiled = report.to_json().replace('"name": "tiny"', '"name": "=cmd|x"')
    assert StudyReport.from_json(spoiled).bundle.name == "=cmd|x"
    (reports / "=1+1.json").write_text(spoiled, encoding="utf-8")
    replaced(reports / "other.json")
    cohort = read_cohort(reports)
    assert len(cohort.entries) == 1
    assert any("other.json" in note and "not a file" in note for note in cohort.notes)
    (row,) = tables_of(cohort)["studies"]
    assert (row["bundle_name"], row["report"]) == ("'=cmd|x", "'=1+1.json")
    assert ",=" not in csv_text("studies", [row])
    assert not csv_text("studies", [row]).splitlines()[1].startswith("=")
