"""Courses of studies: repeats, other bundles, patients named in one file only, patients left out."""

import pytest

from helpers.made_reports import NORMAL, changed, made_report, write_report
from helpers.reader_files import rows, write
from spinescore.runtime.followup import read_cohort, tables_of
from spinescore.runtime.followup.cohortsummary import cohort_summary, summary_text
from spinescore.runtime.followup.comparison import Rules

FEW = changed(NORMAL, at0=None, at1=None, at2=None, at3=None)  # no total


def study(uid, day, lumbar=NORMAL, patient="p" * 32, **about):
    return made_report({"cervical": NORMAL, "lumbar": lumbar}, uid, day, patient, **about)


def cohort_of(tmp_path, *reports, readings=()):
    """The cohort of reports, and of readers' files."""
    write_report(tmp_path / "in" / "all.jsonl", *reports)
    return read_cohort(tmp_path / "in", *readings)


def summary(cohort, rules=None):
    rules = rules or Rules()
    return cohort_summary(cohort, tables_of(cohort, rules), cohort.whole_changes(rules), rules)


def test_studies_of_one_day_are_repeats_and_no_change(tmp_path):
    worse = changed(NORMAL, at0=2)
    cohort = cohort_of(
        tmp_path,
        study("1", "20220110", changed(NORMAL, at4=None)),
        study("2", "20220110", worse),  # more complete: it stands for the day
        study("3", "20240110", worse),
    )
    tables = tables_of(cohort)
    assert [(row["baseline_study_instance_uid"], row["followup_study_instance_uid"]) for row in tables["changes"]] == [
        ("2", "3")
    ]
    (repeat,) = tables["repeats"]
    assert (repeat["baseline_study_instance_uid"], repeat["followup_study_instance_uid"]) == ("2", "1")
    assert (repeat["interval_days"], repeat["verdict"], repeat["rate"], repeat["progressed"]) == (0, None, None, None)
    assert repeat["change"] == pytest.approx(-2 * 12 / 11, abs=1e-3)
    assert "1 further study of the same patient and day" in summary_text(summary(cohort))


def test_first_and_last_are_studies_with_a_total(tmp_path):
    cohort = cohort_of(
        tmp_path,
        study("1", "20200110", FEW),
        study("2", "20210110"),
        study("3", "20230110", changed(NORMAL, at0=2)),
        study("4", "20250110", FEW),
    )
    (row,) = tables_of(cohort)["patients"]
    assert (row["baseline_study_instance_uid"], row["followup_study_instance_uid"], row["change"]) == ("2", "3", 2)
    assert not cohort.left_out()
    assert len(cohort.consecutive_changes()) == 3


@pytest.mark.parametrize(
    ("reports", "reason"),
    [
        ([study("1", "20220110")], "the patient's only study"),
        ([study("1", "20220110"), study("2", "20220110")], "all studies are of one day"),
        ([study("1", "20220110"), study("2", "20240110", FEW)], "fewer than two studies with a total"),
        (
            [
                study("1", "20220110", changed(NORMAL, at0=None, at1=None)),
                study("2", "20240110", changed(NORMAL, at4=None, at5=None)),
            ],
            "too few corners are comparable",
        ),
        ([study("1", None)], "the study has no date"),
        ([study("1", "20220110", patient=None)], "no patient is named"),
    ],
)
def test_who_is_left_out_is_named_with_the_reason(tmp_path, reports, reason):
    cohort = cohort_of(tmp_path, *reports)
    (left,) = tables_of(cohort)["left_out"]
    assert left["reason"].startswith(reason)
    assert left["studies"] == len(reports)
    text = summary_text(summary(cohort))
    assert "1 left out of first to last study" in text
    assert f"{left['patient_key'] or left['reports']}: {reason}" in text


def test_visits_with_different_bundles_are_said(tmp_path):
    cohort = cohort_of(tmp_path, study("1", "20220110"), study("2", "20240110", sha256="c" * 64))
    assert tables_of(cohort)["changes"] == []
    found = summary(cohort)
    assert [row["reason"] for row in found["left_out"]] == [
        "the patient's other studies were scored with another bundle or by another reader"
    ] * 2
    assert "pppppppp" in summary_text(found)


def test_a_patient_named_in_one_file_is_linked_over_the_study(tmp_path):
    """The report of the second visit names no patient and no day; the reader's file names both."""
    readings = write(tmp_path / "r.csv", rows("1", day="20220110"), rows("2", day="20240110"))
    cohort = cohort_of(tmp_path, study("1", "20220110"), study("2", None, patient=None), readings=[readings])
    assert not cohort.remarks
    assert {entry.report.study.patient_key for entry in cohort.entries} == {"p" * 32}
    assert [row["scored_by"] for row in tables_of(cohort)["changes"]] == ["tiny 1", "reader"]
    assert [entry.name for entry in cohort.entries] == ["in/all.jsonl:1", "in/all.jsonl:2", "r.csv:1", "r.csv:2"]


def test_contradictions_are_said_and_not_decided(tmp_path):
    one = study("1", "20220110")
    other = study("1", "20220111", patient="q" * 32, sha256="c" * 64)
    cohort = cohort_of(tmp_path, one, other, study("2", "20240110"))
    assert len(cohort.remarks) == 2
    assert [notice.code for notice in cohort.notices] == ["patients-contradict", "dates-contradict"]
    assert "study 1 is said to be of patients pppp" in cohort.remarks[0]
    assert "study 1 is said to be of 20220110, 20220111" in cohort.remarks[1]
    assert not cohort.courses()
    assert cohort.without_course() == 2


def test_a_reader_who_calls_two_patients_one_is_said(tmp_path):
    readings = write(tmp_path / "r.csv", rows("1"), rows("2", day="20240110"))
    cohort = cohort_of(tmp_path, study("1", "20220110"), study("2", "20240110", patient="q" * 32), readings=[readings])
    assert "is patients pppp" in cohort.remarks[0]
    assert not cohort.courses()


def test_verdicts_and_rules_are_counted(tmp_path):
    """Of four patients one progresses, one does not, one is undecided, one was seen again after 9 years."""
    missing, later = changed(NORMAL, at4=None), changed(NORMAL, at0=2, at2=2)
    reports = []
    for name, lumbar, year in (("a", later, 2024), ("b", NORMAL, 2024), ("c", missing, 2024), ("d", later, 2031)):
        reports += [
            study(f"{name}1", "20220110", patient=name * 32),
            study(f"{name}2", f"{year}0110", lumbar, name * 32),
        ]
    cohort = cohort_of(tmp_path, *reports)
    found = summary(cohort)["first_to_last"]
    assert found["verdicts"] == {"progression": 1, "no progression": 1, "undecided": 1, "no verdict": 1}
    assert found["no_progression"][0] == {"units": 0.0, "met": 1, "not_met": 1, "not_known": 2}
    text = summary_text(summary(cohort))
    assert "1 of 3 progressed by 2 units or more, 1 undecided by missing corners" in text
    assert "1 without a verdict: the interval lies outside of the 1.5 to 2.5 years of the definition" in text
    five = summary(cohort, Rules(no_progression_units=(5.0,)))["first_to_last"]["no_progression"]
    assert five == [{"units": 5.0, "met": 3, "not_met": 0, "not_known": 1}]
    assert "no progression, a change of at most 5: 3 of 3" in summary_text(
        summary(cohort, Rules(no_progression_units=(5.0,)))
    )
    by_rate = summary(cohort, Rules(judge_by_rate=True))["first_to_last"]["verdicts"]
    assert by_rate == {"progression": 1, "no progression": 2, "undecided": 1, "no verdict": 0}


def test_units_and_corners_of_a_change(tmp_path):
    before = changed(NORMAL, at0=2, at1=0, at2=3, at3=3, at4=None, at6=2)
    after = changed(NORMAL, at0=3, at1=3, at2=3, at3=3, at6=2, at7=2)
    tables = tables_of(cohort_of(tmp_path, study("1", "20220110", before), study("2", "20240110", after)))
    units = {row["level"]: row for row in tables["unit_changes"]}
    names = ("comparable", "at_risk", "free_at_baseline", "new_syndesmophyte", "growth", "new_bridge", "change")
    assert len(units) == 12
    assert [units["T12/L1"][name] for name in names] == [True, True, False, True, True, True, 4]
    assert [units["L1/L2"][name] for name in names] == [True, False, False, False, False, False, 0]
    assert [units["L2/L3"][name] for name in names] == [False, None, None, None, None, False, None]
    assert [units["L3/L4"][name] for name in names] == [True, True, False, True, False, False, 2]
    assert [units["L5/S1"][name] for name in names] == [True, True, True, False, False, False, 0]
    assert units["L3/L4"]["baseline_upper"] == 2
    assert units["L3/L4"]["followup_lower"] == 2
    corners = {row["site"]: row for row in tables["corner_changes"]}
    assert len(corners) == 24
    assert [corners["T12-inferior"][name] for name in names] == [True, True, False, False, True, True, 1]
    assert [corners["L1-superior"][name] for name in names] == [True, True, True, True, False, True, 3]
    assert [corners["L1-inferior"][name] for name in names] == [True, False, False, False, False, False, 0]
    assert corners["L2-inferior"]["not_comparable"] == "baseline: imputed"
    assert corners["L2-inferior"]["comparable"] is False
    assert {row["bundle_sha256"] for table in tables.values() for row in table} == {"b" * 64}


def test_events_of_a_region_that_was_rejected_are_empty(tmp_path):
    whole = study("1", "20220110")
    part = made_report({"cervical": None, "lumbar": changed(NORMAL, at0=2)}, "2", "20240110", "p" * 32)
    (row,) = tables_of(cohort_of(tmp_path, whole, part))["changes"]
    for name in ("new_syndesmophyte_corners", "growth_corners", "lower_corners", "new_syndesmophyte_units",
                 "growth_units", "new_bridges", "change", "cervical_change"):  # fmt: skip
        assert row[name] is None
    assert (row["lumbar_change"], row["cervical_comparable_corners"], row["lumbar_comparable_corners"]) == (2, 0, 12)


def test_two_readers_without_names_are_not_taken_for_one(tmp_path):
    files = [write(tmp_path / f"{name}.csv", rows("1"), rows("2", day="20240110")) for name in "ab"]
    cohort = read_cohort(*files)
    assert len(cohort.entries) == 2
    assert cohort.notes[0].startswith("b.csv:1 was passed over: it is of the same study and reader (readers are told")
    named = [
        write(tmp_path / f"{name}.csv", rows("1", reader=name), rows("2", day="20240110", reader=name), reader=True)
        for name in "ab"
    ]
    assert [row["scored_by"] for row in tables_of(read_cohort(*named))["patients"]] == ["reader a", "reader b"]
