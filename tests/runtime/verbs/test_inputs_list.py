"""`--inputs LIST.csv`: many studies of files whose headers state nothing, or not all."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from helpers import dicom_files, tiny
from helpers.tiny_study import GRADES, TOTAL, write_study
from spinescore.runtime import cli
from spinescore.runtime.files import write_png
from spinescore.runtime.reading.filelist import load_listed, read_list

REGION_TOTAL = sum(map(sum, GRADES))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    """A bundle whose localizer has 12 heatmaps for both regions, so that no picture shows its region."""
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle"), heads=12))


def film(path: Path, region: str = "lumbar", facing: str = "left", **tags: Any) -> str:
    path.parent.mkdir(exist_ok=True)
    pixels = tiny.draw(region, GRADES, facing=facing, heads=12).radiograph.pixels
    if path.suffix == ".png":
        write_png(path, pixels)
    else:
        window = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "127.5", "WindowWidth": "255"}
        dicom_files.write(
            dicom_files.radiograph_dataset(pixels, 8, **{"BodyPartExamined": None, **window, **tags}), path
        )
    return f"{path.parent.name}/{path.name}"


def listed(folder: Path, *lines: str, header: str = "path,study,region,facing,spacing_mm", bom: str = "") -> str:
    path = folder / "list.csv"
    path.write_text("\n".join([bom + header, *lines]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def two(tmp_path) -> str:
    """Two studies of PNG files with equal names, the second faces right and has one region."""
    rows = [
        f"{film(tmp_path / 'a' / f'{region}.png', region)},first,{region},left," for region in ("cervical", "lumbar")
    ]
    return listed(tmp_path, *rows, f"{film(tmp_path / 'b' / 'lumbar.png', facing='right')},second,lumbar,right,0.3")


def test_many_studies_without_a_header_are_scored(bundle, two, tmp_path, capsys):
    status = cli.main(["score", "--inputs", two, "--bundle", bundle, "--json", "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    first, second = map(json.loads, said.out.splitlines())
    assert status == 0
    assert [one["study"]["study_instance_uid"] for one in (first, second)] == ["first", "second"]
    assert (first["total"]["value"], second["regions"]["lumbar"]["total"]) == (TOTAL, REGION_TOTAL)
    shown = second["regions"]["lumbar"]["radiograph"]
    assert (shown["facing"], shown["pixel_spacing_mm"]) == ("right", [0.3, 0.3])
    words = (
        "lumbar.png: the list states these facts, which the file does not: region lumbar, facing right, spacing 0.3 mm."
    )
    assert any(words in warning for warning in second["warnings"])


def test_studies_of_a_list_have_names_for_points_crops_and_tables(bundle, two, tmp_path, capsys):
    centre, anterior = tiny.draw("lumbar", GRADES).points[1].tolist()
    points = {"first": {"lumbar": {"L1/L2": {"centre_px": centre, "anterior_px": anterior}}}}
    (tmp_path / "points.json").write_text(json.dumps(points), encoding="utf-8")
    words = ["--inputs", two, "--bundle", bundle, "--keypoints", str(tmp_path / "points.json")]
    assert cli.main(["crops", *words, "--out", str(tmp_path / "crops")]) == 0
    with (tmp_path / "crops" / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["study_instance_uid"] for row in rows] == ["first"] * 12 + ["second"] * 6
    assert [row["level"] for row in rows if row["points"] == "given"] == ["L1/L2"]
    assert cli.main(["score", *words, "--json", "--out", str(tmp_path / "out")]) == 0
    assert cli.main(["cohort", str(tmp_path / "out"), "--out", str(tmp_path / "tables")]) == 0
    assert "first" in (tmp_path / "tables" / "studies.csv").read_text(encoding="utf-8")


def test_headers_are_heeded_and_may_be_repeated(bundle, tmp_path, capsys):
    """A list may name DICOM files without a study. Spreadsheets write a semicolon and a byte order mark."""
    write_study(tmp_path / "a")
    lines = ["a/cervical.dcm;;cervical;0.15", "a/lumbar.dcm;1.2.3.4;;0.3"]
    path = listed(tmp_path, *lines, header="Path;Study;Region;Spacing_mm", bom="\ufeff")
    (study,) = load_listed(read_list(Path(path)))
    assert (study.study_instance_uid, len(study.radiographs)) == ("1.2.3.4", 2)
    assert not any("the list states" in warning for image in study.radiographs for warning in image.warnings)
    assert study.read_ms is not None


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("a/lumbar.dcm,,cervical,,", "the header of lumbar.dcm states the region lumbar, not cervical"),
        ("a/lumbar.dcm,,,right,", "the header of lumbar.dcm states the facing left, not right"),
        ("a/lumbar.dcm,,,,0.4", "the header of lumbar.dcm states the spacing 0.3 mm, not 0.4 mm"),
        ("a/lumbar.dcm,1.2.9,,,", "states the study 1.2.9, the header of lumbar.dcm states 1.2.3.4"),
        ("a/film.png,,lumbar,,", "nothing states the study of film.png; add the column study"),
        ("a/none.png,x,lumbar,,", "there is no file"),
        (",x,lumbar,,", "the path is empty"),
        ("a/film.png,x,lumber,,", "region is 'lumber'; it is cervical or lumbar, or empty; did you mean lumbar?"),
        ("a/film.png,x,lumbar,up,", "facing is 'up'"),
        ("a/film.png,x,lumbar,,-1", "spacing_mm is '-1'"),
        ("a/film.png,x,lumbar,,nan", "spacing_mm is 'nan'"),
        ("a/film.png,x,lumbar", "3 fields where the header has 5"),
    ],
)
@pytest.mark.parametrize("verb", ["score", "crops"])
def test_lines_that_cannot_hold_are_refused_before_any_score(bundle, tmp_path, capsys, line, named, verb):
    film(write_study(tmp_path / "a") / "film.png")
    words = ["--inputs", listed(tmp_path, line), "--bundle", bundle, "--out", str(tmp_path / "out")]
    assert cli.main([verb, *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "list.csv, line 2" in said.err
    assert named in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("header", "lines", "named"),
    [
        ("path,regoin", ["x"], "line 1: there is no column 'regoin'; did you mean region?"),
        (
            "path,notes",
            ["x"],
            "the columns are path, and any of study, region, facing, spacing_mm, patient",
        ),
        ("study,region", ["x"], "line 1: there is no column path"),
        ("path,path", ["x"], "column path occurs twice"),
        ("path", [], "lists no file"),
        ("path,study", ["film.png,a", "film.png,b"], "line 3: .*is listed twice, also in .*line 2"),
    ],
)
def test_lists_that_are_none(tmp_path, header, lines, named):
    film(tmp_path / "film.png")
    with pytest.raises(ValueError, match=named):
        read_list(Path(listed(tmp_path, *lines, header=header)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_list_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(ValueError, match=r"list\.csv cannot be read \(it is a pipe or a device, not a file\)"):
        read_list(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["{list}", "--inputs", "{list}"], "leave one of the two out"),
        (["--inputs", "{list}", "--region", "lumbar"], "leave out --region and --facing"),
        (["--inputs", "nowhere.csv"], "nowhere.csv cannot be read"),
    ],
)
def test_what_cannot_be_combined(bundle, two, capsys, words, named):
    assert cli.main(["score", *[word.format(list=two) for word in words], "--bundle", bundle]) == 2
    assert named in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_a_reject_of_its_study(bundle, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    good = film(tmp_path / "a" / "film.png")
    path = listed(tmp_path, "broken.png,x,cervical,,", f"{good},x,lumbar,,")
    assert cli.main(["score", "--inputs", path, "--bundle", bundle, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [report["regions"][region]["status"] for region in ("cervical", "lumbar")] == ["rejected", "scored"]
    assert report["rejects"][0]["source"] == "broken.png"


def test_two_patients_in_one_study_of_a_list(tmp_path):
    for number in (1, 2):
        film(tmp_path / "a" / f"{number}.dcm", PatientID=str(number), StudyInstanceUID=None)
    (study,) = load_listed(read_list(Path(listed(tmp_path, "a/1.dcm,x,lumbar,,", "a/2.dcm,x,lumbar,,"))))
    assert [reject.code for reject in study.rejects] == ["two-patients"] * 2
    assert study.radiographs == ()


def test_patients_and_dates_make_courses_of_films_without_a_header(bundle, tmp_path, capsys):
    name = film(tmp_path / "a" / "lumbar.png")
    again = film(tmp_path / "b" / "lumbar.png")
    lines = [f"{name},v1,lumbar,left,Smith-7,2020-01-31", f"{again},v2,lumbar,left,Smith-7,20220131"]
    path = listed(tmp_path, *lines, header="path,study,region,facing,patient,study_date")
    assert cli.main(["score", "--inputs", path, "--bundle", bundle, "--jsonl", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    first, second = (json.loads(line)["study"] for line in said.out.splitlines())
    assert (first["study_date"], second["study_date"]) == ("20200131", "20220131")
    assert first["patient_key"] == second["patient_key"] is not None
    assert "Smith" not in said.out + said.err
    assert cli.main(["cohort", str(tmp_path / "out"), "--out", str(tmp_path / "tables")]) == 0
    assert "2 studies of 1 patient with a key" in capsys.readouterr().out


def test_patients_and_dates_that_contradict_a_header(tmp_path):
    tags = {"PatientID": "7", "StudyDate": "20200101"}
    name = film(tmp_path / "a" / "film.dcm", StudyInstanceUID="1.2", **tags)
    header = "path,region,patient,study_date"
    (study,) = load_listed(read_list(Path(listed(tmp_path, f"{name},lumbar,7,2020-01-01", header=header))))
    assert study.study_date == "20200101"
    for line, named in (
        (f"{name},lumbar,Smith,", "states the patient another one: correct"),
        (f"{name},lumbar,,2021-01-01", "states the date 20200101, not 20210101"),
    ):
        with pytest.raises(ValueError, match=named) as caught:
            load_listed(read_list(Path(listed(tmp_path, line, header=header))))
        assert "Smith" not in str(caught.value)
    for date in ("2020-02-31", "1.1.2020", "2020"):
        with pytest.raises(ValueError, match="study_date is"):
            read_list(Path(listed(tmp_path, f"{name},lumbar,,{date}", header=header)))
