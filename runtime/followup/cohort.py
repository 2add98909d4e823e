"""The reports of folders, and which of them are one patient's, study after study."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from spinescore.runtime.followup.change import compare, scored_by, study_date
from spinescore.runtime.followup.comparison import Comparison, Rules
from spinescore.runtime.followup.patients import Entry, linked
from spinescore.runtime.followup.readers import read_csv
from spinescore.runtime.followup.reading import SUFFIXES, read_reports
from spinescore.runtime.scoring.report import BundleInfo, StudyReport

__all__ = ["Change", "Cohort", "Entry", "LeftOut", "read_cohort"]

# The studies of one patient by one bundle, or by one reader, day after day.
_Course = list[list[Entry]]


@dataclass(frozen=True)
class Change:
    """Two studies of one patient, scored with the same bundle, and what changed between them."""

    baseline: Entry
    followup: Entry
    comparison: Comparison


@dataclass(frozen=True)
class LeftOut:
    """Studies without a part in the changes from first to last study, and why. `reports` are their files."""

    patient_key: str | None
    bundle: BundleInfo
    reports: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Cohort:
    """Reports in the order of their names.

    `notes` say what was passed over and why, `remarks` what the files say differently of one study.
    """

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def courses(self) -> list[list[Entry]]:
        """Each patient's studies by date, one for each day, where there are at least two of one bundle.

        A report without a patient key or a date belongs to no course: what it follows is not known.
        """
        return [[day[0] for day in course] for course in self._courses.values() if len(course) > 1]

    def consecutive_changes(self, rules: Rules | None = None) -> list[Change]:
        """Between each study of a course and the next."""
        return [_change(*pair, rules) for course in self.courses() for pair in pairwise(course)]

    def whole_changes(self, rules: Rules | None = None) -> list[Change]:
        """Between the first and the last study of each course: one per patient and bundle.

        Studies without a total are passed over if there are two with one.
        """
        return [_change(*_ends(course), rules) for course in self.courses()]

    def repeats(self, rules: Rules | None = None) -> list[Change]:
        """Between the study that stands for a day in its course and the others of that day."""
        days = (day for course in self._courses.values() for day in course)
        return [_change(day[0], other, rules) for day in days for other in day[1:]]

    def left_out(self, rules: Rules | None = None) -> list[LeftOut]:
        """Studies of which no change from first to last is known, by patient and bundle, with the reason."""
        sources = defaultdict(set)
        for patient, source in self._courses:
            sources[patient].add(source)
        found = [_without_place(entry) for entry in self.entries if not _has_place(entry)]
        for (patient, _), course in self._courses.items():
            entries = [entry for day in course for entry in day]
            if reason := _reason(course, len(sources[patient]) > 1, rules):
                names = tuple(entry.name for entry in entries)
                found.append(LeftOut(patient, entries[0].report.bundle, names, reason))
        return found

    def without_course(self) -> int:
        """How many reports lack the patient key or the date that a course needs."""
        return sum(not _has_place(entry) for entry in self.entries)

    @cached_property
    def _courses(self) -> dict[tuple[str, str], _Course]:
        """By patient and bundle: the days in their order, each with its studies, the most complete one first."""
        found: dict[tuple[str, str], dict[date, list[Entry]]] = defaultdict(lambda: defaultdict(list))
        for entry in self.entries:
            patient, day = entry.report.study.patient_key, study_date(entry.report)
            if patient is not None and day is not None:
                found[patient, scored_by(entry.report.bundle)][day].append(entry)
        return {
            key: [sorted(days[day], key=_completeness) for day in sorted(days)] for key, days in sorted(found.items())
        }


def read_cohort(*sources: Path) -> Cohort:
    """Reports of files and folders (`.json`, and JSON Lines as `.json`, `.jsonl` or `.ndjson`), and readers' CSV files.

    Folders are searched for reports in all folders below; CSV files are read where they are named. What cannot be read
    is named in the notes and passed over. So is a study that was there before with the same bundle: it would count
    twice.
    """
    entries: list[Entry] = []
    notes: list[str] = []
    first: dict[tuple[str, str], str] = {}
    for name, path in _named(sources):
        try:
            for place, found in _read(path):
                if isinstance(found, ValueError):
                    notes.append(f"{name}{place} was passed over: {_brief(found)}")
                    continue
                entry = Entry(f"{name}{place}", found)
                uid, bundle = found.study.study_instance_uid, scored_by(found.bundle)
                same = entry.name if uid is None else first.setdefault((uid, bundle), entry.name)
                if same == entry.name:
                    entries.append(entry)
                else:
                    notes.append(f"{entry.name} was passed over: it is of the same study and {_twice(entry)} as {same}")
        except OSError as error:
            notes.append(f"{name} was passed over: it cannot be read ({error.strerror or type(error).__name__})")
    complete, remarks = linked(entries)
    return Cohort(tuple(complete), tuple(notes), tuple(remarks))


def _twice(entry: Entry) -> str:
    """Return words for the scorer that two reports of one study have in common."""
    if not entry.is_reading:
        return "bundle"
    return f"{entry.report.bundle.name} (readers are told apart by a column reader)"


def _named(sources: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Every file with its name: its path within its folder, after the folder's name where there are several sources."""
    for source in sources:
        if not source.is_dir():
            yield _written(source.name), source
            continue
        for path in _files(source):
            name = path.relative_to(source).as_posix()
            yield _written(name if len(sources) == 1 else f"{source.name}/{name}"), path


def _written(name: str) -> str:
    return name.encode(errors="replace").decode()  # any name can be written


def _read(path: Path) -> Iterator[tuple[str, StudyReport | ValueError]]:
    if path.suffix.lower() != ".csv":
        yield from read_reports(path)
        return
    try:
        yield from ((f":{report.study.study_instance_uid}", report) for report in read_csv(path))
    except ValueError as error:
        yield "", error


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
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
    """The first and the last study with a total; of the course, if there are not two."""
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
    """Why a course gives no change; None if it gives one."""
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
