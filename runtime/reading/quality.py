"""What can be said of a radiograph before it is scored: by its header when it is read, by its pixels when it is chosen.

Every threshold names its source or the measurement behind it; `python -m spinescore.benchmarks.quality` measures how
often each code is raised on sound and on spoiled phantoms. What shows after the points were found is in
`scoredquality`. Codes, their meaning and what to do next stand in `codes.CODES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from spinescore.runtime.codes import CODES, REJECT_CODES
from spinescore.runtime.reading.facts import other_parts, postures
from spinescore.runtime.reading.percentiles import exposed_field, median
from spinescore.runtime.reading.tags import is_stated, number, text
from spinescore.runtime.study import Finding, Radiograph, Region, Reject

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["as_reject", "finding", "greys_of", "of_header", "of_picture", "printable"]

# Canadian Association of Radiologists, standards for irreversible compression (2008): musculoskeletal CR and DR
# keep what a reader needs up to 30:1.
MOST_COMPRESSED = 30.0
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # SOP class; the multi-frame ones follow after a dot
_DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_MAX_VALUES = 8  # of Image Type and of the compression ratios

# The picture is seen in 12 x 12 tiles of 16 x 16 neighbouring pixels, evenly spaced over the exposed field.
_TILES, _TILE_PX = 12, 16
_FIELD_SAMPLES = 128  # rows and columns from which the exposed field is taken

# 160 to 200 sound phantom radiographs have: spread of the tiles' greys at least 0.20 of the range; spread over noise at
# least 6.9; white at most 0.08 of the field within its outermost tiles; the centre of brightness 0.13 nearer to the
# middle column than the centre of darkness, where the same pictures inverted have it 0.13 farther.
BLANK_SPREAD = 0.02
BLANK_SIGNAL_TO_NOISE = 0.5  # tiles of 256 pixels of noise alone spread by a sixteenth of it
LEAST_SIGNAL_TO_NOISE = 4.0
WHITE, MOST_WHITE = 0.998, 0.15
INVERTED = 0.05
_MID_GREYS = (0.05, 0.95)  # noise is taken from tiles between these: a table cuts it off beyond


def finding(
    code: str, name: str, what: str, region: Region | None = None, next_step: str | None = None, **values: Any
) -> Finding:
    """A finding of `code` on the radiograph `name`: what is the case, then what to do next, by default the code's.

    `values` are what it states in numbers and names, by the names in the table.
    """
    said = f"{printable(name) or 'The radiograph'}: {what}; {next_step or CODES[code].next_step}."
    return Finding(code, "reject" if code in REJECT_CODES else "warning", said, region, name or None, values)


def printable(name: str) -> str:
    """A file's name as UTF-8 can hold it: what is no text becomes a question mark, as in a report's JSON."""
    return name.encode("utf-8", "replace").decode("utf-8")


def as_reject(found: Finding, region: Region | None = None) -> Reject:
    """The reject of a region, with the finding's own code."""
    return Reject(found.code, found.message, found.source or "", region or found.region)


def of_header(ds: Dataset, source: str, has_spacing: bool) -> tuple[Finding, ...]:
    """What a header says of the picture's quality. Never raises for what it may hold.

    Image Type (PS3.3 C.7.6.1.1.2, C.8.11.3.1.1), SOP class and Conversion Type (C.8.6.1), Presentation Intent Type
    (C.8.11.1), Burned In Annotation and Lossy Image Compression Ratio (C.7.6.1, C.7.6.1.1.5.2), pixel spacing.
    """
    kinds = [(text(ds, "ImageType", index) or "").upper() for index in range(_MAX_VALUES)]
    sop_class, conversion = text(ds, "SOPClassUID") or "", text(ds, "ConversionType")
    found = []
    if {"LOCALIZER", "SCOUT"} & set(kinds):
        found.append(finding("localizer-image", source, "its Image Type says that it is a localizer"))
    if f"{sop_class}.".startswith(f"{_SECONDARY_CAPTURE}.") or conversion or kinds[1] == "SECONDARY":
        said = "its Conversion Type" if conversion else "its SOP class or Image Type"
        found.append(finding("secondary-capture", source, f"{said} says that it is a secondary capture"))
    if text(ds, "PresentationIntentType") == "FOR PROCESSING" or sop_class == _DX_FOR_PROCESSING:
        found.append(finding("for-processing", source, "it is FOR PROCESSING, not for reading"))
    if (text(ds, "BurnedInAnnotation") or "").upper() == "YES":
        found.append(finding("burned-in-text", source, "its header says that text is burned into the picture"))
    ratio = max((number(ds, "LossyImageCompressionRatio", index) or 0.0) for index in range(_MAX_VALUES))
    if ratio > MOST_COMPRESSED:
        what = f"it was compressed {ratio:.0f} to 1 with loss, beyond {MOST_COMPRESSED:.0f} to 1"
        found.append(finding("lossy-compression", source, what, ratio=round(ratio, 1)))
    if parts := other_parts(ds):
        what = f"its header says that it shows another part ({', '.join(parts)})"
        found.append(finding("other-body-part", source, what, parts=list(parts)))
    if views := postures(ds):
        what = f"its header calls it a view in another posture ({', '.join(views)})"
        found.append(finding("not-neutral", source, what, views=list(views)))
    if not has_spacing:
        stated = any(is_stated(ds, keyword) for keyword in ("PixelSpacing", "ImagerPixelSpacing"))
        what = "a pixel spacing that is not understood" if stated else "no pixel spacing"
        found.append(finding("no-spacing", source, f"its header states {what}"))
    return tuple(found)


def of_picture(radiograph: Radiograph) -> tuple[Finding, ...]:
    """What the pixels show through their table, from a sample that takes well below a millisecond."""
    seen = _look(radiograph)
    source = radiograph.source
    if seen.spread < BLANK_SPREAD or seen.signal_to_noise < BLANK_SIGNAL_TO_NOISE:
        return (finding("blank", source, "the picture shows one grey, or nothing but noise"),)
    found = []
    if seen.darkness_inside > INVERTED:
        what, by = "the middle of the picture is darker than what lies beside it", round(seen.darkness_inside, 3)
        found.append(finding("inverted", source, what, darkness_inside=by))
    if seen.white > MOST_WHITE:
        what = f"{100 * seen.white:.0f} % of the picture is white without detail"
        found.append(finding("saturated", source, what, white=round(seen.white, 3)))
    if seen.signal_to_noise < LEAST_SIGNAL_TO_NOISE:
        what = f"its greys spread only {seen.signal_to_noise:.1f} times as far as its noise"
        ratio = round(seen.signal_to_noise, 2)
        what += f" ({LEAST_SIGNAL_TO_NOISE:g} expected)"
        found.append(finding("under-exposed", source, what, signal_to_noise=ratio))
    return tuple(found)


@dataclass(frozen=True)
class _Look:
    """`spread` of the tiles' mean greys, the same over the noise, share of white, and how much darker the inside is."""

    spread: float
    signal_to_noise: float
    white: float
    darkness_inside: float


def _look(radiograph: Radiograph) -> _Look:
    greys = _tiles(radiograph)
    means = greys.mean(axis=(0, 1))
    upright = means.T if radiograph.turn_deg in (90, 270) else means  # only whether rows are rows matters
    spread = float(means.std())
    readable = (means > _MID_GREYS[0]) & (means < _MID_GREYS[1])
    noise = median(_noise(greys)[readable]) if readable.any() else 0.0
    inner = slice(1, -1)  # a collimator's edge may stand in the outermost tiles
    inside = greys[..., inner, inner]
    return _Look(
        spread,
        spread / noise if noise > 0 else np.inf,
        np.count_nonzero(inside >= WHITE) / inside.size,
        _darkness_inside(upright[inner, inner]),
    )


def _tiles(radiograph: Radiograph) -> NDArray[np.float32]:
    """Greys of the tiles, (16, 16, rows of tiles, columns of tiles): one operation on a pixel serves all tiles."""
    pixels = radiograph.pixels
    if min(pixels.shape) < _TILE_PX:
        pixels = np.pad(pixels, [(0, max(0, _TILE_PX - side)) for side in pixels.shape], "edge")
    steps = [max(1, -(-side // _FIELD_SAMPLES)) for side in pixels.shape]
    sample = pixels[steps[0] // 2 :: steps[0], steps[1] // 2 :: steps[1]]
    starts = []
    for field, step, side, count in zip(exposed_field(sample), steps, pixels.shape, sample.shape, strict=True):
        first, last, _ = field.indices(count)
        lowest = min(first * step, side - _TILE_PX)
        highest = max(min(last * step, side) - _TILE_PX, lowest)
        starts.append(np.linspace(lowest, highest, _TILES).astype(int))
    windows = sliding_window_view(pixels, (_TILE_PX, _TILE_PX)).transpose(2, 3, 0, 1)
    return greys_of(radiograph, windows[:, :, starts[0][:, None], starts[1]])


def greys_of(radiograph: Radiograph, stored: NDArray[Any]) -> NDArray[np.float32]:
    """What stored values look like through the radiograph's table; values beyond its ends take the ends."""
    index = stored.astype(np.intp, order="C")  # `take` would convert any other type or order, several times as slowly
    index -= radiograph.stored_min
    return radiograph.table.take(index, mode="clip")


def _noise(tiles: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviation of the noise in each tile (H, W, ...) (Immerkaer 1996, doi 10.1006/cviu.1996.0060)."""
    across = tiles[:, :-2] - 2 * tiles[:, 1:-1] + tiles[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]
    found: NDArray[np.float64] = np.sqrt(np.pi / 2) / 6 * np.abs(both).mean(axis=(0, 1), dtype=np.float64)
    return found


def _darkness_inside(means: NDArray[np.float32]) -> float:
    """How much nearer to the middle column dark tiles lie than bright ones, in half widths: -1 .. 1.

    Each row is judged against its own mean. A lateral spine and what surrounds it is brighter than the air beside the
    patient, so that the figure is below 0 for a picture whose greys are right.
    """
    offset = np.abs(np.linspace(-1, 1, means.shape[1]))
    weights = means - means.mean(axis=1, keepdims=True)
    whole = float(np.abs(weights).sum())
    return float((weights * offset).sum()) / whole if whole > 0 else 0.0
