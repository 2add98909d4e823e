"""Files to radiographs and studies.

The header is read first, and what it declares is checked before the pixels are. Files are read side by side, one of
them by the calling thread. Whatever pydicom raises or warns of on a hostile file ends as an `InputRejected` or in
`Radiograph.warnings`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, overload

from spinescore.runtime.arguments import check_flag, check_text, check_whole, shown
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.logs import READING
from spinescore.runtime.reading.datasets import dataset_syntax, is_dataset, own_header
from spinescore.runtime.reading.dicomfile import brief, inflated_to, read_header
from spinescore.runtime.reading.functionalgroups import lift
from spinescore.runtime.reading.grouping import Loaded, grouped, place_of, study_of
from spinescore.runtime.reading.inputs import FileInput, Item, items
from spinescore.runtime.reading.memory import MAX_PIXELS, PixelBudget, pixel_limit
from spinescore.runtime.reading.ondemand import StudiesOnDemand
from spinescore.runtime.reading.tags import Facts, read_facts
from spinescore.runtime.study import Radiograph, Reject, Study
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["MAX_PIXELS", "PROJECTION_MODALITIES", "load_radiograph", "load_studies", "load_study", "look_at_radiograph"]

Reserve = Callable[[int], None]

# Projection radiography, and what digitised or re-sent films come as. A folder's other files are skipped unread.
PROJECTION_MODALITIES = frozenset({"CR", "DX", "RF", "XA", "RG", "OT", "SC"})

_MAX_THREADS = 4
_FEW_FILES = 2  # are read at once, with their headers
_MOST_BYTES_PER_PIXEL = 2
_KIND_BYTES = 16  # tell a PNG or JPEG file


def load_radiograph(file: FileInput, *, max_pixels: int = MAX_PIXELS, window: str | None = None) -> Radiograph:
    """Read one radiograph: a path, a file's bytes, a binary stream or a pydicom Dataset; for research PNG or JPEG.

    A folder, a zip archive or a DICOMDIR will do where it holds one radiograph. `window` names the window or VOI LUT
    to use by its explanation. Raises InputRejected for what cannot be read as one grey-scale image, and for nothing
    else that a file may hold.

    Codes: not-dicom, no-pixels, corrupt-pixels, not-radiograph (colour, several frames, not 8 or 16 bits; several
    radiographs), unsupported-syntax, too-large (more than `max_pixels`). Whether it shows a lateral spine is the
    scorer's to judge.
    """
    _check_options(max_pixels, window)
    loaded, _ = _load_all((file,), max_pixels, window)
    radiograph = _only(loaded, file).radiograph
    assert radiograph is not None  # its pixels were read
    return radiograph


def look_at_radiograph(file: FileInput, *, max_pixels: int = MAX_PIXELS) -> Loaded:
    """What the header of one radiograph says, and the bytes that its pixels will take. No pixels are read.

    Raises InputRejected as `load_radiograph` does, for what the header tells.
    """
    import pydicom  # noqa: F401  # as in `_load_items`

    with ExitStack() as opened:
        return _only([_load(item, max_pixels, None, _look) for item in items((file,), opened)], file)


def _only(loaded: list[Loaded], file: FileInput) -> Loaded:
    """The only radiograph among what was read. Raises InputRejected."""
    radiographs = [found for found in loaded if found.has_image]
    if len(radiographs) == 1:
        return radiographs[0]
    name = Path(file).name if isinstance(file, (str, os.PathLike)) else "what was given"
    if radiographs:
        raise InputRejected("not-radiograph", f"{name} holds {len(radiographs)} radiographs; read it with load_study")
    for reject in (found.reject for found in loaded if found.reject is not None and not found.skipped):
        raise InputRejected(reject.code, reject.message)
    raise InputRejected("not-dicom", f"{name} holds no radiograph; give the original files of the study")


def load_study(file: FileInput, *more: FileInput, max_pixels: int = MAX_PIXELS, window: str | None = None) -> Study:
    """Read what holds one study: paths of files, folders, zip archives and DICOMDIR, bytes, streams, pydicom Datasets.

    `window` is as in `load_radiograph`. Raises InputRejected: two-patients, several-studies. Raises ValueError if
    nothing is at any of the paths; where one of several is missing, that one is a reject.
    """
    _check_options(max_pixels, window)
    _check_there((file, *more))
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
    at a time is in memory, and the sequence is to be closed. Raises TypeError for one path in the place of several.
    """
    _check_options(max_pixels, window)
    check_flag("on_demand", on_demand)
    _check_several(files)
    files = list(files)
    _check_there(files)
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


def _check_options(max_pixels: object, window: object) -> None:
    check_whole("max_pixels", max_pixels, 1)
    check_text("window", window)


def _check_several(files: object) -> None:
    single = isinstance(files, (str, bytes, bytearray, memoryview, os.PathLike)) or is_dataset(files)
    if single or not isinstance(files, Iterable):
        advice = "call load_studies([path]) or load_study(path)"
        raise TypeError(f"files must be several paths, got {shown(files)}; {advice}")


def _check_there(files: Sequence[FileInput]) -> None:
    """Raise ValueError if every input is a path, and nothing is at any of them."""
    paths = [Path(file) for file in files if isinstance(file, (str, os.PathLike))]
    if paths and len(paths) == len(files) and not any(_may_exist(path) for path in paths):
        raise ValueError(f"there is no file or folder {shown(paths[0].name)}; give the path of files that are there")


def _may_exist(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # it may not be looked at; to open it tells why
        return True


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
    READING.debug("a file is refused: %s", fault.code)
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
            if item.dataset is not None:
                ds, stream, syntax = own_header(item.dataset), opened, dataset_syntax(item.dataset)
            elif (picture := _picture(opened, item, max_pixels, reserve)) is not None:
                return Loaded(item, facts, picture)
            else:
                ds, stream, syntax = read_header(opened, source)
            lift(ds)
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
    ds: Dataset,
    syntax: str | None,
    facts: Facts,
    source: str,
    limits: tuple[int, Reserve],
    window: str | None,
    warned: list[str],
) -> Radiograph:
    from spinescore.runtime.reading import pixels
    from spinescore.runtime.reading.described import described

    if "Rows" not in ds and "Columns" not in ds:
        raise InputRejected("no-pixels", f"{source} holds no image; give the radiograph itself")
    max_pixels, reserve = limits
    declared = pixels.pixel_format(ds, source, max_pixels)
    reserve(declared.byte_count)
    notes: list[str] = []
    stream = inflated_to(stream, declared.byte_count)
    stored, decoder = pixels.read_pixels(stream, ds, declared, syntax, source, notes)
    return described(stored, ds, declared, facts, source, decoder=decoder, window=window, notes=notes, warned=warned)
