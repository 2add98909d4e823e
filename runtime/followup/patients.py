"""The patient and the day of each study, completed from other files about the same study.

A report and a reader's file may be about one study, and only one of them may name the patient or the day. They may also
name the patient differently: a reader's file has the hospital's identifier, and its hash lacks the issuer. Then the
report's name counts. Other contradictions get a remark and are not resolved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spinescore.runtime.followup.change import study_date
from spinescore.runtime.notices import notice
from spinescore.runtime.scoring.report import StudyReport

__all__ = ["Entry", "linked"]


@dataclass(frozen=True)
class Entry:
    """A report and its name: the file's path within the folder, with the line if the file has several reports."""

    name: str
    report: StudyReport

    @property
    def is_reading(self) -> bool:
        """Whether a reader graded the study, not a network."""
        return not self.report.bundle.sha256


def linked(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the entries, completed with patient key and date of the same study, and remarks on contradictions."""
    studies: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.report.study.study_instance_uid is not None:
            studies[entry.report.study.study_instance_uid].append(entry)
    remarks: list[str] = []
    aliases = _aliases(studies, remarks)
    patients = {uid: _patient(uid, same_study, aliases, remarks) for uid, same_study in studies.items()}
    dates = {uid: _date(uid, same_study, remarks) for uid, same_study in studies.items()}
    complete = []
    for entry in entries:
        study = entry.report.study
        if (uid := study.study_instance_uid) is not None:
            study = replace(study, patient_key=patients[uid], study_date=dates[uid])
        complete.append(replace(entry, report=replace(entry.report, study=study)))
    return complete, remarks


def _keys(entries: Sequence[Entry], readings: bool) -> list[str]:
    keys = (entry.report.study.patient_key for entry in entries if entry.is_reading == readings)
    return sorted({key for key in keys if key is not None})


def _aliases(studies: dict[str, list[Entry]], remarks: list[str]) -> dict[str, str]:
    """Return the reports' name of a patient by the readers' name, from studies that both name."""
    names: dict[str, set[str]] = defaultdict(set)
    for entries in studies.values():
        reports = _keys(entries, readings=False)
        for alias in _keys(entries, readings=True):
            if len(reports) == 1:
                names[alias].update(reports)
    for alias, keys in names.items():
        if len(keys) > 1:
            sentence = f"patient {alias} of the readings is patients {', '.join(sorted(keys))} of the reports"
            sentence += "; the reports' names are used if there is a report"
            remarks.append(notice("patients-contradict", sentence, patients=sorted(keys)))
    return {alias: next(iter(keys)) for alias, keys in names.items() if len(keys) == 1}


def _patient(uid: str, entries: Sequence[Entry], aliases: dict[str, str], remarks: list[str]) -> str | None:
    """Return the patient that the entries of a study name, reports first; None if they contradict each other."""
    keys = _keys(entries, readings=False) or sorted({aliases.get(key, key) for key in _keys(entries, readings=True)})
    if len(keys) > 1:
        sentence = f"study {uid} is said to be of patients {', '.join(keys)}; its patient counts as unknown"
        remarks.append(notice("patients-contradict", sentence, study=uid, patients=keys))
        return None
    return keys[0] if keys else None


def _date(uid: str, entries: Sequence[Entry], remarks: list[str]) -> str | None:
    """Return the day that the entries of a study state; None if they contradict each other or state no real day."""
    dates = sorted({f"{day:%Y%m%d}" for entry in entries if (day := study_date(entry.report)) is not None})
    if len(dates) > 1:
        sentence = f"study {uid} is said to be of {', '.join(dates)}; its date counts as unknown"
        remarks.append(notice("dates-contradict", sentence, study=uid, dates=dates))
        return None
    return dates[0] if dates else None
