"""The study at other sizes and in other transfer syntaxes: the same two pictures, resampled and written anew."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.harness.subject import Subject
from spinescore.benchmarks.harness.timing import Limit, figures, in_turn
from spinescore.runtime.phantom.labelled import PhantomStudy, Points
from spinescore.runtime.study import REGIONS

if TYPE_CHECKING:
    from spinescore.benchmarks.decode import Compressed
    from spinescore.runtime.scorer import Scorer

__all__ = ["UNCOMPRESSED", "images", "write_variants"]

UNCOMPRESSED = "uncompressed"
_BITS = 12


def images(
    subject: Subject, scorer: Scorer, megapixels: Sequence[float], scratch: Path, runs: int, seconds: float
) -> list[dict[str, Any]]:
    """Time whole study and reading, at each size and in each transfer syntax that can be written here, in turn."""
    studies: dict[str, PhantomStudy] = {}
    for size in megapixels:
        for study in write_variants(subject.study, size, scratch / f"{size:g}-megapixels"):
            studies[f"{size:g} {study.facts['transfer_syntax']}"] = study
    read_ms: dict[str, list[float]] = {name: [] for name in studies}
    works = {name: subject.on(study).work(scorer) for name, study in studies.items()}
    for work in works.values():
        work()
    times_ms = in_turn(works, Limit(runs, seconds), lambda name, report: read_ms[name].append(report.timings_ms.read))
    return [
        {**study.facts, "whole": figures(times_ms[name]), "read": figures(read_ms[name])}
        for name, study in studies.items()
    ]


def write_variants(study: PhantomStudy, megapixels: float, folder: Path) -> list[PhantomStudy]:
    """Write the study with pictures of that many pixels, once for each transfer syntax (see `decode.compressed`).

    The study's files are in the order of the regions. Without imagecodecs only uncompressed files are written.
    """
    from importlib.util import find_spec

    from pydicom import dcmread

    datasets = [dcmread(path) for path in study.files]
    scales = [math.sqrt(megapixels * 1e6 / (ds.Rows * ds.Columns)) for ds in datasets]
    pictures = [_picture(ds, scale) for ds, scale in zip(datasets, scales, strict=True)]
    points = _scaled(study.points, dict(zip(REGIONS, scales, strict=True)))
    coded: list[list[Compressed]] = [[] for _ in pictures]
    if find_spec("imagecodecs") is not None:
        from spinescore.benchmarks.decode import compressed

        coded = [compressed(picture) for picture in pictures]
    variants = []
    for forms in (pictures, *zip(*coded, strict=True)):
        name = getattr(forms[0], "name", UNCOMPRESSED)
        place = folder / "".join(letter if letter.isalnum() else "-" for letter in name)
        place.mkdir(parents=True)
        written = zip(datasets, forms, study.files, strict=True)
        files = [_write(ds, form, place / path.name) for ds, form, path in written]
        facts = {
            "megapixels": megapixels,
            "transfer_syntax": name,
            "images": [{"rows": picture.shape[0], "columns": picture.shape[1]} for picture in pictures],
            "bytes": sum(path.stat().st_size for path in files),
        }
        variants.append(PhantomStudy(files, points, facts))
    return variants


def _picture(ds: Any, scale: float) -> NDArray[np.uint16]:
    """Return the stored values, resampled, as 12 bits."""
    import cv2

    shape = round(ds.Columns * scale), round(ds.Rows * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resampled = cv2.resize(ds.pixel_array.astype(np.float32), shape, interpolation=method)
    largest = _largest(_BITS)
    scaled = np.round(resampled * (largest / _largest(ds.BitsStored)))
    picture: NDArray[np.uint16] = np.clip(scaled, 0, largest).astype(np.uint16)
    return picture


def _largest(bits: int) -> int:
    return (1 << bits) - 1


def _write(ds: Any, form: NDArray[np.uint16] | Compressed, path: Path) -> Path:
    """Write the file with its new size, bits, window, pixels and transfer syntax."""
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, ExplicitVRLittleEndian

    if plain := isinstance(form, np.ndarray):
        stored, data, syntax = form, form.tobytes(), str(ExplicitVRLittleEndian)
    else:
        stored, data, syntax = form.original, encapsulate([form.frame]), form.syntax
    changed = copy.deepcopy(ds)
    rows, columns = stored.shape
    bits = 8 if stored.dtype.itemsize == 1 else _BITS
    for name in ("ImagerPixelSpacing", "PixelSpacing"):
        if name in ds:
            setattr(changed, name, [f"{float(value) * ds.Rows / rows:.6f}" for value in ds[name].value])
    ratio = _largest(bits) / _largest(ds.BitsStored)
    for name in ("WindowCenter", "WindowWidth"):
        if name in ds:
            setattr(changed, name, f"{float(ds[name].value) * ratio:.6g}")
    changed.Rows, changed.Columns = rows, columns
    changed.BitsAllocated, changed.BitsStored, changed.HighBit = 8 * stored.dtype.itemsize, bits, bits - 1
    changed.PixelData = data
    changed["PixelData"].VR = "OW" if bits > 8 else "OB"
    changed["PixelData"].is_undefined_length = not plain
    changed.file_meta.TransferSyntaxUID = UID(syntax)
    changed.save_as(path, enforce_file_format=True)
    return path


def _scaled(points: Points, scales: Mapping[str, float]) -> Points:
    """Scale points about the picture's corner, half a pixel before the first pixel's centre."""

    def moved(xy: list[float], scale: float) -> list[float]:
        return [(value + 0.5) * scale - 0.5 for value in xy]

    return {
        region: {
            level: (moved(centre, scales[region]), moved(anterior, scales[region]))
            for level, (centre, anterior) in discs.items()
        }
        for region, discs in points.items()
    }
