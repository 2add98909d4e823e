"""Files to radiographs and studies.

The header is read first, and what it declares is checked before the pixels are. Files are read side by side, one of
them by the calling thread. Whatever pydicom raises or warns of on a hostile file ends as an `InputRejected` or in
`Radiograph.warnings`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.quality import of_header
from spinescore.runtime.reading.dicomfile import brief, caught_warnings, inflated_to, read_header
from spinescore.runtime.reading.inputs import FileInput, Item, items
from spinescore.runtime.reading.tags import Facts, number, read_facts
from spinescore.runtime.study import FROM_LIBRARY, Radiograph, Reject, Study

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

    from spinescore.runtime.reading.pixels import PixelFormat

__all__ = ["MAX_PIXELS", "PROJECTION_MODALITIES", "load_radiograph", "load_studies", "load_study"]

MAX_PIXELS = 100_000_000
# Projection radiography, and what digitised or re-sent films come as. A folder's other files are skipped unread.
PROJECTION_MODALITIES = frozenset({"CR", "DX", "RF", "XA", "RG", "OT", "SC"})

_SKIPPED = frozenset({"not-dicom", "no-pixels", "not-radiograph"})  # in a folder: no radiograph, so no reject
_MAX_NOTES, _NOTE_LENGTH = 20, 300
_MAX_THREADS = 4
_KIND_BYTES = 16  # tell a PNG or JPEG file


def load_radiograph(file: FileInput, *, max_pixels: int = MAX_PIXELS, window: str | None = None) -> Radiograph:
    """Read one radiograph: a path, a file's bytes or a binary stream; DICOM, or for research PNG or JPEG.

    A folder, a zip archive or a DICOMDIR will do where it holds one radiograph. `window` names the window or VOI LUT
    to use by its explanation. Raises InputRejected for what cannot be read as one grey-scale image, and for nothing
    else that a file may hold.

    Codes: not-dicom, no-pixels, corrupt-pixels, not-radiograph (colour, several frames, not 8 or 16 bits; several
    radiographs), unsupported-syntax, too-large (more than `max_pixels`). Whether it shows a lateral spine is the
    scorer's to judge.
    """
    loaded, _ = _load_all((file,), max_pixels, window)
    radiographs = [found.radiograph for found in loaded if found.radiograph is not None]
    if len(radiographs) == 1:
        return radiographs[0]
    name = "what was given" if not isinstance(file, (str, os.PathLike)) else Path(file).name
    if radiographs:
        raise InputRejected("not-radiograph", f"{name} holds {len(radiographs)} radiographs; read it with load_study")
    for reject in (found.reject for found in loaded if found.reject is not None and not found.skipped):
        raise InputRejected(reject.code, reject.message)
    raise InputRejected("not-dicom", f"{name} holds no radiograph; give the original files of the study")


def load_study(file: FileInput, *more: FileInput, max_pixels: int = MAX_PIXELS, window: str | None = None) -> Study:
    """Read what holds one study: paths of files, folders, zip archives and DICOMDIR, bytes, binary streams.

    `window` is as in `load_radiograph`. Raises InputRejected: two-patients, several-studies.
    """
    loaded, started = _load_all((file, *more), max_pixels, window)
    patients = {found.facts.patient_key for found in loaded if not found.skipped} - {None}
    if len(patients) > 1:
        raise InputRejected(
            "two-patients", f"the files belong to {len(patients)} patients; give the files of one patient at a time"
        )
    studies = _studies(loaded, started)
    if len(studies) > 1:
        raise InputRejected(
            "several-studies",
            f"the files belong to {len(studies)} studies; give one study at a time, or use load_studies",
        )
    return studies[0]


def load_studies(files: Iterable[FileInput], *, max_pixels: int = MAX_PIXELS, window: str | None = None) -> list[Study]:
    """Read files into studies (all that `load_study` takes), in the order of their study instance UIDs.

    In a folder, an archive or a DICOMDIR, files that are no radiograph are skipped with a warning; files named by hand
    are rejects. What states no study joins the only one there is: rejects, and radiographs whose patient is not
    stated either; else they form a study of their own. A study with two patients keeps no radiograph.
    """
    return _studies(*_load_all(files, max_pixels, window))


@dataclass(frozen=True)
class _Loaded:
    item: Item
    facts: Facts
    radiograph: Radiograph | None = None
    reject: Reject | None = None

    @property
    def skipped(self) -> bool:
        return self.reject is not None and self.item.in_folder and self.reject.code in _SKIPPED


def _load_all(files: Iterable[FileInput], max_pixels: int, window: str | None) -> tuple[list[_Loaded], float]:
    import pydicom  # noqa: F401  # before any file, so that a broken installation is not taken for a broken file

    started = time.perf_counter()
    load = partial(_load, max_pixels=max_pixels, window=window)
    with ExitStack() as opened:
        found = items(files, opened)
        with ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="spinescore-read") as pool:
            others = pool.map(load, found[1:])  # no more threads start than there are other files
            loaded = [*map(load, found[:1]), *others]
    return sorted(loaded, key=_place), started


def _place(found: _Loaded) -> tuple[str, str, str]:
    """The order of files, which is not that in which they were given."""
    return found.facts.sop_instance_uid or "", found.item.source, found.item.key


def _studies(loaded: list[_Loaded], started: float) -> list[Study]:
    groups: dict[tuple[str, str], list[_Loaded]] = {}
    strays: list[_Loaded] = []
    for found in loaded:
        uid, patient = found.facts.study_instance_uid, found.facts.patient_key
        if found.skipped or (found.radiograph is None and uid is None):
            strays.append(found)
        else:  # a study is of one patient; where none is stated, the patient tells files apart
            groups.setdefault((uid, "") if uid else ("", patient or ""), []).append(found)
    if len(groups) == 2 and ("", "") in groups:
        unnamed = groups.pop(("", ""))
        groups = {key: sorted([*group, *unnamed], key=_place) for key, group in groups.items()}
    own_group = any(not found.skipped for found in strays) and len(groups) != 1
    ordered = [groups[key] for key in sorted(groups)]
    if own_group or not ordered:
        ordered.append(strays)
    else:
        ordered[0].extend(strays)
    read_ms = (time.perf_counter() - started) * 1e3 if len(ordered) == 1 else None
    return [_study(group, read_ms) for group in ordered]


def _study(group: list[_Loaded], read_ms: float | None) -> Study:
    notes = [f"skipped: {found.reject.message}" for found in group if found.skipped and found.reject]
    if len(notes) > _MAX_NOTES:
        notes[_MAX_NOTES:] = [f"skipped {len(notes) - _MAX_NOTES} more files that are no radiographs"]
    if not group:
        notes.append("no file was found; give DICOM files or a folder that holds some")
    members = [found for found in group if not found.skipped]
    rejects = [found.reject for found in members if found.reject is not None]
    radiographs: dict[str, Radiograph] = {}
    for radiograph in (found.radiograph for found in members if found.radiograph is not None):
        first = radiographs.setdefault(radiograph.sop_instance_uid or f"#{len(radiographs)}", radiograph)
        if first is not radiograph:
            notes.append(f"{radiograph.source} is the same image as {first.source} and was left out")
    facts = [found.facts for found in members]
    patients = sorted({fact.patient_key for fact in facts if fact.patient_key is not None})
    if len(patients) > 1:
        message = "the study holds images of several patients; correct its patient IDs, or give one patient's files"
        rejects += [Reject("two-patients", message, image.source, image.region) for image in radiographs.values()]
        radiographs = {}
    return Study(
        radiographs=tuple(radiographs.values()),
        rejects=tuple(rejects),
        study_instance_uid=next((fact.study_instance_uid for fact in facts if fact.study_instance_uid), None),
        study_date=next((fact.study_date for fact in facts if fact.study_date), None),
        patient_key=patients[0] if len(patients) == 1 else None,
        warnings=tuple(notes),
        read_ms=read_ms,
    )


def _load(item: Item, max_pixels: int, window: str | None) -> _Loaded:
    """Read one file; everything that can go wrong ends in a reject."""
    facts, source = Facts(), item.source
    try:
        with caught_warnings() as warned, item.open() as opened:
            picture = _picture(opened, item, max_pixels)
            if picture is not None:
                return _Loaded(item, facts, picture)
            ds, stream, syntax = read_header(opened, source)
            facts = read_facts(ds)
            if item.in_folder and facts.modality not in PROJECTION_MODALITIES | {None}:
                raise InputRejected("not-radiograph", f"{source} has the modality {facts.modality}")
            return _Loaded(item, facts, _radiograph(stream, ds, syntax, facts, source, max_pixels, window, warned))
    except InputRejected as fault:
        return _Loaded(item, facts, reject=Reject(fault.code, str(fault), source, facts.region))
    except Exception as fault:  # whatever a hostile file makes pydicom or a decoder raise
        message = f"{source} cannot be read ({brief(fault)}); send it again from the modality or the archive"
        return _Loaded(item, facts, reject=Reject("corrupt-pixels", message, source, facts.region))


def _picture(opened: BinaryIO, item: Item, max_pixels: int) -> Radiograph | None:
    """A PNG or JPEG file as a radiograph; None for all others. In folders they are overlays as a rule, and skipped."""
    from spinescore.runtime.reading.pictures import picture_kind, read_picture

    kind = picture_kind(opened.read(_KIND_BYTES))
    opened.seek(0)
    if kind is not None and item.in_folder:
        raise InputRejected("not-dicom", f"{item.source} is a {kind} picture; name it by itself to have it read")
    return None if kind is None else read_picture(opened, kind, item.source, max_pixels)


def _radiograph(
    stream: BinaryIO,
    ds: FileDataset,
    syntax: str | None,
    facts: Facts,
    source: str,
    max_pixels: int,
    window: str | None,
    warned: list[str],
) -> Radiograph:
    from spinescore.runtime.reading import greyscale, pixels

    if "Rows" not in ds and "Columns" not in ds:
        raise InputRejected("no-pixels", f"{source} holds no image; give the radiograph itself")
    declared = pixels.pixel_format(ds, source, max_pixels)
    notes = list(facts.notes)
    stream = inflated_to(stream, declared.byte_count)
    stored, decoder = pixels.read_pixels(stream, ds, declared, syntax, source, notes)
    padding = _padding(ds, declared)
    table, has_window, remarks = greyscale.table(ds, stored, declared.bits_stored, declared.stored_min, padding, window)
    said = (f"{FROM_LIBRARY}{warning}" for warning in warned)
    unique = dict.fromkeys(note[:_NOTE_LENGTH] for note in (*notes, *remarks, *said))
    return Radiograph(
        pixels=stored,
        table=table,
        stored_min=declared.stored_min,
        has_window=has_window,
        padding=padding,
        spacing_mm=facts.spacing_mm,
        region=facts.region,
        view=facts.view,
        facing=facts.facing,
        modality=facts.modality,
        sop_instance_uid=facts.sop_instance_uid,
        study_instance_uid=facts.study_instance_uid,
        study_date=facts.study_date,
        patient_key=facts.patient_key,
        decoder=decoder,
        source=source,
        header=ds,
        warnings=tuple(unique)[:_MAX_NOTES],
        findings=of_header(ds, source, facts.spacing_mm is not None),
    )


def _padding(ds: FileDataset, declared: PixelFormat) -> tuple[int, int] | None:
    """Pixel Padding Value, up to the Range Limit where there is one (PS3.3 C.7.5.1.1.2), as stored values."""
    value, limit = number(ds, "PixelPaddingValue"), number(ds, "PixelPaddingRangeLimit")
    if value is None:
        return None
    first = _as_stored(int(value), declared)
    last = first if limit is None else _as_stored(int(limit), declared)
    low, high = max(min(first, last), declared.stored_min), min(max(first, last), declared.stored_max)
    return (low, high) if low <= high else None


def _as_stored(value: int, declared: PixelFormat) -> int:
    """Devices write a signed value as unsigned, and the other way round: take the one that can be stored."""
    span = 1 << declared.bits_allocated
    return next(
        (same for same in (value, value - span, value + span) if declared.stored_min <= same <= declared.stored_max),
        value,
    )
