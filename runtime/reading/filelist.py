"""A CSV list of files that states facts missing in the files themselves: study, region, facing, spacing and others.

PNG and JPEG files have no header, and many DICOM headers state no region. The list has the column `path` (relative to
the list) and any of the other columns in `COLUMNS`; an empty cell states nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from spinescore.runtime.csvfile import csv_rows, read_csv_text
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.fields import near_name
from spinescore.runtime.reading.dates import calendar_date
from spinescore.runtime.reading.facts import Facts, missing_facts, patient_key
from spinescore.runtime.reading.grouping import Loaded, of_one_patient
from spinescore.runtime.reading.memory import PixelBudget
from spinescore.runtime.reading.ondemand import StudiesOnDemand
from spinescore.runtime.reading.studies import load_radiograph, look_at_radiograph
from spinescore.runtime.reading.userfacts import with_facts
from spinescore.runtime.reading.vetting import MODALITIES, vet
from spinescore.runtime.study import REGIONS, Radiograph, Reject, Study

__all__ = ["COLUMNS", "ListedFile", "load_listed", "read_list"]

COLUMNS = ("path", "study", "region", "facing", "spacing_mm", "patient", "study_date")

_FACINGS = ("left", "right")
_MAX_BYTES = 64_000_000
_THREADS = 4
_FEW_FILES = 2  # are read at once
_WORDS = {"spacing_mm": "spacing", "study_date": "date", "patient_key": "patient"}  # names of fields in messages


@dataclass(frozen=True)
class ListedFile:
    """One line of a list: a file, its study if that is named, and the facts that the user states, by field."""

    place: str  # the list's name and the line
    path: Path
    study: str | None
    facts: Mapping[str, Any]


Seen = tuple[ListedFile, Loaded | Reject]  # a line, and the header of its file or the reason why it cannot be read


def read_list(path: Path) -> list[ListedFile]:
    """Return the lines of a list. Raises ValueError, which names the line, for an unknown column or an invalid cell."""
    rows = csv_rows(read_csv_text(path, str(path), _MAX_BYTES), str(path))
    header = [name.lower() for name in next(rows)[1]]
    _check_header(path, header)
    files = [_file(path, line, header, row) for line, row in rows]
    if not files:
        raise ValueError(f"{path} lists no file; write a line for each one under {', '.join(header)}")
    places: dict[Path, str] = {}
    for file in files:
        if file.path in places:
            raise ValueError(f"{file.place}: {file.path} is listed twice, also in {places[file.path]}; remove one line")
        places[file.path] = file.place
    return files


def _check_header(path: Path, header: Sequence[str]) -> None:
    advice = f"the columns are path, and any of {', '.join(COLUMNS[1:])}"
    for name in header:
        if name not in COLUMNS:
            near = near_name(name, COLUMNS) or f"; {advice}"
            raise ValueError(f"{path}, line 1: there is no column {name!r}{near}")
        if header.count(name) > 1:
            raise ValueError(f"{path}, line 1: column {name} occurs twice; remove one")
    if "path" not in header:
        raise ValueError(f"{path}, line 1: there is no column path; {advice}")


def _file(path: Path, line: int, header: Sequence[str], row: Sequence[str]) -> ListedFile:
    place = f"{path}, line {line}"
    cells = {name: cell or None for name, cell in zip(header, row, strict=True)}
    cell = cells["path"]
    if cell is None:
        raise ValueError(f"{place}: the path is empty; give the file's path, relative to the list's folder")
    file = path.parent / cell
    if not file.is_file():
        raise ValueError(f"{place}: there is no file {file}; paths are relative to the list's folder")
    for name, allowed in (("region", REGIONS), ("facing", _FACINGS)):
        if cells.get(name) not in (None, *allowed):
            near = near_name(str(cells[name]), allowed)
            raise ValueError(f"{place}: {name} is {cells[name]!r}; it is {' or '.join(allowed)}, or empty{near}")
    patient = cells.get("patient")
    facts = {
        "region": cells.get("region"),
        "facing": cells.get("facing"),
        "spacing_mm": _spacing(place, cells.get("spacing_mm")),
        "study_date": _date(place, cells.get("study_date")),
        "patient_key": None if patient is None else patient_key(patient),
    }
    stated = {field: fact for field, fact in facts.items() if fact is not None}
    return ListedFile(place, file, cells.get("study"), stated)


def _date(place: str, text: str | None) -> str | None:
    date = None if text is None else calendar_date(text)
    if text is not None and date is None:
        raise ValueError(f"{place}: study_date is {text!r}; write YYYYMMDD or YYYY-MM-DD")
    return date


def _spacing(place: str, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            f"{place}: spacing_mm is {text!r}; give the millimetres between pixels, for example 0.15, or leave it empty"
        )
    return value, value


def load_listed(
    files: Sequence[ListedFile], window: str | None = None, on_demand: bool = False
) -> list[Study] | StudiesOnDemand:
    """Read the files of a list into studies, in the order in which the list first names each study.

    A file belongs to the study that its header states, or else to the study of its line, which may be any name. Files
    that cannot be read are rejects. All headers are read first. With `on_demand` the pixels of a study are read when it
    is accessed, and the caller must close the sequence. Raises ValueError if a line contradicts its file's header, or
    if nothing states a file's study.
    """
    started = time.perf_counter()
    opened = ExitStack()
    pool = opened.enter_context(ThreadPoolExecutor(_THREADS, thread_name_prefix="spinescore-read"))
    groups: dict[str | None, list[Seen]] = {}
    try:
        for file, header in zip(files, list(pool.map(_look, files)), strict=True):
            groups.setdefault(_study_of(file, header), []).append((file, header))
    except BaseException:
        opened.close()
        raise
    studies = list(groups.items())
    looked_ms = (time.perf_counter() - started) * 1e3

    def read(number: int) -> Study:
        started = time.perf_counter()
        name, seen = studies[number]
        study = _study(name, _members(seen, window, pool))
        read_ms = looked_ms + (time.perf_counter() - started) * 1e3
        return replace(study, read_ms=read_ms) if len(studies) == 1 else study

    if on_demand and len(files) > _FEW_FILES:
        heads = [_study(name, [header for _, header in seen if isinstance(header, Reject)]) for name, seen in studies]
        byte_counts = [
            sum(header.byte_count or 0 for _, header in seen if isinstance(header, Loaded)) for _, seen in studies
        ]
        return StudiesOnDemand(heads, byte_counts, read, opened)
    with opened:
        return [read(number) for number in range(len(studies))]


def _look(file: ListedFile) -> Loaded | Reject:
    try:
        return look_at_radiograph(file.path)
    except InputRejected as fault:
        return _reject(fault, file)


def _reject(fault: InputRejected, file: ListedFile) -> Reject:
    return Reject(fault.code, str(fault), file.path.name, file.facts.get("region"))


def _members(seen: Sequence[Seen], window: str | None, pool: Executor) -> list[Radiograph | Reject]:
    """Read the files of a study; those for which the memory for pixels does not suffice are rejects."""
    budget = PixelBudget()

    def fits(one: Seen) -> Seen:
        file, header = one
        try:
            budget.take(0 if isinstance(header, Reject) else header.byte_count or 0, file.path.name)
        except InputRejected as fault:
            return file, _reject(fault, file)
        return one

    return list(pool.map(lambda one: _load(one[0], one[1], window), list(map(fits, seen))))


def _load(file: ListedFile, header: Loaded | Reject, window: str | None) -> Radiograph | Reject:
    if isinstance(header, Reject):
        return header
    try:
        radiograph = load_radiograph(file.path, window=window)
    except InputRejected as fault:
        return _reject(fault, file)
    return radiograph if vet(radiograph) is not None else _stated(file, radiograph)


def _stated(file: ListedFile, radiograph: Radiograph) -> Radiograph:
    """Return the radiograph with the facts that its line states and its header does not."""
    facts = missing_facts(radiograph, file.facts, partial(_contradiction, file, radiograph.source))
    if not facts:
        return radiograph
    words = ", ".join(
        _WORDS[field] if field == "patient_key" else f"{_WORDS.get(field, field)} {_shown(value)}"
        for field, value in facts.items()
    )
    sentence = f"{radiograph.source}: the list states these facts, which the file does not: {words}."
    return with_facts(radiograph, facts, sentence, radiograph.region)


def _contradiction(file: ListedFile, source: str, field: str, header: Any, stated: Any) -> str:
    values = "another one" if field == "patient_key" else f"{_shown(header)}, not {_shown(stated)}"
    return (
        f"{file.place}: the header of {source} states the {_WORDS.get(field, field)} {values}: correct the line, or "
        "leave the cell empty"
    )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:g} mm" if value[0] == value[1] else f"{value[0]:g} x {value[1]:g} mm"
    return str(value)


def _study_of(file: ListedFile, header: Loaded | Reject) -> str | None:
    """Return the name of a file's study. Raises ValueError if nothing states it, or if line and header differ."""
    facts = Facts() if isinstance(header, Reject) else header.facts
    if facts.modality in (None, *MODALITIES) and facts.view != "other":  # all others are refused anyway
        missing_facts(facts, file.facts, partial(_contradiction, file, file.path.name))
    uid = facts.study_instance_uid
    if uid is not None and file.study not in (None, uid):
        raise ValueError(
            f"{file.place} states the study {file.study}, the header of {file.path.name} states {uid}: correct the "
            "line, or leave the cell empty"
        )
    if not isinstance(header, Reject) and uid is None and file.study is None:
        raise ValueError(
            f"{file.place}: nothing states the study of {file.path.name}; add the column study with a name of your own "
            "for each study"
        )
    return uid or file.study


def _study(name: str | None, members: Sequence[Radiograph | Reject]) -> Study:
    radiographs = [member for member in members if isinstance(member, Radiograph)]
    rejects = [member for member in members if isinstance(member, Reject)]
    advice = "correct the list's studies, or the patient IDs"
    keys = [image.patient_key for image in radiographs]
    radiographs, mixed, patient = of_one_patient(radiographs, keys, advice)
    return Study(
        radiographs=tuple(radiographs),
        rejects=(*rejects, *mixed),
        study_instance_uid=name,
        study_date=next((image.study_date for image in radiographs if image.study_date), None),
        patient_key=patient,
    )
