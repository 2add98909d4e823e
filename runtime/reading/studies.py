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
from spinescore.runtime.reading.grouping import Loaded, group_by_study, make_study, sort_key
from spinescore.runtime.reading.inputs import FileInput, Item, items
from spinescore.runtime.reading.memory import MAX_PIXELS, PixelBudget, pixel_limit
from spinescore.runtime.reading.ondemand import StudiesOnDemand
from spinescore.runtime.reading.onefile import load, rejected
from spinescore.runtime.study import Radiograph, Study

__all__ = ["MAX_PIXELS", "load_radiograph", "load_studies", "load_study", "look_at_radiograph"]

_MAX_THREADS = 4
_FEW_FILES = 2  # are read at once, with their headers
_MOST_BYTES_PER_PIXEL = 2


def load_radiograph(file: FileInput, *, max_pixels: int = MAX_PIXELS, window: str | None = None) -> Radiograph:
    """Read one radiograph from a path, a file's bytes, a binary stream or a pydicom Dataset.

    A folder, a zip archive or a DICOMDIR is accepted if it holds one radiograph; PNG and JPEG files are accepted for
    research. `window` selects a window or VOI LUT by its explanation. Whether the picture shows a lateral spine is not
    judged here, but by the scorer.

    Raises InputRejected if the input is not one readable grey-scale image, and no other error for any content of a
    file. Codes: not-dicom, no-pixels, corrupt-pixels, not-radiograph (colour, several frames, not 8 or 16 bits; several
    radiographs), unsupported-syntax, too-large (more than `max_pixels`).
    """
    _check_options(max_pixels, window)
    loaded, _ = _load_all((file,), max_pixels, window)
    radiograph = _only(loaded, file).radiograph
    assert radiograph is not None  # its pixels were read
    return radiograph


def look_at_radiograph(file: FileInput, *, max_pixels: int = MAX_PIXELS) -> Loaded:
    """Return the facts in the header of one radiograph and the bytes of its pixels, which are not read.

    Raises InputRejected like `load_radiograph`, for faults that the header shows.
    """
    import pydicom  # noqa: F401  # as in `_load_items`

    with ExitStack() as opened:
        return _only([load(item, max_pixels, None, header_only=True) for item in items((file,), opened)], file)


def _only(loaded: list[Loaded], given: FileInput) -> Loaded:
    """Return the only radiograph among the files. Raises InputRejected if there is none, or more than one."""
    radiographs = [file for file in loaded if file.has_image]
    if len(radiographs) == 1:
        return radiographs[0]
    name = Path(given).name if isinstance(given, (str, os.PathLike)) else "what was given"
    if radiographs:
        text = f"{name} holds {len(radiographs)} radiographs; give one of its files, or read all with load_study"
        raise InputRejected("not-radiograph", text)
    for reject in (file.reject for file in loaded if file.reject is not None and not file.skipped):
        raise InputRejected(reject.code, reject.message)
    raise InputRejected("not-dicom", f"{name} holds no radiograph; give the original files of the study")


def load_study(file: FileInput, *more: FileInput, max_pixels: int = MAX_PIXELS, window: str | None = None) -> Study:
    """Read one study from paths (files, folders, zip archives, DICOMDIR), bytes, streams or pydicom Datasets.

    `window` is as in `load_radiograph`. Raises InputRejected: two-patients, several-studies. Raises ValueError if none
    of the paths exists; if only some are missing, each of those is a reject.
    """
    _check_options(max_pixels, window)
    _check_there((file, *more))
    loaded, started = _load_all((file, *more), max_pixels, window)
    patients = {file.facts.patient_key for file in loaded if not file.skipped} - {None}
    if len(patients) > 1:
        text = f"the files belong to {len(patients)} patients; give the files of one patient at a time"
        raise InputRejected("two-patients", text)
    studies = _studies(loaded, started)
    if len(studies) > 1:
        text = f"the files belong to {len(studies)} studies; give one study at a time, or use load_studies"
        raise InputRejected("several-studies", text)
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
    """Read files into studies, in the order of their study instance UIDs. Inputs are as for `load_study`.

    Files that are no radiographs are skipped with a warning if a folder, an archive or a DICOMDIR holds them; if the
    caller names them, they become rejects. Rejects without a study, and radiographs without a study and a patient, join
    the only study there is, or else form a study of their own. A study with two patients keeps no radiograph.

    With `on_demand` and more than two files, only the headers are read at first. The pixels of a study are read when it
    is accessed, so that one study at a time is in memory; the caller must close the sequence. Raises TypeError for one
    path in the place of several.
    """
    _check_options(max_pixels, window)
    check_flag("on_demand", on_demand)
    _check_several(files)
    files = list(files)
    _check_there(files)
    opened = ExitStack()
    try:
        inputs = items(files, opened)
        if not on_demand or len(inputs) <= _FEW_FILES:
            with opened:
                return _studies(*_load_items(inputs, max_pixels, window))
        return _on_demand(inputs, max_pixels, window, opened)
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
    """Raise ValueError if all inputs are paths and none of them exists."""
    paths = [Path(file) for file in files if isinstance(file, (str, os.PathLike))]
    if paths and len(paths) == len(files) and not any(_may_exist(path) for path in paths):
        raise ValueError(f"there is no file or folder {shown(paths[0].name)}; give the path of existing files")


def _may_exist(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no permission to look; opening it will tell the reason
        return True


def _on_demand(inputs: list[Item], max_pixels: int, window: str | None, opened: ExitStack) -> StudiesOnDemand:
    import pydicom  # noqa: F401  # as in `_load_items`

    started = time.perf_counter()
    pool = opened.enter_context(ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="spinescore-read"))
    look = partial(load, max_pixels=max_pixels, window=window, header_only=True)
    groups = group_by_study(sorted(pool.map(look, inputs), key=sort_key))
    looked_ms = (time.perf_counter() - started) * 1e3

    def read(number: int) -> Study:
        started = time.perf_counter()
        loaded = _load_seen(groups[number], max_pixels, window, pool)
        read_ms = looked_ms + (time.perf_counter() - started) * 1e3
        return make_study(loaded, read_ms if len(groups) == 1 else None)

    byte_counts = [sum(file.byte_count or 0 for file in group) for group in groups]
    return StudiesOnDemand([make_study(group, None) for group in groups], byte_counts, read, opened)


def _load_all(files: Iterable[FileInput], max_pixels: int, window: str | None) -> tuple[list[Loaded], float]:
    with ExitStack() as opened:
        return _load_items(items(files, opened), max_pixels, window)


def _load_items(inputs: list[Item], max_pixels: int, window: str | None) -> tuple[list[Loaded], float]:
    import pydicom  # noqa: F401  # first, so that a broken installation is not mistaken for a broken file

    started = time.perf_counter()
    all_fit = len(inputs) * max_pixels * _MOST_BYTES_PER_PIXEL <= pixel_limit()
    read = partial(load, max_pixels=max_pixels, window=window, header_only=not all_fit)
    with ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="spinescore-read") as pool:
        others = pool.map(read, inputs[1:])  # starts at most as many threads as there are other files
        loaded = sorted([*map(read, inputs[:1]), *others], key=sort_key)
        return (loaded if all_fit else _load_seen(loaded, max_pixels, window, pool)), started


def _load_seen(seen: list[Loaded], max_pixels: int, window: str | None, pool: ThreadPoolExecutor) -> list[Loaded]:
    """Read the pixels of files whose headers were read, in their order, until the memory for pixels is used up."""
    budget = PixelBudget()

    def fits(file: Loaded) -> Loaded:
        if file.byte_count is None:
            return file
        try:
            budget.take(file.byte_count, file.item.source)
        except InputRejected as fault:
            return rejected(fault, file.item, file.facts)
        return file

    def read(file: Loaded) -> Loaded:
        return file if file.byte_count is None else load(file.item, max_pixels, window)

    return sorted(pool.map(read, list(map(fits, seen))), key=sort_key)


def _studies(loaded: list[Loaded], started: float) -> list[Study]:
    ordered = group_by_study(loaded)
    read_ms = (time.perf_counter() - started) * 1e3 if len(ordered) == 1 else None
    return [make_study(group, read_ms) for group in ordered]
