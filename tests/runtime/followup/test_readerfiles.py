"""Readers' CSV files: half points, means of readers, the rows that we write, and refused lines."""

import io

import pytest

from helpers.made_reports import NORMAL, changed, made_report
from helpers.reader_files import ALL, rows, write
from spinescore.runtime.followup import compare, read_cohort, tables_of
from spinescore.runtime.followup.readerfiles import read_csv
from spinescore.runtime.followup.tables import TABLES, columns_of, csv_text, parquet_bytes
from spinescore.runtime.outputs.rows import csv_text as row_csv
from spinescore.runtime.reading.facts import patient_key


def test_half_points_count_as_they_are(tmp_path):
    path = write(
        tmp_path / "reader.csv",
        rows("a", {"L1-superior": 0.5, "L2-inferior": 2.5}),
        rows("b", {"L1-superior": "2.0", "L2-inferior": 3, "C3-superior": 1.5}, "20240110"),
    )
    first, second = read_csv(path)
    assert (first.total.value, first.total.range, second.total.value) == (3, (3, 3), 6.5)
    assert first.study.patient_key == patient_key("P1")
    assert first.bundle.name == "reader"
    found = compare(first, second)
    assert (found.total.change, found.corners.new_syndesmophytes, found.corners.growth) == (3.5, 1, 1)
    assert found.total.expected is None
    assert found.progression.verdict == "progression"
    assert not found.warnings


def test_two_readers_are_averaged_and_one_alone_counts(tmp_path):
    second = [line for line in rows("a", {"L1-superior": 3, "C3-superior": ""}, reader="B") if "S1" not in line]
    path = write(tmp_path / "r.csv", rows("a", {"L1-superior": 2, "C3-superior": 1}, reader="A"), second, reader=True)
    (report,) = read_csv(path)
    assert report.bundle.name == "mean of readers A, B"
    grades = {corner.site: corner.grade for region in report.regions.values() for disc in region.discs
              for corner in disc.corners}  # fmt: skip
    assert (grades["L1-superior"], grades["C3-superior"], grades["S1-superior"]) == (2.5, 1, 0)
    assert report.total.value == 3.5


def test_the_mean_of_three_readers_is_exact_in_totals_and_changes(tmp_path):
    one = dict.fromkeys(ALL[::2][:6], 1)  # by one reader of three: 6 / 3 = 2 units
    lines = [line for reader in "ABC" for line in rows("a", {}, reader=reader)]
    lines += [line for reader in "ABC" for line in rows("b", one if reader == "A" else {}, "20240110", reader=reader)]
    first, second = read_csv(write(tmp_path / "r.csv", lines, reader=True))
    found = compare(first, second)
    assert (second.total.value, found.total.change, found.progression.verdict) == (2, 2, "progression")


def test_missing_corners_and_regions_follow_the_rules_of_a_report(tmp_path):
    few = [line for line in rows("a", {"L1-superior": 3, "L2-inferior": ""}) if ",C" not in line and ",T1-" not in line]
    (report,) = read_csv(write(tmp_path / "r.csv", few))
    lumbar = report.regions["lumbar"]
    assert (lumbar.status, lumbar.missing, lumbar.total) == ("scored", 1, pytest.approx(36 / 11, abs=1e-3))
    assert report.regions["cervical"].status == "missing"
    assert (report.total.value, report.total.status) == (None, "incomplete")


def test_semicolons_decimal_commas_and_other_encodings(tmp_path):
    text = "\n".join(["Study;Site;Grade", *(f"a;{site};{'1,5' if site == 'L1-superior' else 0}" for site in ALL)])
    for number, encoding in enumerate(("utf-8", "utf-8-sig", "utf-16")):
        path = tmp_path / f"{number}.csv"
        path.write_text(text, encoding=encoding)
        (report,) = read_csv(path)
        assert report.total.value == 1.5


def test_a_decimal_comma_may_stand_in_quotes(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('study,site,grade,p0,p1,p2,p3\na,L1-superior,"1,5","0,25","0,25","0,25","0,25"\n', encoding="utf-8")
    (report,) = read_csv(path)
    corner = report.regions["lumbar"].discs[0].corners[1]
    assert (corner.grade, corner.probabilities) == (1.5, (0.25,) * 4)


def test_the_rows_that_we_write_read_back(tmp_path):
    grades = {"cervical": NORMAL, "lumbar": changed(NORMAL, at0=2, at5=None)}
    report = made_report(grades, "1.2", "20220110")
    (tmp_path / "row.csv").write_text(row_csv([report]), encoding="utf-8")
    (tmp_path / "report.json").write_text(report.to_json(), encoding="utf-8")
    (tmp_path / "corners.csv").write_text(
        csv_text("corners", tables_of(read_cohort(tmp_path / "report.json"))["corners"]), encoding="utf-8"
    )
    for name, has_probabilities in (("row.csv", False), ("corners.csv", True)):
        (found,) = read_csv(tmp_path / name)
        assert found.study == report.study
        assert found.bundle.sha256 == report.bundle.sha256
        assert (found.total.value, found.total.range) == (pytest.approx(report.total.value, abs=1e-3), (2, 5))
        change = compare(report, found)
        assert (change.total.change, change.corners.comparable, change.same_bundle) == (0, 23, True)
        assert (change.total.expected is not None) == has_probabilities


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: no columns"),
        ("study,grade\na,1\n", "line 1: no columns"),
        ("study,site,grade\n", "no corner"),
        ("study,site,site,grade\na,b,c,1\n", "site is there twice"),
        ("study,site,grade\na,L1-superior\n", "line 2: 2 fields"),
        ("study,site,grade\na,L1-superior,4\n", "line 2: '4' is no grade"),
        ("study,site,grade\na,L1-superior,nan\n", "line 2: 'nan' is no grade"),
        ("study,site,grade\na,L1-superior,x\n", "line 2: 'x' is no grade"),
        ("study,site,grade\na,L9-superior,1\n", "line 2: 'L9-superior' is no site"),
        ("study,site,grade\n,L1-superior,1\n", "line 2: the study has no name"),
        ("study,site,grade\na,L1-superior,1\na,L1-superior,1\n", "line 3: L1-superior of study a is there twice"),
        ("study,site,grade\na,L1-superior,0_1\n", "line 2: '0_1' is no grade"),
        ("study,site,grade\na,L1-superior,\N{ARABIC-INDIC DIGIT TWO}\n", "is no grade"),
        ("study,site,grade\na,L1-superior,1e400\n", "line 2: '1e400' is no grade"),
        ("study,site,grade,p0,p1,p2,p3\na,L1-superior,1,0_0,1,0,0\n", "are not four probabilities"),
        ("study,site,grade,study_date\na,L1-superior,1,10.1.2022\n", "line 2: '10.1.2022' is no date"),
        ("study,site,grade,study_date\na,L1-superior,1,20240230\n", "line 2: '20240230' is no date"),
        ("study,site,grade,patient\na,L1-superior,1,P\na,S1-superior,1,Q\n", "two values of patient"),
        ("study,site,grade,p0,p1,p2,p3\na,L1-superior,1,1,1,0,0\n", "with the sum 1"),
        ('study,site,grade\n"a\n', "line"),
        ("study,site,grade\n\x1b[31ma,L1-superior,1\n", "line 2: .* holds characters that cannot be shown"),
        ('study,site,grade\n"a\nb",L1-superior,1\n', "line 3: .* holds characters that cannot be shown"),
    ],
)
def test_what_holds_no_readings_is_refused_with_its_line(tmp_path, text, words):
    path = tmp_path / "r.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        read_csv(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "r.csv").write_bytes(b"study,site,grade\n\xff\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_csv(tmp_path / "r.csv")
    with pytest.raises(ValueError, match="a folder, not a file"):
        read_csv(tmp_path)


def test_different_readers_and_a_reader_beside_a_report_are_said(tmp_path):
    path = write(tmp_path / "r.csv", rows("a", reader="A"), rows("b", day="20240110", reader="B"), reader=True)
    first, second = read_csv(path)
    assert any("different readers (reader A, reader B)" in warning for warning in compare(first, second).warnings)
    report = made_report({"cervical": NORMAL, "lumbar": NORMAL}, "1", "20200110")
    warnings = compare(report, second).warnings
    assert any("names another patient" in warning for warning in warnings)
    assert any("different readers (tiny 1, reader B)" in warning for warning in warnings)


def test_tables_of_half_points_hold_their_types(tmp_path):
    """Columns of whole numbers stay whole: ranges are rounded outwards, and half points have their own column."""
    path = write(
        tmp_path / "r.csv",
        rows("a", {"L1-superior": 0.5, "L2-inferior": ""}),
        rows("b", {"L1-superior": 3}, "20240110"),
    )
    tables = tables_of(read_cohort(path))
    assert [(row["total_low"], row["total_high"]) for row in tables["studies"]] == [(0, 4), (3, 3)]
    (change,) = tables["changes"]
    assert (change["change"], change["change_low"], change["change_high"]) == (
        pytest.approx(2.5 * 12 / 11, abs=1e-3),
        -1,
        3,
    )
    assert change["comparable_change"] is None
    corners = [row for row in tables["corners"] if row["site"] == "L1-superior"]
    assert [(row["grade"], row["reader_grade"]) for row in corners] == [(None, 0.5), (3, 3)]
    for name in TABLES:
        for row in tables[name]:
            wrong = [
                column
                for column, kind in columns_of(name).items()
                if kind == "integer" and isinstance(row[column], float)
            ]
            assert not wrong
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    for name in TABLES:
        assert parquet.read_table(io.BytesIO(parquet_bytes(name, tables[name]))).to_pylist() == tables[name]
