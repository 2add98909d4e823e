"""A reader's job as the worker does it: score a study with a correction, or make the view of a radiograph.

A view is a file: a line of JSON with `rows`, `columns` and `window` (centre and width), and then the pixels, row by row
as they are stored, unsigned with 16 bits, little endian; larger is brighter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.appliance.store.resultset import Score, load_objects, score_corrected
from spinescore.runtime.appliance.work.consolejob import ANSWER
from spinescore.runtime.appliance.work.reviewjob import VIEW, ReviewJob
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading.display import display_of
from spinescore.runtime.study import Radiograph

__all__ = ["answer_review", "view_of"]

_EDGE = 1e-3  # of a grey from black or white


def answer_review(job: ReviewJob, score: Score, beat: Callable[[str], None]) -> None:
    """Do a reader's job. Raises JobFault, InputRejected, and whatever `score`, `beat` and the disk raise."""
    study = load_objects(job.objects, beat)
    if job.corrections:
        beat("score")
        report = score_corrected(study, job.corrections, job.seen, score)
        (Path(job.folder) / ANSWER).write_text(f'{{"report": {report.to_json(indent=None)}}}\n', encoding="utf-8")
        return
    beat("view")
    if not study.radiographs:
        raise InputRejected(study.rejects[0].code, study.rejects[0].message)
    pixels, window = view_of(study.radiographs[0])
    head = {"rows": pixels.shape[0], "columns": pixels.shape[1], "window": window}
    with (Path(job.folder) / VIEW).open("wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        file.write(pixels.data)


def view_of(radiograph: Radiograph) -> tuple[NDArray[np.uint16], tuple[float, float]]:
    """Return the grey values of a radiograph (H x W, larger is brighter), and the centre and width of its window.

    They are linear in the values after the modality's table, and as many as can be stored. The window is where the
    radiograph's own table rises.
    """
    stored = radiograph.stored_min + np.arange(radiograph.table.size, dtype=np.float64)
    values = stored if radiograph.header is None else display_of(radiograph.header, stored, []).values(stored)
    half, shown = radiograph.table.size // 2, radiograph.table[np.argsort(values)]
    rising = shown[half:].mean() >= shown[:half].mean()
    values = values - values.min() if rising else values.max() - values
    values *= (radiograph.table.size - 1) / (values.max() or 1.0)
    table = np.rint(values).astype("<u2")
    shades = (radiograph.table > _EDGE) & (radiograph.table < 1.0 - _EDGE)
    for first, last in _hidden(radiograph):
        shades[max(first, 0) : max(last + 1, 0)] = False
    ends = (values[shades].min(), values[shades].max()) if shades.any() else (0.0, float(values.max()))
    low, high = map(float, ends)
    pixels = table[radiograph.pixels.astype(np.int32) - radiograph.stored_min]
    return np.ascontiguousarray(pixels), ((low + high) / 2, max(high - low, 1.0))


def _hidden(radiograph: Radiograph) -> list[tuple[int, int]]:
    """Return the entries of the table that are no exposure."""
    padding, occluded = radiograph.padding, radiograph.occluded
    ranges = [] if padding is None else [padding]
    ranges += [] if occluded is None else [(occluded[0], occluded[0])]
    return [(first - radiograph.stored_min, last - radiograph.stored_min) for first, last in ranges]
