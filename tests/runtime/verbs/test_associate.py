"""`spinescore associate`: input that is read, joined or refused, and output that is printed and written."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from spinescore.runtime import cli
from spinescore.runtime.followup.association import association_schema
from spinescore.runtime.followup.associationinput import AssociationInputError, read_study
from spinescore.runtime.reading.facts import patient_key

LEVELS = ("C2/C3", "C3/C4", "C6/C7", "T12/L1", "L1/L2", "L5/S1")


def unit_row(patient: str, level: str, **values: Any) -> dict[str, Any]:
    return {
        "patient_key": patient,
        "bundle_sha256": "ab" * 32,
        "baseline_study_instance_uid": f"1.{patient}",
        "baseline_date": "2020-01-01",
        "interval_days": 731,
        "level": level,
        "baseline_upper": 0,
        "baseline_lower": 1,
        "comparable": "true",
        "free_at_baseline": "true",
        "new_syndesmophyte": "false",
        "growth": "false",
        **values,
    }


def write(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def cohort(folder: Path, patients: int = 12) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Units and exposures of patients; new syndesmophytes in both kinds of units, more in the exposed ones."""
    units, exposures = [], []
    for patient in range(patients):
        for number, level in enumerate(LEVELS):
            exposed = (patient + number) % 3 == 0
            new = (patient * 7 + number * 5) % (3 if exposed else 11) == 0
            units.append(unit_row(f"k{patient}", level, new_syndesmophyte=str(new).lower()))
            exposures.append(
                {"patient": f"k{patient}", "level": level, "exposure": int(exposed), "age": 30 + 3 * patient}
            )
    write(folder / "unit_changes.csv", units)
    write(folder / "exposure.csv", exposures)
    return units, exposures


def test_prints_and_writes(tmp_path: Path, capsys) -> None:
    cohort(tmp_path)
    command = ["associate", str(tmp_path), "--exposure", str(tmp_path / "exposure.csv"), "--adjust", "age"]
    assert cli.main([*command, "--out", str(tmp_path / "out"), "--json"]) == 0
    captured = capsys.readouterr()
    names = {"association.json", "association.md", "forest.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert all(name in captured.err for name in names)
    document = json.loads(captured.out)
    jsonschema.Draft202012Validator(association_schema()).validate(document)
    assert captured.out == (tmp_path / "out" / "association.json").read_text("utf-8")
    assert document["outcomes"]["new_syndesmophyte"]["adjusted"]["odds_ratios"][0]["odds_ratio"] > 1
    assert "no unit is at risk" in document["outcomes"]["growth"]["unadjusted"]["reason"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == (tmp_path / "out" / "association.md").read_text("utf-8")


def test_pictures_in_other_formats(tmp_path: Path, capsys) -> None:
    cohort(tmp_path)
    out = tmp_path / "out"
    command = ["associate", str(tmp_path), "--exposure", str(tmp_path / "exposure.csv"), "--out", str(out)]
    assert cli.main([*command, "--figures", "svg,pdf"]) == 0
    assert {path.name for path in out.glob("forest.*")} == {"forest.png", "forest.svg", "forest.pdf"}
    assert "new syndesmophyte, unadjusted" in (out / "forest.svg").read_text("utf-8")
    assert (out / "forest.pdf").read_bytes().startswith(b"%PDF")
    assert "forest.svg" in capsys.readouterr().err
    assert cli.main(command) == 0  # those of before would be of another analysis
    assert {path.name for path in out.glob("forest.*")} == {"forest.png"}


def test_no_ratio_no_picture(tmp_path: Path, capsys) -> None:
    cohort(tmp_path, patients=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "forest.png").write_bytes(b"of before")
    command = ["associate", str(tmp_path), "--exposure", str(tmp_path / "exposure.csv"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    captured = capsys.readouterr()
    assert not (tmp_path / "out" / "forest.png").exists()
    assert "no forest.png: there is no odds ratio" in captured.err
    assert "too few patients for an interval (1)" in captured.out


def test_units_are_joined_by_patient_level_and_interval(tmp_path: Path) -> None:
    later = {"baseline_study_instance_uid": "2.a", "baseline_date": "2022-01-01"}
    write(
        tmp_path / "unit_changes.csv",
        [
            unit_row("a", "C2/C3", new_syndesmophyte="true"),
            unit_row("a", "C3/C4", free_at_baseline="false", baseline_upper=2, growth="true"),
            unit_row("a", "L5/S1", baseline_upper=3, baseline_lower=3, free_at_baseline="false"),
            unit_row("a", "C2/C3", **later),
            unit_row("a", "C3/C4", **later),
            unit_row("a", "T12/L1", comparable="false", free_at_baseline="", new_syndesmophyte=""),
            unit_row("a", "L1/L2"),
            unit_row("b", "C2/C3"),
        ],
    )
    exposures = [
        ("c2-c3", "1", ""),
        ("C3/4", "no", ""),
        ("T12-L1", "1", ""),
        ("L5/S1", "0", ""),
        ("L1/L2", "", ""),
        ("T5/T6", "1", ""),
        ("C3/C4", "1", "2.a"),
        ("C6/C7", "1", ""),
        ("C2/C3", "1", "3.a"),
    ]
    rows = [{"patient": "A", "level": level, "exposure": x, "study": study} for level, x, study in exposures]
    write(tmp_path / "exposure.csv", [*rows, {"patient": "C", "level": "C2/C3", "exposure": "1", "study": ""}], ";")
    patients = write(
        tmp_path / "patients.csv", [{"patient_id": "A", "patient_key": "a"}, {"patient_id": "C", "patient_key": "c"}]
    )
    study = read_study(tmp_path, tmp_path / "exposure.csv", patients=patients)
    found = {(unit.level, unit.exposed): (unit.new_syndesmophyte, unit.growth) for unit in study.units}
    assert found == {
        ("C2/C3", True): (True, None),
        ("C3/C4", False): (None, True),
        ("C3/C4", True): (False, None),
        ("L5/S1", False): (None, None),
    }
    assert study.left_out == {
        "rows of the exposure table at other levels": 1,
        "patients of the exposure table without unit changes": 1,
        "patients with unit changes but without an exposure": 1,
        "units of later intervals": 1,
        "units without a stated exposure": 1,
        "units that are not comparable": 1,
        "rows of the exposure table that fit no unit's interval": 2,
    }


def test_a_hospital_number_is_in_no_message(tmp_path: Path) -> None:
    cohort(tmp_path)
    for rows, message in (
        ([{"patient": "Smith", "level": "C2", "exposure": 1}], "line 2: 'C2' is no level"),
        ([{"patient": "Smith", "level": "C2/C3", "exposure": 2}], "line 2: exposure '2'"),
        (
            [{"patient": "Smith", "level": "C2/C3", "exposure": 1}] * 2,
            "line 3: C2/C3 of this patient is there twice",
        ),
        ([{"patient": "", "level": "C2/C3", "exposure": 1}], "line 2: no patient is named"),
    ):
        path = write(tmp_path / "bad.csv", rows)
        with pytest.raises(AssociationInputError, match=message) as caught:
            read_study(tmp_path, path)
        assert "Smith" not in str(caught.value)
    patients = write(tmp_path / "patients.csv", [{"patient": "Jones", "patient_key": "k1"}])
    path = write(tmp_path / "bad.csv", [{"patient": "Smith", "level": "C2/C3", "exposure": 1}])
    with pytest.raises(AssociationInputError, match="line 2: this patient is not in the table of patients") as caught:
        read_study(tmp_path, path, patients=patients)
    assert "Smith" not in str(caught.value)


def test_patient_ids_are_hashed_as_in_reports(tmp_path: Path) -> None:
    key = patient_key("Smith", "Clinic")
    write(tmp_path / "unit_changes.csv", [unit_row(key, "C2/C3")])
    path = write(tmp_path / "exposure.csv", [{"patient": "Smith", "level": "C2/C3", "exposure": 1}])
    patients = write(tmp_path / "list.csv", [{"patient_id": "Smith", "issuer": "Clinic"}])
    assert [unit.patient for unit in read_study(tmp_path, path, patients=patients).units] == [key]


def test_several_bundles_are_not_counted_together(tmp_path: Path) -> None:
    units, _ = cohort(tmp_path)
    write(tmp_path / "unit_changes.csv", [*units, *({**unit, "bundle_sha256": "cd" * 32} for unit in units)])
    with pytest.raises(AssociationInputError, match="changes by abababababab, cdcdcdcdcdcd; choose one of them"):
        read_study(tmp_path, tmp_path / "exposure.csv")
    assert len(read_study(tmp_path, tmp_path / "exposure.csv", bundle="cd").units) == len(units)
    with pytest.raises(AssociationInputError, match="choose one of them with --bundle"):
        read_study(tmp_path, tmp_path / "exposure.csv", bundle="ef")
    readers = [{**unit, "bundle_sha256": ""} for unit in units]
    write(tmp_path / "unit_changes.csv", [*units, *readers])
    assert len(read_study(tmp_path, tmp_path / "exposure.csv", bundle="reader").units) == len(units)
    write(tmp_path / "unit_changes.csv", [*readers, readers[0]])
    with pytest.raises(AssociationInputError, match=f"lines 2 and {len(units) + 2} are of one unit and interval"):
        read_study(tmp_path, tmp_path / "exposure.csv")


def test_a_comma_in_a_number_is_decimal_or_refused(tmp_path: Path) -> None:
    _, exposures = cohort(tmp_path)
    rows = [{**row, "crp": "1,250"} for row in exposures]
    semicolons = write(tmp_path / "semicolons.csv", rows, ";")
    assert {unit.covariates for unit in read_study(tmp_path, semicolons, ["crp"]).units} == {(1.25,)}
    for text, value in (("0,125", 0.125), ("12,5", 12.5), ("-3,25", -3.25)):
        path = write(tmp_path / "commas.csv", [{**row, "crp": text} for row in exposures])
        assert {unit.covariates for unit in read_study(tmp_path, path, ["crp"]).units} == {(value,)}
    with pytest.raises(AssociationInputError, match=r"line 2, crp: '1,250' may be above or below 1000"):
        read_study(tmp_path, write(tmp_path / "commas.csv", rows), ["crp"])


def test_tables_that_a_spreadsheet_wrote_again_with_its_own_dates_are_refused(tmp_path: Path) -> None:
    units, _ = cohort(tmp_path)
    write(tmp_path / "unit_changes.csv", [{**unit, "baseline_date": "05.03.2024"} for unit in units])
    with pytest.raises(AssociationInputError, match=r"line 2, baseline_date: '05\.03\.2024' is no date"):
        read_study(tmp_path, tmp_path / "exposure.csv")


def test_exit_status_of_what_cannot_be_analysed(tmp_path: Path, capsys) -> None:
    _, exposures = cohort(tmp_path)
    exposure = str(tmp_path / "exposure.csv")
    strangers = write(tmp_path / "strangers.csv", [{**row, "patient": f"x{row['patient']}"} for row in exposures])
    text = write(tmp_path / "text.csv", [{**row, "sex": "m"} for row in exposures])
    large = write(tmp_path / "large.csv", [{**row, "age": "1e300"} for row in exposures])
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.csv").write_bytes("patient,level,exposure\nk\xfc,C2/C3,1\n".encode("latin-1"))
    (tmp_path / "ragged.csv").write_text("patient,level,exposure\nk1,C2/C3\n", encoding="utf-8")
    for status, arguments, message in (
        (2, [str(tmp_path / "nowhere"), "--exposure", exposure], "there is no file or folder"),
        (2, [str(tmp_path), "--exposure", str(tmp_path / "none.csv")], "there is no file or folder"),
        (2, [str(tmp_path / "empty"), "--exposure", exposure], "there is no unit_changes.csv in"),
        (2, [str(tmp_path), "--exposure", exposure, "--adjust", "weight"], "column weight must be there once"),
        (2, [str(tmp_path), "--exposure", exposure, "--adjust", "age", "age"], "each of them once"),
        (2, [str(tmp_path), "--exposure", exposure, "--adjust", "exposure"], "beside patient, level and exposure"),
        (2, [str(tmp_path), "--exposure", str(text), "--adjust", "sex"], "line 2, sex: 'm' is no number"),
        (2, [str(tmp_path), "--exposure", str(large), "--adjust", "age"], "line 2, age: '1e300' is no number"),
        (2, [str(tmp_path), "--exposure", str(tmp_path / "latin.csv")], "byte 24 is not UTF-8"),
        (2, [str(tmp_path), "--exposure", str(tmp_path / "ragged.csv")], "line 2: 2 fields where the header has 3"),
        (2, [str(tmp_path), "--exposure", exposure, "--out", exposure], "is a file; name a folder"),
        (3, [str(tmp_path), "--exposure", str(strangers)], "without unit changes: 12"),
    ):
        assert cli.main(["associate", *arguments]) == status, arguments
        captured = capsys.readouterr()
        assert message in captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""


@pytest.mark.parametrize(("library", "extra"), [("statsmodels", "association"), ("matplotlib", "plots")])
def test_a_missing_extra_is_one_sentence(tmp_path: Path, monkeypatch, capsys, library: str, extra: str) -> None:
    cohort(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    command = ["associate", str(tmp_path), "--exposure", str(tmp_path / "exposure.csv"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert f'missing: pip install "spinescore[{extra}]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
