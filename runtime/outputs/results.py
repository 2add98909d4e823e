"""A study's results as files, without those of an earlier report, and without names or IDs in their names."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from spinescore.runtime.arguments import check_kind, check_path, shown
from spinescore.runtime.errors import OutputError
from spinescore.runtime.outputs.formats import DEFAULT_FORMATS, FORMATS, Content, ResultFormat, write_file
from spinescore.runtime.outputs.rows import Row, csv_text
from spinescore.runtime.outputs.source import study_of
from spinescore.runtime.scoring.intake import StudyInput
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.study import REGIONS
from spinescore.runtime.text import brief

__all__ = ["check_formats", "remove_results", "result_folders", "write_results", "write_rows"]

_FILES = frozenset(form.file.format(region=region) for form in FORMATS.values() for region in REGIONS)
_EXAMPLE = "['json', 'sr']"


def check_formats(formats: Iterable[str], anonymous: bool = False) -> list[ResultFormat]:
    """Return the formats in the order of the table.

    Raises TypeError and ValueError for anything but names of formats, and OutputError if a format needs a missing
    library, or names the patient although the results are `anonymous`.
    """
    if isinstance(formats, str):
        raise ValueError(f"formats takes names of formats, such as {_EXAMPLE}, got the text {formats!r}")
    given: object = formats  # whatever its type says
    if not isinstance(given, Iterable):
        default = ", ".join(DEFAULT_FORMATS)
        raise TypeError(
            f"formats takes names of formats, such as {_EXAMPLE}, got {shown(formats)}; leave it out for {default}"
        )
    names = list(formats)  # an iterator can be read only once
    if not names and not isinstance(formats, Collection):
        raise ValueError(
            f"formats is an iterator with nothing left in it, so that nothing would be written; give a list of names, "
            f"such as {_EXAMPLE}"
        )
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise ValueError(f"formats: there is no format {unknown[0]!r}; the formats are {', '.join(FORMATS)}")
    chosen = [name for name in FORMATS if name in names]
    for name in chosen:
        if anonymous and FORMATS[name].is_dicom:
            raise OutputError(
                f"the format {name} names the patient and the study, as DICOM must; leave it out, or --anonymous"
            )
    for name in chosen:
        library = FORMATS[name].library
        if library is not None and find_spec(library) is None:
            raise OutputError(
                f'the format {name} is made with {library}, which is missing: pip install "spinescore[results]"'
            )
    return chosen


def result_folders(out: Path, count: int, name: str = "study", files: Iterable[str] = _FILES) -> list[Path]:
    """Return a folder for each of `count` results: `out` itself for one, else `out/study-N`, or with another `name`.

    The `files` of an earlier call that these results will not replace are removed from `out`, so that no old grade
    lies beside new ones. Files with other names stay, and so does all that a link leads to. Raises OutputError.
    """
    folders = [out] if count == 1 else [out / f"{name}-{number}" for number in range(1, count + 1)]
    numbered = [path for path in out.glob(f"{name}-*") if re.fullmatch(rf"{name}-[0-9]+", path.name)]
    earlier = [path for path in numbered if path.is_dir() and not path.is_symlink()]
    for folder in (path for path in (out, *earlier) if path not in folders):
        remove_results(folder, files)
        if folder != out and not any(folder.iterdir()):
            folder.rmdir()
    return folders


def write_results(
    study: StudyInput,
    report: StudyReport,
    folder: str | os.PathLike[str],
    *,
    formats: Collection[ResultFormat] = DEFAULT_FORMATS,
    created: datetime | None = None,
) -> list[Path]:
    """Write a study's results to a folder, as `spinescore score --out` does, and return the paths that were written.

    `study` is the study that was scored, as it was given to `Scorer.score`. `formats` are any of these. The DICOM
    formats need radiographs with headers; `gsps` and `sc` need the extra `results`.

    - `json`: `report.json`, the report.
    - `png`: `overlay-<region>.png`, a picture of each region that was scored, or rejected with points.
    - `html`: `report.html`, as `html` makes it.
    - `csv`: `row.csv`, a header and one row.
    - `sr`, `gsps`, `sc`: `sr.dcm`, `gsps-<region>.dcm`, `sc-<region>.dcm`, as `structured_report`,
      `presentation_states` and `secondary_captures` make them, with `created` as their date and time.

    The folder is made if it does not exist. Each file appears whole or not at all. Earlier files with these names are
    replaced or removed, so that the folder holds results of this report only. Other files stay.

    Raises TypeError or ValueError for `formats` that are no names of formats. Raises OutputError before anything is
    written if the report belongs to another study or a library is missing. If a format cannot be made, or a file
    cannot be written (a full disk, a viewer that holds it open on Windows), the other files are written first, and
    then OutputError is raised.
    """
    chosen = check_formats(formats)
    check_kind("created", created, datetime, optional=True)
    check_path("folder", folder)
    scored_study, place = study_of(study, report), Path(folder)
    files: dict[str, Content] = {}
    faults: list[str] = []
    cause: Exception | None = None
    for name in chosen:
        try:
            files |= FORMATS[name].files(scored_study, report, created)
        except OutputError as error:  # noqa: PERF203  # the other formats do not depend on this one
            faults.append(f"{name}: {error}")
        except Exception as error:  # an error of a library, or ours
            faults.append(f"{name}: {_unexpected(error)}")
            cause = error
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{place} cannot be made ({error.strerror}): name another folder") from error
    for stale in sorted(_FILES - set(files)):
        faults += _faults(place / stale, _remove)
    for file, content in files.items():
        if failed := _faults(place / file, partial(write_file, content=content)):
            faults += failed
            with suppress(OSError):
                _remove(place / file)  # the earlier file
    if faults:
        raise OutputError("; ".join(faults)) from cause
    return [place / file for file in files]


def write_rows(folder: Path, studies: Sequence[StudyReport | Row]) -> Path:
    """Write a table of several studies, given as reports or rows. Raises OutputError if it cannot be written."""
    path, text = folder / FORMATS["csv"].file, csv_text(studies)
    if faults := _faults(path, partial(write_file, content=text)):
        raise OutputError(*faults)
    return path


def remove_results(folder: Path, files: Iterable[str] = _FILES) -> None:
    """Remove results of an earlier call from a folder; files with other names stay. Raises OutputError."""
    if faults := [fault for name in files for fault in _faults(folder / name, _remove)]:
        raise OutputError("; ".join(faults))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _faults(path: Path, step: Callable[[Path], object]) -> list[str]:
    """Do a step with a file; return a message if it fails."""
    try:
        step(path)
    except OSError as error:
        what = "is of an earlier report and cannot be removed" if step is _remove else "cannot be written"
        full, reason = error.errno == errno.ENOSPC, error.strerror or type(error).__name__
        advice = "free space there" if full else "close what holds it open, let this user write there"
        return [f"{path} {what} ({reason}): {advice}, or name another folder"]
    except OutputError as error:
        return [str(error)]
    except Exception as error:  # an error of the library that writes the file's format
        return [f"{path.name}: {_unexpected(error)}"]
    return []


def _unexpected(error: Exception) -> str:
    return f"unexpected {brief(error)}; leave this format out, and report it with the radiograph's header"
