"""Input of the analysis of association: a cohort's unit changes and a table of exposures, joined by unit."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spinescore.runtime.csvfile import csv_rows, delimiter_of, read_csv_text
from spinescore.runtime.followup.days import stated_day
from spinescore.runtime.followup.patientfile import id_column
from spinescore.runtime.study import ALL_LEVELS

__all__ = ["AssociationInputError", "Study", "Unit", "read_study"]

TABLE = "unit_changes.csv"

_MAX_BYTES = 256_000_000
_YES_NO = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}
_COLUMNS = ("patient_key", "level", "baseline_date", "interval_days", "baseline_upper", "baseline_lower", "comparable",
            "free_at_baseline", "new_syndesmophyte", "growth")  # fmt: skip
_SYNDESMOPHYTE, _BRIDGE = 2, 3
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")  # as English spreadsheets write them, with commas between
_MOST = 1e12  # largest value to adjust for: larger ones are mistakes, and floats lose their differences

Row = Mapping[str, str]
Rows = list[tuple[int, Row]]


class AssociationInputError(ValueError):
    """A table that cannot be analysed, with its file and line."""


@dataclass(frozen=True)
class Unit:
    """A vertebral unit over one interval: its patient, its exposure, its outcomes, and values to adjust for.

    An outcome is None if the unit is not at risk of it. A new syndesmophyte needs a unit without one; growth needs a
    unit with a syndesmophyte that is no bridge yet.
    """

    patient: str
    level: str
    interval_days: int | None
    exposed: bool
    new_syndesmophyte: bool | None
    growth: bool | None
    covariates: tuple[float | None, ...]


@dataclass(frozen=True)
class Study:
    """The joined units in the order of the tables; `left_out` counts unused rows and units by reason."""

    units: tuple[Unit, ...]
    covariates: tuple[str, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class _Exposure:
    exposed: bool | None
    covariates: tuple[float | None, ...]


def read_study(
    tables: Path, exposure: Path, adjust: Sequence[str] = (), patients: Path | None = None, bundle: str | None = None
) -> Study:
    """Return the units of the folder `tables`, joined with the CSV file `exposure`.

    `tables` has the table `unit_changes`. `exposure` has the columns `patient`, `level`, `exposure` (0 or 1), those of
    `adjust` (numbers), and optionally `study`, the UID of the interval's first study; without it a patient's first
    interval counts. `patients` maps patients to those of the tables: `patient_id` with `patient_key`, or with the
    `issuer` that the images name, if any. `bundle` chooses one of several bundles by the beginning of its hash, or
    `reader` for readers' grades. Raises AssociationInputError.
    """
    rows = _one_bundle(_unit_rows(tables), bundle)
    keys = _mapping(patients) if patients is not None else None
    exposures, other_levels = _exposures(exposure, adjust, keys)
    by_patient: dict[str, Rows] = defaultdict(list)
    for line, row in rows:
        by_patient[row["patient_key"]].append((line, row))
    exposed = {patient for patient, _, _ in exposures}
    left_out: dict[str, int] = defaultdict(int)
    left_out["rows of the exposure table at other levels"] = other_levels
    left_out["patients of the exposure table without unit changes"] = len(exposed - by_patient.keys())
    left_out["patients with unit changes but without an exposure"] = len(by_patient.keys() - exposed)
    units: list[Unit] = []
    used: set[tuple[str, str, str]] = set()
    for patient in sorted(exposed & by_patient.keys()):
        units += _units_of(patient, by_patient[patient], exposures, left_out, used)
    usable = {key for key in exposures if key[0] in by_patient and key[1] in ALL_LEVELS}
    left_out["rows of the exposure table that fit no unit's interval"] = len(usable - used)
    return Study(tuple(units), tuple(adjust), {reason: count for reason, count in left_out.items() if count})


def _units_of(
    patient: str,
    rows: Rows,
    exposures: Mapping[tuple[str, str, str], _Exposure],
    left_out: dict[str, int],
    used: set[tuple[str, str, str]],
) -> list[Unit]:
    """Return a patient's units with an exposure; add the keys of exposures that belong to an interval to `used`."""
    first = min(row["baseline_date"] for _, row in rows)
    units = []
    for line, row in rows:
        uid = row.get("baseline_study_instance_uid")
        studies = [*([uid] if uid else []), *([""] if row["baseline_date"] == first else [])]
        keys = [key for study in studies if (key := (patient, row["level"], study)) in exposures]
        used.update(keys)
        exposure = exposures[keys[0]] if keys else None
        if exposure is None and row["baseline_date"] != first:
            left_out["units of later intervals"] += 1
        elif exposure is None or exposure.exposed is None:
            left_out["units without a stated exposure"] += 1
        elif not _truth(row, "comparable", line):
            left_out["units that are not comparable"] += 1
        else:
            units.append(_unit(patient, line, row, exposure))
    return units


def _unit(patient: str, line: int, row: Row, exposure: _Exposure) -> Unit:
    grades = [_number(row[name], f"{TABLE}, line {line}, {name}") for name in ("baseline_upper", "baseline_lower")]
    can_grow = any(grade is not None and _SYNDESMOPHYTE <= grade < _BRIDGE for grade in grades)
    days = _number(row["interval_days"], f"{TABLE}, line {line}, interval_days")
    return Unit(
        patient,
        row["level"],
        None if days is None else int(days),
        bool(exposure.exposed),
        _truth(row, "new_syndesmophyte", line) if _truth(row, "free_at_baseline", line) else None,
        _truth(row, "growth", line) if can_grow else None,
        exposure.covariates,
    )


def _unit_rows(tables: Path) -> Rows:
    path = tables / TABLE if tables.is_dir() else tables
    if not path.is_file():
        advice = f"`spinescore cohort REPORTS --out {tables}` writes it"
        raise AssociationInputError(f"there is no {TABLE} in {tables}; {advice}")
    rows = _read(path, _COLUMNS)
    with_patient = [(line, row) for line, row in rows if row["patient_key"]]
    seen: dict[tuple[str, ...], int] = {}
    for line, row in with_patient:
        if row["level"] not in ALL_LEVELS:
            raise AssociationInputError(f"{path.name}, line {line}: {row['level']!r} is no level of the mSASSS")
        try:
            stated_day(row["baseline_date"])  # a spreadsheet may have written it in another order
        except ValueError as error:
            raise AssociationInputError(f"{path.name}, line {line}, baseline_date: {error}") from None
        keys = ("patient_key", "level", "bundle_sha256", "baseline_date")
        same = seen.setdefault(tuple(row.get(key, "") for key in keys), line)
        if same != line:
            raise AssociationInputError(
                f"{path.name}: lines {same} and {line} are of one unit and interval (two readers?); write the tables "
                "from one reader's grades"
            )
    return with_patient


def _one_bundle(rows: Rows, bundle: str | None) -> Rows:
    """Return the rows of one bundle or of readers, since a unit that two of them scored would count twice."""
    names = {line: row.get("bundle_sha256") or "reader" for line, row in rows}
    there = sorted(set(names.values()))
    chosen = [name for name in there if bundle is None or name.startswith(bundle)]
    if len(chosen) > 1 or (not chosen and there):
        listed = ", ".join(name[:12] for name in there)
        raise AssociationInputError(f"{TABLE} has changes by {listed}; choose one of them with --bundle")
    return [(line, row) for line, row in rows if names[line] in chosen]


def _mapping(path: Path) -> dict[str, str]:
    """Return each patient's key: that of the file, or computed as `spinescore cohort --patients` does."""
    from spinescore.runtime.reading.facts import patient_key

    keys: dict[str, str] = {}
    for line, row in _read(path, ()):
        if (column := id_column(row)) is None:
            raise AssociationInputError(f"{path.name}, line 1: there is no column patient_id; found {', '.join(row)}")
        patient = row[column]
        key = row["patient_key"] if "patient_key" in row else patient_key(patient, row.get("issuer", ""))
        if patient and keys.setdefault(patient, key) != key:
            raise AssociationInputError(
                f"{path.name}, line {line}: another line has this patient with another patient_key or issuer"
            )
    return keys


def _exposures(
    path: Path, adjust: Sequence[str], keys: Mapping[str, str] | None
) -> tuple[dict[tuple[str, str, str], _Exposure], int]:
    """Return exposures by patient, level and study (empty for the first interval), and the rows at other levels."""
    exposures: dict[tuple[str, str, str], _Exposure] = {}
    for line, row in _read(path, ("patient", "level", "exposure", *adjust), numbers=adjust):
        place = f"{path.name}, line {line}"
        level = _level(row["level"])
        if level is None:
            raise AssociationInputError(f"{place}: {row['level']!r} is no level; write C2/C3, .. or T12/L1, ..")
        if keys is not None and row["patient"] not in keys:
            raise AssociationInputError(f"{place}: this patient is not in the table of patients")
        patient = row["patient"] if keys is None else keys[row["patient"]]
        if not patient:
            raise AssociationInputError(f"{place}: no patient is named")
        exposed = None if not row["exposure"] else _YES_NO.get(row["exposure"].lower())
        if exposed is None and row["exposure"]:
            raise AssociationInputError(f"{place}: exposure {row['exposure']!r}; write 0, 1, or nothing if not known")
        covariates = tuple(_number(row[column], f"{place}, {column}") for column in adjust)
        key = (patient, level, row.get("study", ""))
        if key in exposures:
            raise AssociationInputError(f"{place}: {level} of this patient is there twice; leave one row")
        exposures[key] = _Exposure(exposed, covariates)
    return exposures, sum(level not in ALL_LEVELS for _, level, _ in exposures)


def _level(text: str) -> str | None:
    """Return `C2/C3` for `C2/C3`, `c2-c3` or `C2/3`; None for no level. Levels outside the mSASSS are allowed."""
    parts = re.fullmatch(r"([CTLS])(\d{1,2})\s*[-/]\s*([CTLS]?)(\d{1,2})", text.strip().upper(), re.ASCII)
    if parts is None:
        return None
    upper, number, lower, below = parts.groups()
    return f"{upper}{int(number)}/{lower or upper}{int(below)}"


def _truth(row: Row, column: str, line: int) -> bool | None:
    text = row[column].lower()
    if text and text not in _YES_NO:
        raise AssociationInputError(f"{TABLE}, line {line}: {column} is {row[column]!r}; it is true, false or empty")
    return _YES_NO.get(text)


def _number(text: str, place: str) -> float | None:
    if not text:
        return None
    if _THOUSANDS.fullmatch(text):
        raise AssociationInputError(f"{place}: {text!r} may be above or below 1000; write it without a comma")
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = math.nan  # refused below, since no comparison with it holds
    if not abs(number) <= _MOST:
        raise AssociationInputError(f"{place}: {text!r} is no number; write groups as numbers, such as 0 and 1")
    return number


def _read(path: Path, needed: Sequence[str], numbers: Sequence[str] = ()) -> Rows:
    """Return the stripped rows of a CSV file with their line numbers. Raises AssociationInputError.

    If no comma separates its cells, one in the columns of `numbers` is a decimal comma, and becomes a point.
    """
    text = read_csv_text(path, path.name, _MAX_BYTES, AssociationInputError)
    commas = () if delimiter_of(text) == "," else numbers
    rows = csv_rows(text, path.name, AssociationInputError)
    header = next(rows)[1]
    if missing := [name for name in needed if header.count(name) != 1]:
        raise AssociationInputError(
            f"{path.name}, line 1: column {', '.join(missing)} must be there once; found {', '.join(header)}"
        )
    named = ((line, dict(zip(header, cells, strict=True))) for line, cells in rows)
    return [(line, row | {name: row[name].replace(",", ".") for name in commas}) for line, row in named]
