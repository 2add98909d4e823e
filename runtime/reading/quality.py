"""Findings about a radiograph's quality before it is scored: from its header and from its pixels.

The header is examined when the file is read, the pixels when the radiograph is selected; findings that need the
localized points are in `scoring.scoredquality`. Every threshold names its source or the measurement behind it:
`python -m spinescore.benchmarks.quality` measures how often each code is raised on sound and on spoiled phantoms. The
codes, their meaning and their next steps are in `codes.CODES`.
"""

from __future__ import annotations

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

__all__ = ["as_reject", "finding", "greys_of", "header_findings", "picture_findings", "printable"]

# Canadian Association of Radiologists, standards for irreversible compression (2008): musculoskeletal CR and DR
# keep what a reader needs up to 30:1.
MOST_COMPRESSED = 30.0
MOST_STRETCHED, _MOST_TIMES = 1.05, 1000  # at 1.1 the totals of phantoms change by up to 2 units
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # SOP class; the multi-frame ones follow after a dot
_DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_MAX_VALUES = 8  # the most that are read of Image Type and of the compression ratios

# The picture is judged by 12 x 12 tiles of 16 x 16 neighbouring pixels, evenly spaced over the exposed field.
_TILES, _TILE_PX = 12, 16
_FIELD_SAMPLES = 128  # rows and columns from which the exposed field is taken

# Figures of 160 to 200 sound phantom radiographs: the tiles' greys spread over at least 0.20 of the range, and at least
# 6.9 times as far as the noise. White covers at most 0.08 of the field without its outermost tiles. The centre of
# brightness is 0.13 nearer to the middle column than the centre of darkness; in inverted pictures 0.13 farther.
BLANK_SPREAD = 0.02
BLANK_SIGNAL_TO_NOISE = 0.5  # with noise alone, tiles of 256 pixels spread by a sixteenth of it
LEAST_SIGNAL_TO_NOISE = 4.0
WHITE, MOST_WHITE = 0.998, 0.15
INVERTED = 0.05
_MID_GREYS = (0.05, 0.95)  # noise is measured in tiles between these: outside, the table cuts it off


def finding(
    code: str, name: str, fact: str, region: Region | None = None, next_step: str | None = None, **values: Any
) -> Finding:
    """Return a finding of `code` on the radiograph `name`; its message is `fact` and the next step.

    Without a `next_step` the code's own is used. `values` are the numbers and names in the message, by the names in the
    table of codes.
    """
    message = f"{printable(name) or 'The radiograph'}: {fact}; {next_step or CODES[code].next_step}."
    return Finding(code, "reject" if code in REJECT_CODES else "warning", message, region, name or None, values)


def printable(name: str) -> str:
    """Return a file's name as valid UTF-8, as in a report's JSON: bytes that are no text become question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")


def as_reject(finding: Finding, region: Region | None = None) -> Reject:
    """Return the finding as the reject of a region, with the finding's own code."""
    return Reject(finding.code, finding.message, finding.source or "", region or finding.region)


def header_findings(ds: Dataset, source: str, has_spacing: bool) -> tuple[Finding, ...]:
    """Return the findings that a header gives. No content of a header raises an exception.

    They come from Image Type (PS3.3 C.7.6.1.1.2, C.8.11.3.1.1), SOP class and Conversion Type (C.8.6.1), Presentation
    Intent Type (C.8.11.1), Burned In Annotation and Lossy Image Compression Ratio (C.7.6.1, C.7.6.1.1.5.2), and pixel
    spacing.
    """
    kinds = [(text(ds, "ImageType", index) or "").upper() for index in range(_MAX_VALUES)]
    sop_class, conversion = text(ds, "SOPClassUID") or "", text(ds, "ConversionType")
    findings = []
    if {"LOCALIZER", "SCOUT"} & set(kinds):
        findings.append(finding("localizer-image", source, "its Image Type says that it is a localizer"))
    if f"{sop_class}.".startswith(f"{_SECONDARY_CAPTURE}.") or conversion or kinds[1] == "SECONDARY":
        element = "its Conversion Type" if conversion else "its SOP class or Image Type"
        findings.append(finding("secondary-capture", source, f"{element} says that it is a secondary capture"))
    if text(ds, "PresentationIntentType") == "FOR PROCESSING" or sop_class == _DX_FOR_PROCESSING:
        findings.append(finding("for-processing", source, "it is FOR PROCESSING, not for reading"))
    if (text(ds, "BurnedInAnnotation") or "").upper() == "YES":
        findings.append(finding("burned-in-text", source, "its header says that text is burned into the picture"))
    ratio = max((number(ds, "LossyImageCompressionRatio", index) or 0.0) for index in range(_MAX_VALUES))
    if ratio > MOST_COMPRESSED:
        fact = f"it was compressed {ratio:.0f} to 1 with loss, beyond {MOST_COMPRESSED:.0f} to 1"
        findings.append(finding("lossy-compression", source, fact, ratio=round(ratio, 1)))
    if parts := other_parts(ds):
        fact = f"its header says that it shows another part ({', '.join(parts)})"
        findings.append(finding("other-body-part", source, fact, parts=list(parts)))
    if views := postures(ds):
        fact = f"its header calls it a view in another posture ({', '.join(views)})"
        findings.append(finding("not-neutral", source, fact, views=list(views)))
    if not has_spacing:
        stated = any(is_stated(ds, keyword) for keyword in ("PixelSpacing", "ImagerPixelSpacing"))
        fact = "a pixel spacing that is not understood" if stated else "no pixel spacing"
        findings.append(finding("no-spacing", source, f"its header states {fact}"))
    return tuple(findings)


def picture_findings(radiograph: Radiograph) -> tuple[Finding, ...]:
    """Return the findings that the pixels give through their table, from a sample, in well below a millisecond."""
    spread, signal_to_noise, share_of_white, darkness_inside = _figures(radiograph)
    source, apart = radiograph.source, _apart(radiograph)
    if spread < BLANK_SPREAD or signal_to_noise < BLANK_SIGNAL_TO_NOISE:
        return (finding("blank", source, "the picture shows one grey, or nothing but noise"),)
    findings = []
    if (ratio := max(apart) / min(apart)) > MOST_STRETCHED:
        far, near = ("rows", "columns") if apart[0] > apart[1] else ("columns", "rows")
        times = f"{ratio:.3g}" if ratio < _MOST_TIMES else f"more than {_MOST_TIMES}"
        fact = f"its {far} are {times} times as far apart as its {near}, and the networks see its pixels as square"
        findings.append(finding("stretched-pixels", source, fact, ratio=round(min(ratio, _MOST_TIMES), 3)))
    if darkness_inside > INVERTED:
        fact = "the middle of the picture is darker than its sides"
        findings.append(finding("inverted", source, fact, darkness_inside=round(darkness_inside, 3)))
    if share_of_white > MOST_WHITE:
        fact = f"{100 * share_of_white:.0f} % of the picture is white without detail"
        findings.append(finding("saturated", source, fact, white=round(share_of_white, 3)))
    if signal_to_noise < LEAST_SIGNAL_TO_NOISE:
        fact = f"its greys spread only {signal_to_noise:.1f} times as far as its noise"
        fact += f" ({LEAST_SIGNAL_TO_NOISE:g} expected)"
        findings.append(finding("under-exposed", source, fact, signal_to_noise=round(signal_to_noise, 2)))
    return tuple(findings)


def _apart(radiograph: Radiograph) -> tuple[float, float]:
    """Return the distances of rows and of columns, in any unit: the spacing, or Pixel Aspect Ratio (C.7.6.3.1.7)."""
    if radiograph.spacing_mm is not None or radiograph.header is None:
        return radiograph.spacing_mm or (1.0, 1.0)
    rows, columns = (number(radiograph.header, "PixelAspectRatio", index) or 0.0 for index in (0, 1))
    return (rows, columns) if min(rows, columns) > 0 else (1.0, 1.0)


def _figures(radiograph: Radiograph) -> tuple[float, float, float, float]:
    """Return the spread of the tiles' mean greys, its ratio to the noise, the share of white, and inner darkness."""
    greys = _tiles(radiograph)
    means = greys.mean(axis=(0, 1))
    upright = means.T if radiograph.turn_deg in (90, 270) else means  # the order of the rows does not matter
    spread = float(means.std())
    readable = (means > _MID_GREYS[0]) & (means < _MID_GREYS[1])
    noise = median(_noise(greys)[readable]) if readable.any() else 0.0
    inner = slice(1, -1)  # the edge of a collimator may be in the outermost tiles
    inside = greys[..., inner, inner]
    white = np.count_nonzero(inside >= WHITE) / inside.size
    return spread, spread / noise if noise > 0 else np.inf, white, _darkness_inside(upright[inner, inner])


def _tiles(radiograph: Radiograph) -> NDArray[np.float32]:
    """Return greys of the tiles, (16, 16, rows of tiles, columns of tiles), so that one operation serves all tiles."""
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
    """Return the greys of stored values in the radiograph's table; values outside the table take its ends."""
    index = stored.astype(np.intp, order="C")  # `take` converts other types and orders much more slowly
    index -= radiograph.stored_min
    return radiograph.table.take(index, mode="clip")


def _noise(tiles: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the noise's standard deviation in each tile (H, W, ...) (Immerkaer 1996, doi 10.1006/cviu.1996.0060)."""
    across = tiles[:, :-2] - 2 * tiles[:, 1:-1] + tiles[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]
    deviation: NDArray[np.float64] = np.sqrt(np.pi / 2) / 6 * np.abs(both).mean(axis=(0, 1), dtype=np.float64)
    return deviation


def _darkness_inside(means: NDArray[np.float32]) -> float:
    """Return how much nearer to the middle column dark tiles are than bright ones, in half widths: -1 .. 1.

    Each row is compared with its own mean. A lateral spine and its surroundings are brighter than the air beside the
    patient, so the figure is negative if the greys are right.
    """
    offset = np.abs(np.linspace(-1, 1, means.shape[1]))
    weights = means - means.mean(axis=1, keepdims=True)
    whole = float(np.abs(weights).sum())
    return float((weights * offset).sum()) / whole if whole > 0 else 0.0
