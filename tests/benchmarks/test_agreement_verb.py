"""`spinescore evaluate` from the command line: what it prints and writes, its pictures and its exit status."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.agreement_cases import constant_readings, drawn_readings
from spinescore.benchmarks.agreement import Reading, Readings, evaluate, pictures
from spinescore.runtime import cli


def write_csv(path: Path, readings: Readings) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("study", "site", "grade", "patient", "study_date", "p0", "p1", "p2", "p3"))
        for study, corners in readings.corners.items():
            known = (readings.patients.get(study), readings.dates.get(study))
            for site, reading in corners.items():
                rows.writerow((study, site, reading.grade, *known, *(reading.probabilities or ("",) * 4)))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("agreement")
    predicted, reference = drawn_readings()
    written = write_csv(folder / "network.csv", predicted), write_csv(folder / "reader.csv", reference)
    return str(written[0]), str(written[1])


def test_prints_tables(files, capsys) -> None:
    assert cli.main(["evaluate", *files, "--bootstrap", "20"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# Agreement of network.csv with reader.csv\n")
    assert "quadratic weighted kappa" in printed
    assert "20 bootstrap resamples of 6 clusters (unit: patient; seed 0)" in printed
    widths = [len(line) for line in printed.splitlines() if line.startswith("| reference ")]
    assert len(set(widths)) == 2  # the inputs' table, and the confusion matrix


def test_writes_files_and_prints_json(files, tmp_path: Path, capsys) -> None:
    command = ["evaluate", *files, "--bootstrap", "20", "--seed", "4", "--json", "--out"]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "sites.svg").write_text("a picture of before")  # it would show another comparison
    assert cli.main([*command, str(tmp_path / "one")]) == 0
    captured = capsys.readouterr()
    drawn = {"confusion.png", "roc.png", "bland-altman.png", "change.png", "sites.png"}
    names = {"evaluate.json", "evaluate.md", *drawn}
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    assert all(name in captured.err for name in names)
    assert captured.out == (tmp_path / "one" / "evaluate.json").read_text(encoding="utf-8")
    document = json.loads(captured.out)
    assert document["intervals"]["seed"] == 4
    assert document["inputs"]["predicted"]["name"] == "network.csv"
    assert not any("patient-" in (tmp_path / "one" / name).read_text("utf-8") for name in names if name[-3:] != "png")
    assert cli.main([*command, str(tmp_path / "two")]) == 0
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_pictures_that_say_nothing_are_not_drawn(tmp_path: Path) -> None:
    predicted, reference = constant_readings(1, 2, studies=1)
    paths = [str(write_csv(tmp_path / f"{i}.csv", side)) for i, side in enumerate((predicted, reference))]
    assert cli.main(["evaluate", *paths, "--out", str(tmp_path / "out")]) == 0
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".md", ".png"}
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["confusion.png"]


@pytest.mark.parametrize("draw", list(pictures.PICTURES.values()), ids=list(pictures.PICTURES))
def test_pictures_are_grey_and_follow_the_figures(draw) -> None:
    document = evaluate(*drawn_readings(), resamples=0)
    picture = cv2.imdecode(np.frombuffer(draw(document), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert min(picture.shape[:2]) > 500
    assert (picture == picture[..., :1]).all()  # nothing depends on colour
    assert 0.005 < (picture < 100).mean() < 0.4
    assert draw(document) != draw(evaluate(*drawn_readings(seed=2), resamples=0))


def test_vector_pictures_stand_beside_png(files, tmp_path: Path, capsys) -> None:
    command = ["evaluate", *files, "--bootstrap", "0", "--out", str(tmp_path)]
    assert cli.main([*command, "--figures", "svg,pdf"]) == 0
    for name in pictures.PICTURES:
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert b"<svg" in (tmp_path / f"{name}.svg").read_bytes()
        assert (tmp_path / f"{name}.pdf").read_bytes()[:5] == b"%PDF-"
    document = json.loads((tmp_path / "evaluate.json").read_text("utf-8"))
    for name in ("confusion.svg", "confusion.pdf"):
        stem, _, ending = name.partition(".")
        assert pictures.PICTURES[stem](document, ending) == (tmp_path / name).read_bytes()
    for option, value, message in (
        ("--figures", "jpg", "is no format of figures"),
        ("--window-years", "2", "is no window of years"),
        ("--window-years", "3-2", "is no window of years"),
    ):
        with pytest.raises(SystemExit):
            cli.main([*command, option, value])
        assert message in capsys.readouterr().err


def test_no_curve_no_picture(tmp_path: Path, capsys) -> None:
    """All corners of the reference have one grade: there is no ROC curve, and an older picture goes."""
    predicted, reference = drawn_readings(4)
    for corners in reference.corners.values():
        corners.update(dict.fromkeys(corners, Reading(0)))
    paths = [str(write_csv(tmp_path / f"{i}.csv", side)) for i, side in enumerate((predicted, reference))]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "roc.png").write_bytes(b"of before")
    assert cli.main(["evaluate", *paths, "--bootstrap", "0", "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "roc.png").exists()
    captured = capsys.readouterr()
    assert "no roc.png: there is nothing to show" in captured.err
    assert "No ROC curve exists" in captured.out


def test_limits_that_coincide_and_grades_that_are_absent_can_be_drawn() -> None:
    document = evaluate(*constant_readings(1, 2), resamples=0)
    assert document["bland_altman"]["sd"] == 0
    assert pictures.bland_altman_picture(document)[:4] == b"\x89PNG"
    assert pictures.confusion_picture(document)[:4] == b"\x89PNG"


def test_exit_status_of_what_cannot_be_compared(files, tmp_path: Path, capsys) -> None:
    predicted, reference = files
    bad = tmp_path / "bad.csv"
    bad.write_text("study,site,grade\ns,C2-inferior,5\n", encoding="utf-8")
    other = tmp_path / "other.csv"
    other.write_text("study,site,grade\ns,C2-inferior,1\n", encoding="utf-8")
    for status, arguments, message in (
        (2, [str(bad), reference], "bad.csv, line 2: '5' is no grade"),
        (2, [predicted, str(tmp_path / "none.csv")], "there is no file or folder"),
        (2, [predicted, reference, "--bootstrap", "-1"], "--bootstrap must be from 0"),
        (2, [predicted, reference, "--seed", "-1"], "--seed 0 or more"),
        (2, [predicted, reference, "--max-imputed", "12"], "--max-imputed must be from 0 to 11"),
        (2, [predicted, reference, "--progression", "nan"], "--progression must be a number of units"),
        (2, [predicted, reference, "--readers", "0"], "--readers must be from 1 to 100"),
        (2, [predicted, reference, "--out", str(bad)], "is a file; name a folder"),
        (3, [str(other), reference], "have nothing to compare: no study is in both"),
    ):
        assert cli.main(["evaluate", *arguments]) == status
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""


@pytest.mark.parametrize(("library", "extra"), [("scipy", "agreement"), ("matplotlib", "plots")])
def test_a_missing_extra_is_one_sentence(files, tmp_path: Path, monkeypatch, capsys, library: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert cli.main(["evaluate", *files, "--out", str(tmp_path / "out")]) == 2
    assert f'missing: pip install "spinescore[{extra}]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_phantoms_truth_against_itself(tmp_path: Path, monkeypatch, capsys) -> None:
    """The truth that `spinescore phantom` writes can be the reference; its study is the radiographs'."""
    from spinescore.runtime import load_study
    from spinescore.runtime.phantom import study, write_study

    draw = study.draw_view
    monkeypatch.setattr(study, "draw_view", lambda seed, region, visit=0: draw(seed, region, 0.1, visit=visit))
    folder = write_study(1_500_007, tmp_path / "study")
    assert cli.main(["evaluate", str(folder), str(folder / "truth.json"), "--json", "--bootstrap", "0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["accuracy"], document["counts"]["pairs"]) == (1, 24)
    assert document["totals"][0]["study"] == load_study(folder).study_instance_uid
    assert (
        document["totals"][0]["reference"] == json.loads((folder / "truth.json").read_text("utf-8"))["total"]["value"]
    )
