"""Many reports, sorted into courses: the studies of each patient by date, and the changes between them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from spinescore.runtime.arguments import check_path
from spinescore.runtime.followup.archivefiles import MARK, read_archive
from spinescore.runtime.followup.change import compare, scored_by, study_date
from spinescore.runtime.followup.comparison import Comparison, Rules
from spinescore.runtime.followup.patients import Entry, linked
from spinescore.runtime.followup.readerfiles import read_csv
from spinescore.runtime.followup.reportfiles import SUFFIXES, read_reports
from spinescore.runtime.notices import findings_of, notice
from spinescore.runtime.scoring.report import BundleInfo, StudyReport
from spinescore.runtime.study import Finding

__all__ = ["Change", "Cohort", "Entry", "LeftOut", "read_cohort"]

# The studies of one patient by one bundle or reader: for each day in order, the studies of that day.
_Course = list[list[Entry]]


@dataclass(frozen=True)
class Change:
    """Two studies of one patient, scored with the same bundle, and the change between them."""

    baseline: Entry
    followup: Entry
    comparison: Comparison


@dataclass(frozen=True)
class LeftOut:
    """Studies that are no part of a change from first to last study, and the reason. `reports` are their files."""

    patient_key: str | None
    bundle: BundleInfo
    reports: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Cohort:
    """Reports in the order of their names.

    `notes` name the files that were passed over, with the reason. `remarks` name contradictions between files about one
    study. `notices` has both with their codes.
    """

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def notices(self) -> tuple[Finding, ...]:
        """Return the notes and remarks with code, source and values as fields."""
        return findings_of((*self.notes, *self.remarks))

    def courses(self) -> list[list[Entry]]:
        """Return each patient's studies by date, one for each day, if there are at least two by one bundle.

        A report without a patient key or a date belongs to no course.
        """
        return [[day[0] for day in course] for course in self._courses.values() if len(course) > 1]

    def consecutive_changes(self, rules: Rules | None = None) -> list[Change]:
        """Return the changes between each study of a course and the next one."""
        return [_change(*pair, rules) for course in self.courses() for pair in pairwise(course)]

    def whole_changes(self, rules: Rules | None = None) -> list[Change]:
        """Return the change between the first and the last study of each course: one per patient and bundle.

        Studies without a total are not used if there are two with a total.
        """
        return [_change(*_ends(course), rules) for course in self.courses()]

    def repeats(self, rules: Rules | None = None) -> list[Change]:
        """Return the changes between the study that a course uses for a day and the others of that day."""
        days = (day for course in self._courses.values() for day in course)
        return [_change(day[0], other, rules) for day in days for other in day[1:]]

    def left_out(self, rules: Rules | None = None) -> list[LeftOut]:
        """Return the studies without a change from first to last, by patient and bundle, with the reason."""
        sources = defaultdict(set)
        for patient, source in self._courses:
            sources[patient].add(source)
        left_out = [_without_place(entry) for entry in self.entries if not _has_place(entry)]
        for (patient, _), course in self._courses.items():
            entries = [entry for day in course for entry in day]
            if reason := _reason(course, len(sources[patient]) > 1, rules):
                names = tuple(entry.name for entry in entries)
                left_out.append(LeftOut(patient, entries[0].report.bundle, names, reason))
        return left_out

    def without_course(self) -> int:
        """Return how many reports lack the patient key or the date that a course needs."""
        return sum(not _has_place(entry) for entry in self.entries)

    @cached_property
    def _courses(self) -> dict[tuple[str, str], _Course]:
        """Return the courses by patient and bundle; of the studies of one day, the most complete one is first."""
        by_day: dict[tuple[str, str], dict[date, list[Entry]]] = defaultdict(lambda: defaultdict(list))
        for entry in self.entries:
            patient, day = entry.report.study.patient_key, study_date(entry.report)
            if patient is not None and day is not None:
                by_day[patient, scored_by(entry.report.bundle)][day].append(entry)
        return {
            key: [sorted(days[day], key=_completeness) for day in sorted(days)] for key, days in sorted(by_day.items())
        }


def read_cohort(*sources: str | os.PathLike[str]) -> Cohort:
    """Return the reports of files and folders, and readers' CSV files, as a cohort.

    Reports are JSON files (`.json`), or JSON Lines (`.json`, `.jsonl` or `.ndjson`). Folders are searched for reports
    with all subfolders; CSV files are read only if they are named. A folder of `spinescore archive` gives the studies
    of its tables, which the extra `parquet` reads. A file that cannot be read is passed over, with a note. So is a
    second report of a study by the same bundle, which would count twice; the one with more corrections by readers
    stays, or else the first.
    """
    for source in sources:
        check_path("a source", source)
    entries: list[Entry] = []
    notes: list[str] = []
    places: dict[tuple[str, str], int] = {}  # in entries, by study and bundle
    for name, path in _named([Path(source) for source in sources], notes):
        try:
            for place, report in _read(path):
                if isinstance(report, ValueError):
                    notes.append(_skipped(f"{name}{place}", _brief(report)))
                    continue
                entry = Entry(f"{name}{place}", report)
                uid, bundle = report.study.study_instance_uid, scored_by(report.bundle)
                number = len(entries) if uid is None else places.setdefault((uid, bundle), len(entries))
                if number == len(entries):
                    entries.append(entry)
                    continue
                entries[number], other = sorted((entries[number], entry), key=_corrections, reverse=True)
                notes.append(_repeated(other, entries[number].name))
        except OSError as error:
            notes.append(_skipped(name, f"it cannot be read ({error.strerror or type(error).__name__})"))
    complete, remarks = linked(entries)
    return Cohort(tuple(complete), tuple(notes), tuple(remarks))


def _skipped(name: str, reason: str) -> str:
    return notice("report-skipped", f"{name} was passed over: {reason}", source=name)


def _corrections(entry: Entry) -> int:
    return len(entry.report.corrections)


def _repeated(entry: Entry, kept: str) -> str:
    reader = f"{entry.report.bundle.name} (readers are told apart by a column reader)"
    scorer = reader if entry.is_reading else "bundle"
    sentence = f"{entry.name} was passed over: it is of the same study and {scorer} as {kept}"
    return notice("report-repeated", sentence, source=entry.name, kept=kept)


def _named(sources: Sequence[Path], notes: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield every file after its name: the path within its folder, with the folder's name if there are several.

    A folder that cannot be read is passed over, with a note.
    """

    def named(source: Path, path: Path) -> str:
        name = path.relative_to(source).as_posix().removesuffix(MARK)  # tables are named by their folder
        return _writable(name if len(sources) == 1 else f"{source.name}/{name}")

    for source in sources:
        if not source.is_dir():
            yield _writable(source.name), source
            continue
        faults: list[OSError] = []
        yield from ((named(source, path), path) for path in _files(source, faults.append))
        notes += [_skipped(named(source, Path(one.filename)), f"it cannot be read ({one.strerror})") for one in faults]


def _writable(name: str) -> str:
    return name.encode(errors="replace").decode()  # file names may contain lone surrogates


def _read(path: Path) -> Iterator[tuple[str, StudyReport | ValueError]]:
    if path.name == MARK:
        yield from read_archive(path.parent)
        return
    if path.suffix.lower() != ".csv":
        yield from read_reports(path)
        return
    try:
        yield from ((f":{report.study.study_instance_uid}", report) for report in read_csv(path))
    except ValueError as error:
        yield "", error


def _files(folder: Path, onerror: Callable[[OSError], object]) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=onerror):
        if MARK in names:
            folders.clear()
            yield Path(parent, MARK)
            continue
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES)


def _brief(error: ValueError) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _change(baseline: Entry, followup: Entry, rules: Rules | None) -> Change:
    return Change(baseline, followup, compare(baseline.report, followup.report, rules))


def _completeness(entry: Entry) -> tuple[bool, int, str]:
    report = entry.report
    missing = sum(region.missing for region in report.regions.values())
    return report.total.value is None, missing, report.study.study_instance_uid or entry.name


def _ends(course: Sequence[Entry]) -> tuple[Entry, Entry]:
    """Return the first and the last study with a total; those of the course if fewer than two have one."""
    scored = [entry for entry in course if entry.report.total.value is not None]
    ends = scored if len(scored) > 1 else course
    return ends[0], ends[-1]


def _has_place(entry: Entry) -> bool:
    return entry.report.study.patient_key is not None and study_date(entry.report) is not None


def _without_place(entry: Entry) -> LeftOut:
    patient = entry.report.study.patient_key
    reason = "no patient is named" if patient is None else "the study has no date"
    return LeftOut(patient, entry.report.bundle, (entry.name,), reason)


def _reason(course: _Course, has_others: bool, rules: Rules | None) -> str | None:
    """Return why a course has no change; None if it has one."""
    if len(course) == 1:
        if has_others:
            return "the patient's other studies were scored with another bundle or by another reader"
        return "the patient's only study" if len(course[0]) == 1 else "all studies are of one day"
    days = [day[0] for day in course]
    if _change(*_ends(days), rules).comparison.total.change is not None:
        return None
    if sum(day.report.total.value is not None for day in days) < 2:
        return "fewer than two studies with a total"
    return "too few corners are comparable between the first and the last study"
