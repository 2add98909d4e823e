"""A hospital's own list of patients, and the patients' keys in reports.

The list is a CSV file with a column of patient IDs as in DICOM, called `patient_id`, `patient`, `identifier` or `id`,
or the only column. It has a column `issuer` if the images name an issuer of the ID. Other columns stay. A key is made
on this machine, as for a report (`spinescore.runtime.reading.facts.patient_key`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spinescore.runtime.csvfile import csv_rows, read_csv_text

__all__ = ["PatientFile", "id_column", "read_patient_file"]

_NAMES = ("patient_id", "patient", "identifier", "id")
_ADDED = ("patient_key", "studies")
_MAX_BYTES = 64_000_000


@dataclass(frozen=True)
class PatientFile:
    """Rows by column, with `patient_key` added."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]

    def by_key(self, column: str) -> dict[str, str]:
        """Return a column's value for each patient. Raises ValueError if there is no such column, or two values."""
        if column not in self.columns:
            raise ValueError(f"there is no column {column}; found {', '.join(self.columns)}")
        values: dict[str, str] = {}
        for row in self.rows:
            if values.setdefault(row["patient_key"], row[column]) != row[column]:
                raise ValueError(f"the patient {row['patient_key']} has two values of {column}")
        return values

    def csv_text(self, keys: Iterable[str | None]) -> str:
        """Return the rows as CSV, with each patient's key and number of studies. `keys` are those of the studies."""
        from spinescore.runtime.outputs.rows import table_text  # it loads reports, which other tables do not need

        counts = Counter(key for key in keys if key is not None)
        rows = ({**row, "studies": str(counts[row["patient_key"]])} for row in self.rows)
        return table_text([*self.columns, *_ADDED], rows)


def read_patient_file(path: Path) -> PatientFile:
    """Return the list of patients in a CSV file. Raises ValueError if it is wrong."""
    from spinescore.runtime.reading.facts import patient_key

    rows = csv_rows(read_csv_text(path, "", _MAX_BYTES), "")
    _, header = next(rows)
    identifier = _identifier(header)
    patients = []
    for line, row in rows:
        cells = dict(zip(header, row, strict=True))
        if not cells[identifier]:
            raise ValueError(f"line {line}: {identifier} is empty")
        patients.append({**cells, "patient_key": patient_key(cells[identifier], cells.get("issuer", ""))})
    return PatientFile(tuple(header), tuple(patients))


def _identifier(header: Sequence[str]) -> str:
    """Return the column of the patient IDs."""
    if len(set(header)) < len(header) or set(_ADDED) & set(header):
        raise ValueError(f"a column is there twice, or is called {' or '.join(_ADDED)}; rename it")
    if (column := id_column(header)) is None and len(header) != 1:
        raise ValueError(f"there is no column patient_id; found {', '.join(header) or 'nothing'}")
    return column or header[0]


def id_column(header: Iterable[str]) -> str | None:
    """Return the column whose name is that of patient IDs, None if there is none."""
    columns = list(header)
    return next((name for identifier in _NAMES for name in columns if name.lower() == identifier), None)
