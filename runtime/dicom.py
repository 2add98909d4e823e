"""Files to radiographs and studies.

The header is read first, and what it declares is checked before the pixels are. Files are read side by side, one of
them by the calling thread. Whatever pydicom raises or warns of on a hostile file ends as an `InputRejected` or in
`Radiograph.warnings`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, overload

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.quality import of_header
from spinescore.runtime.reading.dicomfile import brief, inflated_to, read_header
from spinescore.runtime.reading.grouping import Loaded, grouped, place_of, study_of
from spinescore.runtime.reading.inputs import FileInput, Item, items
from spinescore.runtime.reading.memory import PixelBudget, pixel_limit
from spinescore.runtime.reading.ondemand import StudiesOnDemand
from spinescore.runtime.reading.tags import Facts, number, read_facts
from spinescore.runtime.study import FROM_LIBRARY, Radiograph, Reject, Study
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

    from spinescore.runtime.reading.pixels import PixelFormat

__all__ = ["MAX_PIXELS", "PROJECTION_MODALITIES", "load_radiograph", "load_studies", "load_study"]

Reserve = Callable[[int], None]

MAX_PIXELS = 100_000_000
# Projection radiography, and what digitised or re-sent films come as. A folder's other files are skipped unread.
PROJECTION_MODALITIES = frozenset({"CR", "DX", "RF", "XA", "RG", "OT", "SC"})

_MAX_NOTES, _NOTE_LENGTH = 20, 300
_MAX_THREADS = 4
_FEW_FILES = 2  # are read at once, with their headers
_MOST_BYTES_PER_PIXEL = 2
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


@overload
def load_studies(
    files: Iterable[FileInput], *, max_pixels: int = ..., window: str | None = ..., on_demand: Literal[False] = ...
) -> list[Study]: ...
@overload
def load_studies(
    files: Iterable[FileInput], *, max_pixels: int = ..., window: str | None = ..., on_demand: Literal[True]
) -> list[Study] | StudiesOnDemand: ...
def load_studies(
    files: Iterable[FileInput],
    *,
    max_pixels: int = MAX_PIXELS,
    window: str | None = None,
    on_demand: bool = False,
) -> list[Study] | StudiesOnDemand:
    """Read files into studies (all that `load_study` takes), in the order of their study instance UIDs.

    In a folder, an archive or a DICOMDIR, files that are no radiograph are skipped with a warning; files named by hand
    are rejects. What states no study joins the only one there is: rejects, and radiographs whose patient is not
    stated either; else they form a study of their own. A study with two patients keeps no radiograph.

    `on_demand` reads the headers of more than two files, and each study's pixels when it is asked for: then one study
    at a time is in memory, and the sequence is to be closed.
    """
    opened = ExitStack()
    try:
        found = items(files, opened)
        if not on_demand or len(found) <= _FEW_FILES:
            with opened:
                return _studies(*_load_items(found, max_pixels, window))
        return _on_demand(found, max_pixels, window, opened)
    except BaseException:
        opened.close()
        raise


def _on_demand(found: list[Item], max_pixels: int, window: str | None, opened: ExitStack) -> StudiesOnDemand:
    import pydicom  # noqa: F401  # as in `_load_items`

    started = time.perf_counter()
    pool = opened.enter_context(ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="spinescore-read"))
    look = partial(_load, max_pixels=max_pixels, window=window, reserve=_look)
    groups = grouped(sorted(pool.map(look, found), key=place_of))
    looked_ms = (time.perf_counter() - started) * 1e3

    def read(number: int) -> Study:
        started = time.perf_counter()
        loaded = _load_seen(groups[number], max_pixels, window, pool)
        read_ms = looked_ms + (time.perf_counter() - started) * 1e3
        return study_of(loaded, read_ms if len(groups) == 1 else None)

    byte_counts = [sum(seen.byte_count or 0 for seen in group) for group in groups]
    return StudiesOnDemand([study_of(group, None) for group in groups], byte_counts, read, opened)


def _load_all(files: Iterable[FileInput], max_pixels: int, window: str | None) -> tuple[list[Loaded], float]:
    with ExitStack() as opened:
        return _load_items(items(files, opened), max_pixels, window)


def _load_items(found: list[Item], max_pixels: int, window: str | None) -> tuple[list[Loaded], float]:
    import pydicom  # noqa: F401  # before any file, so that a broken installation is not taken for a broken file

    started = time.perf_counter()
    all_fit = len(found) * max_pixels * _MOST_BYTES_PER_PIXEL <= pixel_limit()
    load = partial(_load, max_pixels=max_pixels, window=window, reserve=_take if all_fit else _look)
    with ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="spinescore-read") as pool:
        others = pool.map(load, found[1:])  # no more threads start than there are other files
        loaded = sorted([*map(load, found[:1]), *others], key=place_of)
        return (loaded if all_fit else _load_seen(loaded, max_pixels, window, pool)), started


def _load_seen(seen: list[Loaded], max_pixels: int, window: str | None, pool: ThreadPoolExecutor) -> list[Loaded]:
    """Read the pixels of files whose headers were read, in their order, as far as the memory for pixels goes."""
    budget = PixelBudget()

    def fits(found: Loaded) -> Loaded:
        if found.byte_count is None:
            return found
        try:
            budget.take(found.byte_count, found.item.source)
        except InputRejected as fault:
            return Loaded(found.item, found.facts, reject=_reject(fault, found.item, found.facts))
        return found

    def load(found: Loaded) -> Loaded:
        return found if found.byte_count is None else _load(found.item, max_pixels, window, _take)

    return sorted(pool.map(load, list(map(fits, seen))), key=place_of)


class _HeaderRead(Exception):
    """Raised before pixels are read, by what only looks at headers."""

    def __init__(self, byte_count: int) -> None:
        super().__init__(byte_count)
        self.byte_count = byte_count


def _take(byte_count: int) -> None:
    """Pixels may be read."""


def _look(byte_count: int) -> None:
    raise _HeaderRead(byte_count)


def _reject(fault: InputRejected, item: Item, facts: Facts) -> Reject:
    return Reject(fault.code, str(fault), item.source, facts.region)


def _studies(loaded: list[Loaded], started: float) -> list[Study]:
    ordered = grouped(loaded)
    read_ms = (time.perf_counter() - started) * 1e3 if len(ordered) == 1 else None
    return [study_of(group, read_ms) for group in ordered]


def _load(item: Item, max_pixels: int, window: str | None, reserve: Reserve) -> Loaded:
    """Read one file; everything that can go wrong ends in a reject. `reserve` is asked before memory is taken."""
    facts, source = Facts(), item.source
    try:
        with caught_warnings() as warned, item.open() as opened:
            picture = _picture(opened, item, max_pixels, reserve)
            if picture is not None:
                return Loaded(item, facts, picture)
            ds, stream, syntax = read_header(opened, source)
            facts = read_facts(ds)
            if item.in_folder and facts.modality not in PROJECTION_MODALITIES | {None}:
                raise InputRejected("not-radiograph", f"{source} has the modality {facts.modality}")
            limits = (max_pixels, reserve)
            return Loaded(item, facts, _radiograph(stream, ds, syntax, facts, source, limits, window, warned))
    except _HeaderRead as seen:
        return Loaded(item, facts, byte_count=seen.byte_count)
    except InputRejected as fault:
        return Loaded(item, facts, reject=_reject(fault, item, facts))
    except MemoryError:
        message = f"{source} needs more memory than there is; give fewer or smaller images at a time"
        return Loaded(item, facts, reject=Reject("too-large", message, source, facts.region))
    except Exception as fault:  # whatever a hostile file makes pydicom or a decoder raise
        message = f"{source} cannot be read ({brief(fault)}); send it again from the modality or the archive"
        return Loaded(item, facts, reject=Reject("corrupt-pixels", message, source, facts.region))


def _picture(opened: BinaryIO, item: Item, max_pixels: int, reserve: Reserve) -> Radiograph | None:
    """A PNG or JPEG file as a radiograph; None for all others. In folders they are overlays as a rule, and skipped."""
    from spinescore.runtime.reading.pictures import picture_kind, read_picture

    kind = picture_kind(opened.read(_KIND_BYTES))
    opened.seek(0)
    if kind is not None and item.in_folder:
        raise InputRejected("not-dicom", f"{item.source} is a {kind} picture; name it by itself to have it read")
    return None if kind is None else read_picture(opened, kind, item.source, max_pixels, reserve)


def _radiograph(
    stream: BinaryIO,
    ds: FileDataset,
    syntax: str | None,
    facts: Facts,
    source: str,
    limits: tuple[int, Reserve],
    window: str | None,
    warned: list[str],
) -> Radiograph:
    from spinescore.runtime.reading import greyscale, pixels, shutter

    if "Rows" not in ds and "Columns" not in ds:
        raise InputRejected("no-pixels", f"{source} holds no image; give the radiograph itself")
    max_pixels, reserve = limits
    declared = pixels.pixel_format(ds, source, max_pixels)
    reserve(declared.byte_count)
    notes = list(facts.notes)
    stream = inflated_to(stream, declared.byte_count)
    stored, decoder = pixels.read_pixels(stream, ds, declared, syntax, source, notes)
    padding, lowest = _padding(ds, declared), declared.stored_min
    occluded = shutter.closed(stored, ds, declared, padding, notes)
    table, has_window, remarks = greyscale.table(
        ds, stored, declared.bits_stored, lowest, padding, window, occluded=occluded
    )
    said = (f"{FROM_LIBRARY}{warning}" for warning in warned)
    unique = dict.fromkeys(note[:_NOTE_LENGTH] for note in (*notes, *remarks, *said))
    return Radiograph(
        pixels=stored,
        table=table,
        stored_min=lowest,
        has_window=has_window,
        padding=padding,
        occluded=occluded,
        spacing_mm=facts.spacing_mm,
        region=facts.region,
        view=facts.view,
        facing=facts.facing,
        turn_deg=facts.turn_deg,
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
