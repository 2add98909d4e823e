"""Groups of files that were read: one group for each study, and the study that it makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from spinescore.runtime.notices import Notice, notice
from spinescore.runtime.reading.facts import Facts
from spinescore.runtime.reading.inputs import Item, is_own
from spinescore.runtime.study import Radiograph, Reject, Study

__all__ = ["Loaded", "group_by_study", "make_study", "of_one_patient", "sort_key"]

_SKIPPED = frozenset({"not-dicom", "no-pixels", "not-radiograph"})  # codes of files that a folder may hold
_MAX_NOTES = 20


@dataclass(frozen=True)
class Loaded:
    """A file, the facts in its header, and its radiograph or the reason why there is none."""

    item: Item
    facts: Facts
    radiograph: Radiograph | None = None
    reject: Reject | None = None
    byte_count: int | None = None  # of its pixels, if only the header was read

    @property
    def has_image(self) -> bool:
        """Whether the file is a radiograph, with its pixels read or not."""
        return self.radiograph is not None or self.byte_count is not None

    @property
    def skipped(self) -> bool:
        """Whether the file was only found in a folder and is no radiograph."""
        return self.reject is not None and self.item.in_folder and self.reject.code in _SKIPPED


def sort_key(file: Loaded) -> tuple[str, str, str]:
    """Return the key by which files are sorted, independent of the order of the inputs."""
    return file.facts.sop_instance_uid or "", file.item.source, file.item.key


def group_by_study(loaded: list[Loaded]) -> list[list[Loaded]]:
    """Return the files of each study, in the order of the study instance UIDs."""
    groups: dict[tuple[str, str], list[Loaded]] = {}
    strays: list[Loaded] = []
    for file in loaded:
        uid, patient = file.facts.study_instance_uid, file.facts.patient_key
        if file.skipped or (not file.has_image and uid is None):
            strays.append(file)
        else:  # a study has one patient, so files without a study are separated by patient
            groups.setdefault((uid, "") if uid else ("", patient or ""), []).append(file)
    if len(groups) == 2 and ("", "") in groups:
        unnamed = groups.pop(("", ""))
        groups = {key: sorted([*group, *unnamed], key=sort_key) for key, group in groups.items()}
    own_group = any(not file.skipped for file in strays) and len(groups) != 1
    ordered = [groups[key] for key in sorted(groups)]
    if own_group or not ordered:
        ordered.append(strays)
    else:
        ordered[0].extend(strays)
    return ordered


def make_study(group: list[Loaded], read_ms: float | None) -> Study:
    """Return the study of one group of files, with warnings for skipped files."""
    notes = [
        notice("file-skipped", f"skipped: {file.reject.message}", source=file.item.source, reason=file.reject.code)
        for file in group
        if file.skipped and file.reject and not is_own(file.item.source)
    ]
    if len(notes) > _MAX_NOTES:
        count = len(notes) - _MAX_NOTES
        text = f"skipped {count} more files that are no radiographs"
        notes[_MAX_NOTES:] = [notice("file-skipped", text, count=count)]
    if not group:
        notes.append(notice("no-files", "no file was found; give DICOM files or a folder that holds some"))
    members = [file for file in group if not file.skipped]
    if group and not members and not notes:
        text = "the files are results of this program and no radiographs; give DICOM files or their folder"
        notes.append(notice("own-results", text))
    rejects = [file.reject for file in members if file.reject is not None]
    radiographs = _without_copies([file.radiograph for file in members if file.radiograph is not None], notes)
    facts = [file.facts for file in members]
    advice = "correct its patient IDs, or give one patient's files"
    radiographs, mixed, patient = of_one_patient(radiographs, (fact.patient_key for fact in facts), advice)
    rejects += mixed
    return Study(
        radiographs=tuple(radiographs),
        rejects=tuple(rejects),
        study_instance_uid=next((fact.study_instance_uid for fact in facts if fact.study_instance_uid), None),
        study_date=next((fact.study_date for fact in facts if fact.study_date), None),
        patient_key=patient,
        warnings=tuple(notes),
        read_ms=read_ms,
    )


def of_one_patient(
    radiographs: list[Radiograph], keys: Iterable[str | None], advice: str
) -> tuple[list[Radiograph], list[Reject], str | None]:
    """Return a study's radiographs, its rejects for mixed patients, and the patient's key.

    If `keys` name several patients, every radiograph becomes a reject (two-patients), whose message ends with `advice`.
    """
    patients = {key for key in keys if key is not None}
    if len(patients) > 1:
        message = f"the study holds images of several patients; {advice}"
        return [], [Reject("two-patients", message, image.source, image.region) for image in radiographs], None
    return radiographs, [], next(iter(patients), None)


def _without_copies(radiographs: list[Radiograph], notes: list[Notice]) -> list[Radiograph]:
    """Return the radiographs without copies, which have the same SOP Instance UID and the same stored values.

    Different pixels under one UID are different images, whatever the standard says. They get distinct names.
    """
    kept: list[Radiograph] = []
    for radiograph in radiographs:
        uid = radiograph.sop_instance_uid
        namesakes = [image for image in kept if uid is not None and image.sop_instance_uid == uid]
        original = next((image for image in namesakes if np.array_equal(image.pixels, radiograph.pixels)), None)
        if original is not None:
            text = f"{radiograph.source} is the same image as {original.source} and was left out"
            notes.append(notice("same-image", text, radiograph.region, radiograph.source, kept=original.source))
            continue
        if namesakes:
            if radiograph.source in {image.source for image in namesakes}:
                radiograph = replace(radiograph, source=f"{radiograph.source} ({len(namesakes) + 1})")
            text = (
                f"{radiograph.source} and {namesakes[0].source} have one SOP Instance UID but different pixels; both "
                "were read, give one of them a UID of its own"
            )
            notes.append(notice("same-uid", text, radiograph.region, radiograph.source, other=namesakes[0].source))
        kept.append(radiograph)
    return kept
