"""The formats of results: one table that `results`, the option `--format` and the documentation read.

A new format touches these files:

- a module of its own in this folder, which makes the text, the picture or the DICOM object;
- this file: `ResultFormat`, an entry of `FORMATS`, and a function here that makes the format's files;
- `reading/inputs.py`: the names of our own files, which are passed over when a folder with results is scored again;
- `results.write_results`: its docstring lists the formats for users of the library;
- the page on results in `docs`; `tests/runtime/outputs/test_formats.py` holds the table and these lists together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spinescore.runtime.files import write_atomic
from spinescore.runtime.outputs.words import note_of, region_title

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from spinescore.runtime.scoring.report import StudyReport
    from spinescore.runtime.study import Study

__all__ = ["DEFAULT_FORMATS", "FORMATS", "Format", "ResultFormat", "Writer"]

ResultFormat = Literal["json", "html", "png", "csv", "sr", "gsps", "sc"]
DEFAULT_FORMATS: tuple[ResultFormat, ...] = ("json", "png")

Writer = Callable[[Path], object]  # writes one file
Files = Iterator[tuple[str, Writer]]  # names of files, each with the function that writes it
Maker = Callable[["Study", "StudyReport", datetime | None], Files]


@dataclass(frozen=True)
class Format:
    """One format of results.

    `file` names its files; `{region}` stands for each region that was scored, and with png also for a rejected region
    that has points. `make` makes the content of all files before any is written. `is_dicom` says that the files name
    the patient and refer to the radiographs' headers. `library` is an optional package that the format needs.
    """

    file: str
    meaning: str
    make: Maker
    is_dicom: bool = False
    library: str | None = None


def _make_json(study: Study, report: StudyReport, created: datetime | None) -> Files:
    text = report.to_json() + "\n"
    yield FORMATS["json"].file, lambda path: write_atomic(path, text)


def _make_html(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.html import html

    page = html(study, report)
    yield FORMATS["html"].file, lambda path: write_atomic(path, page)


def _make_csv(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.rows import csv_text

    table = csv_text([report])
    yield FORMATS["csv"].file, lambda path: write_atomic(path, table)


def _make_png(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.files import write_png
    from spinescore.runtime.outputs.overlay import draw_overlay, draw_untrusted
    from spinescore.runtime.outputs.source import scored_radiographs, untrusted_radiographs

    note, pictures = note_of(report.bundle), {}
    for name, radiograph, region in scored_radiographs(study, report):
        pictures[name] = draw_overlay(radiograph, region, report.bundle.rules, region_title(name, region), note)
    for name, radiograph, region in untrusted_radiographs(study, report):
        code = "" if region.reject is None else f" ({region.reject.code})"
        pictures[name] = draw_untrusted(radiograph, region, f"mSASSS {name}: rejected{code}", note)
    for name, picture in pictures.items():
        yield FORMATS["png"].file.format(region=name), partial(write_png, image=picture)


def _make_sr(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.structured import structured_report

    yield FORMATS["sr"].file, _dicom_writer(structured_report(study, report, created=created))


def _make_gsps(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.presentation import presentation_states

    return _by_region("gsps", study, report, presentation_states(study, report, created=created))


def _make_sc(study: Study, report: StudyReport, created: datetime | None) -> Files:
    from spinescore.runtime.outputs.secondary import secondary_captures

    return _by_region("sc", study, report, secondary_captures(study, report, created=created))


def _by_region(name: ResultFormat, study: Study, report: StudyReport, objects: Sequence[Dataset]) -> Files:
    """Yield a file for each object; objects come in the order of the scored regions."""
    from spinescore.runtime.outputs.source import scored_radiographs

    for (region, _, _), dataset in zip(scored_radiographs(study, report), objects, strict=True):
        yield FORMATS[name].file.format(region=region), _dicom_writer(dataset)


def _dicom_writer(dataset: Dataset) -> Writer:
    from spinescore.runtime.outputs.dicomobjects import write_dicom

    return lambda path: write_dicom(path, dataset)


FORMATS: dict[ResultFormat, Format] = {
    "json": Format("report.json", "the report", _make_json),
    "html": Format("report.html", "the report as a page with its radiographs", _make_html),
    "png": Format("overlay-{region}.png", "a picture of each region with its points and grades", _make_png),
    "csv": Format("row.csv", "a table with a row for each study", _make_csv),
    "sr": Format("sr.dcm", "a DICOM structured report", _make_sr, is_dicom=True),
    "gsps": Format("gsps-{region}.dcm", "DICOM presentation states", _make_gsps, is_dicom=True, library="highdicom"),
    "sc": Format("sc-{region}.dcm", "DICOM secondary captures", _make_sc, is_dicom=True, library="highdicom"),
}
