"""`--keypoints`: a file's points are used for the study in which they were set, and for no other."""

from __future__ import annotations

import json

import jsonschema
import pytest

from helpers import tiny
from helpers.tiny_study import GRADES, write_study
from spinescore.runtime import cli
from spinescore.runtime.scoring.report import StudyReport, report_schema

SHIFT = [[0.25, -0.5], [-0.5, 0.25]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[str, str]:
    """Two studies in folders, `1.2.3.1` and `1.2.3.2`."""
    folder = tmp_path_factory.mktemp("two")
    return tuple(str(write_study(folder / str(number), uid=f"1.2.3.{number}")) for number in (1, 2))


def points(region: str = "cervical", level: str = "C2/C3") -> dict:
    centre, anterior = (tiny.draw(region, GRADES).points[0] + SHIFT).tolist()
    return {region: {level: {"centre_px": centre, "anterior_px": anterior}}}


def written(path, document) -> str:
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return str(path)


def score(capsys, *words: str) -> tuple[int, list[dict], str]:
    status = cli.main(["score", *words, "--json"])
    said = capsys.readouterr()
    reports = [json.loads(line) for line in said.out.splitlines()] if said.out.startswith('{"') else []
    reports = reports or ([json.loads(said.out)] if said.out else [])
    for report in reports:
        jsonschema.validate(report, report_schema())
    return status, reports, said.err


def origins(report: dict) -> list[str]:
    return [disc["points"] for region in report["regions"].values() for disc in region["discs"]]


@pytest.mark.parametrize("verb", ["score", "crops"])
def test_points_of_one_study_are_refused_for_two(bundle, two, tmp_path, capsys, verb):
    out = tmp_path / "out"
    file = written(tmp_path / "a.json", points())
    assert cli.main([verb, *two, "--bundle", bundle, "--keypoints", file, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "2 studies" in said.err
    assert '{"1.2.3.1": {"cervical":' in said.err
    assert not out.exists()


def test_points_go_to_the_study_that_the_file_names(bundle, two, tmp_path, capsys):
    file = written(tmp_path / "b.json", {"1.2.3.2": points()})
    status, (first, second), _ = score(capsys, *two, "--bundle", bundle, "--keypoints", file)
    assert status == 0
    assert origins(first) == ["found"] * 12
    assert origins(second) == ["given", *["found"] * 11]
    centre = points()["cervical"]["C2/C3"]["centre_px"]
    moved, found = (report["regions"]["cervical"]["discs"][0]["centre_px"] for report in (second, first))
    assert moved == pytest.approx(centre, abs=0.01)
    assert found != pytest.approx(centre, abs=0.1)


@pytest.mark.parametrize("keyed", [False, True])
def test_one_study_takes_both_forms(bundle, two, tmp_path, capsys, keyed):
    file = written(tmp_path / "a.json", {"1.2.3.1": points()} if keyed else points())
    status, (report,), _ = score(capsys, two[0], "--bundle", bundle, "--keypoints", file)
    assert (status, origins(report)[:2]) == (0, ["given", "found"])


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_study_that_was_not_read_is_named(bundle, two, tmp_path, capsys, anonymous):
    file = written(tmp_path / "c.json", {"1.2.3.1": points(), "1.2.3.9": points()})
    words = [*two, "--bundle", bundle, "--keypoints", file, *(["--anonymous"] if anonymous else [])]
    status, reports, said = score(capsys, *words)
    assert (status, reports) == (2, [])
    assert "1.2.3.9" in said
    assert ("1.2.3.2" in said) is not anonymous


def test_anonymous_studies_keep_their_points(bundle, two, tmp_path, capsys):
    file = written(tmp_path / "b.json", {"1.2.3.2": points()})
    status, reports, said = score(capsys, *two, "--bundle", bundle, "--keypoints", file, "--anonymous")
    assert (status, [origins(report)[0] for report in reports]) == (0, ["found", "given"])
    assert "1.2.3" not in said


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"1.2.3.1": points(), **points()}, "'cervical' is not"),
        ({"1.2.3.1": {"thorax": {}}}, "study 1.2.3.1: keypoints: 'thorax'"),
        ({"1.2.3.1": []}, "expected"),
        ({"1.2.3.1": {"cervical": {"C2/C3": {"centre_px": [10**400, 1], "anterior_px": [1, 2]}}}}, "cervical C2/C3"),
        ('{"1.2.3.1": {}, "1.2.3.1": {}}', "'1.2.3.1' twice"),
        ('{"cervical": {}, "lumbar": {}, "cervical": {}}', "'cervical' twice"),
    ],
)
def test_files_that_are_refused(bundle, two, tmp_path, capsys, document, named):
    file = written(tmp_path / "points.json", document)
    status, reports, said = score(capsys, two[0], "--bundle", bundle, "--keypoints", file)
    assert (status, reports) == (2, [])
    assert named in said
    assert "points.json" in said


def test_points_that_no_radiograph_could_take_are_said(bundle, tmp_path, capsys):
    study = str(write_study(tmp_path / "in", regions=("lumbar",)))
    file = written(tmp_path / "points.json", points())
    status, (report,), said = score(capsys, study, "--bundle", bundle, "--keypoints", file)
    assert status == 0
    assert any("cervical points given were not used" in warning for warning in report["warnings"])
    assert "cervical points given were not used" in said


def test_given_points_are_shown_where_discs_are_listed(bundle, two, tmp_path, capsys):
    file, out = written(tmp_path / "a.json", points()), tmp_path / "out"
    words = [two[0], "--bundle", bundle, "--keypoints", file, "--out", str(out), "--format", "html,csv"]
    assert cli.main(["score", *words]) == 0
    assert "points    given for C2/C3\n" in capsys.readouterr().out
    assert (out / "report.html").read_text(encoding="utf-8").count("points given") == 1
    header, row = (out / "row.csv").read_text(encoding="utf-8").splitlines()
    assert row.split(",")[header.split(",").index("given_points")] == "C2/C3"


def test_older_reports_do_not_say_whose_points_they_are(bundle, two, capsys):
    _, (report,), _ = score(capsys, two[0], "--bundle", bundle)
    for disc in report["regions"]["lumbar"]["discs"]:
        del disc["points"]
    read = StudyReport.from_json(json.dumps(report))
    assert [disc.points for disc in read.regions["lumbar"].discs] == [None] * 6
    jsonschema.validate(json.loads(read.to_json()), report_schema())


def test_a_reports_points_may_be_given_again(bundle, tmp_path, capsys):
    """A report names its study, also after its points were corrected."""
    study = str(write_study(tmp_path / "study"))
    assert cli.main(["score", study, "--bundle", bundle, "--out", str(tmp_path / "out"), "--format", "json"]) == 0
    path = tmp_path / "out" / "report.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    capsys.readouterr()
    assert cli.main(["score", study, "--bundle", bundle, "--keypoints", str(path), "--json"]) == 0
    after = json.loads(capsys.readouterr().out)
    for region in ("cervical", "lumbar"):
        for one, other in zip(before["regions"][region]["discs"], after["regions"][region]["discs"], strict=True):
            assert other["points"] == "given"
            assert other["centre_px"] == pytest.approx(one["centre_px"], abs=1e-3)
    before["study"]["study_instance_uid"] = "1.9"
    path.write_text(json.dumps(before), encoding="utf-8")
    assert cli.main(["score", study, "--bundle", bundle, "--keypoints", str(path)]) == 2
    assert "1.9" in capsys.readouterr().err
    del before["regions"]["lumbar"]["discs"][0]["centre_px"]
    path.write_text(json.dumps(before), encoding="utf-8")
    assert cli.main(["score", study, "--bundle", bundle, "--keypoints", str(path)]) == 2
    assert "incomplete or damaged" in capsys.readouterr().err
