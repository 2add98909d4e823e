"""Files to radiographs and studies.

Files are read side by side, one of them by the calling thread. A fault in one file is a reject and stops no other file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal, overload

from spinescore.runtime.arguments import check_flag, check_text, check_whole, shown
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading.datasets import is_dataset
from spinescore.runtime.reading.grouping import Loaded, grouped, place_of, study_of
from spinescore.runtime.reading.inputs import FileInput, Item, items
from spinescore.runtime.reading.memory import MAX_PIXELS, PixelBudget, pixel_limit
from spinescore.runtime.reading.ondemand import StudiesOnDemand
from spinescore.runtime.reading.onefile import load, load_header, rejected
from spinescore.runtime.study import Radiograph, Study

__all__ = ["MAX_PIXELS", "load_radiograph", "load_studies", "load_study", "look_at_radiograph"]

_MAX_THREADS = 4
_FEW_FILES = 2  # are read at once, with their headers
_MOST_BYTES_PER_PIXEL = 2


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
        return _only([load_header(item, max_pixels, None) for item in items((file,), opened)], file)


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
    look = partial(load_header, max_pixels=max_pixels, window=window)
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
    read = partial(load if all_fit else load_header, max_pixels=max_pixels, window=window)
    with ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="spinescore-read") as pool:
        others = pool.map(read, found[1:])  # no more threads start than there are other files
        loaded = sorted([*map(read, found[:1]), *others], key=place_of)
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
            return rejected(fault, found.item, found.facts)
        return found

    def read(found: Loaded) -> Loaded:
        return found if found.byte_count is None else load(found.item, max_pixels, window)

    return sorted(pool.map(read, list(map(fits, seen))), key=place_of)


def _studies(loaded: list[Loaded], started: float) -> list[Study]:
    ordered = grouped(loaded)
    read_ms = (time.perf_counter() - started) * 1e3 if len(ordered) == 1 else None
    return [study_of(group, read_ms) for group in ordered]
