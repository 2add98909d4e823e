"""The reports of a folder, and which of them are one patient's, study after study."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

from spinescore.runtime.followup.change import compare, study_date
from spinescore.runtime.followup.comparison import Comparison, Rules
from spinescore.runtime.followup.reading import SUFFIXES, read_reports
from spinescore.runtime.report import StudyReport

__all__ = ["Change", "Cohort", "Entry", "read_cohort"]


@dataclass(frozen=True)
class Entry:
    """A report and its name: the file's path within the folder, and the line where the file holds several."""

    name: str
    report: StudyReport


@dataclass(frozen=True)
class Change:
    """Two studies of one patient, scored with the same bundle, and what changed between them."""

    baseline: Entry
    followup: Entry
    comparison: Comparison


@dataclass(frozen=True)
class Cohort:
    """Reports in the order of their names; what was passed over and why is in `notes`."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]

    def courses(self) -> list[list[Entry]]:
        """Each patient's studies by date, where there are at least two of one bundle.

        A report without a patient key or a date belongs to no course: what it follows is not known.
        """
        found: dict[tuple[str, str], list[tuple[date, str, Entry]]] = {}
        for entry in self.entries:
            patient, day = entry.report.study.patient_key, study_date(entry.report)
            if patient is not None and day is not None:
                uid = entry.report.study.study_instance_uid or entry.name
                found.setdefault((patient, entry.report.bundle.sha256), []).append((day, uid, entry))
        ordered = (sorted(found[key], key=lambda item: item[:2]) for key in sorted(found))
        return [[entry for _, _, entry in course] for course in ordered if len(course) > 1]

    def consecutive_changes(self, rules: Rules | None = None) -> list[Change]:
        """Between each study of a course and the next."""
        return [_change(*pair, rules) for course in self.courses() for pair in pairwise(course)]

    def whole_changes(self, rules: Rules | None = None) -> list[Change]:
        """Between the first and the last study of each course: one per patient and bundle."""
        return [_change(course[0], course[-1], rules) for course in self.courses()]

    def without_course(self) -> int:
        """How many reports lack the patient key or the date that a course needs."""
        reports = (entry.report for entry in self.entries)
        return sum(report.study.patient_key is None or study_date(report) is None for report in reports)


def read_cohort(folder: Path) -> Cohort:
    """All reports in a folder and those below it (`.json`, and JSON Lines as `.json`, `.jsonl` or `.ndjson`).

    What cannot be read is named in the notes and passed over. So is a study that was there before with the same
    bundle: it would count twice.
    """
    entries: list[Entry] = []
    notes: list[str] = []
    first: dict[tuple[str, str], str] = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix().encode(errors="replace").decode()  # any name can be written
        try:
            for place, found in read_reports(path):
                if isinstance(found, ValueError):
                    notes.append(f"{name}{place} was passed over: {_brief(found)}")
                    continue
                entry = Entry(f"{name}{place}", found)
                uid, bundle = found.study.study_instance_uid, found.bundle.sha256
                same = entry.name if uid is None else first.setdefault((uid, bundle), entry.name)
                if same == entry.name:
                    entries.append(entry)
                else:
                    notes.append(f"{entry.name} was passed over: it is of the same study and bundle as {same}")
        except OSError as error:
            notes.append(f"{name} was passed over: it cannot be read ({error.strerror or type(error).__name__})")
    return Cohort(tuple(entries), tuple(notes))


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES)


def _brief(error: ValueError) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _change(baseline: Entry, followup: Entry, rules: Rules | None) -> Change:
    return Change(baseline, followup, compare(baseline.report, followup.report, rules))
