"""Reports of the shipped bundle on small phantom radiographs, as a test of the review page wants them.

What new points do to grades is invented: both corners of a moved disc are one grade higher.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from spinescore.runtime import Scorer, load_study
from spinescore.runtime.phantom.study import dicom_file, draw_view
from spinescore.runtime.study import REGIONS

SEED = 1_000_003


@dataclass
class Scored:
    """A phantom study: its report, and by region the file's grey values and the window of its header."""

    report: dict
    pixels: dict = field(default_factory=dict)
    window: dict = field(default_factory=dict)


@cache
def scored(visit: int = 0, scale: float = 0.4) -> Scored:
    import tempfile

    from pydicom import dcmread

    with tempfile.TemporaryDirectory() as name, Scorer.open("phantom-reference", device="cpu", build="no") as scorer:
        one = Scored({})
        for region in REGIONS:
            path = Path(name) / f"{region}.dcm"
            path.write_bytes(dicom_file(SEED, draw_view(SEED, region, scale, visit)))
            ds = dcmread(path)
            grey, most = ds.pixel_array.astype("<u2"), 2**ds.BitsStored - 1
            low, high = np.percentile(grey, (1, 99)).tolist()
            centre, width = float(ds.get("WindowCenter", (low + high) / 2)), float(ds.get("WindowWidth", high - low))
            if ds.PhotometricInterpretation == "MONOCHROME1":
                grey, centre = most - grey, most - centre
            one.pixels[region], one.window[region] = grey, {"centre": centre, "width": width}
        one.report = scorer.score(load_study(name)).to_dict()
    one.report = json.loads(json.dumps(one.report))
    return one


def corrected(report: dict, points: dict, grades: dict) -> dict:
    """The report with other points and grades."""
    report = copy.deepcopy(report)
    for region, levels in points.items():
        for disc in report["regions"][region]["discs"]:
            if disc["level"] in levels:
                disc["centre_px"], disc["anterior_px"] = levels[disc["level"]]
                disc.update(points="given", confidence=1.0)
                for corner in disc["corners"]:
                    corner["grade"] = min(3, (corner["grade"] or 0) + 1)
    for region in report["regions"].values():
        for corner in (corner for disc in region["discs"] for corner in disc["corners"]):
            if corner["site"] in grades:
                corner["grade"] = grades[corner["site"]]
                corner["grade_from"] = "reader"
                corner["status"] = "unreadable" if corner["grade"] is None else "scored"
    return summed(report)


def summed(report: dict) -> dict:
    missing = []
    for region in report["regions"].values():
        corners = [corner for disc in region["discs"] for corner in disc["corners"]]
        known = [corner["grade"] for corner in corners if corner["grade"] is not None]
        missing += [corner["site"] for corner in corners if corner["grade"] is None]
        region["missing"] = 12 - len(known)
        region["range"] = [sum(known), sum(known) + 3 * region["missing"]]
        region["total"] = round(sum(known) * 12 / len(known), 3) if known else None
    regions, total = report["regions"].values(), report["total"]
    total["range"] = [sum(region["range"][side] for region in regions) for side in (0, 1)]
    whole = all(region["total"] is not None for region in regions)
    total["status"] = "incomplete" if not whole else "imputed" if missing else "complete"
    total["value"] = sum(region["total"] for region in regions) if whole else None
    total["imputed_sites"] = missing
    return report


def without_disc(report: dict, level: str) -> dict:
    """The report as if a disc had not been found."""
    report = copy.deepcopy(report)
    for disc in (disc for region in report["regions"].values() for disc in region["discs"] if disc["level"] == level):
        disc.update(centre_px=[0.0, 0.0], anterior_px=[0.0, 0.0], confidence=0.0)
        for corner in disc["corners"]:
            corner.update(grade=None, probabilities=None, status="imputed", missing_because="unreadable")
    return summed(report)


def rejected(report: dict, region: str, code: str = "no-spine") -> dict:
    """The report as if the region had been rejected, with points that are not to be trusted."""
    report = copy.deepcopy(report)
    one = report["regions"][region]
    keys = ("level", "centre_px", "anterior_px", "confidence", "points")
    one["untrusted_points"] = [{key: disc[key] for key in keys} for disc in one["discs"] if disc["confidence"]]
    reject = {"code": code, "message": "the discs do not stand in a row", "source": f"{region}.dcm",
              "region": region}  # fmt: skip
    one.update(status="rejected", reject=reject, discs=[], total=None)
    report["rejects"] = [reject]
    return summed(report)


def restored(report: dict, before: dict, regions) -> dict:
    """The report with regions as they were before they were rejected."""
    report = copy.deepcopy(report)
    report["regions"] |= {region: copy.deepcopy(before["regions"][region]) for region in regions}
    report["rejects"] = [one for one in report["rejects"] if one["region"] not in regions]
    return summed(report)


def turned(one: Scored, turn_deg: int) -> Scored:
    """The study as it was stored if `turn_deg` brings it upright."""
    report, pixels = copy.deepcopy(one.report), {}
    for region, grey in one.pixels.items():
        rows, columns = grey.shape
        pixels[region] = np.ascontiguousarray(np.rot90(grey, turn_deg // 90))
        for disc in report["regions"][region]["discs"]:
            for name in ("centre_px", "anterior_px"):
                x, y = disc[name]
                disc[name] = {0: [x, y], 90: [y, columns - 1 - x], 180: [columns - 1 - x, rows - 1 - y],
                              270: [rows - 1 - y, x]}[turn_deg]  # fmt: skip
        report["regions"][region]["radiograph"]["turn_deg"] = turn_deg
    return Scored(report, pixels, one.window)
