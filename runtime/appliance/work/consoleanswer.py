"""A console's job as the worker does it: read the pixels that it sent, score them, and write its answer to a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spinescore.runtime.appliance.store.resultset import Score, outcome_of, write_formats
from spinescore.runtime.appliance.work.consolejob import ANSWER, RESULTS, ConsoleJob, View
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.outputs.formats import FORMATS, ResultFormat
from spinescore.runtime.reading.arrays import radiograph_from_array
from spinescore.runtime.reading.dicomfile import open_file, read_header
from spinescore.runtime.reading.studies import load_study
from spinescore.runtime.study import Radiograph, Reject, Study
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["BadRequest", "answer_console"]

Beat = Callable[[str], None]


class BadRequest(Exception):
    """Facts about a frame that the reading of arrays refuses."""


def answer_console(job: ConsoleJob, score: Score, beat: Beat) -> tuple[str, str] | None:
    """Score a console's study and write its answer. Return code and sentence of the reason if nothing was scored.

    Raises BadRequest, InputRejected, and whatever `score`, `beat` and the disk raise.
    """
    beat("read")
    study = _from_frames(job) if job.views else load_study(*job.files)
    beat("score")
    report = score(study, strict=job.strict, budget_ms=job.budget_ms)
    folder = Path(job.folder)
    results = folder / RESULTS
    not_made: dict[str, str] = {}
    if job.formats:
        results.mkdir()
        not_made = write_formats(results, job.formats, study, report, beat)
    names = sorted(path.name for path in results.iterdir()) if job.formats else []
    links = {_link_name(name, job.formats): f"{job.links}/{name}" for name in names}
    more = json.dumps({"results": links, "not_made": not_made})
    text = f'{{"report": {report.to_json(indent=None)}, {more[1:]}\n'
    (folder / ANSWER).write_text(text, encoding="utf-8")
    return outcome_of(report)


def _from_frames(job: ConsoleJob) -> Study:
    """Return the study of raw pixels; a frame that would be refused as a file is a reject."""
    read = [_read_frame(*one) for one in zip(job.views, job.frames, job.headers, strict=True)]
    radiographs = [one for one in read if isinstance(one, Radiograph)]
    first = radiographs[0] if radiographs else None
    return Study(
        tuple(radiographs),
        tuple(one for one in read if isinstance(one, Reject)),
        study_instance_uid=first.study_instance_uid if first else None,
        study_date=first.study_date if first else None,
        patient_key=first.patient_key if first else None,
    )


def _read_frame(view: View, frame: str, header: str | None) -> Radiograph | Reject:
    """Return a radiograph whose pixels are the mapped file. Raises BadRequest if its facts contradict its header."""
    dtype = np.dtype("<u2" if view.bits_allocated == 16 else "u1")
    pixels = np.memmap(frame, dtype, "r", shape=(view.rows, view.columns))
    try:
        radiograph = radiograph_from_array(
            pixels.view(np.ndarray), region=view.region, spacing_mm=view.pixel_spacing_mm, facing=view.facing,
            photometric=view.photometric_interpretation, bits_stored=view.bits_stored, study=view.study_instance_uid,
            name=view.part, header=None if header is None else _read_header(header, view.part),
        )  # fmt: skip
    except InputRejected as error:
        return Reject(error.code, str(error), view.part, view.region)
    except (TypeError, ValueError) as error:
        raise BadRequest(str(error)) from None
    stated = radiograph.sop_instance_uid
    if None not in (stated, view.sop_instance_uid) and stated != view.sop_instance_uid:
        raise BadRequest(f"sop_instance_uid contradicts the header of {view.part}; leave it out")
    return replace(radiograph, sop_instance_uid=stated or view.sop_instance_uid)


def _read_header(path: str, name: str) -> Dataset:
    """Return the header of a DICOM file without its pixels. Raises InputRejected."""
    source = f"the header of {name}"
    with caught_warnings(), open_file(Path(path), source) as file:
        ds, _, _ = read_header(file, source)
    return ds


def _link_name(file: str, formats: Iterable[ResultFormat]) -> str:
    """Return the format of a file, with its region if the format has a file for each region: `sr`, `sc-lumbar`."""
    for kind in formats:
        before, region, after = FORMATS[kind].file.partition("{region}")
        if not region and file == before:
            return kind
        if region and file.startswith(before) and file.endswith(after):
            return f"{kind}-{file.removeprefix(before).removesuffix(after)}"
    raise ValueError(f"{file} is no result of these formats")
