"""A study's results as files in a folder: each format, its files, and nothing of an earlier report.

Names of files say what they hold and nothing of the study: no name, ID or file name of the input is part of one.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spinescore.runtime.errors import OutputError
from spinescore.runtime.files import write_atomic
from spinescore.runtime.outputs.source import study_of
from spinescore.runtime.scoring.intake import StudyInput
from spinescore.runtime.study import REGIONS, Study
from spinescore.runtime.text import brief

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from spinescore.runtime.outputs.rows import Row
    from spinescore.runtime.scoring.report import StudyReport

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "ResultFormat",
    "check_formats",
    "remove_results",
    "study_folders",
    "write_results",
    "write_rows",
]

# Format -> the files that it can leave; `{region}` is a region that was scored, or for png rejected with points.
ResultFormat = Literal["json", "html", "png", "csv", "sr", "gsps", "sc"]
FORMATS: dict[ResultFormat, str] = {
    "json": "report.json",
    "html": "report.html",
    "png": "overlay-{region}.png",
    "csv": "row.csv",
    "sr": "sr.dcm",
    "gsps": "gsps-{region}.dcm",
    "sc": "sc-{region}.dcm",
}
DEFAULT_FORMATS: tuple[ResultFormat, ...] = ("json", "png")

_DICOM: tuple[ResultFormat, ...] = ("sr", "gsps", "sc")
_OF_HIGHDICOM: tuple[ResultFormat, ...] = ("gsps", "sc")
_NAMES = frozenset(name.format(region=region) for name in FORMATS.values() for region in REGIONS)

Writer = Callable[[Path], object]  # writes one file
Files = Iterator[tuple[str, Writer]]


def check_formats(formats: Collection[str], anonymous: bool = False) -> None:
    """Raise ValueError if a format is not known, OutputError if it cannot be `anonymous` or lacks its library."""
    if isinstance(formats, str):
        raise ValueError(f"formats takes names of formats, such as ['json', 'sr'], got the text {formats!r}")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"formats: there is no format {unknown[0]!r}; the formats are {', '.join(FORMATS)}")
    asked = [name for name in formats if name in _DICOM]
    if asked and anonymous:
        raise OutputError(
            f"the format {asked[0]} names the patient and the study, as DICOM must; leave it out, or --anonymous"
        )
    asked = [name for name in formats if name in _OF_HIGHDICOM]
    if asked and find_spec("highdicom") is None:
        raise OutputError(
            f'the format {asked[0]} is made with highdicom, which is missing: pip install "spinescore[results]"'
        )


def study_folders(out: Path, count: int) -> list[Path]:
    """A folder for each of `count` studies: `out` itself for one, else `out/study-N`.

    Results of an earlier call that these studies will not replace are removed from `out`, so that no old grade lies
    beside new ones; files of other names are left alone.
    """
    folders = [out] if count == 1 else [out / f"study-{number}" for number in range(1, count + 1)]
    earlier = [path for path in out.glob("study-*") if re.fullmatch(r"study-[0-9]+", path.name) and path.is_dir()]
    for folder in (path for path in (out, *earlier) if path not in folders):
        remove_results(folder)
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

    `study` is what was scored, as `Scorer.score` took it. `formats` are of these; those of DICOM need radiographs with
    headers, `gsps` and `sc` the extra `results`:

    - `json`: `report.json`, the report.
    - `png`: `overlay-<region>.png`, a picture of each region that was scored, or rejected with points.
    - `html`: `report.html`, as `html` makes it.
    - `csv`: `row.csv`, a header and one row.
    - `sr`, `gsps`, `sc`: `sr.dcm`, `gsps-<region>.dcm`, `sc-<region>.dcm`, as `structured_report`,
      `presentation_states` and `secondary_captures` make them, with `created` as their date and time.

    The folder is made if it is not there. Each file appears whole or not at all. Files of these names that lie there
    from before are replaced or removed, so that the folder holds results of this report alone; other files are left.

    Raises ValueError for an unknown format. Raises OutputError before anything is written if the report is of another
    study or a library is missing; and, after all else was written, if a format cannot be made or a file not be
    written (a full disk, a viewer that holds it open on Windows).
    """
    check_formats(formats)
    found, place = study_of(study, report), Path(folder)
    files: dict[str, Writer] = {}
    refused: list[str] = []
    cause: Exception | None = None
    for name in FORMATS:
        if name in formats:
            try:
                files.update(list(_FILES[name](found, report, created)))
            except OutputError as error:
                refused.append(f"{name}: {error}")
            except Exception as error:  # of a library, or ours: the other formats do not need this one
                refused.append(f"{name}: {_unexpected(error)}")
                cause = error
    for stale in sorted(_NAMES - set(files)):
        refused += _faults(place / stale, _remove)
    for file, write in files.items():
        refused += _written(place / file, write)
    if refused:
        raise OutputError("; ".join(refused)) from cause
    return [place / file for file in files]


def write_rows(folder: Path, studies: Sequence[StudyReport | Row]) -> Path:
    """Write a table of several studies, reports or their rows. Raises OutputError where it cannot be written."""
    from spinescore.runtime.outputs.rows import csv_text

    path, text = folder / FORMATS["csv"], csv_text(studies)
    if faults := _faults(path, lambda path: write_atomic(path, text)):
        raise OutputError(*faults)
    return path


def remove_results(folder: Path) -> None:
    """Remove results of an earlier call; files of other names are left alone. Raises OutputError."""
    if faults := [fault for name in _NAMES for fault in _faults(folder / name, _remove)]:
        raise OutputError("; ".join(faults))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _written(path: Path, write: Writer) -> list[str]:
    """Write a file; what is wrong if it cannot be written. Then the file of an earlier report does not stay either."""
    if faults := _faults(path, write):
        with suppress(OSError):
            _remove(path)
    return faults


def _faults(path: Path, step: Callable[[Path], object]) -> list[str]:
    """Do `step`; what is wrong if it cannot be done."""
    try:
        step(path)
    except OSError as error:
        what = "is of an earlier report and cannot be removed" if step is _remove else "cannot be written"
        reason = error.strerror or type(error).__name__
        advice = "free space there" if error.errno == errno.ENOSPC else "close what holds it open"
        return [f"{path} {what} ({reason}): {advice}, or name another folder"]
    except OutputError as error:
        return [str(error)]
    except Exception as error:  # of a library that writes the file's format
        return [f"{path.name}: {_unexpected(error)}"]
    return []


def _unexpected(error: Exception) -> str:
    return f"unexpected {brief(error)}; leave this format out, and report it with the radiograph's header"


# Each format's files, made before any is written.


def _json(study: Study, report: StudyReport, created: datetime | None) -> Files:
    text = report.to_json() + "\n"
    yield FORMATS["json"], lambda path: write_atomic(path, text)


def _html(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.html import html

    page = html(study, report)
    yield FORMATS["html"], lambda path: write_atomic(path, page)


def _csv(study: Study, report: StudyReport, created: datetime | None) -> Files:
    yield FORMATS["csv"], lambda path: write_rows(path.parent, [report])


def _png(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.common import note_of
    from spinescore.runtime.outputs.overlay import draw_overlay, draw_untrusted
    from spinescore.runtime.outputs.source import scored_radiographs, untrusted_radiographs

    note = note_of(report.bundle)
    for name, radiograph, region in scored_radiographs(study, report):
        total = "no total" if region.total is None else f"{region.total:g} of 36"
        image = draw_overlay(radiograph, region, report.bundle.rules, f"mSASSS {name}: {total}", note)
        yield FORMATS["png"].format(region=name), _picture(image)
    for name, radiograph, region in untrusted_radiographs(study, report):
        code = "" if region.reject is None else f" ({region.reject.code})"
        image = draw_untrusted(radiograph, region, f"mSASSS {name}: rejected{code}", note)
        yield FORMATS["png"].format(region=name), _picture(image)


def _sr(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.structured import structured_report

    yield FORMATS["sr"], _dicom(structured_report(study, report, created=created))


def _gsps(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.presentation import presentation_states

    yield from _by_region("gsps", study, report, presentation_states(study, report, created=created))


def _sc(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.secondary import secondary_captures

    yield from _by_region("sc", study, report, secondary_captures(study, report, created=created))


def _by_region(name: ResultFormat, study: Study, report: StudyReport, objects: Sequence[Dataset]) -> Files:
    """The objects come in the order of the regions that were scored."""
    from spinescore.runtime.outputs.source import scored_radiographs

    for (region, _, _), made in zip(scored_radiographs(study, report), objects, strict=True):
        yield FORMATS[name].format(region=region), _dicom(made)


def _dicom(made: Dataset) -> Writer:
    from spinescore.runtime.outputs.common import write_dicom

    return lambda path: write_dicom(path, made)


def _picture(image: NDArray[np.uint8]) -> Writer:
    from spinescore.runtime.files import write_png

    return lambda path: write_png(path, image)


_FILES: dict[ResultFormat, Callable[[Study, StudyReport, datetime | None], Files]] = {
    "json": _json,
    "html": _html,
    "png": _png,
    "csv": _csv,
    "sr": _sr,
    "gsps": _gsps,
    "sc": _sc,
}
