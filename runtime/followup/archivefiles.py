"""Files of the tables that `spinescore archive` writes: Parquet, made and read with pyarrow (the extra `parquet`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from spinescore.runtime.followup.archivetables import Row, archive_columns, report_of
from spinescore.runtime.scoring.report import StudyReport

__all__ = [
    "MARK",
    "find_study",
    "is_archive",
    "parquet_of",
    "parquet_table",
    "read_archive",
    "read_codes",
    "read_rows",
    "table_files",
]

MARK = "archive.json"  # the file that tells a folder of such tables from others


def is_archive(folder: Path) -> bool:
    """Return whether a folder has tables of `spinescore archive`."""
    return (folder / MARK).is_file()


def table_files(folder: Path) -> list[Path]:
    """Return the files of tables in a folder, in their order."""
    return sorted(folder.glob("shard-*.parquet"))


def parquet_of(rows: Sequence[Row]) -> bytes:
    """Return rows as a Parquet file; the same rows give the same bytes. Raises ModuleNotFoundError without pyarrow."""
    return parquet_table(archive_columns(), rows, "int32", compression="zstd")


def parquet_table(columns: Mapping[str, str], rows: Sequence[Row], integer: str, **options: str) -> bytes:
    """Return rows as a Parquet file with these columns and types. Raises ModuleNotFoundError without pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"text": "string", "integer": integer, "number": "float64", "boolean": "bool", "date": "date32"}
    arrays = [pa.array([row.get(name) for row in rows], kinds[kind]) for name, kind in columns.items()]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, names=list(columns)), buffer, **options)
    return bytes(buffer.getvalue().to_pybytes())


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file of tables, without empty cells. Raises ValueError if it is no such file."""
    rows = _read(path, list(archive_columns()))
    return [{name: cell for name, cell in row.items() if cell is not None} for row in rows]


def read_codes(path: Path) -> tuple[int, list[str]]:
    """Return how many studies of a file were scored, and the code of each other one. Raises ValueError."""
    rows = _read(path, ["row", "code"])
    codes = [row["code"] for row in rows if row["row"] == "not-scored"]
    return sum(row["row"] == "study" for row in rows), codes


def read_archive(folder: Path) -> Iterator[tuple[str, StudyReport | ValueError]]:
    """Yield file and number of each study of an archive with its report, or a file with the error that it has."""
    for path in table_files(folder):
        yield from _reports(path)


def find_study(folder: Path, study: str) -> StudyReport | None:
    """Return the report of one study of an archive; None if its tables do not have it. Raises ValueError."""
    for path in table_files(folder):
        if any(row["study_instance_uid"] == study for row in _read(path, ["study_instance_uid"])):
            return report_of([row for row in read_rows(path) if row.get("study_instance_uid") == study])
    return None


def _reports(path: Path) -> Iterator[tuple[str, StudyReport | ValueError]]:
    try:
        for number, study in groupby(read_rows(path), key=lambda row: row["number"]):
            if (report := report_of(list(study))) is not None:
                yield f"{path.name}:{number}", report
    except (KeyError, TypeError, ValueError) as error:
        yield path.name, error if isinstance(error, ValueError) else ValueError(f"a study is damaged ({error!r})")


def _read(path: Path, columns: list[str]) -> list[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ValueError(f'{path.name} is read with {error.name}: pip install "spinescore[parquet]"') from None
    try:
        table = pq.read_table(path, columns=columns, use_threads=False, memory_map=False, partitioning=None)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{path.name} is no table of spinescore archive ({' '.join(str(error).split())})") from None
    if missing := set(columns) - set(table.column_names):
        names = ", ".join(sorted(missing))
        raise ValueError(f"{path.name} is no table of spinescore archive: it has no column {names}")
    rows: list[Row] = table.to_pylist()
    return rows
