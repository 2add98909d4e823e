"""Files that were read, grouped into studies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from spinescore.runtime.notices import Notice, notice
from spinescore.runtime.reading.facts import Facts
from spinescore.runtime.reading.inputs import Item, is_own
from spinescore.runtime.study import Radiograph, Reject, Study

__all__ = ["Loaded", "grouped", "of_one_patient", "place_of", "study_of"]

_SKIPPED = frozenset({"not-dicom", "no-pixels", "not-radiograph"})  # in a folder: no radiograph, so no reject
_MAX_NOTES = 20


@dataclass(frozen=True)
class Loaded:
    """A file, what its header says, and its radiograph, or why there is none."""

    item: Item
    facts: Facts
    radiograph: Radiograph | None = None
    reject: Reject | None = None
    byte_count: int | None = None  # of its pixels, if the header alone was read

    @property
    def has_image(self) -> bool:
        return self.radiograph is not None or self.byte_count is not None

    @property
    def skipped(self) -> bool:
        return self.reject is not None and self.item.in_folder and self.reject.code in _SKIPPED


def place_of(found: Loaded) -> tuple[str, str, str]:
    """The order of files, which is not that in which they were given."""
    return found.facts.sop_instance_uid or "", found.item.source, found.item.key


def grouped(loaded: list[Loaded]) -> list[list[Loaded]]:
    """The files of each study, in the order of their study instance UIDs."""
    groups: dict[tuple[str, str], list[Loaded]] = {}
    strays: list[Loaded] = []
    for found in loaded:
        uid, patient = found.facts.study_instance_uid, found.facts.patient_key
        if found.skipped or (not found.has_image and uid is None):
            strays.append(found)
        else:  # a study is of one patient; where none is stated, the patient tells files apart
            groups.setdefault((uid, "") if uid else ("", patient or ""), []).append(found)
    if len(groups) == 2 and ("", "") in groups:
        unnamed = groups.pop(("", ""))
        groups = {key: sorted([*group, *unnamed], key=place_of) for key, group in groups.items()}
    own_group = any(not found.skipped for found in strays) and len(groups) != 1
    ordered = [groups[key] for key in sorted(groups)]
    if own_group or not ordered:
        ordered.append(strays)
    else:
        ordered[0].extend(strays)
    return ordered


def study_of(group: list[Loaded], read_ms: float | None) -> Study:
    skipped = [found for found in group if found.skipped and not is_own(found.item.source)]
    notes = [
        notice("file-skipped", f"skipped: {found.reject.message}", source=found.item.source, reason=found.reject.code)
        for found in skipped
        if found.reject
    ]
    if len(notes) > _MAX_NOTES:
        count = len(notes) - _MAX_NOTES
        notes[_MAX_NOTES:] = [
            notice("file-skipped", f"skipped {count} more files that are no radiographs", count=count)
        ]
    if not group:
        notes.append(notice("no-files", "no file was found; give DICOM files or a folder that holds some"))
    members = [found for found in group if not found.skipped]
    if group and not members and not notes:
        text = "the files are results of this program and no radiographs; give DICOM files or their folder"
        notes.append(notice("own-results", text))
    rejects = [found.reject for found in members if found.reject is not None]
    radiographs = _different([found.radiograph for found in members if found.radiograph is not None], notes)
    facts = [found.facts for found in members]
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
    """Return a study's radiographs, rejects in their place if `keys` name several patients, and the patient's key.

    `advice` is the next step that the rejects (two-patients) state.
    """
    patients = {key for key in keys if key is not None}
    if len(patients) > 1:
        message = f"the study holds images of several patients; {advice}"
        return [], [Reject("two-patients", message, image.source, image.region) for image in radiographs], None
    return radiographs, [], next(iter(patients), None)


def _different(radiographs: list[Radiograph], notes: list[Notice]) -> list[Radiograph]:
    """The radiographs without copies: the same SOP Instance UID, and the same stored values.

    Other pixels under one UID are another image, whatever the standard says; its name is then made its own.
    """
    kept: list[Radiograph] = []
    for radiograph in radiographs:
        uid = radiograph.sop_instance_uid
        namesakes = [image for image in kept if uid is not None and image.sop_instance_uid == uid]
        copied = next((image for image in namesakes if np.array_equal(image.pixels, radiograph.pixels)), None)
        if copied is not None:
            text = f"{radiograph.source} is the same image as {copied.source} and was left out"
            notes.append(notice("same-image", text, radiograph.region, radiograph.source, kept=copied.source))
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
