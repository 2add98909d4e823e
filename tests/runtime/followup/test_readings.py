"""Readings from CSV files, reports and phantoms' truth, and refusals that name the place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.made_reports import NORMAL, close_folder, made_report, write_report
from spinescore.benchmarks.agreement import Reading, Readings, ReadingsError, read_readings
from spinescore.runtime.scoring.report import (
    BundleInfo,
    CornerReport,
    DeviceInfo,
    DiscReport,
    RadiographInfo,
    RegionReport,
    StudyInfo,
    StudyReport,
    TimingsMs,
    TotalReport,
)
from spinescore.runtime.study import ALL_SITES, LEVELS, sites_of


def report(uid: str | None, patient: str | None = "hash", grade: int = 2) -> StudyReport:
    """The cervical region scored, its first corner abstained; the lumbar region missing."""

    def corner(site: str) -> CornerReport:
        if site == "C2-inferior":
            return CornerReport(site, None, (0.4, 0.3, 0.2, 0.1), "abstained")
        return CornerReport(site, grade, (0.1, 0.1, 0.7, 0.1), "scored")

    discs = []
    for level in LEVELS["cervical"]:
        upper, lower = map(corner, sites_of(level))
        discs.append(DiscReport(level, (1.0, 2.0), (3.0, 4.0), 0.9, 0.0, (upper, lower)))
    image = RadiographInfo(None, 2, 2, None, "left", "none")
    return StudyReport(
        study=StudyInfo(uid, "20260102", patient),
        bundle=BundleInfo("tiny", "1", "a" * 64, "Tests."),
        device=DeviceInfo("cpu", "CPU", "none", "fp32"),
        regions={
            "cervical": RegionReport("scored", None, image, tuple(discs), None, (22, 25), 1),
            "lumbar": RegionReport("missing", None, None, (), None, (0, 36), 12),
        },
        total=TotalReport(None, (22, 61), "incomplete", ()),
        timings_ms=TimingsMs(None, None, None, None, None),
        budget_ms=None,
        within_budget=None,
        warnings=(),
    )


def truth(uid: str) -> dict:
    regions = {
        region: {"discs": [{"corners": [{"site": s, "grade": 1} for s in sites_of(level)]} for level in levels]}
        for region, levels in LEVELS.items()
    }
    return {"schema": "spinescore.truth/1", "study": {"study_instance_uid": uid}, "regions": regions}


def read_text(folder: Path, text: str | bytes, name: str = "grades.csv") -> Readings:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_readings(path)


def test_csv_with_all_columns(tmp_path: Path) -> None:
    text = (
        "\ufeffReader,Study,site,grade,p0,p1,p2,p3,patient,study_date\r\n"
        "A,s1,C2-inferior,2,0.1,0.2,0.6,0.1,x,2026-01-02\r\n"
        "\r\n"
        "B,s1,C3-superior,,,,,,x,20260102\r\n"
        "C,s2,S1-superior,3.0,0,0,0,1,,\r\n"
    )
    readings = read_text(tmp_path, text)
    assert readings == Readings(
        "grades.csv",
        "csv",
        {
            "s1": {"C2-inferior": Reading(2, (0.1, 0.2, 0.6, 0.1)), "C3-superior": Reading(None)},
            "s2": {"S1-superior": Reading(3, (0.0, 0.0, 0.0, 1.0))},
        },
        {"s1": "x"},
        {"s1": "20260102"},
    )


def test_csv_with_semicolons(tmp_path: Path) -> None:
    readings = read_text(tmp_path, "study;site;grade\n7;L1-superior;0\n")
    assert readings.corners == {"7": {"L1-superior": Reading(0)}}


@pytest.mark.parametrize("text", ["1.5", "1.50", '"1,5"'])
def test_half_points_are_grades(tmp_path: Path, text: str) -> None:
    assert read_text(tmp_path, f"study,site,grade\n7,L1-superior,{text}\n").corners == {
        "7": {"L1-superior": Reading(1.5)}
    }


def test_the_mean_of_any_number_of_readers_is_a_grade(tmp_path: Path) -> None:
    rows = "".join(f"a,C2-inferior,{grade},{reader}\n" for grade, reader in zip((1, 1, 2), "ABC", strict=True))
    grade = read_text(tmp_path, "study,site,grade,reader\n" + rows).corners["a"]["C2-inferior"].grade
    assert grade == pytest.approx(4 / 3, abs=1e-8)


@pytest.mark.parametrize(("column", "cell"), [("grade_from", "reader"), ("corrected_sites", "C2-inferior")])
def test_tables_of_corrected_reports_are_known(tmp_path: Path, column: str, cell: str) -> None:
    text = f"study,site,grade,{column}\na,C2-inferior,1,{{}}\na,C3-superior,1,\n"
    assert read_text(tmp_path, text.format(cell)).corrected == ["a"]
    assert read_text(tmp_path, text.format("network" if column == "grade_from" else "")).corrected == []


def test_decimal_commas_beside_semicolons(tmp_path: Path) -> None:
    text = "study;site;grade;p0;p1;p2;p3\n7,1;L1-superior;2,5;0,0;0,1;0,4;0,5\n"
    assert read_text(tmp_path, text).corners == {"7,1": {"L1-superior": Reading(2.5, (0, 0.1, 0.4, 0.5))}}


HEADER = "study,site,grade\n"
SCORES = "study,site,grade,p0,p1,p2,p3\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no columns study, site and grade, nor study and sites; found nothing"),
        ("study,grade\n", "line 1: no columns study, site and grade"),
        ("study,site,grade,grade\n", "line 1: column grade is there twice"),
        ("study,site,grade,p0\na,C2-inferior,1,1\n", "line 2: 1, , ,  are not four probabilities"),
        (HEADER, "there is no corner in it"),
        (HEADER + "a,C2-inferior,1\na,C2-superior,1\n", "line 3: 'C2-superior' is no site"),
        (HEADER + "a,C2-inferior,4\n", "line 2: '4' is no grade"),
        (HEADER + "a,C2-inferior,1.25\n", "line 2: '1.25' is no grade"),
        (HEADER + "a,C2-inferior,3.5\n", "line 2: '3.5' is no grade"),
        (HEADER + "a,C2-inferior,-0.5\n", "line 2: '-0.5' is no grade"),
        (HEADER + "a,C2-inferior,NA\n", "line 2: 'NA' is no grade"),
        (HEADER + ",C2-inferior,1\n", "line 2: the study has no name"),
        (HEADER + "a,C2-inferior\n", "line 2: 2 fields where the header has 3"),
        (HEADER + "a,C2-inferior,1\n\na,C2-inferior,1\n", "line 4: C2-inferior of study a is there twice"),
        (
            SCORES + "a,C2-inferior,1,0.5,0.5,,\n",
            "line 2: 0.5, 0.5, ,  are not four probabilities",
        ),
        (SCORES + "a,C2-inferior,1,0.5,0.5,0.5,0.5\n", "line 2: 0.5, 0.5, 0.5, 0.5 are not four probabilities"),
        (SCORES + "a,C2-inferior,1,1.5,-0.5,0,0\n", "line 2: .* are not four probabilities"),
        (SCORES + "a,C2-inferior,1,nan,0,0,1\n", "line 2: .* are not four probabilities"),
        (
            "study,site,grade,patient\na,C2-inferior,1,x\na,C3-superior,1,y\n",
            "line 3: study a has two values of patient, x and y",
        ),
        ("study,site,grade,study_date\na,C2-inferior,1,2.1.2026\n", "line 2: '2.1.2026' is no date"),
        ("study,site,grade,study_date\na,C2-inferior,1,2026-02-30\n", "line 2: '2026-02-30' is no date"),
        (b"study,site,grade\n\xff\xfe,C2-inferior,1\n", "byte 17 is not UTF-8"),
        (HEADER + '"' + "x" * 200_000 + '",C2-inferior,1\n', "line 2: this is no CSV"),
        (
            "study,site,grade,reader,p0,p1,p2,p3\na,C2-inferior,0,A,1,0,0,0\na,C2-inferior,0,B,0,1,0,0\n",
            "line 3: C2-inferior of study a has other probabilities",
        ),
        ("study,site,grade,bundle_sha256\na,C2-inferior,0,x\na,C2-inferior,0,y\n", "study a has grades of several"),
        ("{}", "neither a report of spinescore nor the truth"),
        ('{"schema": "spinescore.report/1"', "it is neither JSON nor JSON Lines"),
        ('{"schema": "spinescore.report/1"}', "incomplete or damaged"),
        ('{"schema": "spinescore.truth/1"}', "incomplete or damaged"),
        (json.dumps(truth("1")) + "\n{", "line 2: .*neither JSON nor JSON Lines"),
        ("{" * 100_000, "neither JSON nor JSON Lines"),
    ],
)
def test_what_is_refused_names_file_and_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ReadingsError, match=rf"^grades\.csv(, |: ).*{message}|^grades\.csv, {message}"):
        read_text(tmp_path, text)


def test_reports_keep_what_was_not_scored(tmp_path: Path) -> None:
    readings = read_text(tmp_path, report("1.2.3").to_json(), "report.json")
    assert (readings.format, readings.patients, readings.dates) == ("reports", {"1.2.3": "hash"}, {"1.2.3": "20260102"})
    corners = readings.corners["1.2.3"]
    assert list(corners) == list(ALL_SITES)
    assert corners["C2-inferior"] == Reading(None, (0.4, 0.3, 0.2, 0.1))
    assert corners["C3-superior"] == Reading(2, (0.1, 0.1, 0.7, 0.1))
    assert {corners[site] for site in ALL_SITES[12:]} == {Reading(None)}


def test_json_lines_and_folders_of_reports(tmp_path: Path) -> None:
    lines = "\n".join(report(uid).to_json(indent=None) for uid in ("1", "2")) + "\n"
    assert list(read_text(tmp_path, lines, "reports.jsonl").corners) == ["1", "2"]
    (tmp_path / "study-3").mkdir()
    (tmp_path / "study-3" / "report.json").write_text(report("3").to_json(), encoding="utf-8")
    (tmp_path / "study-3" / "truth.json").write_text(json.dumps(truth("3")), encoding="utf-8")
    (tmp_path / "other.json").write_text("[1, 2]", encoding="utf-8")
    folder = read_readings(tmp_path)
    assert (sorted(folder.corners), folder.format) == (["1", "2", "3"], "reports")


def test_a_line_of_json_lines_may_hold_other_ends_of_lines(tmp_path: Path) -> None:
    first, second = (made_report({"cervical": NORMAL, "lumbar": NORMAL}, uid) for uid in ("1", "2"))
    odd = replace(first, bundle=replace(first.bundle, name="a\u2028b\x85c"))
    file = write_report(tmp_path / "reports.jsonl", odd, second)
    assert list(read_readings(file).corners) == ["1", "2"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(tmp_path / "report.json", made_report({"cervical": NORMAL, "lumbar": NORMAL}))
    (tmp_path / "closed").mkdir()
    close_folder(monkeypatch, "closed")
    with pytest.raises(ReadingsError, match=r"closed cannot be read \(Permission denied\)"):
        read_readings(tmp_path)


def test_truth_of_phantoms(tmp_path: Path) -> None:
    for uid in ("4", "5"):
        (tmp_path / uid).mkdir()
        (tmp_path / uid / "truth.json").write_text(json.dumps(truth(uid)), encoding="utf-8")
    readings = read_readings(tmp_path)
    assert (readings.format, sorted(readings.corners)) == ("truth", ["4", "5"])
    assert set(readings.corners["4"].values()) == {Reading(1)}


def test_reports_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadingsError, match=r"report\.json: it names no study"):
        read_text(tmp_path, report(None).to_json(), "report.json")
    twice = "\n".join(report("1").to_json(indent=None) for _ in range(2))
    with pytest.raises(ReadingsError, match=r"two\.jsonl, line 2: there are two reports of study 1"):
        read_text(tmp_path, twice, "two.jsonl")
    with pytest.raises(ReadingsError, match=r"bad\.json: .*corners\[1\]\.grade: .* found 7"):
        read_text(tmp_path, report("1", grade=7).to_json(), "bad.json")
    document = json.loads(report("1").to_json())
    document["regions"]["cervical"]["discs"][0]["corners"][0]["site"] = "T9-superior"
    with pytest.raises(ReadingsError, match=r"site\.json: .*found 'T9-superior'"):
        read_text(tmp_path, json.dumps(document), "site.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadingsError, match="there is no report in this folder"):
        read_readings(tmp_path / "empty")
    with pytest.raises(ReadingsError, match="cannot be read"):
        read_readings(tmp_path / "nowhere.csv")
