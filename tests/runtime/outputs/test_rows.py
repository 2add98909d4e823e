"""A study's row: unknown values are empty, and no cell is a formula."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from helpers import pages, tiny
from spinescore.runtime import Scorer
from spinescore.runtime.outputs.rows import COLUMNS, csv_text, row, table_text
from spinescore.runtime.study import SITES


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle")), device="cpu") as scorer:
        return scorer.score(pages.complete())


def rows(*reports):
    return list(csv.DictReader(io.StringIO(csv_text(reports))))


def test_one_header_and_one_row_per_study(report):
    lines = csv_text([report, report]).splitlines()
    assert len(lines) == 3
    assert tuple(lines[0].split(",")) == COLUMNS
    assert lines[1] == lines[2]


def test_a_row_holds_totals_ranges_and_grades(report):
    cells = row(report)
    assert tuple(cells) == COLUMNS
    assert (cells["total"], cells["total_low"], cells["total_high"], cells["total_status"]) == (26, 26, 26, "complete")
    assert (cells["cervical_total"], cells["cervical_status"], cells["cervical_reject"]) == (13, "scored", None)
    assert [cells[site] for site in SITES["lumbar"]] == [grade for disc in pages.GRADES for grade in disc]
    assert (cells["study_date"], cells["bundle_sha256"]) == ("20260105", report.bundle.sha256)


def test_what_is_not_known_is_empty_and_not_0(report):
    cells = rows(pages.abstained(report))[0]
    assert (cells["T12-inferior"], cells["L1-inferior"]) == ("", "")
    assert cells["imputed_sites"] == "T12-inferior L1-inferior"
    assert (cells["lumbar_low"], cells["lumbar_high"], cells["total"]) == ("10", "16", "25.8")


@pytest.mark.parametrize("words", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\nx"])
def test_no_cell_is_a_formula(report, words):
    hostile = replace(report, study=replace(report.study, study_instance_uid=words))
    assert rows(hostile)[0]["study_instance_uid"] == f"'{words}"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("a;=1+1;b", "a;'=1+1;b"),
        ("a\t@SUM(A1)", "a\t'@SUM(A1)"),
        ("a\n-1+cmd", "a\n'-1+cmd"),
        ('a; "=1', "a;' \"=1"),
        ("a;b; c - d = e", "a;b; c - d = e"),
    ],
)
def test_no_part_of_a_cell_is_a_formula_with_another_separator(report, words, shown):
    hostile = replace(report, bundle=replace(report.bundle, name=words))
    assert rows(hostile)[0]["bundle"] == shown


def test_no_column_of_a_users_table_is_a_formula():
    assert table_text(["=1+1", "b"], [{"=1+1": "x", "b": "y"}]) == "'=1+1,b\nx,y\n"
