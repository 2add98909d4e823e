"""Tables of an archive: a report to rows and back, the columns, the files, and the verbs that read them."""

from dataclasses import replace
from datetime import date

import pytest

from helpers.made_reports import NORMAL, changed, made_report, write_report
from spinescore.runtime import cli
from spinescore.runtime.followup import read_cohort, tables_of
from spinescore.runtime.followup.archivefiles import (
    MARK,
    find_study,
    parquet_of,
    read_archive,
    read_codes,
    read_rows,
)
from spinescore.runtime.followup.archivetables import (
    archive_columns,
    archive_dictionary,
    bundle_cells,
    report_of,
    rows_of,
)
from spinescore.runtime.followup.readings import ReadingsError, read_readings
from spinescore.runtime.notices import findings_of, notice

pytest.importorskip("pyarrow", reason="tables are Parquet files")

WORSE = changed(NORMAL, at2=2, at3=3, at5=None)
TYPES = {"text": str, "integer": int, "number": (int, float), "date": date}


def reports():
    """A patient's three studies, the second with a rejected region and the last two with changes; and another's."""
    return [
        made_report({"cervical": NORMAL, "lumbar": NORMAL}, "1.1", "20200110", "a" * 32),
        made_report({"cervical": None, "lumbar": WORSE}, "1.2", "20220110", "a" * 32),
        made_report({"cervical": WORSE, "lumbar": WORSE}, "1.3", "20240110", "a" * 32),
        made_report({"cervical": changed(NORMAL, at0=None), "lumbar": NORMAL}, "1.4", None, None),
    ]


def not_scored(uid="1.9", code="worker-crashed"):
    cells = {name: cell for name, cell in bundle_cells(reports()[0].bundle).items() if cell is not None}
    uids = {} if uid is None else {"study_instance_uid": uid}
    return [{"row": "not-scored", **uids, **cells, "code": code}]


def numbered(*studies):
    return [{"number": number, **row} for number, study in enumerate(studies) for row in study]


@pytest.fixture
def tables(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / MARK).write_text("{}")
    first, second, *rest = map(rows_of, reports())
    (folder / "shard-0000-000000.parquet").write_bytes(parquet_of(numbered(first, second, not_scored())))
    (folder / "shard-0000-000001.parquet").write_bytes(parquet_of(numbered(*rest, not_scored(None, "not-dicom"))))
    return folder


def test_rows_make_the_report_again():
    for report in reports():
        made = report_of(numbered(rows_of(report)))
        assert (made.study, made.total) == (report.study, report.total)
        assert made.bundle == replace(report.bundle, intended_use=made.bundle.intended_use)
        for name, region in report.regions.items():
            again = made.regions[name]
            assert replace(again, discs=(), reject=None, radiograph=None, untrusted_points=()) == replace(
                region, discs=(), reject=None, radiograph=None, untrusted_points=()
            )
            assert [disc.corners for disc in again.discs] == [disc.corners for disc in region.discs]
            assert [(disc.centre_px, disc.anterior_px, disc.confidence) for disc in again.discs] == [
                (disc.centre_px, disc.anterior_px, disc.confidence) for disc in region.discs
            ]
            assert (again.reject.code if again.reject else None) == (region.reject.code if region.reject else None)


def test_every_kind_of_row_has_its_columns(tables):
    kinds = {}
    for line in archive_dictionary().splitlines()[1:]:
        rows, column = line.split(",")[:2]
        for kind in rows.split():
            kinds.setdefault(kind, set()).add(column)
    stored = [row for path in sorted(tables.glob("*.parquet")) for row in read_rows(path)]
    assert {row["row"] for row in stored} == set(kinds) == {"study", "region", "corner", "not-scored"}
    for row in stored:
        assert row.keys() <= kinds[row["row"]]
        for name, cell in row.items():
            assert isinstance(cell, TYPES[archive_columns()[name]]), name
    count = {kind: sum(row["row"] == kind for row in stored) for kind in kinds}
    assert count == {"study": 4, "region": 8, "corner": 7 * 12, "not-scored": 2}


def test_the_same_rows_give_the_same_bytes():
    rows = numbered(*map(rows_of, reports()))
    assert parquet_of(rows) == parquet_of([dict(reversed(row.items())) for row in rows])


def test_notices_are_those_of_the_study_and_not_of_the_machine():
    notes = (notice("engine-refused", "An engine."), notice("saturated", "White.", "lumbar", "a"), notice("other", "x"))
    (study, *_) = rows_of(replace(reports()[0], notices=findings_of((*notes, *notes))))
    assert study["notices"] == "saturated other"


def test_a_cohort_of_tables_is_that_of_the_reports(tables, tmp_path):
    for number, report in enumerate(reports()):
        write_report(tmp_path / "reports" / f"{number}.json", report)
    theirs, ours = tables_of(read_cohort(tmp_path / "reports")), tables_of(read_cohort(tables))
    for name in ("changes", "patients", "unit_changes", "corner_changes"):
        strip = [
            [{k: v for k, v in row.items() if not k.endswith("_report")} for row in made[name]]
            for made in (ours, theirs)
        ]
        assert strip[0] == strip[1], name
        assert strip[0] or name == "patients"
    assert [row["report"] for row in ours["studies"]] == [
        *(f"shard-0000-000000.parquet:{number}" for number in range(3)),
        *(f"shard-0000-000001.parquet:{number}" for number in range(2)),
    ]
    crashed = ours["studies"][2]
    assert (crashed["total"], crashed["cervical_reject"], crashed["lumbar_status"]) == (
        None, "worker-crashed", "rejected"
    )  # fmt: skip


def test_tables_in_a_folder_of_reports_are_read_too(tables, tmp_path):
    write_report(tmp_path / "a.json", made_report({"cervical": NORMAL, "lumbar": NORMAL}, "1.77"))
    (tables / "work").mkdir()
    (tables / "work" / "scan-0000.json").write_text("{}")
    cohort = read_cohort(tmp_path)
    assert not cohort.notes
    assert [entry.name for entry in cohort.entries][:2] == ["a.json", "tables/shard-0000-000000.parquet:0"]
    assert len(cohort.entries) == 6


def test_a_spoiled_file_of_tables_is_passed_over_with_a_note(tables):
    (tables / "shard-0000-000000.parquet").write_bytes(b"PAR1 and then nothing")
    cohort = read_cohort(tables)
    assert len(cohort.entries) == 2
    assert "shard-0000-000000.parquet is no table of spinescore archive" in cohort.notes[0]
    with pytest.raises(ReadingsError, match="no table"):
        read_readings(tables)


def test_readings_of_tables_have_all_corners(tables):
    readings = read_readings(tables)
    assert sorted(readings.corners) == ["1.1", "1.2", "1.3", "1.4", "1.9"]
    assert readings.corners["1.3"]["C3-inferior"].grade == WORSE[2]
    assert readings.patients["1.1"] == "a" * 32
    assert all(reading.grade is None for reading in readings.corners["1.9"].values())


def test_two_studies_of_tables_are_compared(tables, capsys):
    assert find_study(tables, "1.3").total.value == reports()[2].total.value
    assert cli.main(["compare", f"{tables}:1.1", f"{tables}:1.3"]) == 0
    assert "new syndesmophytes 2" in capsys.readouterr().out
    assert cli.main(["compare", f"{tables}:1.1", f"{tables}:1.33"]) == 2
    assert f"{tables} has no study 1.33 in its tables" in capsys.readouterr().err


def test_tables_are_evaluated(tables, tmp_path, capsys):
    reference = tmp_path / "reader.csv"
    reference.write_text("study,site,grade\n1.1,C2-inferior,0\n1.3,C3-inferior,1\n")
    assert cli.main(["evaluate", str(tables), str(reference), "--json", "--bootstrap", "0"]) == 0
    assert '"corners": 2' in capsys.readouterr().out


def test_codes_are_counted(tables):
    assert [read_codes(path) for path in sorted(tables.glob("*.parquet"))] == [
        (2, ["worker-crashed"]),
        (2, ["not-dicom"]),
    ]
    assert len(list(read_archive(tables))) == 5


def test_without_pyarrow_the_tables_name_the_package(tables, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 'pip install "spinescore[parquet]"' in read_cohort(tables).notes[0]
