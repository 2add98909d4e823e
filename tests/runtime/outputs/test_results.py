"""Files of results: each format has its own, and no file of an earlier report stays beside a newer one."""

from __future__ import annotations

import csv
import json
import sys
from importlib import util

import pytest

from helpers import tiny
from helpers.tiny_study import TOTAL, write_study
from spinescore.runtime import OutputError, Scorer, StudyReport, cli, load_study
from spinescore.runtime.outputs import results
from spinescore.runtime.outputs.formats import FORMATS
from spinescore.runtime.outputs.results import check_formats, result_folders, write_results
from spinescore.runtime.study import SITES

BOTH = {
    "json": ["report.json"],
    "html": ["report.html"],
    "png": ["overlay-cervical.png", "overlay-lumbar.png"],
    "csv": ["row.csv"],
    "sr": ["sr.dcm"],
    "gsps": ["gsps-cervical.dcm", "gsps-lumbar.dcm"],
    "sc": ["sc-cervical.dcm", "sc-lumbar.dcm"],
}
ALL = [name for names in BOTH.values() for name in names]
needs_highdicom = pytest.mark.skipif(util.find_spec("highdicom") is None, reason="highdicom is not installed")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def scorer(bundle):
    with Scorer.open(bundle, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A study of two regions, and one of the lumbar region alone."""
    folder = tmp_path_factory.mktemp("studies")
    write_study(folder / "both", uid="1.2.3.1")
    write_study(folder / "lumbar", uid="1.2.3.2", regions=("lumbar",))
    return folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def written(scorer, study, folder, *formats):
    return write_results(study, scorer.score(study), folder, formats=formats)


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@needs_highdicom
def test_each_format_has_its_files(scorer, studies, tmp_path):
    paths = written(scorer, load_study(studies / "both"), tmp_path, *FORMATS)
    assert sorted(path.name for path in paths) == names(tmp_path) == sorted(ALL)
    for path in paths:
        if path.suffix == ".dcm":
            assert path.read_bytes()[128:132] == b"DICM"


@pytest.mark.parametrize("name", ["json", "html", "png", "csv"])
def test_a_format_alone_removes_the_others(scorer, studies, tmp_path, name):
    for stale in (*ALL, "notes.txt"):
        (tmp_path / stale).write_text("of before", encoding="utf-8")
    written(scorer, load_study(studies / "both"), tmp_path, name)
    assert names(tmp_path) == sorted([*BOTH[name], "notes.txt"])
    assert all((tmp_path / own).read_bytes() != b"of before" for own in BOTH[name])


def test_a_region_that_is_not_scored_leaves_no_stale_file(scorer, studies, tmp_path):
    written(scorer, load_study(studies / "both"), tmp_path, "json", "png")
    written(scorer, load_study(studies / "lumbar"), tmp_path, "json", "png")
    assert names(tmp_path) == ["overlay-lumbar.png", "report.json"]


@needs_highdicom
def test_what_cannot_be_written_keeps_nothing_from_the_rest(scorer, tmp_path):
    """An array has no header that a DICOM result could refer to."""
    from spinescore.runtime.scoring.intake import as_study

    study = as_study({"lumbar": tiny.draw("lumbar").radiograph.pixels})
    (tmp_path / "sr.dcm").write_text("of before", encoding="utf-8")
    with pytest.raises(OutputError, match=r"sr: .*no DICOM header.*; gsps: "):
        written(scorer, study, tmp_path, "json", "sr", "gsps", "html")
    assert names(tmp_path) == ["report.html", "report.json"]


def test_folders_of_earlier_studies_are_cleared(tmp_path):
    for name in ("study-1", "study-2", "study-3", "study-notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").touch()
    (tmp_path / "study-3" / "mine.txt").touch()
    (tmp_path / "report.json").touch()
    assert result_folders(tmp_path, 2) == [tmp_path / "study-1", tmp_path / "study-2"]
    assert names(tmp_path) == [
        "study-1/report.json", "study-2/report.json", "study-3/mine.txt", "study-notes/report.json",
    ]  # fmt: skip
    assert result_folders(tmp_path, 1) == [tmp_path]
    assert names(tmp_path) == ["study-3/mine.txt", "study-notes/report.json"]
    assert not (tmp_path / "study-1").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_results_behind_a_link_in_the_folder_stay(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "report.json").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study-7").symlink_to(tmp_path / "elsewhere")
    assert result_folders(tmp_path / "out", 1) == [tmp_path / "out"]
    assert (tmp_path / "elsewhere" / "report.json").exists()
    assert (tmp_path / "out" / "study-7").is_symlink()


def test_a_missing_library_is_said_before_anything_is_read(studies, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(results, "find_spec", lambda name: None)
    with pytest.raises(OutputError, match=r'gsps is made with highdicom, .* pip install "spinescore\[results\]"'):
        check_formats(["json", "gsps"])
    assert cli.main(["score", str(studies / "nothing"), "--format", "sc", "--out", str(tmp_path / "out")]) == 4
    assert "highdicom" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("formats", ["pdf", "json,dicom", "", "json,"])
def test_an_unknown_format_is_wrong_usage(formats, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["score", "study", "--out", "out", "--format", formats])
    assert stopped.value.code == 2
    assert ", ".join(FORMATS) in capsys.readouterr().err


def test_formats_need_a_folder(studies, capsys):
    assert cli.main(["score", str(studies), "--format", "html"]) == 2
    assert "--out DIR" in capsys.readouterr().err


def test_several_studies_have_one_table(bundle, studies, tmp_path, capsys):
    command = ["score", str(studies), "--bundle", bundle, "--out", str(tmp_path), "--format", "CSV,html"]
    assert cli.main(command) == 0
    assert names(tmp_path) == ["row.csv", "study-1/report.html", "study-2/report.html"]
    both, lumbar = table(tmp_path / "row.csv")
    assert (both["study_instance_uid"], both["total"], both["total_status"]) == ("1.2.3.1", str(TOTAL), "complete")
    assert (lumbar["study_instance_uid"], lumbar["total"], lumbar["lumbar_total"]) == ("1.2.3.2", "", str(TOTAL // 2))


def test_one_study_has_its_table_beside_it(bundle, studies, tmp_path, capsys):
    command = ["score", str(studies / "both"), "--bundle", bundle, "--out", str(tmp_path), "--format", "json, csv"]
    assert cli.main(command) == 0
    assert names(tmp_path) == ["report.json", "row.csv"]
    report = StudyReport.from_json((tmp_path / "report.json").read_bytes())
    (row,) = table(tmp_path / "row.csv")
    for name, region in report.regions.items():
        corners = [corner for disc in region.discs for corner in disc.corners]
        assert [row[site] for site in SITES[name]] == [str(corner.grade) for corner in corners]


@needs_highdicom
def test_a_result_that_could_not_be_written_is_said_and_changes_the_status(bundle, studies, tmp_path, capsys):
    """The radiograph is scored, but its header lacks what a structured report must refer to."""
    import pydicom

    path = studies / "lumbar" / "lumbar.dcm"
    ds = pydicom.dcmread(path)
    del ds.StudyInstanceUID
    (tmp_path / "in").mkdir()
    ds.save_as(tmp_path / "in" / "lumbar.dcm")
    out = tmp_path / "out"
    command = ["score", str(tmp_path / "in"), "--bundle", bundle, "--out", str(out), "--format", "json,sr", "--json"]
    assert cli.main(command) == 4
    said = capsys.readouterr()
    assert "not written: sr: " in said.err
    assert json.loads(said.out)["regions"]["lumbar"]["status"] == "scored"
    assert names(out) == ["report.json"]


@pytest.mark.parametrize("held", ["report.json", "row.csv", "overlay-lumbar.png"])
def test_a_file_that_cannot_be_replaced_keeps_nothing_from_the_rest(bundle, studies, tmp_path, capsys, held):
    """Like a file that a viewer holds open on Windows; here a folder has the file's name."""
    (tmp_path / held).mkdir()
    options = ["--bundle", bundle, "--out", str(tmp_path), "--format", "json,html,csv"]
    assert cli.main(["score", str(studies / "lumbar"), *options]) == 4
    said = capsys.readouterr()
    assert f"not written: {tmp_path / held} " in said.err
    assert "close what holds it open" in said.err
    assert "unexpected" not in said.err
    assert set(names(tmp_path)) == {"report.json", "report.html", "row.csv"} - {held}


def test_a_table_of_several_studies_that_cannot_be_written(bundle, studies, tmp_path, capsys):
    (tmp_path / "row.csv").mkdir()
    assert cli.main(["score", str(studies), "--bundle", bundle, "--out", str(tmp_path), "--format", "csv"]) == 4
    assert f"{tmp_path / 'row.csv'} " in capsys.readouterr().err


def test_names_of_files_that_are_no_text_are_written_all_the_same(bundle, studies, tmp_path, capsys):
    """A file's name is bytes on POSIX and 16-bit units on Windows; UTF-8 cannot encode all of either."""
    name, out = "\udcffx.dcm", tmp_path / "out"
    (tmp_path / "in").mkdir()
    try:
        (tmp_path / "in" / name).write_bytes((studies / "lumbar" / "lumbar.dcm").read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system holds no such name")
    command = ["score", str(tmp_path / "in"), "--bundle", bundle, "--out", str(out), "--format", "json,html,csv,png"]
    assert cli.main(command) == 0
    report = StudyReport.from_json((out / "report.json").read_bytes())
    assert report.regions["lumbar"].radiograph.source == "?x.dcm"
