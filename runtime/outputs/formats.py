"""The formats of results: one table that `results`, the option `--format` and the documentation read.

A new format touches these files:

- a module of its own in this folder, which makes the text, the picture or the DICOM object;
- this file: `ResultFormat`, an entry of `FORMATS`, and a function here that makes the format's files;
- `reading/inputs.py`: the names of our own files, which are passed over when a folder with results is scored again;
- `results.write_results`: its docstring lists the formats for users of the library;
- the page on results in `docs`; `tests/runtime/outputs/test_formats.py` holds the table and these lists together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.files import write_atomic, write_png
from spinescore.runtime.outputs.words import note_of, region_title
from spinescore.runtime.study import Region, Study

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from spinescore.runtime.scoring.report import StudyReport

__all__ = ["DEFAULT_FORMATS", "FORMATS", "Content", "Format", "ResultFormat", "write_file"]

ResultFormat = Literal["json", "html", "png", "csv", "sr", "gsps", "sc"]
DEFAULT_FORMATS: tuple[ResultFormat, ...] = ("json", "png")

Content = Union[str, NDArray[np.uint8], "Dataset"]
Contents = Mapping[Region | Literal[""], Content]  # by region, or one for the whole study
Maker = Callable[[Study, "StudyReport", datetime | None], Contents]


@dataclass(frozen=True)
class Format:
    """One format of results.

    `file` names its files; `{region}` stands for each region that was scored, and with png also for a rejected region
    that has points. `make` makes the content of all files before any is written, and loads its modules when it is first
    called: the command line reads this table before it has anything to write. `is_dicom` says that the files name
    the patient and refer to the radiographs' headers. `library` is an optional package that the format needs.
    """

    file: str
    meaning: str
    make: Maker
    is_dicom: bool = False
    library: str | None = None

    def files(self, study: Study, report: StudyReport, created: datetime | None) -> dict[str, Content]:
        """Return the content of each file by its name."""
        return {self.file.format(region=region): one for region, one in self.make(study, report, created).items()}


def write_file(path: Path, content: Content) -> None:
    """Write a text, a picture or a DICOM object, whole or not at all."""
    if isinstance(content, str):
        write_atomic(path, content)
    elif isinstance(content, np.ndarray):
        write_png(path, content)
    else:
        from spinescore.runtime.outputs.dicomobjects import write_dicom

        write_dicom(path, content)


def _make_json(study: Study, report: StudyReport, created: datetime | None) -> Contents:
    return {"": report.to_json() + "\n"}


def _make_html(study: Study, report: StudyReport, created: datetime | None) -> Contents:
    from spinescore.runtime.outputs.html import html

    return {"": html(study, report)}


def _make_csv(study: Study, report: StudyReport, created: datetime | None) -> Contents:
    from spinescore.runtime.outputs.rows import csv_text

    return {"": csv_text([report])}


def _make_png(study: Study, report: StudyReport, created: datetime | None) -> Contents:
    from spinescore.runtime.outputs.overlay import draw_overlay, draw_untrusted
    from spinescore.runtime.outputs.source import scored_radiographs, untrusted_radiographs

    note = note_of(report.bundle)
    pictures: dict[Region | Literal[""], Content] = {}
    for name, radiograph, region in scored_radiographs(study, report):
        pictures[name] = draw_overlay(radiograph, region, report.bundle.rules, region_title(name, region), note)
    for name, radiograph, region in untrusted_radiographs(study, report):
        code = "" if region.reject is None else f" ({region.reject.code})"
        pictures[name] = draw_untrusted(radiograph, region, f"mSASSS {name}: rejected{code}", note)
    return pictures


def _make_sr(study: Study, report: StudyReport, created: datetime | None) -> Contents:
    from spinescore.runtime.outputs.structured import structured_report

    return {"": structured_report(study, report, created=created)}


def _make_gsps(study: Study, report: StudyReport, created: datetime | None) -> Contents:
    from spinescore.runtime.outputs.presentation import presentation_states

    return _by_region(report, presentation_states(study, report, created=created))


def _make_sc(study: Study, report: StudyReport, created: datetime | None) -> Contents:
    from spinescore.runtime.outputs.secondary import secondary_captures

    return _by_region(report, secondary_captures(study, report, created=created))


def _by_region(report: StudyReport, objects: Sequence[Dataset]) -> Contents:
    """Return the objects, which come in the order of the scored regions, by region."""
    scored = (name for name, region in report.regions.items() if region.status == "scored")
    return dict(zip(scored, objects, strict=True))


FORMATS: dict[ResultFormat, Format] = {
    "json": Format("report.json", "the report", _make_json),
    "html": Format("report.html", "the report as a page with its radiographs", _make_html),
    "png": Format("overlay-{region}.png", "a picture of each region with its points and grades", _make_png),
    "csv": Format("row.csv", "a table with a row for each study", _make_csv),
    "sr": Format("sr.dcm", "a DICOM structured report", _make_sr, is_dicom=True),
    "gsps": Format("gsps-{region}.dcm", "DICOM presentation states", _make_gsps, is_dicom=True, library="highdicom"),
    "sc": Format("sc-{region}.dcm", "DICOM secondary captures", _make_sc, is_dicom=True, library="highdicom"),
}
