"""A console's job, as the web process hands it to the worker.

The web process makes a folder in `incoming/` for each job, with the files that came. The worker adds `answer.json`,
which is sent as it is, and the folder `results` with the formats that the console wants. Nothing is synced: the console
has its pixels, and asks again if the power fails. The web process removes the folder.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Annotated, Literal

from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.fields import OPTIONAL, Length, OneOf, Within
from spinescore.runtime.outputs.formats import ResultFormat
from spinescore.runtime.study import Facing, Region

__all__ = ["ANSWER", "RESULTS", "SUFFIX", "ConsoleJob", "View", "remove_folders"]

ANSWER, RESULTS = "answer.json", "results"
SUFFIX = ".console"  # of the folders in `incoming/`

_UID = Annotated[str | None, OPTIONAL, Length(1, 64)]
_MOST_SIDE_PX = 100_000
_MOST_SPACING_MM = 100.0


@dataclass(frozen=True)
class View:
    """Raw pixels of one radiograph: unsigned, little endian, row by row, in the part with the name `part`.

    The facts are those of `radiograph_from_array`. One that is null is found by the model, if it can be. `header` is
    the part with a DICOM file without pixels, which states the rest; DICOM results refer to it.
    """

    part: Annotated[str, Length(1, 64)]
    rows: Annotated[int, Within(1, _MOST_SIDE_PX)]
    columns: Annotated[int, Within(1, _MOST_SIDE_PX)]
    bits_allocated: Annotated[int, OneOf(8, 16)]
    bits_stored: Annotated[int | None, OPTIONAL, Within(1, 16)] = None
    pixel_spacing_mm: Annotated[tuple[float, float] | None, OPTIONAL] = None
    photometric_interpretation: Annotated[Literal["MONOCHROME1", "MONOCHROME2"] | None, OPTIONAL] = None
    region: Annotated[Region | None, OPTIONAL] = None
    facing: Annotated[Facing | None, OPTIONAL] = None
    header: Annotated[str | None, OPTIONAL, Length(1, 64)] = None
    study_instance_uid: _UID = None
    sop_instance_uid: _UID = None

    def _check_fields(self, path: str) -> None:
        if self.bits_stored is not None and self.bits_stored > self.bits_allocated:
            raise ValueError(f"{path}.bits_stored: expected at most bits_allocated ({self.bits_allocated})")
        spacing = self.pixel_spacing_mm
        if spacing is not None and not all(0.0 < side < _MOST_SPACING_MM for side in spacing):
            raise ValueError(f"{path}.pixel_spacing_mm: expected two numbers above 0 and below {_MOST_SPACING_MM:g}")
        for name in ("study_instance_uid", "sop_instance_uid"):
            uid = getattr(self, name)
            if uid is not None and not set(uid) <= set("0123456789."):
                raise ValueError(f"{path}.{name}: expected digits and dots (PS3.5, section 9.1)")

    @property
    def byte_count(self) -> int:
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True)
class ConsoleJob:
    """A study of a console to score: `views`, each with pixels in `frames` and perhaps a header, or DICOM `files`.

    `key` is the name under which its results are kept, and `links` the beginning of the links to them.
    """

    key: str
    folder: str
    views: tuple[View, ...]
    frames: tuple[str, ...]
    headers: tuple[str | None, ...]
    files: tuple[str, ...]
    budget_ms: float | None
    strict: bool
    formats: tuple[ResultFormat, ...]
    links: str


def remove_folders(places: Places) -> None:
    """Remove the folders of jobs whose web process has ended: nobody waits for them."""
    for folder in places.incoming.glob(f"*{SUFFIX}"):
        shutil.rmtree(folder, ignore_errors=True)
