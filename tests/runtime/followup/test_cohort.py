"""Many reports to tidy tables: reports that are read or passed over, a patient's courses, columns."""

import csv
import io
import json
from dataclasses import replace
from datetime import date

import pytest

from helpers.made_reports import NORMAL, changed, close_folder, made_report, write_report
from spinescore.runtime.followup import read_cohort, tables_of
from spinescore.runtime.followup.tables import TABLES, columns_of, csv_text, dictionary, parquet_bytes
from spinescore.runtime.scoring.report import StudyInfo

TYPES = {"text": str, "integer": int, "number": (int, float), "boolean": bool, "date": date}


def study(patient, year, places=0, **about):
    """A patient's study with `places` corners of grade 2."""
    lumbar = [2] * places + [0] * (12 - places)
    grades = {"cervical": NORMAL, "lumbar": lumbar}
    about = {"day": f"{year}0110", "patient": patient, **about}
    return made_report(grades, f"1.{ord(patient or 'z')}.{year}", **about)


@pytest.fixture
def folder(tmp_path):
    """Patient a has three studies, the last in its own file; b two with another bundle; c one. Some are odd."""
    write_report(tmp_path / "x" / "all.jsonl", study("a", 2020), study("a", 2018), study("c", 2020))
    write_report(tmp_path / "x" / "report.json", study("a", 2022, 2))
    for year in (2018, 2021):
        write_report(tmp_path / f"b{year}.json", study("b", year, year - 2018, sha256="c" * 64))
    missing = {"cervical": None, "lumbar": changed(NORMAL, at0=None, at1=3, at2=3, at3=3)}
    write_report(tmp_path / "no-key.json", made_report(missing, "9", patient=None))
    return tmp_path


def test_courses_are_one_patients_studies_of_one_bundle_by_date(folder):
    cohort = read_cohort(folder)
    assert not cohort.notes
    assert [entry.name for entry in cohort.entries] == [
        "b2018.json", "b2021.json", "no-key.json", "x/all.jsonl:1", "x/all.jsonl:2", "x/all.jsonl:3", "x/report.json",
    ]  # fmt: skip
    changes = [
        (change.baseline.name, change.followup.name, change.comparison.total.change)
        for change in cohort.consecutive_changes()
    ]
    assert changes == [
        ("x/all.jsonl:2", "x/all.jsonl:1", 0),
        ("x/all.jsonl:1", "x/report.json", 4),
        ("b2018.json", "b2021.json", 6),
    ]
    assert [change.comparison.total.change for change in cohort.whole_changes()] == [4, 6]
    assert cohort.without_course() == 1


def test_a_folder_that_cannot_be_read_is_passed_over_with_a_note(folder, monkeypatch):
    close_folder(monkeypatch, "x")
    cohort = read_cohort(folder)
    assert cohort.notes == ("x was passed over: it cannot be read (Permission denied)",)
    assert len(cohort.entries) == 3


def test_an_empty_uid_or_patient_identifies_nothing(tmp_path):
    for year in (2018, 2020):
        write_report(tmp_path / f"{year}.json", replace(study("a", year), study=StudyInfo("", f"{year}0110", "")))
    cohort = read_cohort(tmp_path)
    assert [entry.report.study.study_instance_uid for entry in cohort.entries] == [None, None]
    assert not cohort.notes
    assert [left.reason for left in cohort.left_out()] == ["no patient is named"] * 2


def test_the_same_study_twice_counts_once(folder):
    write_report(folder / "x" / "copy.json", study("a", 2018))
    cohort = read_cohort(folder)
    assert cohort.notes == ("x/copy.json was passed over: it is of the same study and bundle as x/all.jsonl:2",)
    (notice,) = cohort.notices
    assert (notice.code, notice.source, notice.values) == ("report-repeated", "x/copy.json", {"kept": "x/all.jsonl:2"})
    assert len(cohort.entries) == 7


def damaged(*path, value):
    document = json.loads(study("d", 2020).to_json())
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return json.dumps(document)


CORNER = ("regions", "lumbar", "discs", 0, "corners", 0)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "[" * 100_000, '{"schema": "spinescore.comparison/1"}', "\xff\xfe",
        damaged("regions", "thoracic", value={}),
        damaged("regions", "lumbar", "discs", value=[]),
        damaged("regions", "lumbar", "discs", 0, "level", value="L1/L2"),
        damaged("regions", "lumbar", "range", value=[0, "36"]),
        damaged("regions", "lumbar", "total", value=float("nan")),
        damaged("regions", "lumbar", "missing", value=1.5),
        damaged(*CORNER, "grade", value=4),
        damaged(*CORNER, "grade", value="2"),
        damaged(*CORNER, "grade", value=True),
        damaged(*CORNER, "grade", value=None),
        damaged(*CORNER, "status", value="abstained"),
        damaged(*CORNER, "probabilities", value=[1, 2]),
        damaged(*CORNER, "probabilities", value=[0, 0, None, 1]),
        damaged("total", "value", value=[1]),
        damaged("total", "imputed_sites", value=[1]),
        damaged("regions", "lumbar", "expected", value={"mean": "x", "sd": 1, "interval": [0, 1]}),
        damaged("study", "patient_key", value=3),
        damaged("bundle", "sha256", value=None),
    ],
    ids=lambda text: f"{len(text)} characters",
)  # fmt: skip
def test_a_damaged_report_is_named_and_the_others_are_read(folder, text):
    (folder / "bad.json").write_bytes(text.encode("latin-1"))
    cohort = read_cohort(folder)
    assert len(cohort.entries) == 7
    (note,) = cohort.notes
    assert [notice.code for notice in cohort.notices] == ["report-skipped"]
    assert note.startswith("bad.json was passed over: ")
    assert len(note) < 260


def test_a_damaged_line_is_named_by_its_number(tmp_path):
    odd = replace(study("a", 2018), warnings=("a line\N{LINE SEPARATOR}in a text",))
    lines = [odd.to_json(None), "{", "", study("a", 2020).to_json(None)]
    (tmp_path / "all.json").write_text("\n".join(lines), encoding="utf-16")  # as PowerShell writes
    cohort = read_cohort(tmp_path)
    assert [entry.name for entry in cohort.entries] == ["all.json:1", "all.json:4"]
    assert cohort.notes[0].startswith("all.json:2 was passed over")


def test_tables_have_the_columns_and_types_that_are_written_down(folder):
    tables = tables_of(read_cohort(folder))
    assert tuple(tables) == TABLES
    assert {name: len(rows) for name, rows in tables.items()} == {
        "studies": 7, "units": 7 * 12, "corners": 7 * 24, "changes": 3, "patients": 2, "unit_changes": 3 * 12,
        "corner_changes": 3 * 24, "repeats": 0, "left_out": 2,
    }  # fmt: skip
    for name, rows in tables.items():
        columns = columns_of(name)
        for row in rows:
            assert list(row) == list(columns)
            for column, kind in columns.items():
                value = row[column]
                assert value is None or isinstance(value, TYPES[kind]), (column, value)
                assert kind == "boolean" or not isinstance(value, bool)


def test_columns_are_as_they_were_published():
    """Columns may be added at the end of a table, never renamed, moved or retyped."""
    assert list(columns_of("corners").items())[:9] == [
        ("report", "text"), ("patient_key", "text"), ("study_instance_uid", "text"), ("study_date", "date"),
        ("region", "text"), ("level", "text"), ("site", "text"), ("region_status", "text"), ("status", "text"),
    ]  # fmt: skip
    assert list(columns_of("units"))[4:12] == [
        "region", "level", "region_status", "total", "low", "high", "bridge", "confidence",
    ]  # fmt: skip
    assert [len(columns_of(name)) for name in TABLES] == [31, 14, 18, 42, 42, 20, 20, 42, 6]
    assert list(columns_of("changes"))[:10] == [
        "patient_key", "bundle_sha256", "baseline_report", "followup_report", "baseline_date", "followup_date",
        "interval_days", "baseline_total", "followup_total", "change",
    ]  # fmt: skip
    assert all("bundle_sha256" in columns_of(name) for name in TABLES)
    rows = list(csv.DictReader(io.StringIO(dictionary())))
    assert all(set(row["tables"].split()) <= set(TABLES) and row["type"] in TYPES and row["meaning"] for row in rows)


def test_csv_reads_back(folder):
    tables = tables_of(read_cohort(folder))
    rows = list(csv.DictReader(io.StringIO(csv_text("studies", tables["studies"]))))
    odd = next(row for row in rows if row["report"] == "no-key.json")
    assert (odd["total"], odd["total_low"], odd["total_high"]) == ("", "9", "48")
    assert (odd["cervical_status"], odd["cervical_reject"]) == ("rejected", "low-confidence")
    assert (float(odd["lumbar_total"]), odd["lumbar_missing"]) == (pytest.approx(9 * 12 / 11, abs=1e-3), "1")
    assert (odd["graded_corners"], odd["syndesmophyte_corners"], odd["bridged_units"]) == ("11", "3", "1")
    assert (odd["study_date"], odd["patient_key"], odd["expected_mean"]) == ("2024-01-10", "", "")
    units = list(csv.DictReader(io.StringIO(csv_text("units", tables["units"]))))
    assert {row["bridge"] for row in units} == {"true", "false", ""}
    first = next(row for row in units if row["report"] == "no-key.json" and row["level"] == "T12/L1")
    assert (first["low"], first["high"], first["bridge"]) == ("3", "6", "")
    corners = list(csv.DictReader(io.StringIO(csv_text("corners", tables["corners"]))))
    imputed = next(row for row in corners if row["status"] == "imputed")
    assert (imputed["site"], imputed["grade"], imputed["p0"]) == ("T12-inferior", "", "")
    assert float(imputed["imputed"]) == pytest.approx(9 / 11, abs=1e-3)
    unseen = [row for row in corners if row["region_status"] == "rejected"]
    assert len(unseen) == 12
    assert {(row["status"], row["grade"]) for row in unseen} == {("", "")}


def test_parquet_has_the_same_rows_with_types(folder):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as pq

    for name, rows in tables_of(read_cohort(folder)).items():
        found = pq.read_table(io.BytesIO(parquet_bytes(name, rows)))
        assert found.column_names == list(columns_of(name))
        assert found.to_pylist() == rows
        empty = pq.read_table(io.BytesIO(parquet_bytes(name, [])))
        assert empty.schema == found.schema
