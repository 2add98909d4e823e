"""The patient and day of each study; another file on the same study may state what one leaves out.

A report and a reader's file may speak of one study, and only one of them name the patient or the day; or they name the
patient in two ways (a reader's file has the hospital's identifier, whose hash lacks the issuer). Names of reports hold
before names of readers. Contradictions are said, and never decided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spinescore.runtime.followup.change import study_date
from spinescore.runtime.scoring.report import StudyReport

__all__ = ["Entry", "linked"]


@dataclass(frozen=True)
class Entry:
    """A report and its name: the file's path within the folder, and the line where the file holds several."""

    name: str
    report: StudyReport

    @property
    def is_reading(self) -> bool:
        """Whether a reader graded the study, and no network."""
        return not self.report.bundle.sha256


def linked(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries with patient key and date of the same study's other entries, and a remark on each contradiction."""
    studies: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.report.study.study_instance_uid is not None:
            studies[entry.report.study.study_instance_uid].append(entry)
    remarks: list[str] = []
    aliases = _aliases(studies, remarks)
    patients = {uid: _patient(uid, found, aliases, remarks) for uid, found in studies.items()}
    dates = {uid: _date(uid, found, remarks) for uid, found in studies.items()}
    complete = []
    for entry in entries:
        study, uid = entry.report.study, entry.report.study.study_instance_uid
        if uid is not None:
            study = replace(study, patient_key=patients[uid], study_date=dates[uid])
        complete.append(
            entry if study == entry.report.study else replace(entry, report=replace(entry.report, study=study))
        )
    return complete, remarks


def _keys(entries: Sequence[Entry], readings: bool) -> list[str]:
    keys = (entry.report.study.patient_key for entry in entries if entry.is_reading == readings)
    return sorted({key for key in keys if key is not None})


def _aliases(studies: dict[str, list[Entry]], remarks: list[str]) -> dict[str, str]:
    """Readers' names of patients -> the reports' name of the same patient, from the studies that both name."""
    found: dict[str, set[str]] = defaultdict(set)
    for entries in studies.values():
        reports = _keys(entries, readings=False)
        for alias in _keys(entries, readings=True):
            if len(reports) == 1:
                found[alias].update(reports)
    for alias, keys in found.items():
        if len(keys) > 1:
            remarks.append(
                f"patient {alias} of the readings is patients {', '.join(sorted(keys))} of the reports; the reports' "
                "names are used where there is a report"
            )
    return {alias: next(iter(keys)) for alias, keys in found.items() if len(keys) == 1}


def _patient(uid: str, entries: Sequence[Entry], aliases: dict[str, str], remarks: list[str]) -> str | None:
    """The one patient that the entries of a study name, reports first; None if they contradict each other."""
    keys = _keys(entries, readings=False) or sorted({aliases.get(key, key) for key in _keys(entries, readings=True)})
    if len(keys) > 1:
        remarks.append(f"study {uid} is said to be of patients {', '.join(keys)}; it is taken as of no known patient")
        return None
    return keys[0] if keys else None


def _date(uid: str, entries: Sequence[Entry], remarks: list[str]) -> str | None:
    """The one day that the entries of a study state; None if they contradict each other, or state no true day."""
    dates = sorted({f"{day:%Y%m%d}" for entry in entries if (day := study_date(entry.report)) is not None})
    if len(dates) > 1:
        remarks.append(f"study {uid} is said to be of {', '.join(dates)}; it is taken as without a date")
        return None
    return dates[0] if dates else None
