"""The command line: exit statuses, standard output and error, and files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from helpers import tiny
from helpers.tiny_study import GRADES, TOTAL, write_study
from spinescore.runtime import Scorer, cli, verbs
from spinescore.runtime.scoring.report import report_schema
from spinescore.runtime.verbs import plan


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> str:
    return str(write_study(tmp_path_factory.mktemp("study")))


def reports(text: str) -> list[dict]:
    found = [json.loads(line) for line in text.splitlines()] if text.startswith('{"') else [json.loads(text)]
    for report in found:
        jsonschema.validate(report, report_schema())
    return found


def test_score_prints_the_report_alone(bundle, study, capsys):
    assert cli.main(["score", study, "--bundle", bundle, "--json"]) == 0
    (report,) = reports(capsys.readouterr().out)
    assert report["total"]["value"] == TOTAL
    grades = [[corner["grade"] for corner in disc["corners"]] for disc in report["regions"]["lumbar"]["discs"]]
    assert grades == [list(pair) for pair in GRADES]


def test_score_for_people_names_sites_and_totals(bundle, study, capsys):
    assert cli.main(["score", study, "--bundle", bundle]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert all(site in out for site in ("C2-inferior", "T1-superior", "T12-inferior", "S1-superior"))
    assert f"{TOTAL} of 72" in out
    assert "Tests of spinescore." in out


def test_several_studies_are_json_lines_in_numbered_folders(bundle, tmp_path, capsys):
    for number in (1, 2):
        write_study(tmp_path / "in" / str(number), uid=f"1.2.3.{number}")
    out = tmp_path / "out"
    assert cli.main(["score", str(tmp_path / "in"), "--bundle", bundle, "--json", "--out", str(out)]) == 0
    found = reports(capsys.readouterr().out)
    assert [report["study"]["study_instance_uid"] for report in found] == ["1.2.3.1", "1.2.3.2"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        f"study-{number}/{name}"
        for number in (1, 2)
        for name in ("overlay-cervical.png", "overlay-lumbar.png", "report.json")
    ]


def test_several_studies_for_people_have_a_title_each(bundle, tmp_path, capsys):
    for number in (1, 2):
        write_study(tmp_path / "in" / f"film-{number}", uid=f"1.2.3.{number}")
    assert cli.main(["score", str(tmp_path / "in"), "--bundle", bundle]) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("study ")]
    assert titles == [
        f"study {number} of 2 (film-{number}/lumbar.dcm, film-{number}/cervical.dcm)" for number in (1, 2)
    ]


def test_titles_of_anonymous_studies_name_no_file(bundle, tmp_path, capsys):
    for number in (1, 2):
        write_study(tmp_path / "in" / f"film-{number}", uid=f"1.2.3.{number}")
    assert cli.main(["score", str(tmp_path / "in"), "--bundle", bundle, "--anonymous"]) == 0
    printed = capsys.readouterr()
    assert "study 2 of 2" in printed.out
    assert "film-" not in printed.out + printed.err


def test_results_are_named_after_nothing_in_the_header(bundle, study, tmp_path, capsys):
    assert cli.main(["score", study, "--bundle", bundle, "--out", str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["overlay-cervical.png", "overlay-lumbar.png", "report.json"]
    written = (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
    assert reports(written)[0]["total"]["value"] == TOTAL
    assert "P-1" not in written
    assert "Test^Case" not in written


def test_one_region_is_enough(bundle, tmp_path, capsys):
    assert cli.main(["score", str(write_study(tmp_path, regions=("lumbar",))), "--bundle", bundle, "--json"]) == 0
    (report,) = reports(capsys.readouterr().out)
    assert report["regions"]["cervical"]["status"] == "missing"
    assert report["total"]["value"] is None


def test_a_hard_budget_gives_a_study_up_and_leaves_no_earlier_result(bundle, study, tmp_path, capsys):
    out = tmp_path / "results"
    asked = ["score", study, "--bundle", bundle, "--out", str(out)]
    assert cli.main([*asked, "--budget-ms", "100000", "--hard"]) == 0
    assert (out / "report.json").exists()
    (out / "notes.txt").write_text("kept", encoding="utf-8")
    capsys.readouterr()
    assert cli.main([*asked, "--budget-ms", "0.001", "--hard"]) == 5
    said = capsys.readouterr()
    assert "budget of 0.001 ms cannot be kept" in said.err
    assert (said.out, [path.name for path in out.iterdir()]) == ("", ["notes.txt"])
    assert cli.main([*asked, "--hard"]) == 2
    assert "--budget-ms" in capsys.readouterr().err


def test_over_budget(bundle, study, capsys):
    assert cli.main(["score", study, "--bundle", bundle, "--json", "--budget-ms", "0.001"]) == 5
    assert reports(capsys.readouterr().out)[0]["within_budget"] is False


def truncated(folder: Path) -> Path:
    path = write_study(folder, regions=("cervical",)) / "cervical.dcm"
    path.write_bytes(path.read_bytes()[:5000])
    return path


def text_file(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("no radiograph", encoding="utf-8")
    return path


def empty_folder(folder: Path) -> Path:
    return folder


def empty_file(folder: Path) -> Path:
    path = folder / "empty.dcm"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("make", "code"),
    [(truncated, "corrupt-pixels"), (text_file, "not-dicom"), (empty_file, "not-dicom"), (empty_folder, None)],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_nothing_to_score_still_prints_a_report(bundle, tmp_path, capsys, make, code, options):
    path = make(tmp_path)
    assert cli.main(["score", str(path), "--bundle", bundle, *options]) == 3
    (report,) = reports(capsys.readouterr().out)
    assert report["total"]["value"] is None
    named = {reject["code"] for reject in report["rejects"]}
    named |= {region["reject"]["code"] for region in report["regions"].values() if region["reject"]}
    assert named == ({code} if code else set())


def test_a_bad_file_does_not_hide_a_good_one(bundle, tmp_path, capsys):
    write_study(tmp_path)
    path = tmp_path / "lumbar.dcm"
    path.write_bytes(path.read_bytes()[:5000])
    assert cli.main(["score", str(tmp_path), "--bundle", bundle, "--json"]) == 0
    printed = capsys.readouterr()
    assert reports(printed.out)[0]["regions"]["lumbar"]["status"] == "rejected"
    assert "corrupt-pixels" in printed.err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["unknown-verb"],
        ["score"],
        ["score", ".", "--budget-ms", "0"],
        ["score", ".", "--budget-ms", "-3"],
        ["score", ".", "--budget-ms", "nan"],
        ["score", ".", "--budget-ms", "fast"],
        ["score", ".", "--device", "abacus"],
        ["phantom", "--seed", "1.5", "--out", "x"],
        ["phantom", "--seed", "1", "--count", "0", "--out", "x"],
        ["bundle"],
        ["export", "--out", "x"],
    ],
)
def test_wrong_options_are_wrong_usage(options, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(options)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    verb = f" {options[0]}" if options and options != ["unknown-verb"] else ""
    assert printed.err.endswith(f" (help: spinescore{verb} --help)\n")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["score", "no-such-folder"], "no-such-folder"),
        (["score", ".", "--keypoints", "no-such.json"], "no-such.json"),
        (["score", ".", "--out", __file__], "test_cli.py"),
    ],
)
def test_what_is_not_there_is_wrong_usage(bundle, capsys, options, named):
    assert cli.main([*options, "--bundle", bundle]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert named in printed.err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not valid JSON"),
        ("[]", "centre_px"),
        ('{"thorax": {}}', "thorax"),
        ('{"cervical": {"C1/C2": {"centre_px": [1, 2], "anterior_px": [3, 4]}}}', "C1/C2"),
        ('{"cervical": {"C2/C3": {"centre_px": [1, 2]}}}', "anterior_px"),
        ('{"cervical": {"C2/C3": {"centre_px": [1], "anterior_px": [3, 4]}}}', "C2/C3"),
        ('{"cervical": {"C2/C3": {"centre_px": [1, NaN], "anterior_px": [3, 4]}}}', "C2/C3"),
        ('{"cervical": {"C2/C3": [1, 2, 3, 4]}}', "centre_px"),
    ],
)
def test_keypoints_that_are_none_are_wrong_usage(bundle, study, tmp_path, capsys, text, named):
    path = tmp_path / "points.json"
    path.write_text(text, encoding="utf-8")
    assert cli.main(["score", study, "--bundle", bundle, "--keypoints", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert named in printed.err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_keypoints_replace_the_localizers(bundle, study, tmp_path, capsys, encoding):
    """In any encoding of JSON files: editors of Windows put a mark before UTF-8, its shells write UTF-16."""
    path = tmp_path / "points.json"
    centre, anterior = tiny.draw("cervical", GRADES).points[0] + [[0.25, -0.5], [-0.5, 0.25]]
    points = {"cervical": {"C2/C3": {"centre_px": centre.tolist(), "anterior_px": anterior.tolist()}}}
    path.write_text(json.dumps(points), encoding=encoding)
    assert cli.main(["score", study, "--bundle", bundle, "--keypoints", str(path), "--json"]) == 0
    disc = reports(capsys.readouterr().out)[0]["regions"]["cervical"]["discs"][0]
    np.testing.assert_allclose(disc["centre_px"], centre, atol=0.01)
    np.testing.assert_allclose(disc["anterior_px"], anterior, atol=0.01)


@pytest.mark.parametrize(
    "options", [["score", "."], ["crops", ".", "--out", "x"], ["bundle", "info"], ["bundle", "verify"]]
)
def test_refused_bundles(options, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ["no-such-bundle"] if options[0] == "bundle" else ["--bundle", "no-such-bundle"]
    assert cli.main([*options, *named]) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no-such-bundle" in printed.err
    assert not (tmp_path / "x").exists()


def test_device_that_is_not_there(bundle, study, capsys):
    assert cli.main(["score", study, "--bundle", bundle, "--device", "cuda"]) == 4
    assert "cuda" in capsys.readouterr().err


@pytest.mark.parametrize("debug", [False, True])
def test_unexpected_fault_has_a_message_and_a_traceback_only_on_demand(bundle, study, capsys, monkeypatch, debug):
    def fail(*arguments, **options):
        raise RuntimeError("the moon is in the wrong place")

    monkeypatch.setattr(Scorer, "score", fail)
    monkeypatch.setenv("SPINESCORE_DEBUG", "1") if debug else monkeypatch.delenv("SPINESCORE_DEBUG", raising=False)
    assert cli.main(["score", study, "--bundle", bundle, "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "the moon is in the wrong place" in printed.err
    assert ("Traceback" in printed.err) is debug


@pytest.mark.parametrize("count", [1, 2])
def test_json_lines_have_a_report_a_line_whatever_the_number(bundle, tmp_path, capsys, count):
    studies = [str(write_study(tmp_path / str(number), uid=f"1.2.{number}")) for number in range(count)]
    assert cli.main(["score", *studies, "--bundle", bundle, "--jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["study"]["study_instance_uid"] for line in lines] == [f"1.2.{n}" for n in range(count)]


def test_json_lines_of_what_cannot_be_scored(bundle, tmp_path, capsys):
    (tmp_path / "a.dcm").write_bytes(b"nothing")
    assert cli.main(["score", str(tmp_path / "a.dcm"), "--bundle", bundle, "--jsonl"]) == 3
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["rejects"][0]["code"] == "not-dicom"


def test_crops_are_what_the_grader_saw(bundle, study, tmp_path, capsys):
    assert cli.main(["crops", study, "--bundle", bundle, "--out", str(tmp_path)]) == 0
    lines = (tmp_path / "index.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 13
    study_name = f"study-{hashlib.sha256(b'1.2.3.4').hexdigest()[:12]}"
    name = f"{study_name}_corners_C3-C4_C3-inferior+C4-superior.png"
    assert f"{name},{study_name},1.2.3.4," in lines[2]
    assert "cervical,C3/C4,C3-inferior+C4-superior,corners,2+0," in lines[2]
    picture = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (tiny.CROP, tiny.CROP)
    assert picture.dtype == np.uint16
    cell = tiny.CROP // 4
    upper, lower = picture[:cell, :cell].mean() / 65535, picture[-cell:, :cell].mean() / 65535
    assert upper == pytest.approx(tiny.PATCH_GREYS[2], abs=0.01)
    assert lower == pytest.approx(tiny.PATCH_GREYS[0], abs=0.01)


def test_crops_of_nothing(bundle, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    assert cli.main(["crops", str(tmp_path / "in"), "--bundle", bundle, "--out", str(tmp_path / "out")]) == 3
    assert not (tmp_path / "out").exists()


def test_bundle_info(bundle, capsys):
    assert cli.main(["bundle", "info", bundle]) == 0
    assert "Tests of spinescore." in capsys.readouterr().out
    assert cli.main(["bundle", "info", bundle, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["name"] == "tiny"


def test_demo_shows_the_truth_beside_the_score(bundle, tmp_path, capsys, monkeypatch):
    """The tiny networks find no spine on a phantom: the demo says so, and still leaves its report."""
    folder = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(folder), "--bundle", bundle]) == 3
    truth = json.loads((folder / "study" / "truth.json").read_text(encoding="utf-8"))
    total = sum(region["total"] for region in truth["regions"].values())
    assert f"truth {total}" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        "overlay-cervical.png", "overlay-lumbar.png", "report.html", "report.json", "study",
    ]  # fmt: skip


def test_a_plan_names_the_engines_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    (line,) = plan._not_installed("cpu")
    assert line == 'OpenVINO is not installed; on most CPUs it is faster: pip install "spinescore[openvino]"'
    assert plan._not_installed("cuda") == []


def test_phantom_writes_a_folder_for_each_seed(tmp_path, capsys):
    assert cli.main(["phantom", "--seed", "7", "--count", "1", "--out", str(tmp_path)]) == 0
    files = sorted(path.name for path in (tmp_path / "phantom-7").iterdir())
    assert files == ["cervical.dcm", "lumbar.dcm", "truth.json"]


def test_statuses_are_those_of_the_documentation():
    found = (verbs.OK, verbs.FAULT, verbs.USAGE, verbs.NOTHING_SCORED, verbs.REFUSED, verbs.OVER_BUDGET)
    assert found == (0, 1, 2, 3, 4, 5)


def test_as_a_program(bundle, study):
    """A process of its own: the streams stay apart, and no traceback is shown for bad input."""
    command = [sys.executable, "-m", "spinescore.runtime.cli", "score", "--bundle", bundle, "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([*command, study], capture_output=True, text=True, encoding="utf-8", env=environment)
    assert done.returncode == 0
    assert reports(done.stdout)[0]["total"]["value"] == TOTAL
    done = subprocess.run([*command, __file__], capture_output=True, text=True, encoding="utf-8", env=environment)
    assert done.returncode == 3
    assert reports(done.stdout)[0]["rejects"][0]["code"] == "not-dicom"
    assert "Traceback" not in done.stderr
